"""The options of the command that trains a run again, found from its record."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from typing import Any

from srblock.data.sources import SOURCES
from srblock.data.sources.scenes import SCENE_SOURCES
from srblock.runs.records import OF_SEED, RunConfig
from srblock.runs.study import named_recipe
from srblock.training.recipe import RECIPES, Recipe

# Fields that no option sets: a recipe has them, or the device decides.
WITHOUT_OPTION = ("milestones", "gamma", "warmup_epochs", "memory_format")
NONE = ("clip_norm", "norm_weight_decay", "epoch_steps", "test_resize")  # whose option may be "none"
OPTIONS = {"learning_rate": "lr", "lr_scales": "lr-scale"}  # others are called as the field


@dataclass(frozen=True)
class Again:
    """How a run is trained again.

    Attributes:
        options: after `srblock train VARIANT --seed S` or `srblock compare ...`; PATH and FILE stand for what only its
            owner knows.
        unsaid: what no option can say, in words.
    """

    options: str
    unsaid: tuple[str, ...]


def again(config: RunConfig, started: dict[str, Any]) -> Again:
    """Find the options that give a run's recipe, from the named recipe that is nearest to it.

    Args:
        started: the run's config.json, for the name of its data and the size that images were resized to.
    """
    found = [_from(name, config) for name, named in RECIPES.items() if (named.crop == "scene") == _of_scenes(config)]
    words, unsaid = min(found, key=lambda pair: (len(pair[1]), len(pair[0])))
    data = ["--data", _place(started.get("source", ""))]
    if started.get("image_size") is not None:
        data += ["--image-size", str(started["image_size"])]
    if config.weights == "pretrained":
        words = [*words, "--pretrained"]
    elif config.weights is not None:
        digest = config.weights.removeprefix(OF_SEED)
        file = "FILE" if digest == config.weights else "FILE{seed}"
        words, unsaid = [*words, "--weights", file], [*unsaid, f"FILE has the SHA-256 {digest}"]
    return Again(shlex.join([*data, *words]), tuple(unsaid))


def _from(name: str, config: RunConfig) -> tuple[list[str], list[str]]:
    """Return the options that turn a named recipe into a run's, and the fields that none can change."""
    recipe = config.recipe
    named = named_recipe(name, config.data["size"][1:]).with_epochs(recipe.epochs)
    fitted = _fitted(named, recipe)
    words, unsaid = ["--recipe", name, "--epochs", str(recipe.epochs), "--precision", recipe.precision], []
    for field in (field.name for field in fields(Recipe)):
        value = getattr(recipe, field)
        if field in ("epochs", "precision") or (value == getattr(named, field) and field not in fitted):
            continue
        if field in WITHOUT_OPTION or (value is None and field not in NONE):
            unsaid.append(f"{field} was {value}, and {name} has {getattr(named, field)}")
        else:
            words += _option(field, value)
    return words, unsaid


def _fitted(named: Recipe, recipe: Recipe) -> set[str]:
    """Name the fields that `study.recipe_for` fits to the data, so that they must be said."""
    may_be = {
        "padding": recipe.crop == "padded",
        "test_resize": recipe.test_resize is not None or named.test_resize is not None,
        "flip": named.crop != "scene" and (named.flip or recipe.flip),
        "alternating_flip": named.alternating_flip,
        "tta": named.tta != "none",
        "auto_augment": named.auto_augment != "none",
        "crop_size": named.crop == "scene",
        "sync_batch_norm": named.sync_batch_norm,
    }
    return {field for field, fits in may_be.items() if fits}


def _option(field: str, value: object) -> list[str]:
    name = OPTIONS.get(field, field).replace("_", "-")
    match value:
        case None:
            return [f"--{name}", "none"]
        case bool():
            return [f"--{name}" if value else f"--no-{name}"]
        case tuple() if field == "crop_size":
            return [f"--{name}", "x".join(map(str, value))]
        case tuple() if field == "lr_scales":
            return [word for text in value for word in (f"--{name}", text)]
        case tuple():
            return [f"--{name}", *map(str, value)]
    return [f"--{name}", str(value)]


def _of_scenes(config: RunConfig) -> bool:
    return config.recipe.crop_size is not None


def _place(source: str) -> str:
    """Name the data without the place where it lay."""
    name, colon, _ = source.partition(":")
    if name in (*SOURCES, *SCENE_SOURCES):
        return f"{name}:PATH" if colon else name
    return "PATH"
