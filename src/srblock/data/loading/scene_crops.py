"""Where crops of a scene are taken: from the scene resized at random, and not from one class alone.

A crop is computed from the scene itself: what is outside of it is never resized.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srblock.data.scene_files import IGNORED

TRIES = 10  # are looked at; the place after them is taken as it is

Classes = NDArray[np.uint8]


@dataclass(frozen=True)
class Window:
    """A part of a resized scene: its size, then the part's top, left, height and width, all in its pixels."""

    size: tuple[int, int]
    top: int
    left: int
    rows: int
    columns: int


def scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Return (H, W) times a factor, rounded, at least a pixel."""
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def choose(
    classes: Classes, size: tuple[int, int], crop: tuple[int, int], places: NDArray[np.float64], most: float
) -> Window:
    """Choose a crop in which no class has `most` of the pixels or more, ignored ones not counted.

    As MMSegmentation's RandomCrop with its cat_max_ratio: the first of ten places that has more than one class and
    passes, else the eleventh as it is. Where the resized scene is smaller than the crop it is all of it.

    Args:
        classes: of the scene, (H, W).
        size: (H, W) that it is resized to.
        crop: (H, W) of the crop.
        places: top and left of each try, in [0, 1), (11, 2).
        most: 1 takes the first place.
    """
    rows, columns = min(crop[0], size[0]), min(crop[1], size[1])
    space = np.array([size[0] - rows + 1, size[1] - columns + 1])
    corners = np.floor(places * space).astype(np.int64)
    windows = [Window(size, top, left, rows, columns) for top, left in corners.tolist()]
    if most >= 1:
        return windows[0]
    return next((w for w in windows[:TRIES] if _varied(cut_classes(classes, w), most)), windows[TRIES])


def _varied(classes: Classes, most: float) -> bool:
    counts = np.array(Image.fromarray(classes).histogram())[:IGNORED]  # several times as fast as np.bincount
    return bool((counts > 0).sum() > 1 and counts.max() < most * counts.sum())


def cut_classes(classes: Classes, window: Window) -> Classes:
    """Cut a window from the classes of a scene: each pixel has the class at its center.

    Shapes: (H, W) -> (rows, columns).
    """
    (height, width), (rows, columns) = classes.shape, window.size
    if (height, width) == window.size:
        return classes[window.top :, window.left :][: window.rows, : window.columns]
    down = (2 * np.arange(window.top, window.top + window.rows) + 1) * height // (2 * rows)
    across = (2 * np.arange(window.left, window.left + window.columns) + 1) * width // (2 * columns)
    cut: Classes = classes.take(down, axis=0).take(across, axis=1)
    return cut


def cut_image(image: Image.Image, window: Window) -> NDArray[np.uint8]:
    """Cut a window from a scene resized by Pillow, bilinear, antialiased where it shrinks. -> (rows, columns, 3)."""
    (height, width) = window.size
    down, across = image.height / height, image.width / width
    right, bottom = (window.left + window.columns) * across, (window.top + window.rows) * down
    box = (window.left * across, window.top * down, min(right, image.width), min(bottom, image.height))
    return np.asarray(image.resize((window.columns, window.rows), Image.Resampling.BILINEAR, box=box))
