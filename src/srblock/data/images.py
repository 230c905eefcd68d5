"""A labeled image set, decoded in memory, with a fingerprint of all content that can change a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from srblock.data.offenders import counted, offenders

MEMORY_LIMIT_BYTES = 8 * 2**30


@dataclass(frozen=True, eq=False)
class ImageData:
    """A training and a test set of uint8 images on the CPU. Make one with `ImageData.build`, or `srblock.data.load`.

    Attributes:
        name: "digits", "cifar100", or the folder's name.
        train_images, test_images: uint8 (N, C, H, W).
        train_labels, test_labels: int64 (N,), positions in `classes`.
        classes: names, by label.
        fingerprint: SHA-256 of images, labels, class names, the split into train and test, and `flip`.
        flip: whether a mirrored image is still an image of its class.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    flip: bool
    fingerprint: str

    @classmethod
    def build(
        cls,
        name: str,
        *,
        train_images: Tensor,
        train_labels: Tensor,
        test_images: Tensor,
        test_labels: Tensor,
        classes: Sequence[str],
        flip: bool,
    ) -> ImageData:
        """Check a set, whatever its source, and take its fingerprint.

        Raises: ValueError if shapes, dtypes or labels do not fit together, there are fewer than two classes, or a
            class has fewer than two images to train on or none to test on.
        """
        if len(classes) < 2:
            raise ValueError(f"{name}: expected at least two classes, got {len(classes)}: {offenders(list(classes))}")
        if len(set(classes)) < len(classes):
            raise ValueError(f"{name}: class names are not unique: {offenders(sorted(classes))}")
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
    needed = count * channels * size[0] * size[1]
    if needed > MEMORY_LIMIT_BYTES:
        raise ValueError(
            f"{name}: {counted(count, 'image')} of {size[0]}x{size[1]} take {needed / 2**30:.1f} GiB decoded, more "
            f"than the limit of {MEMORY_LIMIT_BYTES / 2**30:.0f} GiB; pass a smaller --image-size"
        )


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


def _check(where: str, images: Tensor, labels: Tensor, classes: Sequence[str], least: int) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4 or images.numel() == 0:
        raise ValueError(f"{where}: expected uint8 images (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
    if labels.dtype != torch.int64 or labels.shape != (len(images),):
        raise ValueError(f"{where}: expected {len(images)} int64 labels, got {labels.dtype} {tuple(labels.shape)}")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(
            f"{where}: expected labels 0 to {len(classes) - 1}, got {int(labels.min())} to {int(labels.max())}"
        )
    sizes = torch.bincount(labels, minlength=len(classes)).tolist()
    small = [f"{name} ({size})" for name, size in zip(classes, sizes, strict=True) if size < least]
    if small:
        raise ValueError(
            f"{where}: {counted(len(small), 'class')} with fewer than {counted(least, 'image')}: {offenders(small)}"
        )


def _fingerprint(tensors: Sequence[Tensor], classes: tuple[str, ...], flip: bool) -> str:
    digest = hashlib.sha256(json.dumps(["srblock image data 1", classes, flip]).encode())
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).data)
    return digest.hexdigest()
