"""Known image sets by name. A new one is a file with a `load` function and a line in SOURCES."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Protocol

from srblock.data.images import ImageData
from srblock.data.progress import Progress
from srblock.data.sources import digits, folder, streamed
from srblock.data.sources.cache import cache_folder
from srblock.data.sources.cifar import CIFAR10, CIFAR100
from srblock.data.sources.scenes import SCENE_SOURCES


class Source(Protocol):
    """Load a set, from a path if one is given; `cache` is a folder that may not exist yet."""

    def __call__(
        self, path: Path | None, *, image_size: int | None, cache: Path, progress: Progress | None
    ) -> ImageData: ...


SOURCES: dict[str, Source] = {
    "digits": digits.load,
    "cifar10": CIFAR10.load,
    "cifar100": CIFAR100.load,
    "imagenet": streamed.load_imagenet,
    "stream": streamed.load,
}


def load(
    spec: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Load an image set into memory, or one that is streamed from its files.

    Args:
        spec: "digits", "cifar10" or "cifar100" (downloaded once), "cifar100:PATH" for a folder with the published .bin
            files, or the path of a folder or zip with one folder per class. A folder called like a known set: ./digits.
            "imagenet:PATH" (train/ and val/) and "stream:PATH" are decoded while training, and so is a folder that does
            not fit into memory.
        image_size: resize images to this side. Folders whose images have several sizes need it; streamed sets have 224
            without it.
        cache: where downloads and decoded images are kept; see `cache_folder` for the default.
        progress: is called as progress(what, done, total) now and then; total is None while unknown.

    Raises:
        ValueError: an unknown name (nearest names offered), or something wrong in the data (first offenders and count).
        OSError: a download or a file that cannot be read or written.
    """
    text = os.fspath(spec)
    if image_size is not None and (not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 1):
        raise ValueError(f"--image-size must be a whole number of pixels, at least 1, got {image_size!r}")
    name, colon, path = text.partition(":")
    if name in SOURCES:
        if colon and not path:
            raise ValueError(f"expected a path after {text!r}, or {name!r} alone")
        source, place = SOURCES[name], Path(path).expanduser() if colon else None
    else:
        source, place = folder.load, Path(text).expanduser()
        if not text or not place.exists():
            raise ValueError(_unknown(text))
    return source(place, image_size=image_size, cache=cache_folder(cache), progress=progress)


def at_hand(spec: str | os.PathLike[str], cache: Path | None = None) -> bool:
    """Tell whether a set can be loaded from this machine: a known one without a path needs no download.

    Of anything else `load` says better what is wrong with it.
    """
    if os.fspath(spec) == "imagenet" or os.fspath(spec) in SCENE_SOURCES:
        return False
    downloaded = {set_.name: set_ for set_ in (CIFAR10, CIFAR100)}.get(os.fspath(spec))
    return downloaded is None or downloaded.at_hand(cache_folder(cache))


def _unknown(text: str) -> str:
    """Say what a specification could have meant: known names and neighbors of the path that resemble it."""
    near = difflib.get_close_matches(text.lower().partition(":")[0], [*SOURCES, *SCENE_SOURCES], n=3)
    place = Path(text).expanduser()
    if text and place.parent.is_dir():
        siblings = [entry.name for entry in place.parent.iterdir()]
        near += [str(place.parent / found) for found in difflib.get_close_matches(place.name, siblings, n=3)]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    scenes = ", ".join(f"{known}:PATH" for known in SCENE_SOURCES)
    return f"no image set and no path: {text!r}; {hint}known sets are {', '.join(SOURCES)}, and of scenes {scenes}"
