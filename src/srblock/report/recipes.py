"""A recipe in words: its fields, in what it is not the paper's, from which weights it starts."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from srblock.runs.records import OF_SEED, Run
from srblock.training.ranges import BELONGS
from srblock.training.recipe import LATER, Recipe

OFF: dict[str, Any] = {"nesterov": False, "warmup_epochs": 0, "label_smoothing": 0.0, "clip_norm": None, "padding": 0}
"""Fields of the first version at the values that leave them out of training; the later ones' are `recipe.LATER`."""
SETTINGS = ("power", "end_lr", "ratios", "class_share", "inference")  # whose value there is one like any other
OF_THE_DEVICE = ("precision", "memory_format", "engine")  # fields that the paper says nothing about


def describe(recipe: Recipe) -> str:
    """List the fields that make a recipe what it is: "epochs 6, batch_size 128, ..."."""
    return ", ".join(f"{name} {value(getattr(recipe, name))}" for name in recipe.identity)


def applying(recipe: Recipe) -> dict[str, Any]:
    """Return the fields that have a part in training, as JSON holds them, in their order."""
    off = OFF | {name: value for name, value in LATER.items() if name not in SETTINGS}
    return {
        name: value
        for name, value in recipe.as_dict().items()
        if (name not in BELONGS or BELONGS[name][1](recipe)) and (name not in off or value != off[name])
    }


def departures(recipe: Recipe, full: Recipe, name: str) -> list[str]:
    """List the fields in which a recipe is not another: "epochs 6 (full: 200)".

    Args: name of the other one.
    """
    return [
        f"{field.name} {value(getattr(recipe, field.name))} ({name}: {value(getattr(full, field.name))})"
        for field in fields(Recipe)
        if field.name not in OF_THE_DEVICE and getattr(recipe, field.name) != getattr(full, field.name)
    ]


def value(of_field: object) -> str:
    """Print the value of a field."""
    match of_field:
        case None:
            return "none"
        case bool():
            return "yes" if of_field else "no"
        case tuple() | list():
            return " ".join(map(str, of_field)) or "none"
    return str(of_field)


def selected(run: Run) -> str:
    """Say which epoch of a run counts, and why: "validation 69.30%, epoch 8"."""
    if run.validation_score is None:
        return f"epoch {run.best_epoch}, the last; all images trained on, none held out"
    return f"validation {run.validation_score:.2f}%, epoch {run.best_epoch}"


def selection(held_out: bool) -> str:
    """Say of which epoch figures are, whether images were held out to select it or not."""
    return "the epoch selected on validation" if held_out else "the last epoch, trained on all images"


def start(weights: str | None) -> str:
    """Say where training starts (`RunConfig.weights`)."""
    match weights:
        case None:
            return "from random weights"
        case "pretrained":
            return "from the library's trained weights"
        case str() if weights.startswith(OF_SEED):
            return "from trained weights, of each seed its own"
    return f"from a file of weights, {weights[:12]}…"
