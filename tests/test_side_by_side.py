"""Times measured in turns: what slows the machine slows all alike, nothing is left behind, and what is said of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from run_fixture import BASELINE, WITH_SR, write_runs

from srblock.data import load
from srblock.executors.execute import run_study
from srblock.experiments import timing
from srblock.experiments.compare import compare
from srblock.experiments.session import Asked, Session
from srblock.report import tables
from srblock.report.html import behind
from srblock.report.progress import RunProgress
from srblock.report.times import in_turns as words
from srblock.report.times import time_sentences
from srblock.runs import side_by_side
from srblock.runs.in_turns import in_turns, relative_to_first
from srblock.runs.records import Run
from srblock.runs.run_one import Work
from srblock.runs.side_by_side import SideBySide, Times, time_side_by_side
from srblock.runs.study import Study, recipe_for
from srblock.runs.times_file import read_times, write_times
from srblock.statistics.comparison import comparison
from srblock.statistics.times import Ratio, VariantTimes, median_interval, ratio, variant_times
from srblock.variants.notation import parse

CPU = torch.device("cpu")
CONDITIONS = {"device": "CPU Example 9000", "threads": "2"}
FOUND = SideBySide(
    {
        BASELINE: Times((1.0, 2.0, 4.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.1, 0.1, 0.1)),
        WITH_SR: Times((1.5, 3.0, 6.0, 1.4, 1.6, 1.5), (0.1, 0.12, 0.18, 0.1, 0.1, 0.1)),
    },
    CONDITIONS,
)


@pytest.fixture(scope="module")
def study() -> Study:
    data = load("digits")
    recipe = recipe_for(data, CPU, epochs=1, batch_size=8)
    return Study((parse(BASELINE), parse(f"{WITH_SR} + D")), (0,), data, "digits", recipe)


def session(out: Path, console: Console, deadline: float | None = None) -> Session:
    return Session(Asked(data="digits", out=out, console=console, deadline=deadline), 1, CPU, True)


# --- the rounds ------------------------------------------------------------------------------------------------------


def test_a_machine_that_becomes_slower_changes_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round takes three times as long as the one before; one contender always twice the other's time."""
    clock, order = [0.0], []

    def work(name: str, seconds: float) -> Callable[[], int]:
        def run() -> int:
            clock[0] += seconds * 3 ** (len(order) // 2)
            order.append(name)
            return 10

        return run

    monkeypatch.setattr("srblock.training.runtime.now", lambda device: clock[0])
    found = in_turns({"a": work("a", 1.0), "b": work("b", 2.0)}, CPU, lambda done: done < 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [100.0, 300.0, 900.0], "b": [200.0, 600.0, 1800.0]}
    assert relative_to_first(found) == {"a": 300.0, "b": 600.0}
    assert ratio(found["b"], found["a"]).median == 2.0


@pytest.mark.parametrize(
    ("seconds", "left", "round_s", "rounds"),
    [
        (5.0, math.inf, 0.01, side_by_side.MOST),
        (5.0, math.inf, 1.0, 5),
        (5.0, math.inf, 4.0, 3),  # 12 s, at most 15
        (5.0, math.inf, 6.0, 1),
        (5.0, 2.5, 1.0, 1),  # a time budget is kept
        (5.0, 3.5, 1.0, 3),
    ],
)
def test_the_time_for_it_is_limited(
    seconds: float, left: float, round_s: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(side_by_side, "PATIENCE", 3.0)  # more in other tests
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    go_on = side_by_side._limit(seconds, None if left == math.inf else 100.0 + left)

    def run() -> int:
        clock[0] += round_s
        return 1

    assert len(in_turns({"a": run}, CPU, go_on)["a"]) == rounds


def test_it_leaves_random_state_alone_and_times_every_variant(study: Study, tmp_path: Path) -> None:
    runs = [replace(run, wall_s=9.0) for run in write_runs(tmp_path, seeds=[0])]
    before = torch.random.get_rng_state()
    found = time_side_by_side(study, study.variants, runs, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(found.times) == [str(variant) for variant in study.variants]
    for times in found.times.values():
        assert all(side_by_side.LEAST <= len(part) <= side_by_side.MOST for part in (times.train, times.test))
        assert min(*times.train, *times.test) > 0
    assert found.conditions["batch_size"] == "8"


def test_no_weight_moves(study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = []
    build = Study.build
    monkeypatch.setattr(Study, "build", lambda *given: made.append(build(*given)) or made[-1])
    recipe = replace(study.recipe, lookahead=True)
    time_side_by_side(replace(study, recipe=recipe), study.variants, write_runs(tmp_path, seeds=[0]), CPU)
    for network, variant in zip(made, study.variants, strict=True):
        for mine, other in zip(network.parameters(), build(study, variant, 0).parameters(), strict=True):
            assert torch.equal(mine, other)


def test_what_cannot_be_timed_here_says_why(study: Study, tmp_path: Path) -> None:
    runs = write_runs(tmp_path, seeds=[0])
    with pytest.raises(ValueError, match="the time is up"):
        time_side_by_side(study, study.variants, runs, CPU, until=0.0)
    several = [replace(run, environment={**run.environment, "processes": 4}) for run in runs]
    with pytest.raises(ValueError, match="made by 4 processes each"):
        time_side_by_side(study, study.variants, several, CPU)
    hurried = [replace(run, wall_s=1e-9) for run in runs]
    with pytest.raises(ValueError, match="3 rounds of a step of each take longer"):
        time_side_by_side(study, study.variants, hurried, CPU)


# --- the statistics --------------------------------------------------------------------------------------------------


def test_the_interval_of_a_median_is_between_the_order_statistics_of_the_sign_test() -> None:
    assert median_interval(range(5)) is None  # 2 / 2^5 is more than 5%
    assert median_interval(range(6)) == (0, 5)
    assert median_interval(range(8)) == (0, 7)
    assert median_interval(range(9)) == (1, 7)
    assert median_interval(range(15)) == (3, 11)  # as printed tables of the sign test have it
    assert median_interval(range(25)) == (7, 17)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        low, high = median_interval(list(random.exponential(size=11))) or (0, 0)
        hits += low <= math.log(2) <= high
    assert hits / 2000 >= 0.94  # 98.8% by the binomial distribution


def test_ratios_by_hand() -> None:
    base, mine = variant_times(FOUND).values()
    assert (base.train, base.test) == (None, None)
    assert (base.train_ms, base.test_ms) == (1.0, 0.1)
    assert mine.train == Ratio(1.5, (1.4, 1.6), 6)
    assert mine.train.differs
    assert mine.test is not None
    assert mine.test.interval == pytest.approx((0.9, 1.2))
    assert not mine.test.differs
    assert mine.train_ms == 1.5


# --- the file, and when it is used -----------------------------------------------------------------------------------


def test_times_come_back_as_they_were_written(tmp_path: Path) -> None:
    found = replace(FOUND, times={name: replace(t, train=(0.1 + 0.2, *t.train[1:])) for name, t in FOUND.times.items()})
    write_times(tmp_path / "times.csv", found)
    assert read_times(tmp_path / "times.csv") == found
    shorter = {name: replace(times, test=times.test[:4]) for name, times in FOUND.times.items()}
    write_times(tmp_path / "shorter.csv", replace(FOUND, times=shorter))
    assert read_times(tmp_path / "shorter.csv").times == shorter
    shorter[WITH_SR] = FOUND.times[WITH_SR]
    write_times(tmp_path / "uneven.csv", replace(FOUND, times=shorter))
    with pytest.raises(ValueError, match=r"uneven\.csv holds no times"):
        read_times(tmp_path / "uneven.csv")
    for text in ("", "a,b\n1,2\n", (tmp_path / "times.csv").read_text().rpartition(",")[0]):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.csv holds no times"):
            read_times(tmp_path / "bad.csv")


def test_times_are_measured_once_for_a_folder_and_machine(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [str(variant) for variant in study.variants]
    runs = write_runs(tmp_path, names, seeds=[0])
    calls = []

    def measuring(study: Study, variants: object, runs: object, device: object, until: object) -> SideBySide:
        calls.append(until)
        return SideBySide(dict(zip(names, FOUND.times.values(), strict=True)), timing.conditions(study, CPU))

    monkeypatch.setattr(timing, "time_side_by_side", measuring)
    console = Console(record=True, quiet=False)
    first = timing.times_of(session(tmp_path, console), study, runs, tmp_path / "report")
    again = timing.times_of(session(tmp_path, console, deadline=0.0), study, runs, tmp_path / "report")
    assert first == again
    assert calls == [None]
    file = tmp_path / "report" / "times.csv"
    file.write_text(file.read_text().replace(",eager,", ",graph,"))  # of another machine, as it were
    assert timing.times_of(session(tmp_path, console), study, runs, tmp_path / "report") == first
    assert calls == [None, None]
    file.unlink()
    assert timing.times_of(session(tmp_path, console, deadline=0.0), study, runs, tmp_path / "report") == {}
    assert "Times of the variants were not compared: the time is up." in console.export_text()
    assert not file.exists()
    assert timing.times_of(session(tmp_path, console), study, runs[1:], tmp_path / "report") == {}  # no baseline


def test_a_failure_costs_the_times_and_not_the_report(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object, **__: object) -> SideBySide:
        raise RuntimeError("this network is built once only\nand so on")

    monkeypatch.setattr(timing, "time_side_by_side", failing)
    runs = write_runs(tmp_path, [str(variant) for variant in study.variants], seeds=[0])
    assert timing.times_of(session(tmp_path, Console()), study, runs, tmp_path) == {}
    assert "not compared: this network is built once only." in " ".join(capsys.readouterr().out.split())


def test_records_do_not_know_of_it(study: Study, tmp_path: Path) -> None:
    with RunProgress(study, Console(quiet=True)) as progress:
        made = run_study(Work(study, tmp_path), device=CPU, progress=progress)
    runs = [replace(run, wall_s=60.0) for run in made]
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert timing.times_of(session(tmp_path, Console(quiet=True)), study, runs, tmp_path / "report")
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before


# --- the words -------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return write_runs(tmp_path)


def test_words_say_ratio_interval_and_rounds(runs: list[Run]) -> None:
    times = variant_times(FOUND)
    said = words(times[WITH_SR], BASELINE)
    assert said == (
        "training step x 1.500 (1.400 to 1.600), inference x 1.000 (0.900 to 1.200; no measurable difference) of R8's "
        "(n = 6 rounds in turns)"
    )
    rows = comparison(runs)
    assert behind(rows[1], rows[0], times).cost.endswith(f"more parameters; {said}.")
    assert "in turns" not in behind(rows[1], rows[0], {}).cost
    assert time_sentences(rows, times)[0] == f"{WITH_SR}: {said}."
    assert time_sentences(rows, {}) == []


def test_few_rounds_have_no_interval() -> None:
    few, more = Ratio(1.2, None, 3), Ratio(1.1, (1.0, 1.2), 7)
    said = words(VariantTimes(1.0, 1.0, few, more), "R8")
    assert said.startswith("training step x 1.200 (too few rounds for an interval), inference x 1.100 (1.000 to 1.200;")
    assert said.endswith("of R8's (n = 3 and 7 rounds in turns)")


def test_tables_have_times_only_where_they_were_measured_in_turns(
    runs: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = comparison(runs)
    tables.print_table(rows, Console(width=80), times=variant_times(FOUND))
    with_times = capsys.readouterr().out
    tables.print_table(rows, Console(width=80))
    without = capsys.readouterr().out
    assert "train ms" in with_times
    assert " 1.50 " in with_times
    assert "x 1.500 (1.400 to 1.600)" in " ".join(with_times.split())
    assert "train ms" not in without


def test_a_comparison_has_times_in_its_folder_on_its_page_and_in_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measuring(study: Study, *_: object, **__: object) -> SideBySide:
        return SideBySide(FOUND.times, timing.conditions(study, CPU))

    monkeypatch.setattr(timing, "time_side_by_side", measuring)
    found = compare(list(FOUND.times), "digits", seeds=1, epochs=1, out=tmp_path, device="cpu", quiet=True)
    assert found.report is not None
    assert found.times == variant_times(FOUND)
    assert "training step x 1.500 (1.400 to 1.600)" in found.report.read_text()
    assert read_times(found.report.with_name("times.csv")).times == FOUND.times
    assert "train ms" in found.report.with_name("comparison.md").read_text()
