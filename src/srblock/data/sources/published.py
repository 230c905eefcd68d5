"""Known sets by their published sizes alone, for plans where the images are not at hand."""

from __future__ import annotations

import torch

from srblock.data.images import ImageData

# Of each: training images, test images, classes, channels, side.
PUBLISHED = {
    "digits": (1_438, 359, 10, 1, 8),
    "cifar10": (50_000, 10_000, 10, 3, 32),
    "cifar100": (50_000, 10_000, 100, 3, 32),
    "imagenet": (1_281_167, 50_000, 1000, 3, 224),
}


def stand_in(source: str, image_size: int | None = None) -> ImageData:
    """Return a set of a known one's published sizes, without its images: enough for sizes, operations and a recipe.

    What a specification says of another set is not known before it is loaded; it is taken to be like digits.
    """
    name = source.partition(":")[0]
    train, test, classes, channels, side = PUBLISHED.get(name, PUBLISHED["digits"])
    size = image_size or side
    image = torch.zeros(1, dtype=torch.uint8)  # one byte for all pixels
    label = torch.zeros(1, dtype=torch.int64)
    return ImageData(
        name=name,
        train_images=image.expand(train, channels, size, size),
        train_labels=label.expand(train),
        test_images=image.expand(test, channels, size, size),
        test_labels=label.expand(test),
        classes=tuple(map(str, range(classes))),
        flip=name != "digits",
        fingerprint="",
    )
