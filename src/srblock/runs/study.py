"""A study: variants times seeds on one data set, with one recipe."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srblock.data import ImageData, SceneData, normalization
from srblock.data.image_files import MEAN, STD
from srblock.data.loading.scene_crops import scaled
from srblock.features import WAYS, init_memory
from srblock.models.airbench import Airbench94
from srblock.runs.groups import parameter_groups
from srblock.runs.loaders import WHITENED, loaders, parts, some_training_images, training_part
from srblock.runs.records import OF_SEED, RunConfig, numerics
from srblock.training import runtime
from srblock.training.classification import balanced
from srblock.training.loop import Loaders
from srblock.training.ranges import refuse_idle
from srblock.training.recipe import RECIPES, Recipe, can_be_none
from srblock.training.task import Task
from srblock.training.tasks import find_task
from srblock.variants.build import IMAGENET_SIDE, build, outline
from srblock.variants.custom import Build
from srblock.variants.identity import identity_of
from srblock.variants.notation import Variant
from srblock.variants.variant import SEGMENTATION
from srblock.variants.weights import weights_of

SMALL: dict[str, dict[str, Any]] = {"finetune": {"crop": "padded", "test_resize": None}}  # under 96 pixels
COLORS = (1, 3)  # channels of images that `data.loading.policies` can distort


@dataclass(frozen=True)
class Study:
    """Variants times seeds on one data set with one recipe.

    Args:
        source, image_size: how the data was loaded, recorded so that runs can be evaluated later.
        pretrained, weights: start from the library's download, or from a file of weights, or with `{seed}` in its path
            from one for each seed, see `variants.weights.weights_of`.
        networks: of each network of the user's own the function that builds it.
    """

    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    data: ImageData | SceneData
    source: str
    recipe: Recipe
    image_size: int | None = None
    pretrained: bool = False
    weights: Path | None = None
    networks: Mapping[str, Build] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """What is predicted of this data."""
        classes = len(self.data.classes)
        weights = None
        if self.recipe.class_weights == "balanced" and isinstance(self.data, ImageData):
            kept, _ = parts(self.data, self.recipe, next(iter(self.seeds), 0))  # of other seeds as many of each class
            weights = balanced(self.data.train_labels[kept], classes)
        return find_task(self.data.task, classes, self.recipe, weights)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of what a network is trained on: the images, or crops of scenes."""
        return self.recipe.crop_size or self.data.size

    @property
    def epoch_images(self) -> int:
        """How many images an epoch reads; of a pass over the data those of validation are among them."""
        steps = self.recipe.epoch_steps
        return self.data.train_size if steps is None else steps * self.recipe.batch_size

    @property
    def trained_share(self) -> float:
        """The share of those images that is trained on."""
        if self.recipe.epoch_steps is not None:
            return 1.0
        kept, _ = parts(self.data, self.recipe, self.seeds[0])
        return len(kept) / self.data.train_size

    @cached_property
    def runs(self) -> tuple[RunConfig, ...]:
        """The runs, seed by seed, so that an interrupted study has as many whole comparisons as possible."""
        data, weights = describe_data(self.data), {seed: self.start(seed) for seed in self.seeds}
        seed = next(iter(self.seeds), 0)
        codes = {name: identity_of(build, seed, name) for name, build in self.networks.items()}
        return tuple(
            RunConfig(variant, seed, self.recipe, data, weights[seed], numerics(self.recipe, code), code)
            for seed in self.seeds
            for variant in self.variants
            for code in [codes.get(variant.network)]
        )

    def build(self, variant: Variant, seed: int, *, stem: str | None = None) -> nn.Module:
        """Build a variant's network for this data, on the CPU.

        A whitening layer is made from training images of the seed, unless weights from a file have one.

        Args: stem: of a segmentation network whose weights are loaded afterwards (see `variants.build.build`).

        Raises: ValueError for a segmentation network where images have one class each and the other way round, and as
        `variants.build.build`.
        """
        if not variant.custom and (variant.network in SEGMENTATION) != (self.data.task == "segmentation"):
            does, has, other = (
                ("says of every pixel what it shows", "one class for an image", "classification network such as R18")
                if variant.network in SEGMENTATION
                else ("has one answer for an image", "a class for every pixel", "segmentation network such as FCN-R18")
            )
            raise ValueError(f"{variant.network} {does}, and {self.data.name} has {has}; take a {other}")
        fixed = [block for block in variant.sr_blocks if block.options.resize is None]
        if self.recipe.inference == "whole" and fixed:
            raise ValueError(
                f"--inference whole shows a network scenes of their own size, and the memory of {fixed[0]} belongs to "
                "crops; write resize=bilinear into it, or leave out --inference"
            )
        self._check_starts(variant)
        model = build(
            variant,
            classes=len(self.data.classes),
            channels=self.data.channels,
            image_size=self.size,
            seed=seed,
            pretrained=self.pretrained,
            weights=None if self.weights is None else weights_of(self.weights, seed),
            stem=stem,
            custom=self.networks.get(variant.network),
            task=self.data.task,
            report=warnings.warn,  # Python shows a repeated warning once
        )
        if isinstance(model, Airbench94) and self.weights is None:
            assert isinstance(self.data, ImageData)
            model.whiten(some_training_images(self.data, self.recipe, seed))
        return model

    def start(self, seed: int) -> str | None:
        """Say where training starts, see `RunConfig.weights`."""
        if self.weights is None:
            return "pretrained" if self.pretrained else None
        file = weights_of(self.weights, seed)
        own = OF_SEED if file != self.weights else ""
        return own + hashlib.sha256(file.read_bytes()).hexdigest()

    def _check_starts(self, variant: Variant) -> None:
        for block in (block for block in variant.sr_blocks if block.options.start in WAYS):
            if self.data.task == "segmentation":
                raise ValueError(f"{block} starts from features of images of one class each; for scenes: start=normal")
            if block.options.blocks == 1:
                raise ValueError(f"{block} starts from means of features, and has one memory block; take P=2 or more")
            if block.options.start == "class_means" and block.options.blocks > len(self.data.classes):
                raise ValueError(
                    f"{block} has more memory blocks than {self.data.name} has classes, {len(self.data.classes)}; take "
                    "fewer, or start=kmeans"
                )

    def start_memories(self, model: nn.Module, variant: Variant, seed: int, device: torch.device) -> None:
        """Make the memories that start from features (`start` of a block) from training images of the seed."""
        if any(block.options.start in WAYS for block in variant.sr_blocks):
            assert isinstance(self.data, ImageData)  # `build` refuses scenes
            part = training_part(self.data, self.recipe, seed, device, WHITENED, mixed=True)
            init_memory(model.to(device), part.epoch(0), seed=seed)

    def outline(self, variant: Variant) -> nn.Module:
        """Build a variant's network without memory for its weights; one that needs values is built as it is.

        Raises: ValueError as `build`.
        """
        if not variant.custom:
            with contextlib.suppress(Exception):  # what is wrong with it the other way says better
                return outline(
                    variant, classes=len(self.data.classes), channels=self.data.channels, image_size=self.size
                )
        return self.build(variant, self.seeds[0])

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Sort a network's parameters for the optimizer, see `groups.parameter_groups`."""
        return parameter_groups(model, self.recipe, len(self.data.classes))

    def loaders(self, seed: int, device: torch.device, rank: int = 0, world_size: int = 1) -> Loaders:
        """Split, and put the images on the device, see `loaders.loaders`."""
        return loaders(self.data, self.recipe, seed, device, rank, world_size)


def describe_data(data: ImageData | SceneData) -> dict[str, Any]:
    """Return what a record says of a data set; of a streamed one by what constants it is normalized, too.

    Of scenes the size is what all of them fit into, and their classes have colors.
    """
    more: dict[str, Any] = {}
    if isinstance(data, SceneData):
        more |= {"task": data.task, "colors": [list(color) for color in data.colors], "pixels": list(data.pixels)}
        more["validation"] = None if data.validation is None else len(data.validation)
    if data.streamed:
        mean, std = (MEAN, STD) if isinstance(data, SceneData) else normalization(data.train_images, torch.arange(0))
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


OF_THE_PAPER = ("cifar10", "cifar100", "imagenet", "cityscapes")  # sets that have a recipe there


def recipe_for(
    data: ImageData | SceneData,
    device: torch.device,
    name: str | Recipe = "auto",
    epochs: int | None = None,
    **changes: Any,
) -> Recipe:
    """Resolve a named recipe for a data set and a device; a change to None is none where the recipe must have a value.

    "auto" is the paper's recipe for CIFAR-10, CIFAR-100, ImageNet and Cityscapes, else "short", of scenes "scenes". The
    random crop pads an eighth of the side (4 at 32x32, as the paper; "airbench" half of that), test images are resized
    to 8/7 of it if the recipe resizes them (256 at 224), and only sets whose images may be mirrored are, in testing
    too. "finetune" pads and cuts images under 96 pixels instead of cutting boxes of them. The crop of "scenes" is no
    larger than they are.

    A recipe itself is taken as it is, but for the changes.

    Raises: ValueError for a name or a value that no recipe has, for a recipe of another task, and for a change that
        would do nothing.
    """
    of_scenes = isinstance(data, SceneData)
    if name == "auto":
        name = data.name if data.name in OF_THE_PAPER else "scenes" if of_scenes else "short"
    if isinstance(name, str) and name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; there are: auto, {', '.join(RECIPES)}")
    precision = changes.pop("precision", None) or "auto"
    given = {key: value for key, value in changes.items() if value is not None or key in can_be_none()}
    named = name
    if isinstance(name, str):
        named = RECIPES[name] if "crop" in given else named_recipe(name, data.size)
    assert isinstance(named, Recipe)
    if (given.get("crop", named.crop) == "scene") != of_scenes:
        fitting = ", ".join(key for key, recipe in RECIPES.items() if (recipe.crop == "scene") == of_scenes)
        what = "scenes with a class for every pixel" if of_scenes else "images with one class each"
        said = name if isinstance(name, str) else f"one with crop {name.crop}"
        came = f"{said} with crop {given['crop']}" if "crop" in given else said
        raise ValueError(f"{data.name} is {what}; recipes for those are {fitting}, got {came}")
    fits: dict[str, Any] = {}
    if isinstance(name, str):
        fits = (
            _fit_scenes(data, named, given, device) if isinstance(data, SceneData) else _fit_images(data, named, given)
        )
    elif precision == "auto":
        precision = name.precision
    named = named if epochs is None else named.with_epochs(epochs)
    recipe = replace(named, **(fits | given))
    if given.get("schedule") == "multistep" and not recipe.milestones:
        raise ValueError(
            "the schedule multistep lowers the rate at milestones, and there are none; take another schedule"
        )
    refuse_idle(recipe, [key for key in given if getattr(recipe, key) != fits.get(key, getattr(named, key))])
    if recipe.auto_augment != "none" and data.channels not in COLORS:
        raise ValueError(
            f"{recipe.auto_augment} distorts gray or color images; those of {data.name} have {data.channels} channels"
        )
    recipe = runtime.resolve(recipe, device, precision)
    find_task(data.task, len(data.classes), recipe)  # which knows what it can do
    return recipe


def named_recipe(name: str, size: Sequence[int]) -> Recipe:
    """Return a recipe by its name, for images of a size (H, W): boxes of small ones would show too little."""
    small = SMALL.get(name, {}) if min(size) < IMAGENET_SIDE else {}
    return replace(RECIPES[name], **small)


def _fit_images(data: ImageData, named: Recipe, given: dict[str, Any]) -> dict[str, Any]:
    return {
        "padding": (named.padding or 4) * min(data.size) // 32 if given.get("crop", named.crop) == "padded" else 0,
        "test_resize": named.test_resize and round(named.test_resize / 224 * min(data.size)),
        "flip": named.flip and data.flip,
        "alternating_flip": named.alternating_flip and given.get("flip", data.flip),
        "tta": named.tta if data.flip else "none",
        "auto_augment": named.auto_augment if data.channels in COLORS else "none",
    }


def _fit_scenes(data: SceneData, named: Recipe, given: dict[str, Any], device: torch.device) -> dict[str, Any]:
    assert named.crop_size is not None
    largest = scaled(data.size, given.get("scene_scale", named.scene_scale))
    height, width = (min(sides) for sides in zip(named.crop_size, largest, strict=True))
    return {
        "crop_size": (height, width),
        "sync_batch_norm": named.sync_batch_norm and device.type == "cuda",
    }
