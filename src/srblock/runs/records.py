"""Run records: what a run is, the folder it writes, and reading it back.

A run is one variant, one seed, one recipe, one data set. Its folder is named after all of them, so that the same
question finds the same folder:

    config.json              the run's identity, and where the data was
    metrics.jsonl            a line an epoch
    trainer.safetensors      while unfinished: everything needed to go on
    checkpoint.safetensors   the weights of the selected epoch
    predictions.safetensors  not of a segmentation: what was said of each test image
    recall.safetensors       for the block: what the report shows of it
    scenes.safetensors       of a segmentation: what the report shows of some scenes
    result.json              only when finished, written last
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from srblock.runs.arrays import check_answers, check_recall, check_scenes, load_arrays
from srblock.runs.schema import CHECKPOINT_SHA256, check_identity, check_run
from srblock.training.fields import is_whole, read_json, require
from srblock.training.recipe import Recipe
from srblock.training.task import Figure
from srblock.training.tasks import figures
from srblock.variants.notation import Variant, parse

NUMERICS = 1
"""Raised when a change to the code changes the numbers of a run: older runs are then not reused."""

NEEDED = ("variant", "seed", "recipe", "data", "best_epoch", "parameters", "overhead_percent", "environment")
LOSS = "loss"
OF_SEED = "seed:"  # before the SHA-256 of weights that a seed has for itself


@dataclass(frozen=True)
class RunConfig:
    """The identity of a run.

    Args:
        data: name, fingerprint, classes, image counts and size, as `describe_data` gives them.
        weights: where training starts: None (from scratch), "pretrained", or the SHA-256 of a weights file, which
            stands after `OF_SEED` if the file is for this seed alone.
        numerics: of the code that made the run; an older one only where a record of it is read.
        code: of a network of the user's own what tells it from others, see `variants.custom.identity_of`.
    """

    variant: Variant
    seed: int
    recipe: Recipe
    data: dict[str, Any]
    weights: str | None = None
    numerics: int = NUMERICS
    code: dict[str, str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the identity as JSON can hold it."""
        return {
            "variant": str(self.variant),
            "seed": self.seed,
            "recipe": self.recipe.as_dict(),
            "data": self.data,
            "weights": self.weights,
            "numerics": self.numerics,
            **({} if self.code is None else {"code": self.code}),
        }

    @property
    def start(self) -> str | None:
        """What runs of one study have in common of `weights`: files by seed differ, and are `OF_SEED`."""
        return OF_SEED if self.weights is not None and self.weights.startswith(OF_SEED) else self.weights

    @cached_property
    def study(self) -> str:
        """What the runs of one study have in common, as text: images, recipe, starting weights, numerics."""
        return json.dumps([self.data["fingerprint"], self.recipe.identity, self.start, self.numerics], sort_keys=True)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What is measured; records of before tasks had names are of classification."""
        return figures(self.data.get("task", "classification"))

    @staticmethod
    def from_dict(values: dict[str, Any]) -> RunConfig:
        """Read an identity from a record, a config.json or a result.json; other entries are left alone.

        Raises: ValueError for a field of another kind than it has, and for a variant or a recipe that this version does
        not know; KeyError for a missing entry.
        """
        check_identity(values)
        return RunConfig(
            parse(values["variant"]),
            values["seed"],
            Recipe.from_dict(values["recipe"]),
            values["data"],
            values.get("weights"),
            values.get("numerics", NUMERICS),
            values.get("code"),
        )

    @cached_property
    def name(self) -> str:
        """The folder's name: variant and seed to read, a hash of the whole identity to tell runs apart.

        Of the data only the content counts: a folder may be renamed.
        """
        identity = self.as_dict() | {"data": self.data["fingerprint"], "recipe": self.recipe.identity}
        canonical = json.dumps(identity, sort_keys=True).encode()
        words = re.sub(r"[^a-z0-9.]+", "-", str(self.variant).lower().replace("=", "")).strip("-")
        return f"{words[:60].rstrip('-')}-s{self.seed}-{hashlib.sha256(canonical).hexdigest()[:8]}"


def numerics(recipe: Recipe, code: dict[str, str] | None = None) -> int:
    """Return the number that stands for what this version computes by a recipe, and by a function of the user's own.

    One more where 0.2.0 computed otherwise: in bfloat16 blocks were evaluated with memories of earlier epochs, class
    weights went wrong with smoothed labels, frozen epochs changed some norms, and a moving average went wrong in
    networks with one tensor under two names.
    """
    other = recipe.precision == "bfloat16" or recipe.class_weights != "none" or recipe.freeze_epochs > 0
    return NUMERICS + (other or (recipe.ema is not None and code is not None))


def check_of_one_make(configs: Iterable[RunConfig]) -> None:
    """Refuse runs that go by one name in a study and are not alike.

    Raises: ValueError if a network was built by different code for different runs, or the variants of a seed were
        trained on from different weights.
    """
    codes: dict[str, dict[str, str] | None] = {}
    weights: dict[int, str | None] = {}
    for config in configs:
        if codes.setdefault(config.variant.network, config.code) != config.code:
            raise ValueError(
                f"{config.variant.network} was built by different code for different runs, so these are of two "
                "networks; keep those of one, or train the others anew"
            )
        if weights.setdefault(config.seed, config.weights) != config.weights:
            raise ValueError(
                f"runs of seed {config.seed} start from different weights and cannot be compared; keep those that "
                "start from the same"
            )


NOT_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network said of each test image, and what is true: numbers of classes, in the order of the test part.

    Shapes: said, true (N,), integers.
    """

    said: np.ndarray[Any, Any]
    true: np.ndarray[Any, Any]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answers):
            return NotImplemented
        return np.array_equal(self.said, other.said) and np.array_equal(self.true, other.true)

    __hash__ = None  # type: ignore[assignment] # as arrays have none


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run, read from its folder or from its record.

    Attributes:
        config: what it is.
        test, validation: the figures of the epoch selected on validation by their keys, such as "top1"; percent. If all
            images were trained on, `validation` is {} and the selected epoch is the last.
        last_test, last_validation: the same of the last epoch.
        test_loss: of the selected epoch.
        best_epoch: the one selected, from 1.
        parameters, overhead_percent: of the whole network, and of the SR blocks over the network without them.
        flops_per_image, train_ms_per_image, eval_ms_per_image, wall_s: None where they were not recorded.
        checkpoint_sha256: of checkpoint.safetensors as the run left it; None where it was not recorded.
        environment: device, threads, versions, commit.
        metrics: what every epoch recorded.
        controls: of a network with blocks, its figures under each control (`inspection.controls`); {} without.
        recalled: of each block figures of its recall over the test images (`inspection.recall.recall_figures`); {}
            without.
        confusion: of a segmentation, test pixels by their class and what was said; None without.
        recall: what the report shows of each block; {} without.
        answers: of the selected epoch, as its figures were measured; None of scenes, and where they were not recorded.
    """

    directory: Path
    config: RunConfig
    test: dict[str, float]
    validation: dict[str, float]
    last_test: dict[str, float]
    last_validation: dict[str, float]
    test_loss: float | None
    best_epoch: int
    parameters: int
    overhead_percent: float
    flops_per_image: int | None
    train_ms_per_image: float | None
    eval_ms_per_image: float | None
    wall_s: float | None
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    controls: dict[str, dict[str, float]]
    recalled: dict[str, dict[str, float]]
    confusion: list[list[int]] | None
    recall: dict[str, np.ndarray[Any, Any]]
    answers: Answers | None = None
    checkpoint_sha256: str | None = None

    def __repr__(self) -> str:
        """Say in a line which run it is, its test figures in percent, and where it lies."""
        figures = ", ".join(f"{key} {value:.2f}" for key, value in self.test.items())
        return f"<Run {self.variant}, seed {self.seed}: test {figures}; {self.directory}>"

    @staticmethod
    def from_result(
        directory: Path,
        result: dict[str, Any],
        metrics: list[dict[str, Any]],
        recall: dict[str, np.ndarray[Any, Any]],
        answers: Answers | None = None,
    ) -> Run:
        """Read what result.json holds.

        Raises: ValueError or KeyError if something is missing, out of range, or contradicts the rest.
        """
        require(isinstance(result, dict), "result.json", result, "fields by name")
        if missing := [key for key in NEEDED if key not in result]:
            raise ValueError(f"result.json lacks {', '.join(missing)}")
        check_run(result, metrics)
        return Run(
            directory,
            RunConfig.from_dict(result),
            test=_figures(result, "test_"),
            validation=_figures(result, "validation_"),
            last_test=_figures(result, "last_test_"),
            last_validation=_figures(result, "last_validation_"),
            test_loss=result.get("test_loss"),
            best_epoch=int(result["best_epoch"]),
            parameters=int(result["parameters"]),
            overhead_percent=float(result["overhead_percent"]),
            flops_per_image=result.get("flops_per_image"),
            train_ms_per_image=result.get("train_ms_per_image"),
            eval_ms_per_image=result.get("eval_ms_per_image"),
            wall_s=result.get("wall_s"),
            environment=result["environment"],
            metrics=metrics,
            controls=result.get("controls", {}),
            recalled=result.get("recall", {}),
            confusion=result.get("confusion"),
            recall=recall,
            answers=answers,
            checkpoint_sha256=result.get(CHECKPOINT_SHA256),
        )

    @property
    def variant(self) -> Variant:
        """The variant."""
        return self.config.variant

    @property
    def seed(self) -> int:
        """The seed."""
        return self.config.seed

    @property
    def figure(self) -> Figure:
        """The figure that selects and is compared, the first of the task's."""
        return self.config.figures[0]

    @property
    def score(self) -> float:
        """That figure on the test set, in percent, of the epoch selected on validation."""
        return self.test[self.figure.key]

    @property
    def validation_score(self) -> float | None:
        """The figure that selected the epoch; None if all images were trained on and the last epoch counts."""
        return self.validation.get(self.figure.key)

    @property
    def last_score(self) -> float:
        """The same figure on the test set, of the last epoch."""
        return self.last_test[self.figure.key]


def _figures(result: dict[str, Any], part: str) -> dict[str, float]:
    """Collect the figures of one part of a result, in its order."""
    named = {key.removeprefix(part): value for key, value in result.items() if key.startswith(part)}
    return {key: float(value) for key, value in named.items() if key != LOSS}


def finished(directory: Path) -> bool:
    """Tell whether a run's folder holds a result."""
    return (directory / "result.json").exists()


def read_scenes(directory: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read what the report shows of some scenes; {} of a run that has none (see `inspection.scenes`).

    Raises: ValueError if the file is damaged.
    """
    file = directory / "scenes.safetensors"
    try:
        found = load_arrays(file) if file.exists() else {}
        check_scenes(found)
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}); delete it, the report then lacks its pictures") from error
    return found


def epochs_done(directory: Path) -> int:
    """Count the finished epochs of a run's folder; 0 if it was never started."""
    history = directory / "metrics.jsonl"
    return history.read_bytes().count(b"\n") if history.exists() else 0


def read_run(directory: Path) -> Run:
    """Read a finished run.

    Raises: FileNotFoundError if it is not finished; ValueError if a file of it is damaged; OSError if the disk does not
        give one, which says nothing of the run.
    """
    if not finished(directory):
        raise FileNotFoundError(f"{directory} holds no finished run (no result.json); train it first")
    try:
        recall_file = directory / "recall.safetensors"
        recall = load_arrays(recall_file) if recall_file.exists() else {}
        result, metrics = read_result(directory), read_metrics(directory)
        run = Run.from_result(directory, result, metrics, recall, _read_answers(directory))
        if recall_file.exists():
            check_recall(recall, result, metrics)
        if run.answers is not None:
            check_answers(run.answers.said, run.answers.true, result)
    except (*NOT_THERE, ValueError, KeyError) as error:
        raise damaged(directory, error) from error
    except OSError as error:
        raise OSError(
            error.errno,
            f"the run in {directory} cannot be read ({error.strerror or error}); it may be whole: give the same "
            "command again",
        ) from error
    return run


def damaged(directory: Path, error: object) -> ValueError:
    """Say that a run's folder cannot be believed, why, and what to do."""
    said = f"it lacks {error}" if isinstance(error, KeyError) else error
    return ValueError(f"the run in {directory} is damaged ({said}); delete the folder to train it anew")


def _read_answers(directory: Path) -> Answers | None:
    """Read what a run said of the test images; None of a segmentation, and of runs made before this was recorded."""
    file = directory / "predictions.safetensors"
    if not file.exists():
        return None
    stored = load_arrays(file)
    return Answers(stored["predictions"], stored["labels"])


def read_result(directory: Path) -> dict[str, Any]:
    """Read a finished run's result.json as it is.

    Raises: OSError or ValueError if that is not possible.
    """
    result: dict[str, Any] = read_json((directory / "result.json").read_bytes())
    return result


def read_config(directory: Path) -> dict[str, Any]:
    """Read a run's config.json as it is: its identity, "source", "image_size", "environment", "input".

    Raises: OSError or ValueError if that is not possible; KeyError for an identity that lacks something.
    """
    config: dict[str, Any] = read_json((directory / "config.json").read_bytes())
    check_identity(config)
    source, size, environment = config.get("source", ""), config.get("image_size"), config.get("environment", {})
    require(isinstance(source, str), "source", source, "a text")
    require(size is None or is_whole(size, 1, 2**31), "image_size", size, "a side in pixels, or null")
    require(isinstance(environment, dict), "environment", environment, "fields by name")
    return config


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """Read the finished epochs of a run.

    Raises: OSError or ValueError if that is not possible.
    """
    return [read_json(line) for line in (directory / "metrics.jsonl").read_bytes().splitlines()]
