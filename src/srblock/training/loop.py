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

from srblock.data import Loader
from srblock.training import checkpoint, distributed, runtime
from srblock.training.files import write_bytes
from srblock.training.metrics import Meter, evaluate
from srblock.training.recipe import Recipe
from srblock.training.schedule import learning_rate
from srblock.training.step import Step

Record = dict[str, Any]
Probe = Callable[[nn.Module], dict[str, float]]


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class Loaders:
    """The three parts of a data set that a run sees."""

    train: Loader
    validation: Loader
    test: Loader


def train(
    model: nn.Module,
    loaders: Loaders,
    recipe: Recipe,
    *,
    directory: Path,
    run: str,
    seed: int,
    device: torch.device,
    probe: Probe | None = None,
    on_epoch: Callable[[Record], None] | None = None,
) -> Record:
    """Train to the last epoch, going on from `directory` if it holds a started run, and test the selected epoch once.

    The epoch best on validation (the first of equals) is selected. Leaves its weights in the model and in
    `directory/checkpoint.safetensors`; every epoch is a line of `directory/metrics.jsonl`. The state to go on from is
    saved after the first epoch and the last, when `on_epoch` raises, and in between as often as it costs little time:
    at most about 5%. A run that goes on from an earlier epoch than the last one recorded repeats those after it.

    Of several processes (see `distributed`) each calls this with the loaders of its own share; all get the result, and
    process 0 alone touches the folder and calls `probe` and `on_epoch`.

    Args:
        run: the run's identity; a trainer state of another run is refused.
        seed: of the model's own randomness (dropout). Order and augmentation belong to the loaders.
        probe: called after each validation; its figures are recorded with the epoch.
        on_epoch: called with each finished epoch's record, those of an earlier start included.

    Raises: TrainingDiverged, naming the epoch; CheckpointError; OSError if the folder cannot be written; ValueError
    for a recipe that the device or the number of processes does not allow; distributed.Ended in the other processes
    if process 0 raised.
    """
    runtime.place(model, recipe, device)
    optimizer = sgd(model, recipe, device)
    torch.manual_seed(seed)
    state, saver = _resume(model, optimizer, directory / "trainer.safetensors", run, device)
    step = Step(distributed.wrap(model, recipe, device), optimizer, recipe, device)
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
        record = _epoch(step, loaders, epoch)
        if probe is not None:
            record["probe"] = distributed.on_rank0(partial(_ask, probe, model))
            _check_finite(record["probe"], epoch, recipe)
        if epoch == 0 or record["validation_top1"] > max(past["validation_top1"] for past in state.metrics):
            state.best = checkpoint.copy_weights(model)
        state.metrics.append(record)
        distributed.on_rank0(record_epoch)
    return _finish(model, loaders, recipe, state, directory, device)


def _resume(
    model: nn.Module, optimizer: torch.optim.Optimizer, file: Path, run: str, device: torch.device
) -> tuple[checkpoint.TrainerState, checkpoint.Saver]:
    """Put model, optimizer and random state where an earlier start left them, if there was one."""
    saved = distributed.on_rank0(lambda: checkpoint.read_trainer(file, run) if file.exists() else None)
    if saved is not None:
        checkpoint.restore(saved, model, optimizer, device)
    state = checkpoint.TrainerState([], {}) if saved is None else saved.state
    return state, checkpoint.Saver(file, run, model, optimizer, device)


def _tell(
    history: Path, state: checkpoint.TrainerState, on_epoch: Callable[[Record], None] | None, records: list[Record]
) -> None:
    """Write all epochs, and tell of some."""
    write_bytes(history, "".join(json.dumps(record, allow_nan=False) + "\n" for record in state.metrics).encode())
    for record in records:
        if on_epoch is not None:
            on_epoch(record)


def sgd(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.SGD:
    """Return the recipe's optimizer; the rate is set at every step."""
    return torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=device.type in ("cuda", "cpu"),
    )


def train_epoch(step: Step, loader: Loader, epoch: int, *, batches: int | None = None) -> Meter:
    """Train for one epoch (counted from 0), or its first `batches`, and return the sums over them."""
    step.start(epoch / (step.recipe.epochs - 1) if step.recipe.epochs > 1 else 1.0)
    sizes = loader.batch_sizes()
    for number, (images, labels) in enumerate(islice(loader.epoch(epoch), batches)):
        rate = learning_rate(step.recipe, epoch + number / len(sizes))
        step(images, labels, rate, distributed.loss_scale(len(labels), sizes[number]))
    return step.meter


def _epoch(step: Step, loaders: Loaders, epoch: int) -> Record:
    recipe, device = step.recipe, step.device
    start = runtime.now(device)
    loss, top1 = train_epoch(step, loaders.train, epoch).read()
    _check_finite({"training loss": loss}, epoch, recipe)
    trained = runtime.now(device)
    distributed.share_buffers(step.model)
    network = distributed.unwrap(step.inference)
    validation_loss, validation_top1 = evaluate(network, loaders.validation.epoch(0), recipe, device)
    _check_finite({"validation loss": validation_loss}, epoch, recipe)
    done = runtime.now(device)
    return {
        "epoch": epoch + 1,
        "lr": learning_rate(recipe, epoch + (len(loaders.train) - 1) / len(loaders.train)),
        "train_loss": loss,
        "train_top1": top1,
        "validation_loss": validation_loss,
        "validation_top1": validation_top1,
        "train_seconds": trained - start,
        "seconds": done - start,
    }


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
    recipe: Recipe,
    state: checkpoint.TrainerState,
    directory: Path,
    device: torch.device,
) -> Record:
    """Test the last and the selected epoch; the selected one is the result."""
    _, last_top1 = evaluate(model, loaders.test.epoch(0), recipe, device)
    model.load_state_dict(state.best)
    loss, top1 = evaluate(model, loaders.test.epoch(0), recipe, device)
    _check_finite({"test loss": loss}, recipe.epochs - 1, recipe)
    distributed.on_rank0(lambda: checkpoint.save_weights(directory / "checkpoint.safetensors", state.best))
    best = max(state.metrics, key=lambda record: float(record["validation_top1"]))  # the first of equals
    train_s = median(record["train_seconds"] for record in state.metrics)
    validation_s = median(record["seconds"] - record["train_seconds"] for record in state.metrics)
    return {
        "test_top1": top1,
        "test_loss": loss,
        "best_epoch": best["epoch"],
        "validation_top1": best["validation_top1"],
        "last_test_top1": last_top1,
        "last_validation_top1": state.metrics[-1]["validation_top1"],
        "train_ms_per_image": 1e3 * train_s / loaders.train.images_per_epoch,
        "eval_ms_per_image": 1e3 * validation_s / loaders.validation.images_per_epoch,
        "wall_s": sum(record["seconds"] for record in state.metrics),
    }
