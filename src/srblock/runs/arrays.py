"""The arrays that lie beside a result, checked against it: recall, answers to the test images, pictures of scenes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from srblock.training.fields import require
from srblock.variants.notation import parse

Array = np.ndarray[Any, Any]
RECALL = ("class_mean", "class_std", "mean", "std", "memory")
MEMORY = "memory_rms"  # what every epoch records of each block
ROUNDED = 1e-3  # percent; an image of a million is a tenth of it


def load_arrays(file: Path) -> dict[str, Array]:
    """Read a safetensors file.

    Raises: OSError if there is none; ValueError, naming it, if it is no whole one or has numbers that NumPy has not.
    """
    try:
        return load_file(file)
    except (SafetensorError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file.name}: {error}") from error


def check_recall(recall: Mapping[str, Array], result: Mapping[str, Any], metrics: list[dict[str, Any]]) -> None:
    """Check what `inspection.recall.summarize_recall` wrote: the run's blocks, all whole and of one P each.

    Raises: ValueError naming what is missing or has another shape.
    """
    file, classes = "recall.safetensors", len(result["data"]["classes"])
    parts = {tuple(key.rpartition("/")[::2]) for key in recall}
    names = sorted({name for name, _ in parts})
    probe = metrics[-1].get("probe", {})
    known = result.get("recall") or [key.removesuffix(f"/{MEMORY}") for key in probe if key.endswith(f"/{MEMORY}")]
    require(not known or names == sorted(known), f"{file} blocks", names, ", ".join(sorted(known)))
    require(parts == {(name, part) for name in names for part in RECALL}, file, sorted(recall), f"{RECALL} by block")
    variant = parse(result["variant"])
    allowed = set() if variant.custom else {block.options.blocks for block in variant.sr_blocks}
    for name in names:
        memory = recall[f"{name}/memory"]
        require(memory.ndim == 3 and memory.size > 0, f"{file} {name}/memory", memory.shape, "(P, H, W)")
        blocks = memory.shape[0]
        require(not allowed or blocks in allowed, f"{file} {name}/memory", memory.shape, f"P of {result['variant']}")
        for part in RECALL:
            found, per_class = recall[f"{name}/{part}"], part.startswith("class_")
            shape = memory.shape if part == "memory" else (classes, blocks) if per_class else (blocks,)
            require(found.shape == shape, f"{file} {name}/{part}", found.shape, f"the shape {shape}")
            require(found.dtype.kind == "f", f"{file} {name}/{part}", found.dtype, "floating-point numbers")
            whole = bool(np.isfinite(found).all()) or (per_class and not np.isinf(found).any())
            require(whole, f"{file} {name}/{part}", "not finite", "finite numbers")


def check_answers(said: Array, true: Array, result: Mapping[str, Any]) -> None:
    """Check what a network said of each test image: as many as there are, of known classes, as right as recorded.

    Raises: ValueError naming what came and what was expected.
    """
    file, data = "predictions.safetensors", result["data"]
    for name, values in (("predictions", said), ("labels", true)):
        require(values.shape == (data["test"],), f"{file} {name}", values.shape, f"the shape ({data['test']},)")
        require(values.dtype.kind in "iu", f"{file} {name}", values.dtype, "whole numbers")
        fit = int(values.min()) >= 0 and int(values.max()) < len(data["classes"])
        require(fit, f"{file} {name}", int(values.max()), f"numbers of {len(data['classes'])} classes")
    right = 100 * float(np.mean(said == true))
    if "test_top1" in result:
        fit = abs(right - result["test_top1"]) < ROUNDED
        require(fit, "test_top1", result["test_top1"], f"{right:.6g}, as {file} says")


def check_scenes(scenes: Mapping[str, Array]) -> None:
    """Check what `inspection.scenes.picture_scenes` wrote: of each scene image, truth and what was said, of one size.

    Raises: ValueError naming what is missing or has another shape.
    """
    for number in sorted({key.partition("/")[0] for key in scenes}):
        require(number.isdecimal() and number.isascii(), "a scene", number, "a number")
        lacking = [part for part in ("image", "truth", "said") if f"{number}/{part}" not in scenes]
        require(not lacking, f"scene {number}", lacking, "image, truth and said")
        image, truth, said = (scenes[f"{number}/{part}"] for part in ("image", "truth", "said"))
        require(truth.ndim == 2 and truth.size > 0, f"{number}/truth", truth.shape, "(height, width)")
        require(said.shape == truth.shape, f"{number}/said", said.shape, f"the shape {truth.shape}")
        require(image.shape == (3, *truth.shape), f"{number}/image", image.shape, f"the shape {(3, *truth.shape)}")
        for part in (image, truth, said):
            require(part.dtype == np.uint8, f"scene {number}", part.dtype, "uint8")
    for key, weights in scenes.items():
        if key.partition("/")[2].startswith("recall/"):
            fit = weights.ndim == 1 and weights.dtype.kind == "f" and bool(np.isfinite(weights).all())
            require(fit, key, weights.shape, "finite recall weights (P,)")
