"""What a finished run may say of itself: one schema for run folders and for published records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from srblock.training.fields import TOP, is_number, is_percent, is_text, is_whole, require
from srblock.training.history import check_history
from srblock.training.recipe import Recipe
from srblock.training.task import Figure
from srblock.training.tasks import TASKS, figures

MANY = 10**15  # pixels that a confusion matrix counts, at most
CHECKPOINT_SHA256 = "checkpoint_sha256"  # of runs since 2026-11-25
SHA256 = re.compile(r"[0-9a-f]{64}")
PARTS = ("test", "validation", "last_test", "last_validation")
COUNTS = ("parameters", "flops_per_image")
TIMES = ("train_ms_per_image", "eval_ms_per_image", "wall_s")


def check_identity(values: Any) -> None:
    """Check what says which run it is: variant, seed, recipe, data, weights, numerics, code.

    Raises: ValueError naming the field, what came and what was expected; KeyError for a missing one.
    """
    require(isinstance(values, dict), "the run", values, "fields by name")
    require(is_text(values["variant"]), "variant", values["variant"], 'a text such as "R18 + SR(M=3, P=10)"')
    require(is_whole(values["seed"]), "seed", values["seed"], "a whole number from 0 to 2^63 - 1")
    require(isinstance(values["recipe"], dict), "recipe", values["recipe"], "fields by name")
    _check_data(values["data"])
    weights, numerics, code = values.get("weights"), values.get("numerics", 0), values.get("code")
    require(weights is None or is_text(weights), "weights", weights, '"pretrained", the SHA-256 of a file, or null')
    require(is_whole(numerics), "numerics", numerics, "a whole number")
    known = code is None or (isinstance(code, dict) and all(map(is_text, code.values())))
    require(known, "code", code, "texts by name")


def _check_data(data: Any) -> None:
    require(isinstance(data, dict), "data", data, "fields by name")
    for key in ("name", "fingerprint"):
        require(is_text(data.get(key)), f"data {key}", data.get(key), "a text")
    task, classes, size = data.get("task", "classification"), data.get("classes"), data.get("size")
    require(isinstance(task, str) and task in TASKS, "data task", task, " or ".join(TASKS))
    named = isinstance(classes, list) and bool(classes) and all(isinstance(name, str) for name in classes)
    require(named, "data classes", classes, "a list of names")
    for key in ("train", "test"):
        require(is_whole(data.get(key), 1), f"data {key}", data.get(key), "how many images, 1 or more")
    sides = isinstance(size, list) and len(size) == 3 and all(is_whole(side, 1, 2**31) for side in size)
    require(sides, "data size", size, "channels, height and width, each 1 or more")
    if "colors" in data:
        colors = data["colors"]
        fit = isinstance(colors, list) and len(colors) == len(classes) and all(map(_is_color, colors))
        require(fit, "data colors", colors, "red, green and blue of each class, 0 to 255")
    if "pixels" in data:
        pixels = data["pixels"]
        fit = isinstance(pixels, list) and len(pixels) >= len(classes) and all(map(is_whole, pixels))
        require(fit, "data pixels", pixels, "how many pixels each class has")


def _is_color(color: object) -> bool:
    return isinstance(color, list) and len(color) == 3 and all(is_whole(value, 0, 256) for value in color)


def check_run(result: Any, metrics: Any) -> None:
    """Check a result and the records of its epochs: identity, figures in range, all epochs, and that they agree.

    Raises: ValueError naming the field, what came and what was expected; KeyError for a missing entry of the identity.
    """
    check_identity(result)
    recipe, data = Recipe.from_dict(result["recipe"]), result["data"]
    known = figures(data.get("task", "classification"))
    scenes = data.get("task") == "segmentation"
    require((recipe.crop_size is not None) == scenes, "recipe crop_size", recipe.crop_size, "a size for scenes alone")
    if isinstance(metrics, list) and metrics and len(metrics) != recipe.epochs:
        raise ValueError(f"it has {len(metrics)} epochs, its recipe {recipe.epochs}: not a whole run")
    validated = check_history(metrics, known)
    _check_figures(result, known, validated)
    best = result["best_epoch"]
    require(is_whole(best, 1, recipe.epochs + 1), "best_epoch", best, f"1 to {recipe.epochs}")
    for part, epoch in (("validation", best), ("last_validation", recipe.epochs)) if validated else ():
        for figure in known:
            name, then = f"{part}_{figure.key}", metrics[epoch - 1][f"validation_{figure.key}"]
            require(result[name] == then, name, result[name], f"{then}, as epoch {epoch} says")
    _check_costs(result)
    _check_environment(result["environment"])
    _check_blocks(result, known)
    if result.get("confusion") is not None:
        _check_confusion(result["confusion"], data)


def _check_figures(result: dict[str, Any], known: Sequence[Figure], validated: bool) -> None:
    for part in PARTS if validated else ("test", "last_test"):
        for figure in known:
            name = f"{part}_{figure.key}"
            require(is_percent(result.get(name)), name, result.get(name), "a share in percent, 0 to 100")
    for key, value in result.items():
        part = next((part for part in PARTS if key.startswith(f"{part}_")), "")
        if part:
            figure_key = key.removeprefix(f"{part}_")
            if figure_key == "loss":
                require(value is None or is_number(value), key, value, "a finite number")
                continue
            fit = figure_key in {figure.key for figure in known} and (validated or "validation" not in part)
            require(fit, key, value, "no such figure of this run")


def _check_costs(result: dict[str, Any]) -> None:
    for key in COUNTS:
        value = result.get(key)
        require((value is None and key != "parameters") or is_whole(value), key, value, "a whole number from 0")
    for key in TIMES:
        value = result.get(key)
        require(value is None or (is_number(value) and value >= 0), key, value, "a number, not below 0")
    value = result["overhead_percent"]
    require(is_number(value) and value >= 0, "overhead_percent", value, "a number, not below 0")
    value = result.get(CHECKPOINT_SHA256)
    fit = value is None or (isinstance(value, str) and SHA256.fullmatch(value) is not None)
    require(fit, CHECKPOINT_SHA256, value, "64 hexadecimal digits")


def _check_environment(environment: Any) -> None:
    require(isinstance(environment, dict), "environment", environment, "fields by name")
    require(is_text(environment.get("device")), "environment device", environment.get("device"), "a text")
    for key in ("threads", "processes"):
        value = environment.get(key, 1 if key == "processes" else None)
        require(is_whole(value, 1, 10**6), f"environment {key}", value, "a whole number from 1")
    for key, value in environment.items():
        inner = list(value.values()) if isinstance(value, dict) else [value]
        plain = all(one is None or isinstance(one, str | bool) or is_number(one) for one in inner)
        require(plain, f"environment {key}", value, "a text or a number")


def _check_blocks(result: dict[str, Any], known: Sequence[Figure]) -> None:
    """Check what is recorded of a network's blocks: figures of their recall, and the network under controls."""
    for part in ("recall", "controls"):
        value = result.get(part, {})
        whole = isinstance(value, dict) and all(
            isinstance(inner, dict) and all(map(is_number, inner.values())) for inner in value.values()
        )
        require(whole, part, value, "numbers by name, by name")
    found = result.get("controls", {})
    require(not found or "intact" in found, "controls", list(found), "intact among them")
    for name, inner in found.items():
        for figure in known:
            value = inner.get(figure.key)
            require(is_percent(value), f"controls {name} {figure.key}", value, "a share in percent, 0 to 100")


def _check_confusion(confusion: Any, data: dict[str, Any]) -> None:
    classes = len(data["classes"])
    square = isinstance(confusion, list) and len(confusion) == classes
    fit = square and all(
        isinstance(row, list) and len(row) == classes and all(is_whole(count, 0, MANY) for count in row)
        for row in confusion
    )
    require(fit, "confusion", confusion, f"{classes} rows of {classes} counts of pixels")
    require(sum(map(sum, confusion)) in range(1, TOP), "confusion", confusion, "a pixel or more in all")
    require("colors" in data and "pixels" in data, "data", sorted(data), "colors and pixels where there is confusion")
