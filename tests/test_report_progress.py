"""The progress display, on a terminal and without one."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from run_fixture import BASELINE, WITH_SR, describe

from srblock.report.progress import LoadProgress, RunProgress
from srblock.runs.records import RunConfig
from srblock.training.classification import Classification
from srblock.training.recipe import Recipe
from srblock.variants.notation import parse

RESULT: Any = SimpleNamespace(score=97.5, validation_score=98.611, best_epoch=18, wall_s=12.2)


def a_study(epochs: int = 20) -> tuple[Any, list[RunConfig]]:
    runs = [
        RunConfig(parse(variant), seed, Recipe(epochs=epochs), describe())
        for seed in (0, 1)
        for variant in (BASELINE, WITH_SR)
    ]
    return SimpleNamespace(runs=runs, recipe=SimpleNamespace(epochs=epochs), task=Classification()), runs


def record(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "validation_top1": 50.0 + epoch, "seconds": 30.0}


def play(console: Console, epochs: int = 20) -> None:
    study, (found, trained, failed, other) = a_study(epochs)
    with RunProgress(study, console) as progress:
        progress.finished(found, RESULT)
        progress.started(trained)
        for epoch in range(1, epochs + 1):
            progress.epoch(trained, record(epoch))
        progress.finished(trained, RESULT)
        progress.started(failed)
        progress.failed(failed, RuntimeError("the training loss became nan in epoch 3 of 20 [not markup]"))
        progress.waiting(other)
        progress.waiting(other)


def test_plain_lines_where_there_is_no_terminal() -> None:
    text = io.StringIO()
    play(Console(file=text, width=80))
    lines = text.getvalue().splitlines()
    assert "\x1b" not in text.getvalue()
    assert "\r" not in text.getvalue()
    assert re.fullmatch(r"\[1/4\] R8, seed 0 +found +test  97\.50%  validation 98\.61%, epoch 18", lines[0])
    assert re.fullmatch(r"\[2/4\] R8 \+ SR\(M=3, P=8\), seed 0  started  20 epochs", lines[1])
    assert "epoch 5/20  validation 55.00%, about 7 min 30 s left" in lines[2]  # 15 epochs of 30 s
    assert sum("epoch" in line and "left" in line for line in lines) == 3  # every fifth of 20, and not the last
    assert any(line.endswith("epoch 18, 12 s") and "done" in line for line in lines)
    assert any("failed" in line and line.endswith("in epoch 3 of 20 [not markup]") for line in lines)
    assert sum("another process" in line for line in lines) == 1


def test_a_paused_run_says_how_far_it_came() -> None:
    study, runs = a_study()
    text = io.StringIO()
    with RunProgress(study, Console(file=text, width=80)) as progress:
        progress.started(runs[0])
        for epoch in range(1, 4):
            progress.epoch(runs[0], record(epoch))
        progress.paused(runs[0])
    assert re.fullmatch(r"\[1/4\] R8, seed 0 +paused +after epoch 3 of 20", text.getvalue().splitlines()[-1])


def test_resumed_epochs_count_as_done() -> None:
    study, runs = a_study()
    text = io.StringIO()
    with RunProgress(study, Console(file=text, width=80)) as progress:
        progress.started(runs[0])
        for epoch in range(1, 21):  # all replayed: the run was cut off between its last epoch and its result
            progress.epoch(runs[0], record(epoch))
        progress.finished(runs[0], RESULT)
    assert "done" in text.getvalue().splitlines()[-1]


def test_terminal_has_bars_and_the_time_left() -> None:
    study, runs = a_study()
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True, legacy_windows=False, _environ={"TERM": "xterm"})
    with RunProgress(study, console) as progress:
        progress.started(runs[0])
        progress.epoch(runs[0], record(1))
        assert progress._live is not None
        progress._live.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())
    assert "1/20" in shown
    assert "1/80" in shown
    assert "validation 51.00%" in shown
    assert "9 min 30 s left" in shown  # 19 epochs of 30 s
    assert "39 min 30 s left" in shown  # 79 of them
    assert "0 of 4 runs" in shown


def test_terminal_keeps_a_line_for_every_run() -> None:
    text = io.StringIO()
    play(Console(file=text, width=80, force_terminal=True, legacy_windows=False, _environ={"TERM": "xterm"}))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())
    assert "R8, seed 0                 found    test  97.50%" in shown
    assert "R8 + SR(M=3, P=8), seed 0  done     test  97.50%" in shown
    assert "[not markup]" in shown
    assert "[2/4]" not in shown


def test_several_workers_on_a_terminal() -> None:
    """A bar for each run at work, in the order they started, above the whole's; time left with all workers busy."""
    study, (first, second, third, fourth) = a_study()
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True, legacy_windows=False, _environ={"TERM": "xterm"})

    def bars() -> list[list[str]]:
        assert progress._live is not None
        text.seek(0)
        text.truncate()
        progress._live.refresh()
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue()).replace("\r", "").splitlines()
        parts = re.compile(r"^.*?seed \d|^all|\d+/\d+|\d+ min \d+ s left")
        return [parts.findall(line) for line in lines if "/" in line]

    with RunProgress(study, console) as progress:
        progress.workers(2, "2 workers on cpu, 1 CPU thread each")
        assert "2 workers on cpu, 1 CPU thread each" in text.getvalue()
        progress.started(first)
        progress.started(second)
        progress.epoch(second, record(10))
        progress.epoch(first, record(4))
        # First: 16 epochs of 30 s left, second: 10. Third starts when second ends, in 5 minutes; fourth after first.
        assert bars() == [
            ["R8, seed 0", "4/20", "8 min 00 s left"],
            ["R8 + SR(M=3, P=8), seed 0", "10/20", "5 min 00 s left"],
            ["all", "14/80", "18 min 00 s left"],
        ]
        progress.again(second, "its worker ended by SIGKILL; it goes on from its last epoch")
        assert "again    its worker ended by SIGKILL" in text.getvalue()
        progress.started(third)
        progress.finished(first, RESULT)
        progress.started(second)
        assert [line[0] for line in bars()] == ["R8, seed 1", "R8 + SR(M=3, P=8), seed 0", "all"]
        for run in (second, third):
            progress.finished(run, RESULT)
        progress.waiting(fourth)
        assert [line[0] for line in bars()] == ["R8 + SR(M=3, P=8), seed 1", "all"]
        progress.started(fourth)
        progress.failed(fourth, RuntimeError("no"))
        assert bars() == [["all", "80/80"]]


def test_several_workers_in_plain_lines() -> None:
    study, runs = a_study()
    text = io.StringIO()
    with RunProgress(study, Console(file=text, width=80)) as progress:
        progress.workers(2, "2 workers on cuda:0 [not markup], 4 CPU threads each")
        for run in runs[:2]:
            progress.started(run)
        for epoch in (5, 10):
            for run in runs[:2]:
                progress.epoch(run, record(epoch))
        progress.again(runs[0], "its worker ended by SIGKILL; it goes on from its last epoch")
    lines = text.getvalue().splitlines()
    assert lines[0] == "2 workers on cuda:0 [not markup], 4 CPU threads each"
    assert [line[:5] for line in lines[1:]] == ["[1/4]", "[2/4]"] * 3 + ["[1/4]"]
    assert re.fullmatch(
        r"\[1/4\] R8, seed 0 +again +its worker ended by SIGKILL; it goes on from its last epoch", lines[-1]
    )


def test_an_error_inside_leaves_the_terminal_clean() -> None:
    study, runs = a_study()
    text = io.StringIO()
    console = Console(file=text, width=80, force_terminal=True, legacy_windows=False, _environ={"TERM": "xterm"})

    def interrupted() -> None:
        with RunProgress(study, console) as progress:
            progress.started(runs[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    hidden, shown = text.getvalue().rfind("\x1b[?25l"), text.getvalue().rfind("\x1b[?25h")
    assert 0 <= hidden < shown  # the cursor is back


def test_it_fits_the_protocol_of_studies(tmp_path: Path) -> None:
    from srblock.executors.progress import Progress

    asked = {name for name in vars(Progress) if not name.startswith("_")}
    assert asked <= set(dir(RunProgress))


@pytest.mark.parametrize("terminal", [True, False])
def test_loading_shows_bars_on_a_terminal_only(terminal: bool) -> None:
    text = io.StringIO()
    console = Console(
        file=text, width=80, force_terminal=terminal, legacy_windows=False, _environ={"TERM": "xterm"}
    )  # fmt: skip
    with LoadProgress(console) as progress:
        for done in (10, 50, 100):
            progress("decoding flowers", done, None if done < 50 else 100)
    assert ("decoding flowers" in text.getvalue()) == terminal
