"""The loaders of a run: the parts of a data set, split by the seed and prepared as the recipe says."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from srblock.data import (
    Augmentation,
    Batches,
    ImageData,
    ImageFiles,
    Loader,
    SceneData,
    SceneLoader,
    normalization,
    split,
)
from srblock.data.loading.mixing import Mixing
from srblock.data.loading.policies import Policy
from srblock.features import class_by_class
from srblock.runs.input import Input, read_input
from srblock.training import runtime
from srblock.training.loop import Loaders
from srblock.training.recipe import Recipe

TESTED = 500  # images in a batch that is tested, or more if training has more
WHITENED = 5000  # images that a whitening layer is made from, as airbench94 does, and a memory from features


def loaders(
    data: ImageData | SceneData, recipe: Recipe, seed: int, device: torch.device, rank: int = 0, world_size: int = 1
) -> Loaders:
    """Split, and put the images on the device. The same for all variants of a seed.

    Of several processes each gets its share of every batch.
    """
    if isinstance(data, SceneData):
        return scene_loaders(data, recipe, seed, device, rank, world_size)
    return image_loaders(data, recipe, seed, device, rank, world_size)


def image_loaders(
    data: ImageData, recipe: Recipe, seed: int, device: torch.device, rank: int, world_size: int
) -> Loaders:
    """Serve images of one size with a class each."""
    kept, held = parts(data, recipe, seed)
    mean, std = normalization(data.train_images, kept)
    images, labels = data.train_images, data.train_labels.to(device)
    if isinstance(images, torch.Tensor):
        images = images.to(device)

    policy = mixing = None
    if recipe.auto_augment != "none":
        policy = Policy(recipe.auto_augment, recipe.augment_magnitude)
    if recipe.mixup or recipe.cutmix:
        mixing = Mixing(recipe.mixup, recipe.cutmix, len(data.classes))

    def loader(images: Tensor | ImageFiles, labels: Tensor, index: Tensor | None, training: bool) -> Loader:
        return Loader(
            images,
            labels,
            index,
            batch_size=recipe.batch_size if training or data.streamed else max(recipe.batch_size, TESTED),
            mean=mean,
            std=std,
            device=device,
            dtype=torch.float32,
            memory_format=runtime.FORMATS[recipe.memory_format],
            crop=recipe.crop if training else "padded",
            padding=recipe.padding if training and recipe.crop == "padded" else 0,
            padding_mode=recipe.padding_mode,
            resize=None if training else recipe.test_resize,
            square=recipe.test_square and not training,
            flip=recipe.flip and training,
            alternating=recipe.alternating_flip,
            policy=policy if training else None,
            erasing=recipe.random_erasing if training else 0.0,
            mixing=mixing if training else None,
            shuffle=training,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )

    return Loaders(
        train=loader(images, labels, kept, True),
        validation=None if held is None else loader(images, labels, held, False),
        test=loader(data.test_images, data.test_labels, None, False),
    )


def scene_loaders(
    data: SceneData, recipe: Recipe, seed: int, device: torch.device, rank: int, world_size: int
) -> Loaders:
    """Serve crops of scenes to train on, and whole scenes to evaluate.

    A validation part of the set's own is taken as it is, otherwise scenes of the training part are held out.
    """
    assert recipe.crop_size is not None  # `study.recipe_for` fits one
    loader = partial(
        SceneLoader,
        device=device,
        memory_format=runtime.FORMATS[recipe.memory_format],
        seed=seed,
        rank=rank,
        world_size=world_size,
    )
    augmentation = Augmentation(
        recipe.crop_size, recipe.scene_scale, recipe.ratios, recipe.class_share, recipe.flip, recipe.photometric
    )
    kept, held = parts(data, recipe, seed)
    whole = partial(loader, augmentation=None, scale=recipe.scene_scale, shuffle=False)
    validation = None
    if held is not None:
        validation = whole(data.train, held)
    elif data.validation is not None and recipe.validation_fraction:
        validation = whole(data.validation)
    return Loaders(
        train=loader(data.train, kept, augmentation=augmentation, batch_size=recipe.batch_size, shuffle=True),
        validation=validation,
        test=whole(data.test),
    )


def parts(data: ImageData | SceneData, recipe: Recipe, seed: int) -> tuple[Tensor, Tensor | None]:
    """Say which images of the training part to train on and which to validate on; None if all are trained on."""
    fraction = recipe.validation_fraction
    if isinstance(data, SceneData):
        labels = torch.zeros(data.train_size, dtype=torch.int64)
        fraction = 0.0 if data.validation is not None else fraction
    else:
        labels = data.train_labels
    return split(labels, fraction=fraction, seed=seed) if fraction else (torch.arange(len(labels)), None)


def training_part(
    data: ImageData | SceneData, recipe: Recipe, seed: int, device: torch.device, most: int, *, mixed: bool = False
) -> Batches:
    """Serve images of the training part as a network sees them in a test; at most so many, spread over it.

    Args: mixed: whether images that lie class by class, as those of a folder do, are served in a random order of the
        seed. All others come in the order of the data.
    """
    kept, _ = parts(data, recipe, seed)
    some = kept[:: max(1, -(-len(kept) // most))]
    if mixed and isinstance(data, ImageData) and class_by_class(data.train_labels[some]):
        some = some[torch.randperm(len(some), generator=torch.Generator().manual_seed(seed))]
    if isinstance(data, SceneData):
        return SceneLoader(
            data.train,
            some,
            augmentation=None,
            scale=recipe.scene_scale,
            shuffle=False,
            device=device,
            memory_format=runtime.FORMATS[recipe.memory_format],
        )
    mean, std = normalization(data.train_images, kept)
    return Loader(
        data.train_images,
        data.train_labels,
        some,
        batch_size=recipe.batch_size if data.streamed else max(recipe.batch_size, TESTED),
        mean=mean,
        std=std,
        device=device,
        memory_format=runtime.FORMATS[recipe.memory_format],
        resize=recipe.test_resize,
        square=recipe.test_square,
        shuffle=False,
    )


def normalized_as_trained(batches: Batches, weights: Path) -> Batches:
    """Serve images of other data than a network was trained with normalized as that was, by the header of its weights.

    Weights of older versions do not say how that was; then a warning says what is done instead.
    """
    if isinstance(batches, Loader):
        try:
            said = read_input(weights)
        except ValueError as error:
            warnings.warn(f"images are normalized by the training part of this data; {error}", stacklevel=3)
        else:
            batches.normalize_by(said.mean, said.std)
    return batches


def as_tested(
    data: ImageData | SceneData, part: str, said: Input, device: torch.device, most: int | None = None
) -> Batches:
    """Serve a part of a set, "train" or "test", as a test does by what a trained network says of its input.

    Args:
        most: serve at most so many images, spread over the part; None for all.
    """
    count = data.train_size if part == "train" else data.test_size
    index = torch.arange(count)[:: 1 if most is None else max(1, -(-count // most))]
    memory_format = runtime.FORMATS["channels_last"]
    if isinstance(data, SceneData):
        return SceneLoader(
            data.train if part == "train" else data.test,
            index,
            augmentation=None,
            scale=said.scene_scale,
            shuffle=False,
            device=device,
            memory_format=memory_format,
        )
    images, labels = (data.train_images, data.train_labels) if part == "train" else (data.test_images, data.test_labels)
    return Loader(
        images,
        labels,
        index,
        batch_size=TESTED,
        mean=said.mean,
        std=said.std,
        device=device,
        memory_format=memory_format,
        resize=said.test_resize,
        square=said.test_square,
        shuffle=False,
    )


def some_training_images(data: ImageData, recipe: Recipe, seed: int) -> Tensor:
    """Return up to `WHITENED` images of the training part, spread over it, as a network sees them in a test."""
    part = training_part(data, recipe, seed, torch.device("cpu"), WHITENED)
    return torch.cat([images for images, _ in part.epoch(0)]).contiguous()
