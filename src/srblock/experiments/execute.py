"""Run a study one run after another: interrupted and repeated at will, by several processes at once."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from torch import nn

from srblock.data import Loader
from srblock.experiments.records import Run, RunConfig, finished, read_run
from srblock.experiments.study import Study
from srblock.surgery import blocks
from srblock.training import runtime
from srblock.training.files import write_json
from srblock.training.loop import Probe, TrainingDiverged, train

Inspect = Callable[[nn.Module, Loader, Path], dict[str, Any]]


class Progress(Protocol):
    """What wants to know how a study goes."""

    def started(self, run: RunConfig) -> None:
        """A run starts, or goes on."""

    def epoch(self, run: RunConfig, record: dict[str, Any]) -> None:
        """An epoch is done, in this session or an earlier one."""

    def finished(self, run: RunConfig, result: dict[str, Any]) -> None:
        """A run has its result, found or made."""

    def failed(self, run: RunConfig, error: Exception) -> None:
        """A run ended without a result; the others go on."""

    def waiting(self, run: RunConfig) -> None:
        """Another process is at this run; its result is waited for."""


def run_study(
    study: Study,
    out: Path,
    *,
    device: torch.device,
    progress: Progress,
    probe: Probe | None = None,
    inspect: Inspect | None = None,
) -> list[Run]:
    """Run what is not finished yet and return all finished runs in the study's order.

    Several processes may work on the same study: each run is locked while it is trained. A run that diverges is
    reported and left out; the others go on.

    Args:
        out: runs are folders of `out/runs`.
        probe: called on the model after each epoch; its figures are recorded (see `training.loop.train`).
        inspect: called once on the selected model with the test loader and the run's folder; what it returns is
            recorded in the result.
    """
    pending: list[RunConfig] = study.runs()
    done: dict[str, Run] = {}
    while pending:
        busy = []
        for config in pending:
            directory = make_folder(out / "runs" / config.name)
            try:
                with FileLock(directory / ".lock", blocking=False):
                    run = _one(study, config, directory, device, progress, probe, inspect)
            except Timeout:
                busy.append(config)
                continue
            if run is not None:
                done[config.name] = run
        if len(busy) == len(pending):
            progress.waiting(busy[0])
            time.sleep(1)
        pending = busy
    return [done[config.name] for config in study.runs() if config.name in done]


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


def _one(
    study: Study,
    config: RunConfig,
    directory: Path,
    device: torch.device,
    progress: Progress,
    probe: Probe | None,
    inspect: Inspect | None,
) -> Run | None:
    """Train one run, or find it done; None if it diverged."""
    here = runtime.environment(device)
    if finished(directory):
        run = read_run(directory)
        _warn_if_elsewhere(config, "is reused but was made", run.result["environment"], here)
        (directory / "trainer.safetensors").unlink(missing_ok=True)  # of a process killed just before
        progress.finished(config, run.result)
        return run
    progress.started(config)
    model = study.build(config.variant, config.seed)
    for scrap in directory.glob(".*.tmp"):  # of a process killed while writing; the lock is ours
        scrap.unlink()
    started = _started_on(directory)
    if started is not None and _warn_if_elsewhere(config, "goes on but was started", started, here):
        here["started_on"] = {key: started.get(key) for key in runtime.DECISIVE}
    where = {"source": study.source, "image_size": study.image_size, "environment": here}
    write_json(directory / "config.json", config.as_dict() | where)
    parameters = sum(p.numel() for p in model.parameters())
    added = sum(p.numel() for block in blocks(model).values() for p in block.parameters())
    loaders = study.loaders(config.seed, device)
    try:
        result = train(
            model,
            loaders,
            config.recipe,
            directory=directory,
            run=config.name,
            seed=config.seed,
            device=device,
            probe=probe,
            on_epoch=lambda record: progress.epoch(config, record),
        )
    except TrainingDiverged as error:
        progress.failed(config, error)
        return None
    result |= {"parameters": parameters, "overhead_percent": 100 * added / (parameters - added)}
    if inspect is not None:
        result |= inspect(model, loaders.test, directory)
    result |= {"environment": here | {"peak_memory_mb": runtime.peak_memory_mb()}}
    write_json(directory / "result.json", config.as_dict() | result)
    (directory / "trainer.safetensors").unlink(missing_ok=True)
    run = read_run(directory)
    progress.finished(config, run.result)
    return run


def _started_on(directory: Path) -> dict[str, Any] | None:
    """Read on what a half-finished run was started; None for a new one."""
    if not (directory / "trainer.safetensors").exists():
        return None
    try:
        environment = json.loads((directory / "config.json").read_text())["environment"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the trainer's state itself is checked when it is loaded
    return environment if isinstance(environment, dict) else None


def _warn_if_elsewhere(config: RunConfig, what: str, there: dict[str, Any], here: dict[str, Any]) -> bool:
    """Warn if a found run was made under conditions that may change last bits; tell whether it was."""
    differing = [f"{key} {there.get(key)} (now {here[key]})" for key in runtime.DECISIVE if there.get(key) != here[key]]
    if differing:
        text = f"{config.name} {what} with {', '.join(differing)}; use another --out to train it anew"
        warnings.warn(text, stacklevel=2)
    return bool(differing)
