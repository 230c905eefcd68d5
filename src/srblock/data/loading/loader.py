"""Batches on the device: from a set that lives there decoded, or from files by way of worker processes.

What is drawn is a function of (seed, epoch, sample), see `draws`; it reaches the device once an epoch, and nothing in
an epoch waits for the device.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srblock.data.image_files import ImageFiles
from srblock.data.loading.augment import mirrored, padded_crop, resized_crop
from srblock.data.loading.crops import center_box, draw, random_boxes
from srblock.data.loading.draws import COLUMN, MIRROR, ROW, below
from srblock.data.loading.erasing import draw_erased, erased
from srblock.data.loading.mixing import Mixing
from srblock.data.loading.normalize import Normalize
from srblock.data.loading.plan import Plan
from srblock.data.loading.policies import Policy, sort
from srblock.data.loading.stream import Stream, default_workers

CROPS = ("padded", "resized")
PADDING_MODES = ("zeros", "reflect")


class Loader:
    """Serve normalized batches of an image set, epoch by epoch.

    Args:
        images, labels: the whole set, uint8 (N, C, H, W) or files, and int64 (N,).
        index: which of them to serve, in this order; None for all. An image is augmented by its number in the whole
            set, so the same whatever the subset and the batch size.
        batch_size: images in a batch, of all processes together. The last batch may be smaller; one with fewer than two
            images for each process is left out when shuffling, that is in training, because batch normalization cannot
            use it.
        mean, std: of each channel for pixels in 0..1 (`srblock.data.statistics` of the training part).
        device, dtype, memory_format: of the batches. The normalization itself is done in float32.
        crop: "padded" cuts each image from a random place in the image with a border; "resized" cuts a random box and
            brings it to the images' size (`crops.random_boxes`), from files out of the whole image.
        padding: width of that border in pixels; 0 leaves the image as it is.
        padding_mode: what is in it: black ("zeros") or the image mirrored ("reflect").
        resize, square: for testing: bring the short side, or both, to `resize` pixels and cut the center. None is the
            images' size: all of them, or the center square of a file.
        flip: mirror half of the images.
        alternating: draw which half once, and mirror the other half at every second epoch (with flip).
        policy: distorts images after the crop and mirroring.
        erasing: share of the images that then lose a box, see `erasing`.
        mixing: mixes each batch at last; targets are then (B, classes).
        shuffle: serve in random order, else in the order of the index.
        seed: of order and augmentation.
        rank, world_size: serve only this process's share of each batch, see `Plan`.
        workers: processes that decode files; None for `stream.default_workers`.

    Raises: ValueError for arguments that do not fit together.
    """

    def __init__(
        self,
        images: Tensor | ImageFiles,
        labels: Tensor,
        index: Tensor | None = None,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
        crop: str = "padded",
        padding: int = 0,
        padding_mode: str = "zeros",
        resize: int | None = None,
        square: bool = False,
        flip: bool = False,
        alternating: bool = False,
        policy: Policy | None = None,
        erasing: float = 0.0,
        mixing: Mixing | None = None,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int | None = None,
    ) -> None:
        samples = torch.arange(len(images)) if index is None else index.cpu()
        _check(images, labels, samples, mean, std)
        _check_cut(images.shape[2:], crop, padding, padding_mode, resize, square)
        if policy is not None and images.shape[1] not in (1, 3):
            raise ValueError(f"{policy.name} distorts gray or color images, got {images.shape[1]} channels")
        self.plan = Plan(samples.numpy(), batch_size, shuffle, operator.index(seed), rank, world_size)
        self.crop, self.padding, self.padding_mode = crop, padding, padding_mode
        self.flip, self.alternating = flip, alternating
        self.policy, self.erasing, self.mixing = policy, erasing, mixing
        self._size, self._center = (images.shape[2], images.shape[3]), None
        self.device, self.dtype, self.memory_format = torch.device(device), dtype, memory_format
        self._images: Tensor | Stream
        if isinstance(images, ImageFiles):
            self._images = Stream(
                images,
                random=crop == "resized",
                resize=resize or images.side,
                square=square,
                seed=self.plan.seed,
                device=self.device,
                workers=default_workers(world_size) if workers is None else workers,
            )
        else:
            self._images = (images if index is None else images[samples]).contiguous().to(self.device)
            if resize is not None:
                center = center_box(*self._size, self._size, resize=resize, square=square)
                self._center = torch.tensor([center], device=self.device)
        self._labels = (labels if index is None else labels[samples]).to(self.device)
        self.normalize_by(mean, std)

    def normalize_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalize by mean and std of each channel from now on."""
        self.mean, self.std = tuple(mean), tuple(std)
        self._normalize = Normalize(mean, std, self.device, self.dtype, self.memory_format)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return len(self.plan)

    @property
    def images_per_epoch(self) -> int:
        """Number of images served in an epoch by all processes: all, or all but a few (see batch_size)."""
        return self.plan.images

    def batch_sizes(self) -> list[int]:
        """Return the number of images in each batch of an epoch, of all processes together."""
        return self.plan.batch_sizes()

    def epoch(self, epoch: int, batches: slice = slice(None)) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch, or some of them; of several processes this one's shares.

        Shapes: images (B, C, H, W) in dtype and memory_format, labels (B,), with mixing (B, classes), on the device.
        """
        epoch = operator.index(epoch)
        shares = self.plan.epoch(epoch)[batches]
        order = np.concatenate(shares) if shares else np.zeros(0, np.int64)
        samples, sizes = self.plan.samples[order], [len(share) for share in shares]
        drawn = [order[None], self._draw(epoch, samples), self._draw_erased(epoch, samples)]
        operations: Sequence[Sequence[Sequence[int]]] = [()] * len(shares)
        if self.policy is not None:
            sorted_rows, operations = sort(self.policy.draw(self.plan.seed, epoch, samples), sizes)
            drawn.append(sorted_rows)
        widths = [len(rows) for rows in drawn]
        rows = torch.split(torch.from_numpy(np.vstack(drawn)).to(self.device), sizes, dim=1)
        if isinstance(self._images, Stream):
            raw = self._images.epoch(epoch, [self.plan.samples[share] for share in shares])
        else:
            raw = (self._images.index_select(0, batch[0]) for batch in rows)
        first = batches.indices(len(self.plan))[0]
        for number, (images, batch, counts) in enumerate(zip(raw, rows, operations, strict=True)):
            own, places, boxes, *distortions = torch.split(batch, widths)
            images = self._augment(images, *places)
            if self.policy is not None:
                images = self.policy(_whole(images), distortions[0], counts)
            images = self._normalize(images)
            if self.erasing:
                images = erased(images, boxes)
            labels = self._labels.index_select(0, own[0])
            if self.mixing is not None:
                images, labels = self.mixing(images, labels, self.plan.seed, epoch, first + number)
            yield images, labels

    def _draw_erased(self, epoch: int, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self.erasing:
            return np.zeros((0, len(samples)), np.int64)
        return draw_erased(self.erasing, self.plan.seed, epoch, samples, *self._size)

    def _draw(self, epoch: int, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw what `_augment` needs of each image, a row each; of files the workers draw the boxes."""
        seed = self.plan.seed
        rows: list[NDArray[np.int64]] = []
        if self.flip or self.padding or self.crop == "resized":
            rows.append(self._mirror(epoch, samples) if self.flip else np.zeros_like(samples))
        if self.crop == "resized" and not isinstance(self._images, Stream):
            rows.extend(random_boxes(draw(seed, epoch, samples), *self._size).T)
        elif self.padding:
            rows.extend(below(2 * self.padding + 1, seed, epoch, stream, samples) for stream in (ROW, COLUMN))
        return np.stack(rows) if rows else np.zeros((0, len(samples)), np.int64)

    def _mirror(self, epoch: int, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.alternating:
            return below(2, self.plan.seed, 0, MIRROR, samples) ^ (epoch % 2)
        return below(2, self.plan.seed, epoch, MIRROR, samples)

    def _augment(self, images: Tensor, mirror: Tensor | None = None, *place: Tensor) -> Tensor:
        if self._center is not None:
            images = resized_crop(images, self._center.expand(len(images), 4))
        if mirror is None:
            return images
        if not place:
            return mirrored(images, mirror)
        if len(place) == 2:
            return padded_crop(images, self.padding, *place, mirror, self.padding_mode)
        return mirrored(resized_crop(images, torch.stack(place, 1)), mirror)


def _whole(images: Tensor) -> Tensor:
    """Return images as bytes: a resized crop is between them."""
    return images if images.dtype == torch.uint8 else images.round().to(torch.uint8)


def _check(
    images: Tensor | ImageFiles, labels: Tensor, samples: Tensor, mean: Sequence[float], std: Sequence[float]
) -> None:
    if isinstance(images, Tensor) and (images.dtype != torch.uint8 or images.dim() != 4):
        raise ValueError(f"expected uint8 images (N, C, H, W), got {images.dtype} of shape {tuple(images.shape)}")
    if labels.dtype != torch.int64 or labels.shape != (len(images),):
        raise ValueError(f"expected {len(images)} int64 labels, got {labels.dtype} of shape {tuple(labels.shape)}")
    if samples.dtype != torch.int64 or samples.dim() != 1 or len(samples) == 0:
        raise ValueError(f"expected an int64 index of at least one image, got {samples.dtype} {tuple(samples.shape)}")
    if samples.min() < 0 or samples.max() >= len(images):
        raise ValueError(
            f"expected an index of images 0 to {len(images) - 1}, got {int(samples.min())} to {int(samples.max())}"
        )
    channels = images.shape[1]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(f"expected {channels} means and {channels} positive deviations, got {mean} and {std}")


def _check_cut(
    size: Sequence[int], crop: str, padding: int, padding_mode: str, resize: int | None, square: bool
) -> None:
    if crop not in CROPS:
        raise ValueError(f"expected a crop of {' or '.join(CROPS)}, got {crop!r}")
    if padding < 0:
        raise ValueError(f"expected a padding of at least 0, got {padding}")
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"expected a padding_mode of {' or '.join(PADDING_MODES)}, got {padding_mode!r}")
    if padding_mode == "reflect" and padding >= min(size):
        raise ValueError(f"an image of {size[0]}x{size[1]} reflects fewer pixels than its side, got {padding}")
    if crop == "resized" and (padding or resize is not None):
        raise ValueError(f"expected no padding and no resize with resized crops, got {padding} and {resize}")
    if square and resize is None:
        raise ValueError("square needs resize, the length to resize both sides to")
    least = max(size) if square else min(size)
    if resize is not None and resize < least:
        raise ValueError(
            f"cannot cut {size[0]}x{size[1]} from test images resized to {resize}; give at least {least}, or None"
        )
