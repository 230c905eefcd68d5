"""The training loop: every variant runs through these lines, with the block or without."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from srblock.data import Batches
from srblock.training import checkpoint, distributed, epochs, runtime
from srblock.training.average import Average, average_of, showing
from srblock.training.files import write_bytes
from srblock.training.optimizer import Groups, freeze, make_optimizer
from srblock.training.predictions import Predictions
from srblock.training.recipe import Recipe
from srblock.training.schedule import learning_rate
from srblock.training.step import Step
from srblock.training.task import Task, evaluate, measure

Record = dict[str, Any]
Probe = Callable[[nn.Module], dict[str, float]]


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class Loaders:
    """The parts of a data set that a run sees; no validation if all images are trained on."""

    train: Batches
    validation: Batches | None
    test: Batches


def train(
    model: nn.Module,
    loaders: Loaders,
    task: Task,
    recipe: Recipe,
    *,
    directory: Path,
    run: str,
    seed: int,
    device: torch.device,
    groups: Groups | None = None,
    header: dict[str, str] | None = None,
    probe: Probe | None = None,
    on_epoch: Callable[[Record], None] | None = None,
) -> Record:
    """Train to the last epoch, going on from `directory` if it holds a started run, and test the selected epoch once.

    The epoch best on validation by the task's first figure (the first of equals) is selected, without validation the
    last. Leaves its weights in the model and in `directory/checkpoint.safetensors`, and what it said of each test image
    in `directory/predictions.safetensors` (not of scenes); every epoch is a line of `directory/metrics.jsonl`. The
    state to go on from is saved after the first epoch and the last, when `on_epoch` raises, and in between as often as
    it costs little time: at most about 5%. A run that goes on from an earlier epoch than the last one recorded repeats
    those after it.

    Of several processes (see `distributed`) each calls this with the loaders of its own share; all get the result, and
    process 0 alone touches the folder and calls `probe` and `on_epoch`.

    Args:
        run: the run's identity; a trainer state of another run is refused.
        seed: of the model's own randomness (dropout). Order and augmentation belong to the loaders.
        groups: sorts the parameters into groups with a rate and a decay of their own; None for one group.
        header: what is to stand in the header of `checkpoint.safetensors`.
        probe: called after each epoch; its figures are recorded with the epoch.
        on_epoch: called with each finished epoch's record, those of an earlier start included.

    Raises: TrainingDiverged, naming the epoch; CheckpointError; OSError if the folder cannot be written; ValueError
    for a recipe that the device or the number of processes does not allow; distributed.Ended in the other processes
    if process 0 raised.
    """
    runtime.place(model, recipe, device)
    optimizer = make_optimizer(model, recipe, device, groups)
    torch.manual_seed(seed)
    average = average_of(model, recipe)
    state, saver = _resume(model, optimizer, average, directory / "trainer.safetensors", run, task, recipe, device)
    freeze(optimizer, state.epoch)
    step = Step(distributed.wrap(model, recipe, device), optimizer, task, recipe, device, average)
    tell = partial(_tell, directory / "metrics.jsonl", state, on_epoch)

    def record_epoch() -> None:
        if state.epoch == recipe.epochs or saver.due():
            saver.save(state)
        try:
            tell(state.metrics[-1:])
        except BaseException:  # a caller who stops here loses nothing
            saver.save(state)
            raise

    distributed.on_rank0(lambda: tell(state.metrics))
    for epoch in range(state.epoch, recipe.epochs):
        distributed.reseed(seed, epoch)
        if freeze(optimizer, epoch):  # a new one, as what is compiled, recorded or reduced belongs to the old gradients
            del step
            step = Step(distributed.wrap(model, recipe, device), optimizer, task, recipe, device, average)
        record = _epoch(step, loaders, epoch)
        with showing(average):
            if probe is not None:
                record["probe"] = distributed.on_rank0(partial(_ask, probe, model))
                _check_finite(record["probe"], epoch, recipe)
            state.metrics.append(record)
            if _best(state.metrics, task) is record:
                state.best = checkpoint.copy_weights(model)
        distributed.on_rank0(record_epoch)
    with showing(average):
        last_test = evaluate(model, loaders.test.epoch(0), task, recipe, device)
    return _finish(model, loaders, task, recipe, state, last_test, directory, header, device)


def _resume(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    file: Path,
    run: str,
    task: Task,
    recipe: Recipe,
    device: torch.device,
) -> tuple[checkpoint.TrainerState, checkpoint.Saver]:
    """Put model, optimizer and random state where an earlier start left them, if there was one."""
    saved = distributed.on_rank0(
        lambda: checkpoint.read_trainer(file, run, recipe.epochs, task.figures) if file.exists() else None
    )
    if saved is not None:
        checkpoint.restore(saved, model, optimizer, device, average)
    state = checkpoint.TrainerState([], {}) if saved is None else saved.state
    return state, checkpoint.Saver(file, run, model, optimizer, device, average)


def _tell(
    history: Path, state: checkpoint.TrainerState, on_epoch: Callable[[Record], None] | None, records: list[Record]
) -> None:
    """Write all epochs, and tell of some."""
    write_bytes(history, "".join(json.dumps(record, allow_nan=False) + "\n" for record in state.metrics).encode())
    for record in records:
        if on_epoch is not None:
            on_epoch(record)


def train_epoch(step: Step, loader: Batches, epoch: int, *, batches: int | None = None) -> int:
    """Train for one epoch (counted from 0), or its first `batches`, and return on how many images; `step` has the sums.

    The images are those of all processes.
    """
    recipe, seen = step.recipe, 0
    step.start(epoch / (recipe.epochs - 1) if recipe.epochs > 1 else 1.0)
    steps = epochs.steps(recipe, loader)
    for number, (images, target, size) in enumerate(islice(epochs.serve(recipe, loader, epoch), batches)):
        step(images, target, learning_rate(recipe, epoch + number / steps), distributed.loss_scale(len(target), size))
        if step.average is not None:
            step.average.follow(epoch * steps + number + 1, recipe.epochs * steps)
        seen += size
    return seen


def _epoch(step: Step, loaders: Loaders, epoch: int) -> Record:
    recipe, device = step.recipe, step.device
    start = runtime.now(device)
    train_epoch(step, loaders.train, epoch)
    figures = _of("train", step.meter.read())
    _check_finite({"training loss": figures["train_loss"]}, epoch, recipe)
    trained = runtime.now(device)
    distributed.share_buffers(step.model)
    with showing(step.average):
        if step.average is not None:
            distributed.share_buffers(step.model)  # which are other ones now
        if loaders.validation is not None:
            network = distributed.unwrap(step.inference)
            figures |= _of("validation", evaluate(network, loaders.validation.epoch(0), step.task, recipe, device))
            _check_finite({"validation loss": figures["validation_loss"]}, epoch, recipe)
    done = runtime.now(device)
    steps = epochs.steps(recipe, loaders.train)
    return {
        "epoch": epoch + 1,
        "lr": learning_rate(recipe, epoch + (steps - 1) / steps),
        **figures,
        "train_seconds": trained - start,
        "seconds": done - start,
    }


def _of(part: str, figures: dict[str, float]) -> dict[str, float]:
    """Name figures as records do."""
    return {f"{part}_{key}": value for key, value in figures.items()}


def _best(records: list[Record], task: Task) -> Record:
    """Return the record of the epoch best on validation by the task's first figure, the first of equals.

    Without validation the last.
    """
    figure = task.figures[0]
    if f"validation_{figure.key}" not in records[-1]:
        return records[-1]
    return (max if figure.larger_is_better else min)(records, key=lambda record: record[f"validation_{figure.key}"])


def _ask(probe: Probe, model: nn.Module) -> dict[str, float]:
    with torch.no_grad():
        return probe(model)


def _check_finite(figures: dict[str, float], epoch: int, recipe: Recipe) -> None:
    for name, value in figures.items():
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"the {name} became {value} in epoch {epoch + 1} of {recipe.epochs}; the epochs before are kept. "
                "Try a lower learning rate, a warm-up or --clip-norm 1"
            )


def _finish(
    model: nn.Module,
    loaders: Loaders,
    task: Task,
    recipe: Recipe,
    state: checkpoint.TrainerState,
    last_test: dict[str, float],
    directory: Path,
    header: dict[str, str] | None,
    device: torch.device,
) -> Record:
    """Test the selected epoch, which is the result, and put it together with the last one's test."""
    model.load_state_dict(state.best)
    start = runtime.now(device)
    predictions = Predictions(loaders.test, device) if task.figures[0].per_image else None
    meter = measure(model, loaders.test.epoch(0), task, recipe, device, predictions)
    test, details = meter.read(), meter.details()
    test_s = runtime.now(device) - start
    _check_finite({"test loss": test["loss"]}, recipe.epochs - 1, recipe)
    distributed.on_rank0(lambda: checkpoint.save_weights(directory / "checkpoint.safetensors", state.best, header))
    if predictions is not None:
        said = predictions.read()
        distributed.on_rank0(lambda: checkpoint.save_weights(directory / "predictions.safetensors", said))
    best, last = _best(state.metrics, task), state.metrics[-1]
    keys = [] if loaders.validation is None else [figure.key for figure in task.figures]
    train_s = median(
        record["train_seconds"] / epochs.images_in(recipe, loaders.train, epoch)
        for epoch, record in enumerate(state.metrics)
    )
    tested = loaders.test if loaders.validation is None else loaders.validation
    eval_s = test_s if loaders.validation is None else median(r["seconds"] - r["train_seconds"] for r in state.metrics)
    return {
        **_of("test", test),
        **details,
        "best_epoch": best["epoch"],
        **{f"validation_{key}": best[f"validation_{key}"] for key in keys},
        **{f"last_test_{figure.key}": last_test[figure.key] for figure in task.figures},
        **{f"last_validation_{key}": last[f"validation_{key}"] for key in keys},
        "train_ms_per_image": 1e3 * train_s,
        "eval_ms_per_image": 1e3 * eval_s / tested.images_per_epoch,
        "wall_s": sum(record["seconds"] for record in state.metrics),
    }
