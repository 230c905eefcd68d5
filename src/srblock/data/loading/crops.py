"""Where crops are taken: random boxes for training, the center for testing."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from srblock.data.loading.draws import AREA, LEFT, RATIO, TOP, uniform

AREAS, RATIOS, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10

Box = tuple[float, float, float, float]  # top, left, height, width in pixels


def draw(seed: int, epoch: int, samples: NDArray[np.int64]) -> NDArray[np.float64]:
    """Draw what `random_boxes` needs: area, ratio, top and left of each try, each in [0, 1).

    Shapes: samples (N,) -> (N, 10, 4).
    """
    tries = samples[:, None] * TRIES + np.arange(TRIES)
    drawn = [uniform(seed, epoch, stream, tries.ravel()).reshape(tries.shape) for stream in (AREA, RATIO, TOP, LEFT)]
    return np.stack(drawn, axis=2)


def random_boxes(drawn: NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
    """Choose a box of 8% to 100% of the area with sides 3:4 to 4:3, as RandomResizedCrop of torchvision documents.

    Area uniform, ratio uniform in its logarithm, place uniform; the first of ten tries that fits, else the largest
    center box of an allowed ratio. (Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.)
    Shapes: drawn (N, 10, 4) -> top, left, height, width (N, 4), whole pixels.
    """
    area = height * width * (AREAS[0] + (AREAS[1] - AREAS[0]) * drawn[..., 0])
    low, high = map(math.log, RATIOS)
    ratio = np.exp(low + (high - low) * drawn[..., 1])
    columns = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    rows = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (columns >= 1) & (rows >= 1) & (columns <= width) & (rows <= height)
    top = np.floor(drawn[..., 2] * (height - rows + 1)).astype(np.int64)
    left = np.floor(drawn[..., 3] * (width - columns + 1)).astype(np.int64)
    tries = np.stack([top, left, rows, columns], axis=2)
    boxes: NDArray[np.int64] = tries[np.arange(len(drawn)), fits.argmax(axis=1)]
    boxes[~fits.any(axis=1)] = _largest_center(height, width)
    return boxes


def _largest_center(height: int, width: int) -> tuple[int, int, int, int]:
    rows = min(height, round(width / RATIOS[0]))
    columns = min(width, round(height * RATIOS[1]))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def center_box(height: int, width: int, size: tuple[int, int], *, resize: int, square: bool = False) -> Box:
    """Return the box that is left of an image when it is resized and its center of `size` (H, W) is cut.

    Args:
        resize: length of the short side before the cut.
        square: give both sides this length instead.
    """
    short = min(height, width)
    rows = size[0] * (height if square else short) / resize
    columns = size[1] * (width if square else short) / resize
    return (height - rows) / 2, (width - columns) / 2, rows, columns
