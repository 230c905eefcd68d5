"""The order of an epoch, its batches, and the share of each that one of several processes serves.

Batch b of an epoch is the slice [b*B, (b+1)*B) of the order, whatever the number of processes; of its n images process
r of W serves those from r*n//W to (r+1)*n//W. So a batch is the same images with any number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srblock.data.loading.draws import ORDER, bits


@dataclass(frozen=True, eq=False)
class Plan:
    """Say who serves which images when.

    Args:
        samples: numbers of the images to serve, (N,).
        batch_size: of all processes together.
        shuffle: serve in random order, that is for training, and leave out a last batch that batch normalization
            cannot use: one with fewer than two images for each process.
        seed: of the order.
        rank, world_size: which process this is, of how many.

    Raises: ValueError if a process would have fewer than two images of every batch to train on.
    """

    samples: NDArray[np.int64]
    batch_size: int
    shuffle: bool
    seed: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"expected a batch_size of at least 1, got {self.batch_size}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"expected a rank of 0 to {self.world_size - 1}, got {self.rank}")
        if not self.shuffle or self.batch_size == self.world_size == 1:
            return
        needed = f"{2 * self.world_size} images" + (f" for {self.world_size} processes" if self.world_size > 1 else "")
        why = f"expected at least {needed} to train on, got"
        if self.batch_size < 2 * self.world_size and self.world_size > 1:
            raise ValueError(f"{why} batches of {self.batch_size}: batch normalization needs two in each process")
        if self.images == 0:
            raise ValueError(f"{why} {len(self.samples)}: batch normalization cannot use one image")

    @property
    def images(self) -> int:
        """Number of images that all processes together serve in an epoch."""
        count = len(self.samples)
        rest = count % self.batch_size
        lonely = self.shuffle and self.batch_size > 1 and rest < 2 * self.world_size
        return count - rest if lonely else count

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return -(-self.images // self.batch_size)

    def batch_sizes(self) -> list[int]:
        """Return the number of images in each batch of an epoch, of all processes together."""
        return [min(self.batch_size, self.images - start) for start in range(0, self.images, self.batch_size)]

    def share(self, count: int) -> slice:
        """Return which images of a batch of `count` this process serves."""
        return slice(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return for each batch the positions in `samples` that this process serves.

        In evaluation a share may be empty (a last batch smaller than the number of processes); it is left out.
        """
        order = np.arange(len(self.samples))
        if self.shuffle:
            order = np.argsort(bits(self.seed, epoch, ORDER, self.samples), kind="stable")
        starts = range(0, self.images, self.batch_size)
        batches = [order[start : min(start + self.batch_size, self.images)] for start in starts]
        return [mine for mine in (batch[self.share(len(batch))] for batch in batches) if len(mine)]
