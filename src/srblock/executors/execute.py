"""Run a study: interrupted and repeated at will, here, in several processes, or on a cluster."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from srblock.executors.budget import Budget, until
from srblock.executors.dispatch import conclude, dispatch
from srblock.executors.local import LocalWorkers
from srblock.executors.progress import Progress
from srblock.runs.outcome import Outcome
from srblock.runs.records import Run, RunConfig
from srblock.runs.run_one import Work, make_folder, train_one
from srblock.training import distributed
from srblock.training.loop import Record
from srblock.training.recipe import Recipe

EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Executor:
    """Who trains the runs.

    Args:
        kind: "local", or "ray" for a Ray cluster (see `cluster`).
        workers: runs at once. None: one, in this process, or with Ray as many as the cluster has room for.
        cpus, gpus: what each run gets, with Ray only; a GPU may be shared (0.5). None: see `cluster.RayWorkers`.
    """

    kind: str = "local"
    workers: int | None = None
    cpus: int | None = None
    gpus: float | None = None

    @property
    def several(self) -> bool:
        """Whether runs are trained in processes of their own."""
        return self.kind == "ray" or (self.workers or 1) > 1

    def slots(self, device: torch.device) -> int:
        """Count the runs that go on at once.

        Raises: ValueError if a Ray cluster does not answer, or has no room for a run.
        """
        if self.kind == "local":
            return self.workers or 1
        from srblock.executors.cluster import slots  # an extra

        return slots(device, self.workers, self.cpus, self.gpus)

    def check(self, recipe: Recipe, device: torch.device) -> None:
        """Refuse what can be refused before any data is loaded.

        Raises: ValueError for an unknown kind, for options that do not fit it, the device or one another, and for a
        recipe that could not be trained so.
        """
        ray, cuda = self.kind == "ray", device.type == "cuda"
        if self.kind not in EXECUTORS:
            raise ValueError(f"there is no executor {self.kind!r}; there are {' and '.join(EXECUTORS)}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers must be at least 1, got {self.workers}")
        if not ray and (self.cpus, self.gpus) != (None, None):
            raise ValueError("CPUs and GPUs of a run are for --executor ray; local workers share what the machine has")
        if self.cpus is not None and self.cpus < 1:
            raise ValueError(f"a run needs at least 1 CPU, got {self.cpus}")
        if self.gpus is not None and (self.gpus <= 0 or not cuda):
            raise ValueError(
                f"a share of a GPU must be more than 0 and needs --device cuda, got {self.gpus} on {device}"
            )
        if ray and importlib.util.find_spec("ray") is None:
            raise ValueError('--executor ray needs Ray, which is not installed here: pip install "srblock[cluster]"')
        if ray and device.index is not None:
            raise ValueError(f"with --executor ray the cluster chooses the GPU: give --device cuda, not {device}")
        if self.several and distributed.launched() > 1:
            raise ValueError("torchrun spreads one run over processes; start several workers without it")
        if "graph" in recipe.engine and not cuda:
            raise ValueError(
                f"--engine {recipe.engine} replays CUDA graphs, and {device} has none; use eager or compile"
            )
        if recipe.sync_batch_norm and not cuda:
            raise ValueError(f"--sync-batch-norm needs CUDA devices, got {device}; leave it off on a CPU")
        if recipe.sync_batch_norm and self.several:
            raise ValueError(
                "--sync-batch-norm is for one run over several processes (torchrun), and each of several workers' runs "
                "has one process; leave it off"
            )


def run_study(
    work: Work,
    *,
    device: torch.device,
    progress: Progress,
    executor: Executor = Executor(),
    deadline: float | None = None,
    epoch_seconds: Mapping[str, float] | None = None,
) -> list[Run]:
    """Run what is not finished yet and return all finished runs in the study's order.

    Several processes may work on the same study: each run is locked while it is trained. Those that torchrun started
    (see `training.distributed`) call this together and train each run together. A run that fails is reported,
    with its traceback in `log.txt` of its folder, and left out; the others go on. Only a full disk ends them all.

    Args:
        deadline: a value of time.monotonic(). Runs at work then are paused at the end of an epoch, and none is started
            that would not come far enough (see `budget.Budget`).
        epoch_seconds: how long an epoch of each variant takes, as far as known.

    Raises: ValueError as `Executor.check`, or for a deadline under torchrun; OSError if `out` cannot be written.
    """
    executor.check(work.study.recipe, device)
    if deadline is not None and distributed.world_size() > 1:
        raise ValueError("a time budget is for runs of one process each; leave it out under torchrun")
    distributed.on_rank0(lambda: make_folder(work.out / "runs"))
    budget = Budget(work, deadline, epoch_seconds)
    if executor.kind == "ray":
        from srblock.executors.cluster import RayWorkers  # an extra

        done = dispatch(
            work, RayWorkers(work, device, executor.workers, executor.cpus, executor.gpus), progress, budget
        )
    elif executor.workers is not None and executor.several:
        done = dispatch(work, LocalWorkers(work, device, executor.workers), progress, budget)
    else:
        done = _one_after_another(work, device, progress, budget)
    return [done[config.name] for config in work.study.runs if config.name in done]


class _NotOfTheRun(BaseException):
    """Carries an exception of the progress display past what makes exceptions a run's failure."""


def _one_after_another(work: Work, device: torch.device, progress: Progress, budget: Budget) -> dict[str, Run]:
    """Train in this process."""
    done: dict[str, Run] = {}
    pending = list(work.study.runs)
    while runnable := list(budget.order(pending, idle=True)):
        for config in runnable:
            outcome = _train_here(work, config, device, progress, budget)
            if outcome.ending != "busy":
                conclude(work, config, outcome, progress, done)
                pending.remove(config)
                break
        else:
            progress.waiting(runnable[0])
            time.sleep(1)
    return done


def _train_here(work: Work, config: RunConfig, device: torch.device, progress: Progress, budget: Budget) -> Outcome:
    def start() -> None:
        budget.started(config)
        progress.started(config)

    def tell(record: Record) -> None:
        budget.epoch(config, record)
        try:
            progress.epoch(config, record)
        except Exception as error:
            raise _NotOfTheRun from error

    try:
        return train_one(work, config, device, on_start=start, on_epoch=until(budget.deadline, work, config, tell))
    except _NotOfTheRun as wrapped:
        raise wrapped.__cause__ from None  # type: ignore[misc]
