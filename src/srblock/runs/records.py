"""Run records: what a run is, the folder it writes, and reading it back.

A run is one variant, one seed, one recipe, one data set. Its folder is named after all of them, so that the same
question finds the same folder:

    config.json              the run's identity, and where the data was
    metrics.jsonl            a line an epoch
    trainer.safetensors      while unfinished: everything needed to go on
    checkpoint.safetensors   the weights of the selected epoch
    recall.safetensors       for the block: what the report shows of it
    result.json              only when finished, written last
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from srblock.training.recipe import Recipe
from srblock.variants.notation import Variant, parse

NUMERICS = 1
"""Raised when a change to the code changes the numbers of a run: older runs are then not reused."""

NEEDED = ("variant", "seed", "recipe", "data", "test_top1", "best_epoch", "parameters", "environment")


@dataclass(frozen=True)
class RunConfig:
    """The identity of a run.

    Args:
        data: name, fingerprint, classes, image counts and size, as `describe_data` gives them.
        weights: where training starts: None (from scratch), "pretrained", or the SHA-256 of a weights file.
        numerics: of the code that made the run; an older one only where a record of it is read.
    """

    variant: Variant
    seed: int
    recipe: Recipe
    data: dict[str, Any]
    weights: str | None = None
    numerics: int = NUMERICS

    def as_dict(self) -> dict[str, Any]:
        """Return the identity as JSON can hold it."""
        return {
            "variant": str(self.variant),
            "seed": self.seed,
            "recipe": self.recipe.as_dict(),
            "data": self.data,
            "weights": self.weights,
            "numerics": self.numerics,
        }

    @property
    def name(self) -> str:
        """The folder's name: variant and seed to read, a hash of the whole identity to tell runs apart.

        Of the data only the content counts: a folder may be renamed.
        """
        identity = self.as_dict() | {"data": self.data["fingerprint"], "recipe": self.recipe.identity}
        canonical = json.dumps(identity, sort_keys=True).encode()
        words = re.sub(r"[^a-z0-9.]+", "-", str(self.variant).lower().replace("=", "")).strip("-")
        return f"{words[:60].rstrip('-')}-s{self.seed}-{hashlib.sha256(canonical).hexdigest()[:8]}"


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    directory: Path
    result: dict[str, Any]
    metrics: list[dict[str, Any]]
    recall: dict[str, np.ndarray[Any, Any]]

    @property
    def variant(self) -> Variant:
        """The variant, parsed."""
        return parse(self.result["variant"])

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.result["seed"])

    @property
    def test_top1(self) -> float:
        """Top-1 on the test set, in percent, of the epoch selected on validation."""
        return float(self.result["test_top1"])


def finished(directory: Path) -> bool:
    """Tell whether a run's folder holds a result."""
    return (directory / "result.json").exists()


def epochs_done(directory: Path) -> int:
    """Count the finished epochs of a run's folder; 0 if it was never started."""
    history = directory / "metrics.jsonl"
    return history.read_bytes().count(b"\n") if history.exists() else 0


def read_run(directory: Path) -> Run:
    """Read a finished run.

    Raises: FileNotFoundError if it is not finished; ValueError if a file of it is damaged.
    """
    if not finished(directory):
        raise FileNotFoundError(f"{directory} holds no finished run (no result.json); train it first")
    try:
        result = json.loads((directory / "result.json").read_text())
        metrics = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        recall_file = directory / "recall.safetensors"
        recall = load_file(recall_file) if recall_file.exists() else {}
        missing = [key for key in NEEDED if key not in result]
        if missing:
            raise ValueError(f"result.json lacks {', '.join(missing)}")
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ValueError(f"the run in {directory} is damaged ({error}); delete the folder to train it anew") from error
    return Run(directory, result, metrics, recall)
