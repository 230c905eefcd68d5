"""Random erasing: a box of a training image loses its content."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srblock.data.loading.draws import ERASED, ERASED_AREA, ERASED_LEFT, ERASED_RATIO, ERASED_TOP, uniform

AREAS, RATIOS, TRIES = (0.02, 0.33), (0.3, 3.3), 10


def draw_erased(
    probability: float, seed: int, epoch: int, samples: NDArray[np.int64], height: int, width: int
) -> NDArray[np.int64]:
    """Draw the box that each image loses, as RandomErasing of torchvision documents; one without pixels for none.

    Area uniform in 2% to 33% of the image's, ratio of the sides uniform in its logarithm from 0.3 to 3.3, place
    uniform; the first of ten tries that is smaller than the image, none if there is none. (Zhong et al., "Random
    Erasing Data Augmentation", AAAI 2020.)
    Shapes: samples (N,) -> top, left, height, width (4, N), whole pixels.
    """
    tries = samples[:, None] * TRIES + np.arange(TRIES)
    area, ratio, top, left = (
        uniform(seed, epoch, stream, tries.ravel()).reshape(tries.shape)
        for stream in (ERASED_AREA, ERASED_RATIO, ERASED_TOP, ERASED_LEFT)
    )
    area = height * width * (AREAS[0] + (AREAS[1] - AREAS[0]) * area)
    low, high = map(math.log, RATIOS)
    ratio = np.exp(low + (high - low) * ratio)
    rows = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    columns = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (rows < height) & (columns < width)
    top = np.floor(top * (height - rows + 1)).astype(np.int64)
    left = np.floor(left * (width - columns + 1)).astype(np.int64)
    boxes: NDArray[np.int64] = np.stack([top, left, rows, columns])[:, np.arange(len(samples)), fits.argmax(axis=1)]
    boxes[:, (uniform(seed, epoch, ERASED, samples) >= probability) | ~fits.any(axis=1)] = 0
    return boxes


def erased(images: Tensor, boxes: Tensor) -> Tensor:
    """Set a box of each image to 0, which is the mean of normalized images.

    Shapes: images (B, C, H, W), boxes (4, B): top, left, height, width -> (B, C, H, W).
    """
    top, left, height, width = boxes.view(4, -1, 1)
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    down = (rows >= top) & (rows < top + height)
    across = (columns >= left) & (columns < left + width)
    return images.masked_fill((down[:, :, None] & across[:, None, :]).unsqueeze(1), 0)
