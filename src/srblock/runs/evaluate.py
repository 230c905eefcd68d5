"""Test a finished run's weights again."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from srblock.data import load_data
from srblock.models.dilated import stem_of
from srblock.runs.records import read_config, read_run
from srblock.runs.study import Study
from srblock.surgery import blocks
from srblock.training import runtime
from srblock.training.checkpoint import CheckpointError
from srblock.training.task import Figure, evaluate
from srblock.training.tasks import find_task
from srblock.variants.weights import read_weights


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
    directory: Path, *, source: str | None = None, device: torch.device, **changes: str | float
) -> Evaluation:
    """Test a run's selected weights again, as its recipe says or in another way.

    Args:
        source: where the data is now; None for where it was. Other data of the same classes warns.
        changes: of the recipe: `tta`, and of scenes `inference` and `scene_scale`. For "whole" the blocks resize.

    Raises: FileNotFoundError if the run is not finished; ValueError if the data has other classes or another size, or
    for a change that the task does not know; CheckpointError if the weights are damaged.
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
    try:
        started = read_config(directory)
        recorded, image_size = started["source"], started["image_size"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"the run in {directory} is damaged (config.json: {error}); delete the folder to train it anew"
        ) from error
    if source is None:
        try:
            data = load_data(recorded, image_size=image_size)
        except ValueError as error:
            raise ValueError(f"the data was {recorded!r}; say where it is now with --data ({error})") from error
    else:
        data = load_data(source, image_size=image_size)
    source = source or recorded
    classes, (channels, height, width) = config.data["classes"], config.data["size"]
    other_size = config.recipe.crop_size is None and (data.channels, *data.size) != (channels, height, width)
    if data.task != config.data.get("task", "classification") or list(data.classes) != classes or other_size:
        raise ValueError(
            f"the run was trained on {len(classes)} classes of {height}x{width} images; {source} has "
            f"{len(data.classes)} classes, {data.size[0]}x{data.size[1]}: name the data it was trained on with --data"
        )
    if data.fingerprint != config.data["fingerprint"]:
        warnings.warn(f"{source} is not the data that the run was trained on (other content)", stacklevel=2)
    study = Study((config.variant,), (config.seed,), data, source, config.recipe)
    weights = directory / "checkpoint.safetensors"
    try:
        state = read_weights(weights)
        model = study.build(config.variant, config.seed, stem=stem_of(state))
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{weights} does not fit {run.variant}: {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{error}; or delete the folder {directory} to train the run anew") from error
    if recipe.inference == "whole":
        for block in blocks(model).values():
            block.options = replace(block.options, resize="bilinear")
    runtime.place(model, recipe, device)
    test = replace(study, recipe=recipe).loaders(config.seed, device).test
    found = evaluate(model, test.epoch(0), task, recipe, device)
    figures = tuple((figure, found[figure.key], run.test[figure.key]) for figure in task.figures)
    return Evaluation(figures, found["loss"])
