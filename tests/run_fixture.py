"""Finished run folders with believable figures, for tests of everything that reads runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from srblock.runs.records import Run, RunConfig, read_run
from srblock.training.recipe import RECIPES, Recipe
from srblock.variants.notation import parse

BASELINE, WITH_SR = "R8", "R8 + SR(M=3, P=8)"
DIGITS = tuple("0123456789")


def write_runs(
    out: Path,
    variants: Sequence[str] = (BASELINE, WITH_SR),
    seeds: Sequence[int] = (0, 1, 2),
    **changes: Any,
) -> list[Run]:
    """Write finished runs as a study does, seed by seed, and read them back; `changes` as in `write_run`."""
    return [write_run(out, variant, seed, **changes) for seed in seeds for variant in variants]


def write_run(
    out: Path,
    variant: str,
    seed: int,
    *,
    test_top1: float | None = None,
    epochs: int = 20,
    classes: Sequence[str] = DIGITS,
    size: tuple[int, int] = (2, 2),
    recall: bool = True,
    variation: float = 0.02,
    spread: float = 0.3,
    environment: dict[str, Any] | None = None,
    controls: dict[str, dict[str, float]] | None = None,
) -> Run:
    """Write one finished run under `out/runs` and read it back.

    Args:
        test_top1: drawn near 98 unless given.
        size: (H, W) of the memory.
        recall: whether recall.safetensors is written for variants with SR.
        variation: how strongly recall weights differ between classes and images.
        controls: of a variant with SR, as `inspection.controls` gives them.
        spread: how far the memory maps lie from their mean, relative to it.
    """
    parsed = parse(variant)
    random = np.random.default_rng([seed, *variant.encode()])
    config = RunConfig(parsed, seed, Recipe(epochs=epochs), describe(classes))
    directory = out / "runs" / config.name
    directory.mkdir(parents=True)
    metrics = learning_curve(
        random, epochs, {"layer3/memory_rms": 0.01, "layer3/memory_spread": spread} if parsed.sr_blocks else {}
    )
    (directory / "config.json").write_text(json.dumps({**config.as_dict(), "source": "digits"}))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    best = max(metrics, key=lambda record: record["validation_top1"])
    top1 = float(np.round(98 + random.normal(0, 0.4), 3)) if test_top1 is None else test_top1
    result = {
        "test_top1": top1,
        "test_loss": 0.07,
        "best_epoch": best["epoch"],
        "validation_top1": best["validation_top1"],
        "last_test_top1": top1 - 0.25,
        "last_validation_top1": metrics[-1]["validation_top1"],
        "parameters": 75_290 + 2_224 * len(parsed.sr_blocks),
        "overhead_percent": 100 * 2_224 * len(parsed.sr_blocks) / 75_290,
        "flops_per_image": 1_600_000 + 5_000 * len(parsed.sr_blocks),
        "train_ms_per_image": float(0.42 + 0.02 * len(parsed.sr_blocks) + random.uniform(0, 0.01)),
        "eval_ms_per_image": float(0.12 + 0.01 * len(parsed.sr_blocks)),
        "wall_s": sum(record["seconds"] for record in metrics),
        "environment": {
            "device": "CPU Example 9000",
            "threads": 2,
            "python": "3.11.9",
            "srblock": "0.1.0",
            "torch": "2.15.0",
            "commit": "0123456789ab",
            **(environment or {}),
        },
    }
    if controls is not None and parsed.sr_blocks:
        result["controls"] = controls
    if recall and parsed.sr_blocks:
        save_file(
            recall_figures(random, len(config.data["classes"]), parsed.sr_blocks[0].options.blocks, size, variation),
            directory / "recall.safetensors",
        )
    (directory / "result.json").write_text(json.dumps(config.as_dict() | result))
    return read_run(directory)


def of_scenes(run: Run, miou: float, macc: float) -> Run:
    """Return a run as if it had been of Cityscapes, with these figures on the test set."""
    data = {"name": "cityscapes", "task": "segmentation", "classes": [f"class {number}" for number in range(19)],
            "fingerprint": "ef" * 32, "train": 2_975, "test": 500, "size": [3, 1024, 2048]}  # fmt: skip
    config = replace(run.config, data=data, recipe=RECIPES["cityscapes"])
    figures = {"miou": miou, "macc": macc}
    last = {"miou": miou - 1, "macc": macc - 2}
    return replace(run, config=config, test=figures, validation=figures, last_test=last, last_validation=last)


def describe(classes: Sequence[str] = DIGITS) -> dict[str, Any]:
    """Describe a data set as records do."""
    return {
        "name": "digits",
        "fingerprint": "ab" * 32,
        "classes": list(classes),
        "train": 1437,
        "test": 360,
        "size": [1, 8, 8],
    }


def learning_curve(random: np.random.Generator, epochs: int, probe: dict[str, float]) -> list[dict[str, Any]]:
    """Draw metrics.jsonl: accuracies that rise from chance and level off."""
    share = np.arange(1, epochs + 1) / epochs
    rise = 98 - 80 * np.exp(-6 * share) + random.normal(0, 1.2, epochs) * (1.1 - share)
    return [
        {
            "epoch": epoch + 1,
            "lr": 0.1 * (1 - epoch / epochs),
            "train_loss": float(2.2 * np.exp(-4 * share[epoch]) + 0.03),
            "train_top1": float(min(100, rise[epoch] + 1)),
            "validation_loss": float(2.0 * np.exp(-4 * share[epoch]) + 0.06),
            "validation_top1": float(min(100, rise[epoch])),
            "train_seconds": 0.5,
            "seconds": 0.6,
            "probe": probe,
        }
        for epoch in range(epochs)
    ]


def recall_figures(
    random: np.random.Generator, classes: int, blocks: int, size: tuple[int, int], variation: float
) -> dict[str, np.ndarray[Any, Any]]:
    """Draw recall.safetensors for one block named layer3: weights near a mean, and smooth memory maps."""
    mean = random.dirichlet([30.0] * blocks)
    class_mean = np.clip(mean + random.normal(0, variation, (classes, blocks)), 1e-3, None)
    class_mean /= class_mean.sum(1, keepdims=True)
    rows, columns = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
    slopes = random.normal(0, 0.01, (3, blocks, 1, 1))
    figures = {
        "layer3/class_mean": class_mean,
        "layer3/class_std": np.full((classes, blocks), variation),
        "layer3/mean": class_mean.mean(0),
        "layer3/std": np.hypot(class_mean.std(0), variation),
        "layer3/memory": slopes[0] + slopes[1] * rows + slopes[2] * columns,
    }
    return {name: values.astype(np.float32) for name, values in figures.items()}
