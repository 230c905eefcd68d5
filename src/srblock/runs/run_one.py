"""Train one run under its lock and say how it ended; in a worker, with its output in a log of its own."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from srblock.data import Batches, ImageData, SceneData
from srblock.inspection.cost import count_parameters
from srblock.inspection.inspect import inspect_model
from srblock.inspection.recall import memory_probe
from srblock.runs.events import Events
from srblock.runs.input import Input, describe_input
from srblock.runs.log import output_to
from srblock.runs.outcome import Outcome, outcome_of
from srblock.runs.records import Run, RunConfig, damaged, finished, read_config, read_run
from srblock.runs.schema import CHECKPOINT_SHA256
from srblock.runs.seal import WEIGHTS, is_sealed, seal_of
from srblock.runs.study import Study
from srblock.training import distributed, runtime
from srblock.training.files import write_json
from srblock.training.loop import Probe, Record, TrainingDiverged, train
from srblock.training.task import Task
from srblock.variants.identity import identity_of

PANIC = "PanicException"  # of libraries in Rust, no Exception and importable from nowhere
Inspect = Callable[[nn.Module, Batches, Path, ImageData | SceneData, Task], dict[str, Any]]


@dataclass(frozen=True)
class Work:
    """What all runs of a study need besides their identity.

    Args:
        out: runs are folders of `out/runs`.
        probe: called on the model after each epoch; its figures are recorded (see `training.loop.train`).
        inspect: called once on the selected model with the test loader, the run's folder, the data and the task; what
            it returns is recorded in the result. Both must be picklable unless runs are trained in this process.
        tensorboard: write event files for TensorBoard too (see `events`).
    """

    study: Study
    out: Path
    probe: Probe = memory_probe
    inspect: Inspect = inspect_model
    tensorboard: bool = False

    def folder(self, config: RunConfig) -> Path:
        """Name a run's folder."""
        return self.out / "runs" / config.name


class Paused(BaseException):
    """Raised by an `on_epoch`: the run goes on another time. No Exception, which would be the run's failure."""


def train_one(
    work: Work,
    config: RunConfig,
    device: torch.device,
    *,
    on_start: Callable[[], None] | None = None,
    on_epoch: Callable[[Record], None] | None = None,
    log: bool = False,
) -> Outcome:
    """Train one run, go on with it, or find it done. Exceptions become an outcome, with the traceback in the log.

    Args:
        on_start: called once the run is locked, unless it is found done.
        on_epoch: called with each epoch's record, those of an earlier start included. If it raises Paused, the run is
            saved and "paused".
        log: put what this process prints and warns of into `log.txt` of the run's folder meanwhile.
    """
    directory = work.folder(config)
    lock = FileLock(directory / ".lock")
    try:
        if not distributed.on_rank0(lambda: _acquire(lock, directory)):
            return Outcome("busy")
    except OSError as error:
        return outcome_of(error, directory)
    logged: contextlib.AbstractContextManager[list[str]]
    logged = output_to(directory) if log else contextlib.nullcontext([])
    events = Events(directory) if work.tensorboard else None

    def tell(record: Record) -> None:
        if events is not None:
            events(record)
        if on_epoch is not None:
            on_epoch(record)

    try:
        with logged as warned:
            try:
                _train(work, config, directory, device, on_start, tell)
                outcome = Outcome("done")
            except Paused:
                outcome = Outcome("paused")
            except BaseException as error:
                if not isinstance(error, Exception) and type(error).__name__ != PANIC:
                    raise
                if distributed.world_size() > 1 and not isinstance(error, TrainingDiverged):
                    raise  # the other processes may wait for this one in mid-step
                outcome = outcome_of(error, directory)
        return replace(outcome, warnings=tuple(warned))
    finally:
        if events is not None:
            events.close()
        lock.release()


def make_folder(path: Path) -> Path:
    """Make a folder and its parents.

    Raises: OSError, saying what to do, if that is not allowed or a file is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot make the folder {path}: {error.strerror}; choose a writable one with --out"
        ) from error
    if not os.access(path, os.W_OK):
        raise PermissionError(f"cannot write into {path}; choose a writable folder with --out")
    return path


def reuse(directory: Path, config: RunConfig, here: dict[str, Any] | None) -> Run:
    """Read a finished run; warn if it was made under other conditions than `here`, unless that is None.

    Raises: ValueError if it is damaged, is another run than the one asked for, or has other weights than it was
    finished with. (Runs made before 2026-11-25 do not say which those were.)
    """
    run = read_run(directory)
    if run.config.name != config.name:
        raise damaged(directory, f"result.json is of the run {run.config.name}, expected {config.name}")
    if not is_sealed(run):
        raise damaged(directory, f"{WEIGHTS} is not the file that the run was finished with, by its SHA-256")
    if here is not None:
        beside = _library_of(config) if config.weights == "pretrained" else ()
        warn_if_elsewhere(config, "is reused but was made", run.environment, here, beside)
    (directory / "trainer.safetensors").unlink(missing_ok=True)  # of a process killed just before
    return run


def warn_if_elsewhere(
    config: RunConfig, what: str, there: dict[str, Any], here: dict[str, Any], beside: Sequence[str] = ()
) -> bool:
    """Warn if a found run was made under conditions that may change its numbers; tell whether it was."""
    differing = runtime.differences(there, here, blocks=bool(config.variant.sr_blocks), beside=beside)
    if differing:
        text = f"{config.name} {what} with {', '.join(differing)}; use another --out to train it anew"
        warnings.warn(text, stacklevel=2)
    return bool(differing)


def _library_of(config: RunConfig) -> tuple[str, ...]:
    """Name the library that decides which published weights a network starts from."""
    return ("timm",) if config.variant.network.startswith("timm/") else ("torchvision",)


def _acquire(lock: FileLock, directory: Path) -> bool:
    make_folder(directory)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    except OSError as error:
        raise OSError(error.errno, f"cannot lock {lock.lock_file}: {locking_failed(error)}") from error
    return True


def locking_failed(error: OSError) -> str:
    """Say what is wrong with the file of a lock, and what to do."""
    if isinstance(error, (IsADirectoryError, PermissionError)) and Path(error.filename or "").is_dir():
        return "a folder is in the place of that file; move it away"
    return f"{error.strerror or error}; make its folder writable, or name another one with --out"


def _train(
    work: Work,
    config: RunConfig,
    directory: Path,
    device: torch.device,
    on_start: Callable[[], None] | None,
    on_epoch: Callable[[Record], None],
) -> None:
    runtime.keep_freed_memory(device)
    runtime.exact_float32()
    study, here = work.study, runtime.environment(device)
    if distributed.on_rank0(lambda: _found(config, directory, here)):
        return
    if on_start is not None:
        on_start()
    model = study.build(config.variant, config.seed)
    study.start_memories(model, config.variant, config.seed, device)
    _refuse_another(study, config)
    loaders = study.loaders(config.seed, device, distributed.rank(), distributed.world_size())
    given = describe_input(config.variant, study.data, config.recipe, loaders.test)
    distributed.on_rank0(lambda: _prepare(study, config, given, directory, here))
    parameters, overhead_percent = count_parameters(model)
    result = train(
        model,
        loaders,
        study.task,
        config.recipe,
        directory=directory,
        run=config.name,
        seed=config.seed,
        device=device,
        groups=study.groups,
        header=given.header,
        probe=work.probe,
        on_epoch=on_epoch,
    )
    result |= {"parameters": parameters, "overhead_percent": overhead_percent}

    def finish() -> None:
        whole = loaders if distributed.world_size() == 1 else study.loaders(config.seed, device)
        found = work.inspect(model, whole.test, directory, study.data, study.task)
        environment = {"environment": here | {"peak_memory_mb": runtime.peak_memory_mb()}}
        weights = {CHECKPOINT_SHA256: seal_of(directory)}
        write_json(directory / "result.json", config.as_dict() | result | found | weights | environment)
        (directory / "trainer.safetensors").unlink(missing_ok=True)

    distributed.on_rank0(finish)


def _refuse_another(study: Study, config: RunConfig) -> None:
    """Refuse weights or a user's function that are no longer what the run is known by, or build for a seed alone."""
    if study.weights is not None and study.start(config.seed) != config.weights:
        raise ValueError(f"the weights file for seed {config.seed} has changed since the study began; start it anew")
    if config.code is None:
        return
    name = config.variant.network
    found = identity_of(study.networks[name], config.seed, name)
    if found["source"] != config.code["source"]:
        raise ValueError(f"the source of {name} has changed since the study began; give the command again")
    if found != config.code:
        raise ValueError(f"{name} builds another network for seed {config.seed} than for seed {study.seeds[0]}")


def _found(config: RunConfig, directory: Path, here: dict[str, Any]) -> bool:
    if finished(directory):
        reuse(directory, config, here)
        return True
    return False


def _prepare(study: Study, config: RunConfig, given: Input, directory: Path, here: dict[str, Any]) -> None:
    """Write what the run is; note in `here` if it was started elsewhere."""
    for scrap in directory.glob(".*.tmp"):  # of a process killed while writing; the lock is ours
        if not scrap.is_dir():  # which whoever writes in its place will name
            scrap.unlink()
    started = _started_on(directory)
    if started is not None:
        moved = warn_if_elsewhere(config, "goes on but was started", started, here, runtime.CODE)
        if "started_on" in started:  # in a session before the last
            here["started_on"] = started["started_on"]
        elif moved:
            here["started_on"] = {key: started.get(key) for key in (*runtime.DECISIVE, *runtime.CODE)}
    where = {"source": study.source, "image_size": study.image_size, "environment": here}
    write_json(directory / "config.json", config.as_dict() | {"input": given.as_dict()} | where)


def _started_on(directory: Path) -> dict[str, Any] | None:
    """Read on what a half-finished run was started; None for a new one."""
    if not (directory / "trainer.safetensors").exists():
        return None
    try:
        environment = read_config(directory)["environment"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the trainer's state itself is checked when it is loaded
    return environment if isinstance(environment, dict) else None
