"""What can happen to a run in a worker process: a probe that other processes can import."""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from test_resume import Silent, study
from torch import nn

from srblock.runs import records
from srblock.runs.study import Study
from srblock.surgery import blocks
from srblock.training import checkpoint


def four_runs(epochs: int = 3) -> Study:
    """Two variants, the second with the block, times two seeds."""
    return replace(study(epochs), seeds=(0, 1))


@dataclass(frozen=True)
class Mishap:
    """A probe that notes each epoch, and lets something happen after the second one of a run with the block.

    Args:
        folder: for notes: a line "process parent threads" an epoch.
        kind: what happens.
        times: how often in all.
        slow_s: stretches each epoch of a run after its first in a process.
        saves: at every epoch.
    """

    folder: Path
    kind: str = "nothing"
    times: int = 1000
    slow_s: float = 0.0
    saves: bool = True

    def __call__(self, model: nn.Module) -> dict[str, float]:
        if self.saves:
            checkpoint.Saver.due = lambda saver: True  # type: ignore[method-assign] # so that no finished epoch is lost
        model.probed = getattr(model, "probed", 0) + 1  # type: ignore[assignment]
        if model.probed > 1:
            time.sleep(self.slow_s)
        with (self.folder / "epochs").open("a") as file:
            file.write(f"{os.getpid()} {os.getppid()} {torch.get_num_threads()}\n")
        if blocks(model) and model.probed == 2 and self._once_more():
            print(f"about to {self.kind}")
            self._happen()
        return {}

    def epochs(self) -> list[list[int]]:
        """Return what was noted."""
        notes = self.folder / "epochs"
        return (
            [[int(word) for word in line.split()] for line in notes.read_text().splitlines()] if notes.exists() else []
        )

    def _once_more(self) -> bool:
        for number in range(self.times):
            try:
                (self.folder / f"{self.kind}-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return True
        return False

    def _happen(self) -> None:
        match self.kind:
            case "raise":
                raise LookupError("nothing like that here")
            case "run out of memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            case "fill the disk":
                raise OSError(errno.ENOSPC, "cannot write there: No space left on device")
            case "be killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)


class Diary(Silent):
    """Progress that keeps what it is told, as (word, run, text)."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, Any]] = []

    def started(self, run: records.RunConfig) -> None:
        self.entries.append(("started", run.name, ""))

    def epoch(self, run: records.RunConfig, record: dict[str, Any]) -> None:
        self.entries.append(("epoch", run.name, record["epoch"]))

    def finished(self, run: records.RunConfig, result: records.Run) -> None:
        self.entries.append(("finished", run.name, ""))

    def failed(self, run: records.RunConfig, error: Exception) -> None:
        self.entries.append(("failed", run.name, str(error)))

    def paused(self, run: records.RunConfig) -> None:
        self.entries.append(("paused", run.name, ""))

    def waiting(self, run: records.RunConfig) -> None:
        self.entries.append(("waiting", run.name, ""))

    def workers(self, count: int, description: str) -> None:
        self.entries.append(("workers", "", description))

    def again(self, run: records.RunConfig, reason: str) -> None:
        self.entries.append(("again", run.name, reason))

    def of(self, word: str) -> list[tuple[str, Any]]:
        """Return run and text of all entries with a word."""
        return [(run, text) for what, run, text in self.entries if what == word]
