"""A labeled image set, decoded in memory or left in files, with a fingerprint of what can change a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from srblock.data.image_files import ImageFiles
from srblock.data.offenders import counted, offenders, refuse_unencodable

MEMORY_LIMIT_BYTES = 8 * 2**30


@dataclass(frozen=True, eq=False)
class ImageData:
    """A training and a test set of images. Make one with `ImageData.build`, or `srblock.data.load`.

    Attributes:
        name: "digits", "cifar100", "imagenet", or the folder's name.
        train_images, test_images: uint8 (N, C, H, W) on the CPU; of a streamed set the files.
        train_labels, test_labels: int64 (N,), positions in `classes`.
        classes: names, by label.
        fingerprint: SHA-256 of images, labels, class names, the split into train and test, and `flip`. Of a streamed
            set file names and file sizes stand for the images: a file that changes and keeps its size is not noticed.
        flip: whether a mirrored image is still an image of its class.
        task: what is predicted, by the name that `srblock.training.task` knows it by.
        prepared: whether the images came from datasets of the user's own, which may have transformed them.
    """

    name: str
    train_images: Tensor | ImageFiles
    train_labels: Tensor
    test_images: Tensor | ImageFiles
    test_labels: Tensor
    classes: tuple[str, ...]
    flip: bool
    fingerprint: str
    task: str = "classification"
    prepared: bool = False

    @classmethod
    def build(
        cls,
        name: str,
        *,
        train_images: Tensor | ImageFiles,
        train_labels: Tensor,
        test_images: Tensor | ImageFiles,
        test_labels: Tensor,
        classes: Sequence[str],
        flip: bool,
    ) -> ImageData:
        """Check a set, whatever its source, and take its fingerprint.

        Raises: ValueError if shapes, dtypes or labels do not fit together, there are fewer than two classes, a class
            has fewer than two images to train on or none to test on, or a name is not in UTF-8.
        """
        if len(classes) < 2:
            raise ValueError(f"{name}: expected at least two classes, got {len(classes)}: {offenders(list(classes))}")
        if len(set(classes)) < len(classes):
            raise ValueError(f"{name}: class names are not unique: {offenders(sorted(classes))}")
        refuse_unencodable("the data", "name", [name], "rename its folder or file")
        refuse_unencodable(name, "class name", classes, "rename them")
        for part, images, labels, least in (
            ("train", train_images, train_labels, 2),
            ("test", test_images, test_labels, 1),
        ):
            _check(f"{name}, {part} set", images, labels, classes, least)
        if train_images.shape[1:] != test_images.shape[1:]:
            raise ValueError(
                f"{name}: training images are {tuple(train_images.shape[1:])} and test images "
                f"{tuple(test_images.shape[1:])} (C, H, W); expected one size"
            )
        tensors = (train_images, train_labels, test_images, test_labels)
        return cls(name, *tensors, tuple(classes), flip, _fingerprint(tensors, tuple(classes), flip))

    def known_anew(self) -> ImageData:
        """Return the set with the fingerprint of what it holds now: its tensors may have been changed."""
        tensors = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        return replace(self, fingerprint=_fingerprint(tensors, self.classes, self.flip))

    @property
    def streamed(self) -> bool:
        """Whether the images are decoded while training."""
        return isinstance(self.train_images, ImageFiles)

    @property
    def channels(self) -> int:
        return self.train_images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of every image."""
        return self.train_images.shape[2], self.train_images.shape[3]

    @property
    def train_size(self) -> int:
        """Number of images to train on, the validation part among them."""
        return len(self.train_labels)

    @property
    def test_size(self) -> int:
        return len(self.test_labels)


def check_memory(name: str, count: int, channels: int, size: tuple[int, int]) -> None:
    """Refuse a set that does not fit into memory.

    Raises: ValueError with the figure and what to do.
    """
    if too_large(count, channels, size):
        raise ValueError(
            f"{name}: {decoded(count, channels, size)}, more than the limit of "
            f"{MEMORY_LIMIT_BYTES / 2**30:.0f} GiB; pass a smaller --image-size, or give a folder: its images are "
            "streamed"
        )


def too_large(count: int, channels: int, size: tuple[int, int]) -> bool:
    """Tell whether images exceed the limit for sets in memory."""
    return count * channels * size[0] * size[1] > MEMORY_LIMIT_BYTES


def decoded(count: int, channels: int, size: tuple[int, int]) -> str:
    """Say what a set takes: "60,000 images of 100x100 take 1.7 GiB decoded"."""
    gib = count * channels * size[0] * size[1] / 2**30
    return f"{counted(count, 'image')} of {size[0]}x{size[1]} take {gib:.1f} GiB decoded"


def resize(name: str, images: Tensor, image_size: int | None) -> Tensor:
    """Resize square uint8 images to a side, bilinear with antialiasing.

    Shapes: (N, C, H, H) -> (N, C, image_size, image_size).

    Raises: ValueError if the result does not fit into memory.
    """
    if image_size is None or images.shape[-1] == image_size:
        return images
    check_memory(name, len(images), images.shape[1], (image_size, image_size))
    resized = [
        F.interpolate(chunk.float(), (image_size, image_size), mode="bilinear", antialias=True)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        for chunk in torch.split(images, 256)
    ]
    return torch.cat(resized)


def _check(where: str, images: Tensor | ImageFiles, labels: Tensor, classes: Sequence[str], least: int) -> None:
    if isinstance(images, Tensor) and (images.dtype != torch.uint8 or images.dim() != 4 or images.numel() == 0):
        raise ValueError(f"{where}: expected uint8 images (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
    if labels.dtype != torch.int64 or labels.shape != (len(images),):
        raise ValueError(f"{where}: expected {len(images)} int64 labels, got {labels.dtype} {tuple(labels.shape)}")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(
            f"{where}: expected labels 0 to {len(classes) - 1}, got {int(labels.min())} to {int(labels.max())}"
        )
    refuse_small(where, labels, classes, least)


def refuse_small(where: str, labels: Tensor, classes: Sequence[str], least: int, remedy: str = "") -> None:
    """Refuse a set that has classes of fewer images.

    Raises: ValueError naming them.
    """
    sizes = torch.bincount(labels, minlength=len(classes)).tolist()
    small = [f"{name} ({size})" for name, size in zip(classes, sizes, strict=True) if size < least]
    if small:
        few = f"{counted(len(small), 'class')} with fewer than {counted(least, 'image')}"
        raise ValueError(f"{where}: {few}: {offenders(small)}{remedy}")


def _fingerprint(parts: Sequence[Tensor | ImageFiles], classes: tuple[str, ...], flip: bool) -> str:
    digest = hashlib.sha256(json.dumps(["srblock image data 1", classes, flip]).encode())
    for part in parts:
        digest.update(str(tuple(part.shape)).encode())
        digest.update(part.digest() if isinstance(part, ImageFiles) else np.ascontiguousarray(part.numpy()).data)
    return digest.hexdigest()
