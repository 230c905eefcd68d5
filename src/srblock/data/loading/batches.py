"""What training and testing need to know of a loader, whatever it loads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from srblock.data.loading.plan import Plan


class Batches(Protocol):
    """Batches of images and what is to be said of them, epoch by epoch (`Loader`, `SceneLoader`).

    Attributes:
        plan: who serves which images when.
        mean, std: of each channel for pixels in 0..1, by which images are normalized.
    """

    plan: Plan
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        """Number of batches in an epoch."""

    @property
    def images_per_epoch(self) -> int:
        """Number of images served in an epoch by all processes."""

    def batch_sizes(self) -> list[int]:
        """Return the number of images in each batch of an epoch, of all processes together."""

    def epoch(self, epoch: int, batches: slice = slice(None)) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch, or some of them; of several processes this one's shares."""
