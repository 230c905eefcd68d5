"""How a study goes, while it goes: a live display on a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

import heapq
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from srblock.data.offenders import counted
from srblock.report import units
from srblock.report.recipes import selected

if TYPE_CHECKING:
    from srblock.runs.records import Run, RunConfig
    from srblock.runs.study import Study

PLAIN_LINES = 4  # epochs told of per run where there is no terminal
PLAIN_SECONDS = 60  # or one this long after the last line


class RunProgress:
    """Show the runs of a study; a context manager, and the `progress` of `executors.execute.run_study`.

    On a terminal each finished run leaves one line and each run at work has a bar, above one for the whole study.
    Elsewhere there are plain lines without control codes.
    """

    def __init__(self, study: Study, console: Console) -> None:
        runs = study.runs
        self._console, self._epochs = console, study.recipe.epochs
        self._figure = study.task.figures[0].key
        self._done = {run.name: 0 for run in runs}  # epochs; all of them for a run that ended
        self._ended: set[str] = set()
        self._at_work: set[str] = set()
        self._workers = 1
        self._variants = {run.name: str(run.variant) for run in runs}
        self._seconds: dict[str, list[float]] = {}  # of epochs, by variant
        self._width = max(len(_name(run)) for run in runs)
        self._waited_for: set[str] = set()
        self._last_line = 0.0
        self._live: Progress | None = None
        self._bars: dict[str, TaskID] = {}
        self._all = TaskID(0)
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = _display(console)
            self._add_total()

    def __enter__(self) -> RunProgress:
        self._update_total()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def workers(self, count: int, description: str) -> None:
        """Say how many runs go on at once, and on what; the time left depends on it."""
        self._workers = count
        self._console.print(description, soft_wrap=True, highlight=False, markup=False, style="dim")

    def started(self, run: RunConfig) -> None:
        """Show a run at work."""
        self._at_work.add(run.name)
        self._show(run, status="", due=None)
        if self._live is None:
            self._line(run, "started", counted(self._epochs, "epoch"))

    def epoch(self, run: RunConfig, record: dict[str, Any]) -> None:
        """Show an epoch's validation figure, or its training loss, and how long the run will take from there."""
        self._done[run.name] = record["epoch"]
        self._seconds.setdefault(self._variants[run.name], []).append(record["seconds"])
        left = self._seconds_left(run.name)
        score = record.get(f"validation_{self._figure}")
        status = f"training loss {record['train_loss']:.3f}" if score is None else f"validation {score:.2f}%"
        self._show(run, status=status, due=time.monotonic() + left, completed=record["epoch"])
        self._update_total()
        every = -(-self._epochs // PLAIN_LINES)
        late = time.monotonic() - self._last_line > PLAIN_SECONDS
        if self._live is None and record["epoch"] < self._epochs and (record["epoch"] % every == 0 or late):
            self._line(run, f"epoch {record['epoch']}/{self._epochs}", f"{status}, about {units.duration(left)} left")

    def finished(self, run: RunConfig, result: Run) -> None:
        """Leave a line with a run's result: trained in this session, or found."""
        found = self._done[run.name] == 0
        text = f"test {result.score:6.2f}%  {selected(result)}"
        self._end(run)
        if found:
            self._line(run, "found", text, "dim")
        else:
            self._line(run, "done", f"{text}, {units.duration(result.wall_s or 0)}")

    def failed(self, run: RunConfig, error: Exception) -> None:
        """Leave a line with the reason why a run has no result."""
        self._end(run)
        self._line(run, "failed", str(error), "red")

    def paused(self, run: RunConfig) -> None:
        """Leave a line that says how far a run came before the time was up."""
        self._leave(run)
        tested = ", to be tested" if self._done[run.name] == self._epochs else ""
        self._line(run, "paused", f"after epoch {self._done[run.name]} of {self._epochs}{tested}")

    def again(self, run: RunConfig, reason: str) -> None:
        """Leave a line with the reason why a run will be started once more."""
        self._leave(run)
        self._line(run, "again", reason, "yellow")

    def waiting(self, run: RunConfig) -> None:
        """Say that another process has a run in its hands; asked once a second, so only said once."""
        self._show(run, status="another process is at it", due=None, completed=0)
        if self._live is None and run.name not in self._waited_for:
            self._line(run, "waiting", "another process is at it")
        self._waited_for.add(run.name)

    def left(self) -> tuple[int, float]:
        """Count the runs that have not ended, and estimate their seconds; 0.0 before any epoch of this session."""
        return len(self._done) - len(self._ended), self._seconds_left_in_all()

    def _end(self, run: RunConfig) -> None:
        self._done[run.name] = self._epochs
        self._ended.add(run.name)
        self._leave(run)
        self._update_total()

    def _leave(self, run: RunConfig) -> None:
        self._at_work.discard(run.name)
        if self._live is not None and run.name in self._bars:
            self._live.remove_task(self._bars.pop(run.name))

    def _line(self, run: RunConfig, word: str, text: str, style: str = "") -> None:
        """Print a line that stays: above the bars, or where there are none, with its number."""
        number = f"[{list(self._done).index(run.name) + 1}/{len(self._done)}] "
        line = Text.assemble(
            "" if self._live is not None else number, f"{_name(run):{self._width}}  ", f"{word:<7}  ", text, style=style
        )
        self._console.print(line, soft_wrap=True, highlight=False)
        self._last_line = time.monotonic()

    def _show(self, run: RunConfig, **changes: Any) -> None:
        """Change a run's bar; a new one comes last but for the whole's."""
        if self._live is None:
            return
        if run.name not in self._bars:
            self._live.remove_task(self._all)
            self._bars[run.name] = self._live.add_task(_name(run), total=self._epochs, status="", due=None)
            self._add_total()
        self._live.update(self._bars[run.name], **changes)

    def _add_total(self) -> None:
        if self._live is not None:
            self._all = self._live.add_task("all", total=len(self._done) * self._epochs, status="", due=None)
            self._update_total()

    def _update_total(self) -> None:
        if self._live is None:
            return
        due = (
            time.monotonic() + self._seconds_left_in_all()
            if self._seconds and len(self._ended) < len(self._done)
            else None
        )
        status = f"{len(self._ended)} of {len(self._done)} runs"
        self._live.update(self._all, completed=sum(self._done.values()), status=status, due=due)

    def _seconds_left_in_all(self) -> float:
        """Estimate the study's time: runs at work first, each next one on the worker that is free first."""
        left = [name for name in self._done if name not in self._ended]
        free_in = [0.0] * self._workers
        for name in sorted(left, key=lambda name: name not in self._at_work):
            heapq.heapreplace(free_in, free_in[0] + self._seconds_left(name))
        return max(free_in)

    def _seconds_left(self, name: str) -> float:
        """Estimate a run's time from the epochs of its variant, or of all variants before its first."""
        seconds = self._seconds.get(self._variants[name]) or [s for known in self._seconds.values() for s in known]
        return (self._epochs - self._done[name]) * median(seconds[-20:]) if seconds else 0.0


class LoadProgress:
    """Show downloads and decoding on a terminal; a context manager, and the `progress` of `data.load`."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> LoadProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Show how far something has come; total is None while unknown."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)


class _Countdown(ProgressColumn):
    """The time until a task's field `due`, which a clock counts down between epochs."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        due = task.fields["due"]
        return Text("" if due is None else f"{units.duration(due - time.monotonic())} left", style="cyan")


def _name(run: RunConfig) -> str:
    return f"{run.variant}, seed {run.seed}"


def _display(console: Console) -> Progress:
    def column(**options: Any) -> Column:
        return Column(no_wrap=True, overflow="ellipsis", **options)

    return Progress(
        TextColumn("{task.description}", markup=False, table_column=column(max_width=max(16, console.width * 2 // 5))),
        BarColumn(bar_width=None, table_column=column(ratio=1, min_width=6)),
        MofNCompleteColumn(table_column=column()),
        TextColumn("{task.fields[status]}", markup=False, table_column=column()),
        _Countdown(table_column=column(justify="right")),
        console=console,
        transient=True,
        expand=True,
    )
