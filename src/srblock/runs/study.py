"""A study: variants times seeds on one data set, with one recipe."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srblock.data import ImageData, ImageFiles, Loader, normalization, split
from srblock.models.airbench import Airbench94
from srblock.runs.records import RunConfig
from srblock.surgery import blocks, param_groups
from srblock.training import runtime
from srblock.training.loop import Loaders
from srblock.training.recipe import RECIPES, Recipe
from srblock.training.task import Task, find_task
from srblock.variants.build import build
from srblock.variants.notation import Variant
from srblock.variants.variant import SEGMENTATION

WHITENED = 5000  # images that a whitening layer is made from, as airbench94 does


@dataclass(frozen=True)
class Study:
    """Variants times seeds on one data set with one recipe.

    Args:
        source, image_size: how the data was loaded, recorded so that runs can be evaluated later.
        pretrained, weights: start from the library's download, or from a file of weights.
    """

    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    data: ImageData
    source: str
    recipe: Recipe
    image_size: int | None = None
    pretrained: bool = False
    weights: Path | None = None

    @property
    def task(self) -> Task:
        """What is predicted of this data."""
        return find_task(self.data.task)

    @property
    def epoch_images(self) -> int:
        """How many images an epoch reads; of a pass over the data those of validation are among them."""
        steps = self.recipe.epoch_steps
        return self.data.train_size if steps is None else steps * self.recipe.batch_size

    @cached_property
    def runs(self) -> tuple[RunConfig, ...]:
        """The runs, seed by seed, so that an interrupted study has as many whole comparisons as possible."""
        data, weights = describe_data(self.data), _weights_identity(self.weights, self.pretrained)
        return tuple(
            RunConfig(variant, seed, self.recipe, data, weights) for seed in self.seeds for variant in self.variants
        )

    def build(self, variant: Variant, seed: int, *, stem: str | None = None) -> nn.Module:
        """Build a variant's network for this data, on the CPU.

        A whitening layer is made from training images of the seed, unless weights from a file have one.

        Args: stem: of a segmentation network whose weights are loaded afterwards (see `variants.build.build`).

        Raises: ValueError for a segmentation network where images have one class each, and as `variants.build.build`.
        """
        if variant.network in SEGMENTATION and self.data.task == "classification":
            raise ValueError(
                f"{variant.network} says of every pixel what it shows, and {self.data.name} has one class for an "
                "image; take a classification network such as R18"
            )
        model = build(
            variant,
            classes=len(self.data.classes),
            channels=self.data.channels,
            image_size=self.data.size,
            seed=seed,
            pretrained=self.pretrained,
            weights=self.weights,
            stem=stem,
            report=warnings.warn,  # Python shows a repeated warning once
        )
        if isinstance(model, Airbench94) and self.weights is None:
            model.whiten(self._some_training_images(seed))
        return model

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Sort a network's parameters for the optimizer: the memories apart if the recipe treats them differently."""
        recipe = self.recipe
        if not blocks(model) or (recipe.memory_lr_scale is None and recipe.memory_weight_decay is None):
            return [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]
        rest, memories = param_groups(model, memory_weight_decay=recipe.memory_weight_decay)
        if recipe.memory_lr_scale is not None:
            memories["lr_scale"] = recipe.memory_lr_scale
        return [rest, memories]

    def loaders(self, seed: int, device: torch.device, rank: int = 0, world_size: int = 1) -> Loaders:
        """Split, and put the images on the device. The same for all variants of a seed.

        Of several processes each gets its share of every batch.
        """
        data, recipe = self.data, self.recipe
        kept, held = self._split(seed)
        mean, std = normalization(data.train_images, kept)
        images, labels = data.train_images, data.train_labels.to(device)
        if isinstance(images, torch.Tensor):
            images = images.to(device)

        def loader(
            images: torch.Tensor | ImageFiles, labels: torch.Tensor, index: torch.Tensor | None, training: bool
        ) -> Loader:
            return Loader(
                images,
                labels,
                index,
                batch_size=recipe.batch_size if training or data.streamed else max(recipe.batch_size, 500),
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

    def _split(self, seed: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Say which images to train on and which to validate on; None if all are trained on."""
        labels, fraction = self.data.train_labels, self.recipe.validation_fraction
        return split(labels, fraction=fraction, seed=seed) if fraction else (torch.arange(len(labels)), None)

    def _some_training_images(self, seed: int) -> torch.Tensor:
        """Return up to `WHITENED` images of the training part, spread over it, as a network sees them in a test."""
        kept, _ = self._split(seed)
        mean, std = normalization(self.data.train_images, kept)
        loader = Loader(
            self.data.train_images,
            self.data.train_labels,
            kept[:: -(-len(kept) // WHITENED)],
            batch_size=WHITENED,
            mean=mean,
            std=std,
            resize=self.recipe.test_resize,
            square=self.recipe.test_square,
            shuffle=False,
        )
        return next(loader.epoch(0))[0]


def _weights_identity(file: Path | None, pretrained: bool) -> str | None:
    if file is not None:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    return "pretrained" if pretrained else None


def describe_data(data: ImageData) -> dict[str, Any]:
    """Return what a record says of a data set; of a streamed one by what constants it is normalized, too."""
    more: dict[str, Any] = {}
    if data.task != "classification":  # what records of before tasks had names are of
        more["task"] = data.task
    if data.streamed:
        mean, std = normalization(data.train_images, torch.arange(0))
        more |= {"streamed": True, "mean": list(mean), "std": list(std)}
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "classes": list(data.classes),
        "train": data.train_size,
        "test": data.test_size,
        "size": [data.channels, *data.size],
        **more,
    }


def recipe_for(
    data: ImageData, device: torch.device, name: str = "auto", epochs: int | None = None, **changes: Any
) -> Recipe:
    """Resolve a named recipe for a data set and a device; changes that are None are left out.

    "auto" is the paper's recipe for CIFAR-10, CIFAR-100 and ImageNet, else "short". The random crop pads an eighth of
    the side (4 at 32x32, as the paper; "airbench" half of that), test images are resized to 8/7 of it if the recipe
    resizes them (256 at 224), and only sets whose images may be mirrored are, in testing too.

    Raises: ValueError for a name or a value that no recipe has.
    """
    if name == "auto":
        name = data.name if data.name in RECIPES else "short"
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; there are: auto, {', '.join(RECIPES)}")
    precision = changes.pop("precision", None) or "auto"
    given = {key: value for key, value in changes.items() if value is not None}
    named = RECIPES[name]
    fitting: dict[str, Any] = {
        "padding": (named.padding or 4) * min(data.size) // 32 if given.get("crop", named.crop) == "padded" else 0,
        "test_resize": named.test_resize and round(named.test_resize / 224 * min(data.size)),
        "flip": named.flip and data.flip,
        "alternating_flip": named.alternating_flip and given.get("flip", data.flip),
        "tta": named.tta if data.flip else "none",
    }
    recipe = replace(named, **(fitting | given))
    recipe = recipe if epochs is None else recipe.with_epochs(epochs)
    return runtime.resolve(recipe, device, precision)
