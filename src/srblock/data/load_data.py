"""Any set by its name, of images or of scenes."""

from __future__ import annotations

import os
from pathlib import Path

from srblock.data.images import ImageData
from srblock.data.progress import Progress
from srblock.data.scenes import SceneData
from srblock.data.sources import load
from srblock.data.sources.scenes import SCENE_SOURCES, load_scenes


def load_data(
    spec: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> ImageData | SceneData:
    """Load a set of images with one class each (`load`), or of scenes with a class for every pixel (`load_scenes`).

    Raises: as these, and ValueError for an image_size of scenes.
    """
    if os.fspath(spec).partition(":")[0] not in SCENE_SOURCES:
        return load(spec, image_size=image_size, cache=cache, progress=progress)
    if image_size is not None:
        raise ValueError(
            f"--image-size makes images square, and {os.fspath(spec)} has scenes, got {image_size}; --scene-scale "
            "shrinks them, --crop-size says how much of them is trained on"
        )
    return load_scenes(spec, cache=cache, progress=progress)
