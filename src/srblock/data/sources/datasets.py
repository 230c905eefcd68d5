"""Two datasets of PyTorch, to train and to test on, read once into memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srblock.data.images import ImageData, check_memory
from srblock.data.loading.decode import upright
from srblock.data.offenders import offenders

REREAD = 64  # images that are read twice: a flip of every other one, drawn at random, is missed once in 2^64


class Labeled(Protocol):
    """A `torch.utils.data.Dataset` that knows its length, of (image, label)."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> Any: ...


def from_datasets(train: Labeled, test: Labeled, *, name: str | None = None, flip: bool = True) -> ImageData:
    """Read two datasets of (image, label) into memory.

    An image is one of Pillow's, gray or RGB, or a tensor (C, H, W): uint8, or floating point in 0..1 as `ToTensor`
    gives it, which is rounded to 8 bits. All have one size. Nothing about them may be random: what is drawn in training
    is the recipe's, and so is normalization. A label is a whole number from 0 on; classes are called as the `classes`
    of the training set, or of what it is a `Subset` of, else by their numbers.

    Args:
        name: of the set; the training set's type by default.
        flip: whether a mirrored image is still an image of its class.

    Raises: TypeError or ValueError for anything else, naming the first image that is wrong.
    """
    named, tested = (_classes(dataset) for dataset in (train, test))
    if isinstance(named, (list, tuple)) and isinstance(tested, (list, tuple)) and [*named] != [*tested]:
        raise ValueError(
            f"the training set's classes are {offenders([*map(str, named)])} and the test set's "
            f"{offenders([*map(str, tested)])}; a label means its place in that list, so both need the same"
        )
    parts = [_read(dataset, part) for dataset, part in ((train, "training"), (test, "test"))]
    count = 1 + max(int(labels.max()) for _, labels in parts)
    classes = [str(c) for c in named] if isinstance(named, (list, tuple)) and len(named) >= count else None
    data = ImageData.build(
        name or type(train).__name__.lower(),
        train_images=parts[0][0],
        train_labels=parts[0][1],
        test_images=parts[1][0],
        test_labels=parts[1][1],
        classes=classes or [str(number) for number in range(count)],
        flip=flip,
    )
    return replace(data, prepared=True)


def _classes(dataset: Any) -> Any:
    """Return the names that a dataset has, or the one that it is a subset of."""
    while dataset is not None:
        if (names := getattr(dataset, "classes", None)) is not None:
            return names
        dataset = getattr(dataset, "dataset", None)
    return None


def _read(dataset: Labeled, part: str) -> tuple[Tensor, Tensor]:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(f"the {part} set must have a length and items (image, label), got {type(dataset).__name__}")
    if len(dataset) == 0:
        raise ValueError(f"the {part} set is empty")
    labels = torch.empty(len(dataset), dtype=torch.int64)
    images: Tensor | None = None
    for number in range(len(dataset)):
        image, label = _item(dataset, part, number)
        if images is None:
            check_memory(f"the {part} set", len(dataset), image.shape[0], (image.shape[1], image.shape[2]))
            images = torch.empty(len(dataset), *image.shape, dtype=torch.uint8)
        if image.shape != images.shape[1:]:
            raise ValueError(
                f"image {number} of the {part} set is {tuple(image.shape)} and image 0 is {tuple(images.shape[1:])}; "
                "resize them to one size in the dataset's transform"
            )
        images[number], labels[number] = image, label
    assert images is not None
    for number in {round(place) for place in np.linspace(0, len(dataset) - 1, REREAD)}:
        if not torch.equal(images[number], _item(dataset, part, number)[0]):
            raise ValueError(
                f"image {number} of the {part} set is another one each time: leave random transforms to the recipe "
                "(flip, padding, crop)"
            )
    return images, labels


def _item(dataset: Labeled, part: str, number: int) -> tuple[Tensor, int]:
    where, item = f"image {number} of the {part} set", dataset[number]
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise TypeError(f"{where}: expected (image, label), got {type(item).__name__}")
    label = item[1].item() if isinstance(item[1], (Tensor, np.generic)) and item[1].ndim == 0 else item[1]
    if not isinstance(label, int) or isinstance(label, bool) or label < 0:
        raise TypeError(f"{where}: expected a label from 0 on, got {item[1]!r}")
    return _pixels(item[0], where), label


def _pixels(image: Any, where: str) -> Tensor:
    """Return uint8 (C, H, W)."""
    if isinstance(image, Image.Image):
        if image.mode not in ("L", "RGB"):
            raise ValueError(f"{where} is of mode {image.mode}; convert it to RGB or L in the dataset's transform")
        pixels = np.array(upright(image))
        return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
    if not isinstance(image, Tensor) or image.dim() != 3 or image.shape[0] not in (1, 3):
        came = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"{where}: expected an image of Pillow or a tensor (C, H, W) with C of 1 or 3, got {came}")
    if image.dtype == torch.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    if not image.is_floating_point() or not 0 <= low <= high <= 1:
        raise ValueError(
            f"{where}: {image.dtype}, {low:g} to {high:g}; expected uint8, or 0 to 1 as ToTensor gives it; "
            "leave out Normalize, the recipe normalizes"
        )
    return (image * 255).round().to(torch.uint8)
