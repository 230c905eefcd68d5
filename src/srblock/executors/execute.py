"""Run a study: interrupted and repeated at will, here, in several processes, or on a cluster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

import torch

from srblock.executors.dispatch import conclude, dispatch
from srblock.executors.local import LocalWorkers
from srblock.runs.records import Run, RunConfig
from srblock.runs.run_one import Inspect, Work, make_folder, train_one
from srblock.runs.study import Study
from srblock.training import distributed
from srblock.training.loop import Probe, Record

__all__ = ["EXECUTORS", "Inspect", "Progress", "make_folder", "run_study"]

EXECUTORS = ("local", "ray")


class Progress(Protocol):
    """What wants to know how a study goes. The last two are called for several workers only."""

    def started(self, run: RunConfig) -> None:
        """A run starts, or goes on."""

    def epoch(self, run: RunConfig, record: dict[str, Any]) -> None:
        """An epoch is done, in this session or an earlier one."""

    def finished(self, run: RunConfig, result: Run) -> None:
        """A run has its result, found or made."""

    def failed(self, run: RunConfig, error: Exception) -> None:
        """A run ended without a result; the others go on."""

    def waiting(self, run: RunConfig) -> None:
        """Another process is at this run; its result is waited for."""

    def workers(self, count: int, description: str) -> None:
        """So many runs go on at once, on what is described."""

    def again(self, run: RunConfig, reason: str) -> None:
        """A run ended without a result and will be started once more."""


def run_study(
    study: Study,
    out: Path,
    *,
    device: torch.device,
    progress: Progress,
    probe: Probe | None = None,
    inspect: Inspect | None = None,
    executor: str = "local",
    workers: int | None = None,
    cpus: int | None = None,
    gpus: float | None = None,
) -> list[Run]:
    """Run what is not finished yet and return all finished runs in the study's order.

    Several processes may work on the same study: each run is locked while it is trained. Those that torchrun started
    (see `training.distributed`) call this together and train each run together. A run that fails is reported,
    with its traceback in `log.txt` of its folder, and left out; the others go on. Only a full disk ends them all.

    Args:
        out: runs are folders of `out/runs`. With Ray all nodes must see it.
        probe: called on the model after each epoch; its figures are recorded (see `training.loop.train`).
        inspect: called once on the selected model with the test loader and the run's folder; what it returns is
            recorded in the result. Both must be picklable unless runs are trained in this process.
        executor: "local", or "ray" for a Ray cluster (see `cluster`).
        workers: runs at once. None: one, in this process, or with Ray as many as the cluster has room for.
        cpus, gpus: what each run gets, with Ray only; a GPU may be shared (0.5). None: see `cluster.RayWorkers`.

    Raises: ValueError for an unknown executor, or options that do not fit it; OSError if `out` cannot be written.
    """
    if executor not in EXECUTORS:
        raise ValueError(f"there is no executor {executor!r}; there are {' and '.join(EXECUTORS)}")
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    if executor == "local" and (cpus is not None or gpus is not None):
        raise ValueError("CPUs and GPUs of a run are for --executor ray; local workers share what the machine has")
    several = executor == "ray" or (workers is not None and workers > 1)
    if several and distributed.world_size() > 1:
        raise ValueError("torchrun spreads one run over processes; start several workers without it")
    distributed.on_rank0(lambda: make_folder(out / "runs"))
    work = Work(study, out, probe, inspect)
    if executor == "ray":
        from srblock.executors.cluster import RayWorkers  # an extra

        done = dispatch(work, RayWorkers(work, device, workers, cpus, gpus), progress)
    elif workers is not None and several:
        done = dispatch(work, LocalWorkers(work, device, workers), progress)
    else:
        done = _one_after_another(work, device, progress)
    return [done[config.name] for config in study.runs() if config.name in done]


class _NotOfTheRun(BaseException):
    """Carries an exception of the progress display past what makes exceptions a run's failure."""


def _one_after_another(work: Work, device: torch.device, progress: Progress) -> dict[str, Run]:
    """Train in this process."""
    done: dict[str, Run] = {}
    pending = work.study.runs()
    while pending:
        busy = []
        for config in pending:

            def tell(record: Record, config: RunConfig = config) -> None:
                try:
                    progress.epoch(config, record)
                except Exception as error:
                    raise _NotOfTheRun from error

            def start(config: RunConfig = config) -> None:
                progress.started(config)

            try:
                outcome = train_one(work, config, device, on_start=start, on_epoch=tell)
            except _NotOfTheRun as wrapped:
                raise wrapped.__cause__ from None  # type: ignore[misc]
            if outcome.ending == "busy":
                busy.append(config)
            else:
                conclude(work, config, outcome, progress, done)
        if len(busy) == len(pending):
            progress.waiting(busy[0])
            time.sleep(1)
        pending = busy
    return done
