"""Test a finished run's weights again."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from srblock.data import ImageData, SceneData
from srblock.runs.loaders import normalized_as_trained
from srblock.runs.records import Run, read_run
from srblock.runs.reopen import reopen
from srblock.runs.seal import WEIGHTS, is_sealed
from srblock.surgery import blocks
from srblock.training import runtime
from srblock.training.task import Figure, evaluate
from srblock.training.tasks import find_task
from srblock.variants.custom import Build

CLOSE = 0.1  # points that another machine's last bits may move a figure by


@dataclass(frozen=True)
class Evaluation:
    """A run's selected weights on the test set, now and when they were trained.

    Attributes:
        figures: each of the task's with its value now and then, in percent.
        loss: now.
    """

    figures: tuple[tuple[Figure, float, float], ...]
    loss: float

    @property
    def value(self) -> float:
        """The first figure now."""
        return self.figures[0][1]

    @property
    def recorded(self) -> float:
        """The first figure then."""
        return self.figures[0][2]


def evaluate_run(
    directory: Path,
    *,
    source: str | ImageData | SceneData | None = None,
    build: Build | str | None = None,
    device: torch.device,
    **changes: str | float,
) -> Evaluation:
    """Test a run's selected weights again, as its recipe says or in another way.

    Weights that are not those which the run was finished with, and figures that are not those it recorded, warn.

    Args:
        source: the data, or where it is now; None for where it was. Other data of the same classes warns.
        build: of a network of the user's own the function that builds it.
        changes: of the recipe: `tta`, and of scenes `inference` and `scene_scale`. For "whole" the blocks resize.

    Raises: as `reopen`, and ValueError for a change that the task does not know, and for figures that are no numbers.
    """
    run = read_run(directory)
    config = run.config
    scenes = sorted(changes.keys() - {"tta"})
    if scenes and config.recipe.crop_size is None:
        raise ValueError(
            f"{', '.join(scenes)} is for scenes, and the run's data has one class for an image; leave it out"
        )
    recipe = replace(config.recipe, **changes)  # type: ignore[arg-type]
    task = find_task(config.data.get("task", "classification"), len(config.data["classes"]), recipe)
    _, study, model = reopen(directory, source=source, build=build)
    if recipe.inference == "whole":
        for block in blocks(model).values():
            block.options = replace(block.options, resize="bilinear")
    runtime.place(model, recipe, device)
    test = replace(study, recipe=recipe).loaders(config.seed, device).test
    if study.data.fingerprint != config.data["fingerprint"]:
        test = normalized_as_trained(test, directory / WEIGHTS)
    found = evaluate(model, test.epoch(0), task, recipe, device)
    for key, value in found.items():
        if not math.isfinite(value):
            raise ValueError(
                f"the test {key} of {directory} became {value}: its {WEIGHTS} holds no usable network; put a whole "
                "copy in its place, or delete the folder to train the run anew"
            )
    figures = tuple((figure, found[figure.key], run.test[figure.key]) for figure in task.figures)
    if is_sealed(run) and not changes and study.data.fingerprint == config.data["fingerprint"]:
        _warn_of_others(run, figures)
    return Evaluation(figures, found["loss"])


def _warn_of_others(run: Run, figures: tuple[tuple[Figure, float, float], ...]) -> None:
    """Warn of figures that the same weights on the same images should not give."""
    for figure, now, then in figures:
        image = 100 / int(run.config.data["test"]) if figure.per_image else 0.0
        if abs(now - then) > max(CLOSE, 1.5 * image):
            warnings.warn(
                f"test {figure.label} is {now:.2f}% now and {then:.2f}% in the record of {run.directory}: its weights "
                "or its result.json were changed, or this machine computes otherwise",
                stacklevel=3,
            )
