"""Known sets by their published sizes alone, for plans where the images are not at hand."""

from __future__ import annotations

import torch

from srblock.data.images import ImageData
from srblock.data.scene_files import SceneFiles
from srblock.data.scenes import SceneData
from srblock.data.sources.scenes import SCENE_SOURCES

# Of each: training images, test images, classes, channels, side.
PUBLISHED = {
    "digits": (1_438, 359, 10, 1, 8),
    "cifar10": (50_000, 10_000, 10, 3, 32),
    "cifar100": (50_000, 10_000, 100, 3, 32),
    "imagenet": (1_281_167, 50_000, 1000, 3, 224),
}
# Of each set of scenes: to train, validate and test on, classes, size.
SCENES: dict[str, tuple[int, int | None, int, int, tuple[int, int]]] = {
    "cityscapes": (2_975, None, 500, 19, (1024, 2048)),
    "camvid": (367, 101, 233, 11, (360, 480)),
}


def stand_in(source: str, image_size: int | None = None) -> ImageData | SceneData:
    """Return a set of a known one's published sizes, without its images: enough for sizes, operations and a recipe.

    What a specification says of another set is not known before it is loaded; it is taken to be like digits, scenes to
    be like Cityscapes.
    """
    name = source.partition(":")[0]
    if name in SCENE_SOURCES:
        return _scenes(name)
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


def _scenes(name: str) -> SceneData:
    train, validation, test, classes, size = SCENES.get(name, SCENES["cityscapes"])
    nothing = torch.zeros(1, dtype=torch.int64)

    def files(count: int) -> SceneFiles:
        sizes = torch.tensor([size]).expand(count, 2)
        return SceneFiles("", nothing.byte(), nothing.expand(2 * count), sizes, sizes, nothing.byte().expand(256))

    return SceneData(
        name=name,
        train=files(train),
        validation=None if validation is None else files(validation),
        test=files(test),
        classes=tuple(map(str, range(classes))),
        colors=((0, 0, 0),) * classes,
        pixels=(0,) * (classes + 1),
        fingerprint="",
    )
