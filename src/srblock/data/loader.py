"""Batches from a set that lives decoded on the device: order, padded crops, mirroring, normalization.

What is drawn is a function of (seed, epoch, sample), see `draws`; it reaches the device once an epoch, and nothing in
an epoch waits for the device.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from srblock.data.draws import COLUMN, MIRROR, ROW, below
from srblock.data.plan import Plan


class Loader:
    """Serve normalized batches of an image set, epoch by epoch.

    Args:
        images, labels: the whole set, uint8 (N, C, H, W) and int64 (N,).
        index: which of them to serve, in this order; None for all. An image is augmented by its number in the whole
            set, so the same whatever the subset and the batch size.
        batch_size: images in a batch, of all processes together. The last batch may be smaller; one with fewer than two
            images for each process is left out when shuffling, that is in training, because batch normalization cannot
            use it.
        mean, std: of each channel for pixels in 0..1 (`srblock.data.statistics` of the training part).
        device, dtype, memory_format: of the batches. The normalization itself is done in float32.
        padding: cut each image from a random place in the image padded with this many black pixels on all sides.
        flip: mirror half of the images.
        shuffle: serve in random order, else in the order of the index.
        seed: of order and augmentation.
        rank, world_size: serve only this process's share of each batch, see `Plan`.

    Raises: ValueError for arguments that do not fit together.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        index: Tensor | None = None,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
        padding: int = 0,
        flip: bool = False,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        samples = torch.arange(len(images)) if index is None else index.cpu()
        _check(images, labels, samples, mean, std, padding=padding)
        self.plan = Plan(samples.numpy(), batch_size, shuffle, operator.index(seed), rank, world_size)
        self.padding, self.flip = padding, flip
        self.device, self.dtype, self.memory_format = torch.device(device), dtype, memory_format
        self._images = (images if index is None else images[samples]).contiguous().to(self.device)
        self._labels = (labels if index is None else labels[samples]).to(self.device)
        means, deviations = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (mean, std))
        self._scale = (1 / (255 * deviations)).float().to(self.device)
        self._offset = (-means / deviations).float().to(self.device)
        height, width = images.shape[2:]
        self._rows, self._columns = (torch.arange(side, device=self.device) for side in (height, width))

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return len(self.batch_sizes())

    @property
    def images_per_epoch(self) -> int:
        """Number of images served in an epoch by all processes: all, or all but a few (see batch_size)."""
        return self.plan.images

    def batch_sizes(self) -> list[int]:
        """Return the number of images in each batch of an epoch, of all processes together."""
        return self.plan.batch_sizes()

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch, or this process's shares of them.

        Shapes: images (B, C, H, W) in dtype and memory_format, labels (B,), both on the device.
        """
        shares = self.plan.epoch(operator.index(epoch))
        order = np.concatenate(shares) if shares else np.zeros(0, np.int64)
        drawn, seed = self.plan.samples[order], self.plan.seed
        plan = [order]
        if self.padding or self.flip:
            places = 2 * self.padding + 1
            plan += [below(places, seed, epoch, stream, drawn) for stream in (ROW, COLUMN)]
            plan.append(below(2, seed, epoch, MIRROR, drawn) if self.flip else np.zeros_like(order))
        on_device = torch.from_numpy(np.stack(plan)).to(self.device)
        for batch in torch.split(on_device, [len(share) for share in shares], dim=1):
            images = self._images.index_select(0, batch[0])
            if len(batch) > 1:
                images = self._augment(images, *batch[1:])
            yield self._normalize(images), self._labels.index_select(0, batch[0])

    def _augment(self, images: Tensor, top: Tensor, left: Tensor, mirror: Tensor) -> Tensor:
        """Pad with black, cut at (top, left), mirror where asked, all in one gather of pixel numbers.

        Of the ways measured on a CPU (windows by unfold and advanced indexing, slicing image by image, masks in place
        of padding) the fastest, and the padded copy is of one batch only.
        Shapes: images (B, C, H, W), the others (B,) -> (B, C, H, W).
        """
        count, channels, height, width = images.shape
        padded = F.pad(images, (self.padding,) * 4)
        rows = top[:, None] + self._rows
        columns = left[:, None] + torch.where(mirror[:, None] == 1, width - 1 - self._columns, self._columns)
        pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
        pixels = pixels.view(count, 1, height * width).expand(count, channels, height * width)
        return padded.flatten(2).gather(2, pixels).view_as(images)

    def _normalize(self, images: Tensor) -> Tensor:
        # The layout last: on a CPU arithmetic with numbers per channel is several times slower in channels_last.
        wide = images.to(torch.float32).mul_(self._scale).add_(self._offset)
        return wide.to(self.dtype).contiguous(memory_format=self.memory_format)


def _check(
    images: Tensor,
    labels: Tensor,
    samples: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    padding: int,
) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise ValueError(f"expected uint8 images (N, C, H, W), got {images.dtype} of shape {tuple(images.shape)}")
    if labels.dtype != torch.int64 or labels.shape != (len(images),):
        raise ValueError(f"expected {len(images)} int64 labels, got {labels.dtype} of shape {tuple(labels.shape)}")
    if samples.dtype != torch.int64 or samples.dim() != 1 or len(samples) == 0:
        raise ValueError(f"expected an int64 index of at least one image, got {samples.dtype} {tuple(samples.shape)}")
    if samples.min() < 0 or samples.max() >= len(images):
        raise ValueError(
            f"expected an index of images 0 to {len(images) - 1}, got {int(samples.min())} to {int(samples.max())}"
        )
    if padding < 0:
        raise ValueError(f"expected a padding of at least 0, got {padding}")
    channels = images.shape[1]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(f"expected {channels} means and {channels} positive deviations, got {mean} and {std}")
