"""Give the runs of a study to several workers and see to what becomes of them; where they run is the workers' part."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from srblock.executors.budget import Budget
from srblock.executors.progress import Progress
from srblock.executors.watch import Watch
from srblock.runs.log import LOG
from srblock.runs.outcome import Outcome
from srblock.runs.records import Run, RunConfig, finished, read_run
from srblock.runs.run_one import Work, locking_failed, make_folder, reuse, warn_if_elsewhere
from srblock.training import distributed

PATIENCE_S = 60.0  # how long a network file system may take to show a file that another machine wrote


class RunFailed(RuntimeError):
    """A run ended without a result."""


class Workers(Protocol):
    """Processes that train runs; when the context is left they are gone, whatever they were at.

    Attributes, valid inside the context:
        count: runs at once.
        description: who they are, for people.
        resumes: how often a run whose worker was killed goes on before it counts as failed.
        poll_s: seconds between two looks at the runs' progress.
    """

    count: int
    description: str
    resumes: int
    poll_s: float

    def __enter__(self) -> Workers: ...

    def __exit__(self, *_: object) -> None: ...

    def environment(self) -> dict[str, Any] | None:
        """Describe what the workers run on, outside the context too; None if only they know."""

    def submit(self, config: RunConfig, deadline: float | None) -> None:
        """Start a run, to be paused by the deadline (`budget.until`); at most `count` are given at once."""

    def wait(self, timeout_s: float) -> list[tuple[RunConfig, Outcome]]:
        """Wait until a submitted run ends, or the time is over, and return all that have."""

    def restart(self) -> None:
        """Free the memory that idle workers hold."""


def dispatch(work: Work, workers: Workers, progress: Progress, budget: Budget) -> dict[str, Run]:
    """Run what is not finished yet on the workers, as far as the budget goes, and return all finished runs by name.

    A run whose worker was killed goes on from its last epoch. One that ran out of memory beside others is tried once
    more at the end, alone.

    Raises: OSError if the disk is full; what the workers raise.
    """
    here = workers.environment()
    done: dict[str, Run] = {}
    todo: list[RunConfig] = []
    for config in work.study.runs:
        if finished(work.folder(config)):
            take_found(work, config, here, progress, done)
        else:
            make_folder(work.folder(config))
            todo.append(config)
    found = list(done)
    if next(budget.order(todo, idle=True), None) is not None:
        with workers:
            progress.workers(workers.count, workers.description)
            _Dispatch(work, workers, progress, budget, todo, done).loop()
    made = [run for name, run in done.items() if name not in found]
    if here is None and made:
        for config in work.study.runs:
            if config.name in found:
                there = done[config.name].environment
                warn_if_elsewhere(config, "is reused but was made", there, made[0].environment)
    return done


def conclude(work: Work, config: RunConfig, outcome: Outcome, progress: Progress, done: dict[str, Run]) -> None:
    """Report a run's end, and put its result among those done.

    Raises: OSError for what would end the other runs as well.
    """
    for text in outcome.warnings:
        warnings.warn(text, stacklevel=2)
    if outcome.ending == "stop":
        raise OSError(outcome.errno, outcome.text)
    if outcome.ending == "done":
        try:
            found = distributed.on_rank0(lambda: _read_when_there(work.folder(config)))
        except (ValueError, OSError) as error:
            if distributed.world_size() > 1:
                raise  # as the other processes do
            progress.failed(config, RunFailed(str(error)))
            return
        done[config.name] = found
        progress.finished(config, found)
    elif outcome.ending == "paused":
        progress.paused(config)
    else:
        progress.failed(config, RunFailed(outcome.text))


def take_found(
    work: Work, config: RunConfig, here: dict[str, Any] | None, progress: Progress, done: dict[str, Run]
) -> None:
    """Put a run that is finished already among those done; a damaged one has failed."""
    try:
        done[config.name] = reuse(work.folder(config), config, here)
    except (ValueError, OSError) as error:
        progress.failed(config, RunFailed(str(error)))
    else:
        progress.finished(config, done[config.name])


@dataclass
class _Dispatch:
    work: Work
    workers: Workers
    progress: Progress
    budget: Budget
    todo: list[RunConfig]
    done: dict[str, Run]
    at_work: dict[str, RunConfig] = field(default_factory=dict)
    out_of_memory: list[RunConfig] = field(default_factory=list)  # beside others
    alone: set[str] = field(default_factory=set)
    resumed: Counter[str] = field(default_factory=Counter)
    watch: Watch = field(default_factory=Watch)

    def loop(self) -> None:
        while self.todo or self.out_of_memory or self.at_work:
            self.submit()
            if not self.at_work:
                locked = next(self.budget.order(self.todo, idle=True), None)
                if locked is None:  # nothing is left to do, or nothing fits into the time left
                    return
                self.progress.waiting(locked)
                time.sleep(1)
                continue
            for config, outcome in self.workers.wait(self.workers.poll_s):
                self.tell_epochs(config)
                del self.at_work[config.name]
                self.end(config, outcome)
            for config in self.at_work.values():
                self.tell_epochs(config)

    def submit(self) -> None:
        """Start as many runs as there is room and time for, leaving out those that another process is at."""
        if self.alone & self.at_work.keys():
            return
        while len(self.at_work) < self.workers.count:
            runnable = self.budget.order(self.todo, idle=not self.at_work)
            config = next((config for config in runnable if not _locked(self.work.folder(config))), None)
            if config is None:
                break
            self.todo.remove(config)
            if finished(self.work.folder(config)):  # by that other process
                take_found(self.work, config, self.workers.environment(), self.progress, self.done)
            else:
                self.start(config)
        if self.at_work:
            return
        for config in list(self.budget.order(self.out_of_memory, idle=True))[:1]:
            self.out_of_memory.remove(config)
            self.alone.add(config.name)
            self.workers.restart()
            self.start(config)

    def start(self, config: RunConfig) -> None:
        self.at_work[config.name] = config
        self.budget.started(config)
        self.progress.started(config)
        self.workers.submit(config, self.budget.deadline)

    def end(self, config: RunConfig, outcome: Outcome) -> None:
        if outcome.ending == "busy":  # locked since it was looked at
            self.todo.append(config)
        elif outcome.ending == "killed" and self.resumed[config.name] < self.workers.resumes:
            self.resumed[config.name] += 1
            self.progress.again(config, f"{outcome.text}; it goes on from its last epoch")
            self.todo.insert(0, config)
        elif outcome.ending == "memory" and config.name not in self.alone and self.workers.count > 1:
            self.progress.again(config, f"{outcome.text}; it is tried once more at the end, alone")
            self.out_of_memory.append(config)
        else:
            if outcome.ending == "killed" and self.workers.resumes:
                log = self.work.folder(config) / LOG
                outcome = Outcome("failed", f"{outcome.text}, {self.resumed[config.name] + 1} times now; see {log}")
            conclude(self.work, config, outcome, self.progress, self.done)

    def tell_epochs(self, config: RunConfig) -> None:
        for record in self.watch.news(self.work.folder(config)):
            self.budget.epoch(config, record)
            self.progress.epoch(config, record)


def _locked(directory: Path) -> bool:
    """Tell whether a process is at a run."""
    try:
        with FileLock(directory / ".lock", blocking=False):
            return False
    except Timeout:
        return True
    except OSError as error:
        raise OSError(error.errno, f"cannot lock {directory / '.lock'}: {locking_failed(error)}") from error


def _read_when_there(directory: Path) -> Run:
    """Read a run that another process has finished."""
    deadline = time.monotonic() + PATIENCE_S
    while not finished(directory) and time.monotonic() < deadline:
        time.sleep(1)
    return read_run(directory)
