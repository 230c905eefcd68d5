"""What a study tells of itself while it goes."""

from __future__ import annotations

from typing import Any, Protocol

from srblock.runs.records import Run, RunConfig


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

    def paused(self, run: RunConfig) -> None:
        """A run was stopped after its last epoch told of, saved, because the time is up."""

    def waiting(self, run: RunConfig) -> None:
        """Another process is at this run; its result is waited for."""

    def workers(self, count: int, description: str) -> None:
        """So many runs go on at once, on what is described."""

    def again(self, run: RunConfig, reason: str) -> None:
        """A run ended without a result and will be started once more."""
