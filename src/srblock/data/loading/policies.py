"""TrivialAugment and RandAugment of whole batches on their device.

Operations and their ranges are those of torchvision's `TrivialAugmentWide` and `RandAugment`, whose functions are
called where they take a whole batch. What is ours: torchvision draws from the global random state, one operation for
all images of a call, and goes through them one by one; here each image has its own, drawn from (seed, epoch, sample),
and the images of a batch that share an operation go through it together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from srblock.data.loading.draws import MAGNITUDE, OPERATION, SIGN, below

POLICIES = ("none", "trivialaugment", "randaugment")
BINS = 31
(
    IDENTITY, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, ROTATE, BRIGHTNESS, COLOR, CONTRAST, SHARPNESS, POSTERIZE,
    SOLARIZE, AUTOCONTRAST, EQUALIZE,
) = range(14)  # fmt: skip
OPERATIONS = 14
GEOMETRIC = slice(SHEAR_X, ROTATE + 1)
GRAY = (0.2989, 0.587, 0.114)  # red, green, blue (ITU-R 601-2, as torchvision)


@dataclass(frozen=True)
class Policy:
    """A way to distort training images by drawn operations.

    Args:
        name: "trivialaugment", one operation of any magnitude for each image (Müller and Hutter, ICCV 2021), or
            "randaugment", two of the same magnitude (Cubuk et al., NeurIPS 2020).
        magnitude: of RandAugment, 0 to 30.

    Raises: ValueError for a name or a magnitude that there is not.
    """

    name: str
    magnitude: int = 9

    def __post_init__(self) -> None:
        if self.name not in POLICIES[1:]:
            raise ValueError(f"auto_augment must be one of {', '.join(POLICIES)}, got {self.name!r}")
        if not 0 <= self.magnitude < BINS:
            raise ValueError(f"augment_magnitude must be in 0..{BINS - 1}, got {self.magnitude}")

    @property
    def rounds(self) -> int:
        """How many operations an image goes through."""
        return 2 if self.name == "randaugment" else 1

    def draw(self, seed: int, epoch: int, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw operation, magnitude (0 to 30) and sign (0 or 1) of each image in each round.

        Shapes: samples (N,) -> (rounds, 3, N).
        """
        drawn = np.empty((self.rounds, 3, len(samples)), np.int64)
        for number in range(self.rounds):
            keys = samples * self.rounds + number
            bins = self.magnitude if self.rounds > 1 else below(BINS, seed, epoch, MAGNITUDE, keys)
            drawn[number, 0] = below(OPERATIONS, seed, epoch, OPERATION, keys)
            drawn[number, 1] = bins
            drawn[number, 2] = below(2, seed, epoch, SIGN, keys)
        return drawn

    def __call__(self, images: Tensor, rows: Tensor, counts: Sequence[Sequence[int]]) -> Tensor:
        """Distort a batch, round by round.

        Shapes: images uint8 (B, C, H, W), rows (3 * rounds, B) as `sort` gives them -> uint8 (B, C, H, W).

        Args: counts: of each round how many images go through each operation.
        """
        for (order, bins, signs), sizes in zip(rows.view(-1, 3, len(images)), counts, strict=True):
            parts = torch.split(images.index_select(0, order), list(sizes))
            magnitudes = _magnitudes(self.name, tuple(images.shape[2:]), images.device)
            done = torch.cat(_operate(parts, torch.split(torch.stack([bins, signs], 1), list(sizes)), magnitudes))
            images = done.index_select(0, order.argsort())
        return images


def sort(drawn: NDArray[np.int64], sizes: Sequence[int]) -> tuple[NDArray[np.int64], list[list[list[int]]]]:
    """Bring images of the same operation together in each batch, so that the device needs no answer to go on.

    Shapes: drawn (rounds, 3, N) -> (3 * rounds, N): for each round the positions within the batch in order of the
    operations, and the magnitudes and signs in that order.

    Args: sizes: of the batches, N in all.

    Returns: those rows, and of each batch and round how many images go through each operation.
    """
    rows = drawn.copy()
    counts = []
    start = 0
    for size in sizes:
        batch = slice(start, start + size)
        counts.append([np.bincount(ops, minlength=OPERATIONS).tolist() for ops in drawn[:, 0, batch]])
        for number, operations in enumerate(drawn[:, 0, batch]):
            order = np.argsort(operations, kind="stable")
            rows[number, 0, batch] = order
            rows[number, 1:, batch] = drawn[number, 1:, batch][:, order]
        start += size
    return rows.reshape(-1, rows.shape[2]), counts


@lru_cache(maxsize=8)
def _magnitudes(name: str, size: tuple[int, ...], device: torch.device) -> Tensor:
    """Return what a magnitude means for each operation of a policy, for images (H, W). Shapes: -> (14, 31)."""
    wide = name == "trivialaugment"
    height, width = size
    tops = torch.zeros(OPERATIONS)
    tops[[SHEAR_X, SHEAR_Y]] = 0.99 if wide else 0.3
    tops[TRANSLATE_X] = 32.0 if wide else 150 / 331 * width
    tops[TRANSLATE_Y] = 32.0 if wide else 150 / 331 * height
    tops[ROTATE] = 135.0 if wide else 30.0
    tops[BRIGHTNESS : SHARPNESS + 1] = 0.99 if wide else 0.9
    tops[POSTERIZE] = 6.0 if wide else 4.0  # bits taken away
    table = tops[:, None] * torch.linspace(0, 1, BINS)
    table[SOLARIZE] = 255 * torch.linspace(1, 0, BINS)  # from this value on
    return table.to(device)


def _operate(parts: Sequence[Tensor], drawn: Sequence[Tensor], table: Tensor) -> list[Tensor]:
    """Send each part through its operation; `drawn` are magnitudes and signs, (n, 2) each."""
    from torchvision.transforms.v2 import functional as library

    amounts = [table[operation].index_select(0, part[:, 0]) for operation, part in enumerate(drawn)]
    signed = [amount * (1 - 2 * part[:, 1]) for amount, part in zip(amounts, drawn, strict=True)]
    done = list(parts)
    moved = torch.cat(list(parts[GEOMETRIC]))
    if len(moved):
        maps = torch.cat([_inverse(op, signed[op], moved.shape[2:]) for op in range(SHEAR_X, ROTATE + 1)])
        done[GEOMETRIC] = torch.split(_move(moved, maps), [len(part) for part in parts[GEOMETRIC]])
    for operation in (BRIGHTNESS, COLOR, CONTRAST, SHARPNESS):
        if len(parts[operation]):
            factor = (1 + signed[operation]).view(-1, 1, 1, 1)
            done[operation] = _blend(operation, parts[operation].float(), factor).clamp_(0, 255).to(torch.uint8)
    taken = amounts[POSTERIZE].round().to(torch.uint8).view(-1, 1, 1, 1)
    done[POSTERIZE] = (parts[POSTERIZE] >> taken) << taken
    bright = parts[SOLARIZE] >= amounts[SOLARIZE].ceil().to(torch.uint8).view(-1, 1, 1, 1)
    done[SOLARIZE] = torch.where(bright, 255 - parts[SOLARIZE], parts[SOLARIZE])
    if len(parts[AUTOCONTRAST]):
        done[AUTOCONTRAST] = library.autocontrast(parts[AUTOCONTRAST])
    if len(parts[EQUALIZE]):
        done[EQUALIZE] = library.equalize(parts[EQUALIZE])
    return done


def _blend(operation: int, images: Tensor, factor: Tensor) -> Tensor:
    """Blend images with black, themselves in gray, their mean gray, or themselves smoothed: factor 1 leaves them.

    A pixel that equals what it is blended with stays, whatever the rounding.
    """
    if operation == BRIGHTNESS:
        return images.mul_(factor)
    if operation == SHARPNESS:
        other = _smoothed(images)
    else:
        other = _gray(images)
        if operation == CONTRAST:
            other = other.mean((1, 2, 3), keepdim=True)
    return images.add_((other - images).mul_(1 - factor))


def _gray(images: Tensor) -> Tensor:
    """Return the brightness of colors, in whole numbers. Shapes: (n, C, H, W) -> (n, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)  # type: ignore[no-untyped-call]
    gray: Tensor = (red * GRAY[0]).add_(green, alpha=GRAY[1]).add_(blue, alpha=GRAY[2])
    return gray.floor_()


def _smoothed(images: Tensor) -> Tensor:
    """Smooth by the 3x3 kernel of Pillow's SMOOTH, ones around a five, in whole numbers; the outermost pixels stay."""
    if min(images.shape[2:]) <= 2:
        return images
    smoothed = images.clone()
    around = (images[:, :, :-2] + images[:, :, 1:-1]).add_(images[:, :, 2:])
    around = (around[..., :-2] + around[..., 1:-1]).add_(around[..., 2:])  # of the pixel too, which has five in all
    smoothed[:, :, 1:-1, 1:-1] = around.add_(images[:, :, 1:-1, 1:-1], alpha=4).mul_(1 / 13).round_()
    return smoothed


def _inverse(operation: int, amount: Tensor, size: Sequence[int]) -> Tensor:
    """Say where each pixel of the result is taken from: x and y from the center, in pixels. Shapes: (n,) -> (n, 2, 3).

    Shears keep the upper left corner, rotations (by degrees) the center; translations are by whole pixels.
    """
    height, width = size
    matrix = torch.eye(2, 3, device=amount.device).repeat(len(amount), 1, 1)
    if operation == SHEAR_X:
        matrix[:, 0, 1], matrix[:, 0, 2] = amount, amount * height / 2
    elif operation == SHEAR_Y:
        matrix[:, 1, 0], matrix[:, 1, 2] = amount, amount * width / 2
    elif operation == ROTATE:
        angle = torch.deg2rad(amount)
        matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
        matrix[:, 0, 1], matrix[:, 1, 0] = -angle.sin(), angle.sin()
    else:
        matrix[:, 0 if operation == TRANSLATE_X else 1, 2] = -amount.trunc()
    return matrix


def _move(images: Tensor, maps: Tensor) -> Tensor:
    """Move pixels by maps of `_inverse`, the nearest one taken; black comes in."""
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    places = torch.stack(
        [x.expand(height, width), y[:, None].expand(height, width), torch.ones_like(y[:, None] * x)], 2
    )
    half = torch.stack([x.new_full((1,), width / 2), x.new_full((1,), height / 2)])  # filled there: no copy to wait for
    scaled = (maps / half).transpose(1, 2)
    grid = (places.view(1, -1, 3) @ scaled).view(-1, height, width, 2)
    moved = F.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved.to(torch.uint8)
