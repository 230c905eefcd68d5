"""Images decoded while training, in worker processes ahead of the device.

A worker gets sample numbers and gives back decoded and cut images as bytes; what is random is drawn from (seed, epoch,
sample), so that batches do not depend on the number of workers. Padding, mirroring and normalization happen on the
device.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from srblock.data.image_files import CHANNELS, ImageFiles
from srblock.data.loading.ahead import Ahead
from srblock.data.loading.crops import Box, center_box, draw, random_boxes
from srblock.data.loading.decode import decode_cut
from srblock.data.offenders import counted, offenders

MOST_WORKERS = 32
Request = tuple[int, NDArray[np.int64]]  # epoch, sample numbers


def default_workers(world_size: int = 1) -> int:
    """Return $SRBLOCK_WORKERS, else the cores that this process may use over the training processes here, at most 32.

    Raises: ValueError if $SRBLOCK_WORKERS is no whole number.
    """
    text = os.environ.get("SRBLOCK_WORKERS")
    if text:
        if not text.isdecimal():
            raise ValueError(f"SRBLOCK_WORKERS must be a whole number of worker processes, at least 0, got {text!r}")
        return int(text)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))  # torchrun says how many processes this machine has
    return min(max(1, cores // here), MOST_WORKERS)


class Stream:
    """Serve images from files, batch by batch.

    Args:
        files: the whole set.
        random: cut a random box from each image (`crops.random_boxes`), else its center.
        resize, square: how the center is taken, see `crops.center_box`.
        seed: of the boxes.
        workers: processes that decode, started with the first epoch and kept; 0 decodes in this one.
    """

    def __init__(
        self,
        files: ImageFiles,
        *,
        random: bool,
        resize: int,
        square: bool,
        seed: int,
        device: torch.device,
        workers: int,
    ) -> None:
        self.device, self.workers = device, workers
        decoder = Decoder(files, random, resize, square, seed)
        self._loader: Ahead[Request, Tensor] = Ahead(decoder, workers, pin_memory=device.type == "cuda")

    def epoch(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        """Yield the images of each batch of sample numbers, on the device.

        Shapes: -> uint8 (B, 3, side, side).

        Raises: ValueError naming the files that cannot be decoded; RuntimeError as `Ahead.answers`.
        """
        for images in self._loader.answers([(epoch, samples) for samples in batches]):
            yield self._to_device(images)

    def _to_device(self, images: Tensor) -> Tensor:
        images = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return images.contiguous() if self.device.type == "cpu" else images  # see `Normalize`


class Decoder(Dataset[Tensor | str]):
    """What a worker does with a request: uint8 (B, side, side, 3), or what is wrong."""

    def __init__(self, files: ImageFiles, random: bool, resize: int, square: bool, seed: int) -> None:
        self.files, self.random, self.resize, self.square, self.seed = files, random, resize, square, seed

    def __getitem__(self, request: Request) -> Tensor | str:
        epoch, samples = request
        side = self.files.side
        images = torch.empty(len(samples), side, side, CHANNELS, dtype=torch.uint8)
        pixels = images.numpy()
        drawn = draw(self.seed, epoch, samples) if self.random else None
        broken = []
        for number, sample in enumerate(samples.tolist()):
            place = self._center if drawn is None else _random(drawn[number : number + 1])
            try:
                image = decode_cut(self.files.read(sample), side, place, reduced=self.random)
            except (ValueError, OSError) as error:
                broken.append(f"{self.files.name(sample)} ({error})")
                continue
            pixels[number] = image
        if broken:
            return unreadable(self.files.root, broken)
        return images

    def _center(self, height: int, width: int) -> Box:
        side = self.files.side
        return center_box(height, width, (side, side), resize=self.resize, square=self.square)


def unreadable(root: str, broken: Sequence[str]) -> str:
    """Say which files cannot be decoded."""
    return (
        f"{root}: {counted(len(broken), 'file')} cannot be read as an image: {offenders(broken)}; "
        "repair or remove them, which makes it another set: its runs start anew"
    )


def _random(drawn: NDArray[np.float64]) -> Callable[[int, int], Box]:
    def place(height: int, width: int) -> Box:
        top, left, rows, columns = random_boxes(drawn, height, width)[0].tolist()
        return top, left, rows, columns

    return place
