"""Mixup and CutMix: a batch mixed with itself, images and targets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from srblock.data.loading.draws import MIX_FIRST, MIX_KIND, MIX_LEFT, MIX_SECOND, MIX_TOP, below, uniform

TRIES = 64


@dataclass(frozen=True)
class Mixing:
    """How the images of a batch are mixed: each with the one before it, the whole batch in one way.

    Of several processes each mixes its own share of a batch; what is drawn is the same in all.

    Args:
        mixup: alpha of mixup: images and targets are averaged, with a weight drawn from Beta(alpha, alpha) (Zhang et
            al., ICLR 2018); 0 for none.
        cutmix: alpha of CutMix: a box of the other image, whose share of the area is drawn so, and that share of its
            target (Yun et al., ICCV 2019); 0 for none. With both each batch is mixed in one of the two ways, by a coin.
        classes: of the targets.

    Raises: ValueError if both are 0 or one is not in 0..1.
    """

    mixup: float
    cutmix: float
    classes: int

    def __post_init__(self) -> None:
        for name, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if not 0 <= alpha <= 1:
                raise ValueError(f"{name}, the alpha of a beta distribution, must be in 0..1, got {alpha}")
        if not self.mixup and not self.cutmix:
            raise ValueError("mixing needs an alpha above 0 of mixup or cutmix, got 0 and 0")

    def __call__(self, images: Tensor, labels: Tensor, seed: int, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """Mix a batch, by its number in an epoch.

        Shapes: images (B, C, H, W), labels (B,) -> images, and targets (B, classes) that sum to 1.
        """
        number = np.array([batch])
        cut = not self.mixup or (self.cutmix > 0 and int(below(2, seed, epoch, MIX_KIND, number)[0]) == 1)
        own = beta(self.cutmix if cut else self.mixup, seed, epoch, batch)
        if cut:
            images, own = self._cut(images, own, seed, epoch, number)
        else:
            images = torch.lerp(images.roll(1, 0), images, own)
        target = F.one_hot(labels, self.classes).to(torch.float32)
        return images, torch.lerp(target.roll(1, 0), target, own)

    @staticmethod
    def _cut(images: Tensor, own: float, seed: int, epoch: int, number: NDArray[np.int64]) -> tuple[Tensor, float]:
        """Put a box of the other image's into each; its center is drawn, so an edge may cut it: return the rest."""
        sides = [side * math.sqrt(1 - own) / 2 for side in images.shape[2:]]
        centers = [
            float(uniform(seed, epoch, stream, number)[0]) * side
            for stream, side in zip((MIX_TOP, MIX_LEFT), images.shape[2:], strict=True)
        ]
        (top, bottom), (left, right) = (
            (max(0, round(center - half)), min(whole, round(center + half)))
            for center, half, whole in zip(centers, sides, images.shape[2:], strict=True)
        )
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images.roll(1, 0)[:, :, top:bottom, left:right]
        return mixed, 1 - (bottom - top) * (right - left) / math.prod(images.shape[2:])


def beta(alpha: float, seed: int, epoch: int, batch: int) -> float:
    """Draw from Beta(alpha, alpha) for a batch, alpha in 0..1, by Jöhnk's method (Metrika 8, 1964).

    Of pairs of uniform numbers, each to the power 1 / alpha, the first whose sum is at most 1 is divided by it. For
    such alphas a half of the pairs or more are, so that none of 64 is in one batch of 10^19.
    """
    tries = batch * TRIES + np.arange(TRIES)
    first, second = (uniform(seed, epoch, stream, tries) ** (1 / alpha) for stream in (MIX_FIRST, MIX_SECOND))
    total = first + second
    found = int(((total <= 1) & (total > 0)).argmax())
    return float(first[found] / total[found]) if total[found] > 0 else 0.5
