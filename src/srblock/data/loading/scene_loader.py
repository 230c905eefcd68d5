"""Batches of scenes: augmented crops to train on, whole scenes to evaluate, decoded in worker processes.

A worker gives back bytes; they are normalized on the device. Batches do not depend on the number of workers.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from srblock.data.image_files import CHANNELS, MEAN, STD
from srblock.data.loading.ahead import Ahead
from srblock.data.loading.normalize import Normalize
from srblock.data.loading.plan import Plan
from srblock.data.loading.scene_crops import scaled
from srblock.data.loading.scenes import Augmentation, augmented, draw
from srblock.data.loading.stream import default_workers, unreadable
from srblock.data.scene_files import IGNORED, SceneFiles

Request = tuple[int, NDArray[np.int64]]  # epoch, sample numbers
Decoded = tuple[Tensor, Tensor, Tensor]  # images uint8 (B, h, w, 3), classes uint8 (B, h, w), (h, w) in use (B, 2)


class SceneLoader:
    """Serve normalized batches of scenes and their classes, epoch by epoch.

    Args:
        files: the whole part.
        index: which of them to serve, in this order; None for all. A scene is augmented by its number in `files`, so
            the same whatever the subset and the batch size.
        augmentation: what crops of scenes to serve; None serves whole scenes, one after another.
        scale: of whole scenes, both sides; their classes stay as they are.
        batch_size: scenes in a batch, of all processes together; of whole scenes each process gets one.
        mean, std: of each channel for pixels in 0..1.
        device, dtype, memory_format: of the images. The normalization itself is done in float32.
        shuffle: serve in random order, else in the order of the index.
        seed: of order and augmentation.
        rank, world_size: serve only this process's share of each batch, see `Plan`.
        workers: processes that decode; None for `stream.default_workers`.

    Raises: ValueError for arguments that do not fit together.
    """

    def __init__(
        self,
        files: SceneFiles,
        index: Tensor | None = None,
        *,
        augmentation: Augmentation | None,
        scale: float = 1.0,
        batch_size: int = 1,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int | None = None,
    ) -> None:
        samples = torch.arange(len(files)) if index is None else index.cpu()
        _check(files, samples, augmentation, scale, batch_size, mean, std, shuffle)
        seed = operator.index(seed)
        size = batch_size if augmentation else world_size
        self.plan = Plan(samples.numpy(), size, shuffle, seed, rank, world_size)
        self.mean, self.std = tuple(mean), tuple(std)
        self.device, self.dtype, self.memory_format = torch.device(device), dtype, memory_format
        dataset = Whole(files, scale) if augmentation is None else Augmented(files, augmentation, seed)
        self.workers = default_workers(world_size) if workers is None else workers
        self._ahead: Ahead[Request, Decoded] = Ahead(dataset, self.workers, pin_memory=self.device.type == "cuda")
        self._normalize = Normalize(mean, std, self.device, dtype, memory_format)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return len(self.plan)

    @property
    def images_per_epoch(self) -> int:
        """Number of scenes served in an epoch by all processes."""
        return self.plan.images

    def batch_sizes(self) -> list[int]:
        """Return the number of scenes in each batch of an epoch, of all processes together."""
        return self.plan.batch_sizes()

    def epoch(self, epoch: int, batches: slice = slice(None)) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch, or some of them; of several processes this one's shares.

        What is beyond a scene smaller than the crop is zero, the mean color, and ignored.
        Shapes: images (B, 3, h, w) in dtype and memory_format, classes int64 (B, h, w), both on the device. Of whole
        scenes B is 1, and at another scale the classes keep the scene's size.

        Raises: ValueError naming the files that cannot be decoded; RuntimeError as `Ahead.answers`.
        """
        epoch = operator.index(epoch)
        requests = [(epoch, self.plan.samples[share]) for share in self.plan.epoch(epoch)[batches]]
        for images, classes, used in self._ahead.answers(requests):
            there = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
            labels = classes.to(self.device, non_blocking=True).long()
            if self.device.type == "cpu":
                there = there.contiguous()  # see `Normalize`
            normalized = self._normalize(there)
            for image, (rows, columns) in zip(normalized, used.tolist(), strict=True):
                image[:, rows:] = 0
                image[:, :, columns:] = 0
            yield normalized, labels


class Augmented(Dataset[Decoded | str]):
    """What a worker does with a request for crops, or what is wrong with the files."""

    def __init__(self, files: SceneFiles, augmentation: Augmentation, seed: int) -> None:
        self.files, self.augmentation, self.seed = files, augmentation, seed

    def __getitem__(self, request: Request) -> Decoded | str:
        samples = request[1]
        height, width = self.augmentation.crop
        images = torch.zeros(len(samples), height, width, CHANNELS, dtype=torch.uint8)
        classes = torch.full((len(samples), height, width), IGNORED, dtype=torch.uint8)
        used = torch.zeros(len(samples), 2, dtype=torch.int64)
        broken = []
        for number, (sample, drawn) in enumerate(zip(samples.tolist(), draw(self.seed, *request), strict=True)):
            try:
                image, labels = self.files.pair(sample)
            except (ValueError, OSError) as error:
                broken.append(f"{self.files.image_name(sample)} ({error})")
                continue
            pixels, cut = augmented(image, labels, self.augmentation, drawn)
            rows, columns = cut.shape
            images.numpy()[number, :rows, :columns] = pixels
            classes.numpy()[number, :rows, :columns] = cut
            used[number, 0], used[number, 1] = rows, columns
        return unreadable(self.files.root, broken) if broken else (images, classes, used)


class Whole(Dataset[Decoded | str]):
    """What a worker does with a request for one whole scene, or what is wrong with its files."""

    def __init__(self, files: SceneFiles, scale: float) -> None:
        self.files, self.scale = files, scale

    def __getitem__(self, request: Request) -> Decoded | str:
        (sample,) = request[1].tolist()
        try:
            image, classes = self.files.pair(sample)
        except (ValueError, OSError) as error:
            return unreadable(self.files.root, [f"{self.files.image_name(sample)} ({error})"])
        height, width = scaled((image.height, image.width), self.scale)
        if (width, height) != image.size:
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).unsqueeze(0)
        return pixels, torch.from_numpy(classes).unsqueeze(0), torch.tensor([[height, width]])


def _check(
    files: SceneFiles,
    samples: Tensor,
    augmentation: Augmentation | None,
    scale: float,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    shuffle: bool,
) -> None:
    if samples.dtype != torch.int64 or samples.dim() != 1 or len(samples) == 0:
        raise ValueError(f"expected an int64 index of at least one scene, got {samples.dtype} {tuple(samples.shape)}")
    if samples.min() < 0 or samples.max() >= len(files):
        got = f"{int(samples.min())} to {int(samples.max())}"
        raise ValueError(f"expected an index of scenes 0 to {len(files) - 1}, got {got}")
    if len(mean) != CHANNELS or len(std) != CHANNELS or min(std) <= 0:
        raise ValueError(f"expected {CHANNELS} means and {CHANNELS} positive deviations, got {mean} and {std}")
    if not 0 < scale <= 8:
        raise ValueError(f"expected a scale above 0 and at most 8, got {scale}")
    if augmentation is None and (shuffle or batch_size != 1):
        raise ValueError(
            f"whole scenes may differ in size and come one by one, in order: expected batch_size=1 and shuffle=False, "
            f"got {batch_size} and {shuffle}; give an augmentation to train on crops"
        )
    if augmentation is not None and scale != 1:
        raise ValueError(f"expected the scale of crops in the augmentation, Augmentation(scale={scale})")
