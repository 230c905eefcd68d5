"""The 90/10 split and the statistics for normalization, which see the training part only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from srblock.data.image_files import MEAN, STD, ImageFiles
from srblock.data.loading.draws import SPLIT, bits
from srblock.data.offenders import counted, offenders


def split(labels: Tensor, *, fraction: float = 0.1, seed: int) -> tuple[Tensor, Tensor]:
    """Divide samples into training and validation parts, every class by the same fraction (paper Sec. IV: 90/10).

    A class gives its fraction rounded to whole images, at least one to each part. Which ones follows from the seed.
    Shapes: labels (N,) -> sorted int64 indices (T,) and (V,), T + V = N.

    Raises: ValueError if the fraction is not between 0 and 1, or a class has fewer than two images.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
    if labels.dim() != 1 or labels.is_floating_point() or len(labels) == 0:
        raise ValueError(f"expected integer labels (N,), got {labels.dtype} of shape {tuple(labels.shape)}")
    values = labels.cpu().numpy()
    classes, sizes = np.unique(values, return_counts=True)
    small = [f"{label} ({counted(int(size), 'image')})" for label, size in zip(classes, sizes, strict=True) if size < 2]
    if small:
        raise ValueError(
            f"{counted(len(small), 'class')} too small to divide into training and validation: {offenders(small)}; "
            "each needs at least 2 images"
        )
    keys = bits(seed, 0, SPLIT, np.arange(len(values)))
    held_out = np.zeros(len(values), dtype=bool)
    for label, size in zip(classes, sizes, strict=True):
        members = np.flatnonzero(values == label)
        count = min(max(int(size * fraction + 0.5), 1), int(size) - 1)
        held_out[members[np.argsort(keys[members], kind="stable")[:count]]] = True
    return torch.from_numpy(np.flatnonzero(~held_out)), torch.from_numpy(np.flatnonzero(held_out))


def normalization(images: Tensor | ImageFiles, index: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel to normalize by: the `statistics` of the images of an index.

    For a streamed set ImageNet's published figures (`image_files.MEAN`): to measure a million images takes an hour.
    """
    return (MEAN, STD) if isinstance(images, ImageFiles) else statistics(images[index])


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure mean and standard deviation of each channel over all pixels, for pixel values scaled to 0..1.

    Sums are exact integers, so the result does not depend on threads. A constant channel gets a deviation of 1:
    normalized it is zero. Shapes: uint8 (N, C, H, W) -> (C,), (C,).

    Raises: ValueError if these are not uint8 images.
    """
    if images.dim() != 4 or images.dtype != torch.uint8 or images.numel() == 0:
        raise ValueError(f"expected uint8 images (N, C, H, W), got {images.dtype} of shape {tuple(images.shape)}")
    total = torch.zeros(images.shape[1], dtype=torch.int64)
    squares = torch.zeros_like(total)
    for chunk in torch.split(images, max(1, 2**19 // images[0].numel())):
        wide = chunk.to(torch.int32)
        total += wide.sum(dim=(0, 2, 3)).cpu()
        squares += (wide * wide).sum(dim=(0, 2, 3)).cpu()
    count = images.numel() // images.shape[1]
    means, deviations = [], []
    for first, second in zip(total.tolist(), squares.tolist(), strict=True):
        variance = (count * second - first * first) / count**2  # exact numerator: Python integers
        means.append(first / count / 255)
        deviations.append(variance**0.5 / 255 if variance > 0 else 1.0)
    return tuple(means), tuple(deviations)
