"""The time budget: what is started before a deadline, and that a run stops in time and loses nothing."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mishaps import Diary, Mishap, four_runs
from test_resume import contents, nothing, study

from srblock.executors import budget as module
from srblock.executors import local
from srblock.executors.budget import Budget
from srblock.executors.execute import Executor, run_study
from srblock.runs import records
from srblock.runs.run_one import Paused, Work
from srblock.training import loop

CPU = torch.device("cpu")
local.PRELOAD = [*local.PRELOAD, "mishaps"]
PLAIN, BLOCK = (str(variant) for variant in study().variants)
EPOCH_S = 10.0
FINISH_S = 3 * EPOCH_S * 20 / 40  # of the tests' images


class Machine:
    """A clock that an epoch, and the finish of a run, move on, by so many seconds for each variant."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> None:
        self.now, self.seconds, self.ends = 1000.0, seconds, 0.0
        epoch, finish = loop._epoch, loop._finish

        def slow_epoch(step: Any, *rest: Any) -> dict[str, Any]:
            took = seconds[self.variant]
            self.now += took
            return epoch(step, *rest) | {"seconds": took, "train_seconds": 0.9 * took}

        def slow_finish(*given: Any) -> dict[str, Any]:
            self.now += FINISH_S / EPOCH_S * seconds[self.variant]
            return finish(*given)

        self.variant = PLAIN
        monkeypatch.setattr(loop, "_epoch", slow_epoch)
        monkeypatch.setattr(loop, "_finish", slow_finish)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def session(self, out: Path, minutes: float, epochs: int = 4, **options: Any) -> tuple[list[str], Diary]:
        """Run the study of four runs for so many minutes; return which were begun, in order."""
        machine = self

        class Watch(Diary):
            def started(self, run: records.RunConfig) -> None:
                machine.variant = str(run.variant)
                super().started(run)

        diary, self.ends = Watch(), self.now + 60 * minutes
        work = Work(four_runs(epochs), out, nothing, nothing)
        run_study(work, device=CPU, progress=diary, deadline=self.ends, **options)
        return [short(run) for run, _ in diary.of("started")], diary


def short(name: str) -> str:
    """Name a run as b1: with the block, seed 1."""
    return ("b" if "-sr-" in name else "p") + name.split("-s")[-1][0]


def words(diary: Diary) -> list[str]:
    """Return what was told, epochs as their numbers."""
    return [f"{short(run)} {text if word == 'epoch' else word}" for word, run, text in diary.entries]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch, {PLAIN: EPOCH_S, BLOCK: EPOCH_S})


def test_the_finish_is_judged_by_the_images_of_an_epoch() -> None:
    """An epoch of few steps is short, and the test set is not."""
    whole = study()
    assert module.finish_s(whole, EPOCH_S) == FINISH_S
    steps = replace(whole, recipe=replace(whole.recipe, epoch_steps=1, batch_size=8))
    assert module.finish_s(steps, EPOCH_S / 5) == FINISH_S  # 8 images of 40 in a fifth of the time


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({"tta": "flip"}, 1.2),
        ({"tta": "flip+translate"}, 2.0),
        ({"crop_size": (32, 48)}, 9),
        ({"crop_size": (32, 48), "inference": "whole"}, 4),
        ({"crop_size": (32, 48), "tta": "multiscale"}, 9 * (8 + 2 * 8.6875) / 10),
    ],
)
def test_the_finish_is_judged_by_windows_and_views(changes: dict[str, Any], times: float) -> None:
    """Scenes twice as high and wide as crops are seen through nine windows, whole they are four crops."""
    whole = study()
    recipe = SimpleNamespace(**{"tta": "none", "crop_size": None, "inference": "slide"} | changes)
    data = SimpleNamespace(size=(64, 96), test_size=whole.data.test_size)
    asked = SimpleNamespace(recipe=recipe, data=data, epoch_images=whole.epoch_images)
    assert module.finish_s(asked, EPOCH_S) == pytest.approx(times * FINISH_S)  # type: ignore[arg-type]


# --- which run is started -----------------------------------------------------------------------------------------


def test_without_a_deadline_all_runs_come_in_order(tmp_path: Path) -> None:
    runs = four_runs().runs
    assert tuple(Budget(Work(four_runs(), tmp_path)).order(runs, idle=False)) == runs


def order(out: Path, left_s: float, pace: dict[str, float], idle: bool = True, epochs: int = 4) -> list[str]:
    work = Work(four_runs(epochs), out)
    budget = Budget(work, module.time.monotonic() + left_s, pace)
    return [short(config.name) for config in budget.order(work.study.runs, idle)]


def begin(out: Path, number: int, done: int, epochs: int = 4) -> None:
    folder = out / "runs" / four_runs(epochs).runs[number].name
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"epoch": n + 1}) + "\n" for n in range(done)))


@pytest.mark.parametrize(
    ("left_s", "pace", "idle", "expected"),
    [
        (1.1 * (4 * 10 + FINISH_S) + 1, {PLAIN: 10, BLOCK: 10}, False, ["p0", "b0", "p1", "b1"]),
        (1.1 * (4 * 10 + FINISH_S) - 1, {PLAIN: 10, BLOCK: 10}, False, []),
        (1.1 * (4 * 10 + FINISH_S) - 1, {PLAIN: 10, BLOCK: 10}, True, ["p0", "b0", "p1", "b1"]),
        (70, {PLAIN: 30, BLOCK: 10}, False, ["b0", "b1"]),
        (70, {PLAIN: 30, BLOCK: 10}, True, ["b0", "b1", "p0", "p1"]),
        (10, {PLAIN: 10, BLOCK: 5}, True, ["b0", "b1"]),
        (70, {PLAIN: 30}, False, ["b0", "b1"]),
        (0, {}, True, []),
    ],
)
def test_new_runs_fit_as_a_whole_or_are_the_only_ones(
    left_s: float, pace: dict[str, float], idle: bool, expected: list[str], machine: Machine, tmp_path: Path
) -> None:
    assert order(tmp_path, left_s, pace, idle) == expected


def test_begun_runs_go_first_the_one_with_the_least_left_in_front(machine: Machine, tmp_path: Path) -> None:
    begin(tmp_path, 2, 1)
    begin(tmp_path, 3, 3)
    even = {PLAIN: 10.0, BLOCK: 10.0}
    assert order(tmp_path, 1000, even) == ["b1", "p1", "p0", "b0"]
    assert order(tmp_path, 1000, {}) == ["b1", "p1", "p0", "b0"], "by epochs, where no time is known"
    assert order(tmp_path, 1000, {PLAIN: 10.0, BLOCK: 100.0}) == ["p1", "b1", "p0", "b0"]
    assert order(tmp_path, 12, even, idle=False) == ["b1", "p1"], "an epoch is enough"
    assert order(tmp_path, 10, even) == []


def test_after_the_last_epoch_only_the_finish_must_fit(machine: Machine, tmp_path: Path) -> None:
    begin(tmp_path, 0, 4)
    assert order(tmp_path, 1.1 * FINISH_S + 0.1, {PLAIN: 10.0}, idle=False)[0] == "p0"
    assert "p0" not in order(tmp_path, 1.1 * FINISH_S - 0.1, {PLAIN: 10.0}, idle=False)


def test_what_is_seen_corrects_what_was_said(machine: Machine, tmp_path: Path) -> None:
    work = Work(four_runs(4), tmp_path)
    plain, block = work.study.runs[:2]
    budget = Budget(work, machine.now + 1000, {PLAIN: 10.0, BLOCK: 20.0})
    begin(tmp_path, 0, 1)
    budget.started(plain)
    budget.epoch(plain, {"epoch": 1})  # told again; it may be of another machine
    assert budget._epoch_s(plain) == 10
    machine.now += 37
    for number in (2, 3):
        budget.epoch(plain, {"epoch": number, "seconds": 30.0})
    assert (budget._epoch_s(plain), budget._epoch_s(block)) == (30, 60)
    assert budget._start_s == 7


# --- whole sessions -----------------------------------------------------------------------------------------------


def test_a_study_in_sessions(machine: Machine, tmp_path: Path) -> None:
    """A run takes 4 epochs of 10 s and 15 s at its end. Nobody says so beforehand: the first epoch shows it."""
    begun, diary = machine.session(tmp_path, 105 / 60)
    assert begun == ["p0", "b0"]
    assert machine.now <= machine.ends
    assert words(diary) == [
        "p0 started", "p0 1", "p0 2", "p0 3", "p0 4", "p0 finished", "b0 started", "b0 1", "b0 2", "b0 3", "b0 4",
        "b0 paused",
    ]  # fmt: skip
    begun, diary = machine.session(tmp_path, 80 / 60, epoch_seconds={PLAIN: EPOCH_S, BLOCK: EPOCH_S})
    assert begun == ["b0", "p1"]
    assert [each for each in words(diary) if each.endswith(("paused", "finished"))] == [
        "p0 finished", "b0 finished", "p1 finished",
    ]  # fmt: skip
    assert machine.now <= machine.ends


def test_nothing_is_started_that_would_not_come_far_enough(machine: Machine, tmp_path: Path) -> None:
    even = {PLAIN: EPOCH_S, BLOCK: EPOCH_S}
    assert machine.session(tmp_path, 10 / 60, epoch_seconds=even)[0] == []
    begun, diary = machine.session(tmp_path, 12 / 60, epoch_seconds=even)
    assert words(diary) == ["p0 started", "p0 1", "p0 paused"], "too short for any run: one goes on as far as it comes"
    assert machine.now <= machine.ends
    machine.session(tmp_path, 24 / 60, epoch_seconds=even)
    assert machine.now <= machine.ends
    begun, _ = machine.session(tmp_path, 1000, epoch_seconds=even)
    assert begun == ["p0", "b0", "p1", "b1"]
    assert all(map(records.finished, (tmp_path / "runs").iterdir()))


def test_no_session_takes_longer_than_it_may(machine: Machine, tmp_path: Path) -> None:
    """Whatever its length: the first epochs tell how long the others take."""
    for number, seconds in enumerate((30, 45, 61, 77, 100, 130, 200)):
        machine.session(tmp_path / str(number), seconds / 60)
        assert machine.now <= machine.ends
        assert machine.now > machine.ends - 1.1 * max(EPOCH_S, FINISH_S), "and no epoch's time is wasted"


def test_a_slower_variant_is_left_out_when_only_the_faster_fits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pace = {PLAIN: 5.0, BLOCK: 50.0}
    machine = Machine(monkeypatch, pace)
    begun, _ = machine.session(tmp_path, 70 / 60, epoch_seconds=pace)
    assert begun == ["p0", "p1"]


def test_a_paused_run_changes_no_bit(tmp_path: Path, machine: Machine) -> None:
    alone = tmp_path / "alone"
    run_study(Work(four_runs(4), alone, nothing, nothing), device=CPU, progress=Diary())
    paused = 0
    for _ in range(20):
        paused += len(machine.session(tmp_path / "parts", 30 / 60)[1].of("paused"))
    assert paused > 4
    assert contents(tmp_path / "parts") == contents(alone)
    assert not list(tmp_path.rglob("trainer.safetensors"))


def test_epochs_told_again_pause_nothing(machine: Machine, tmp_path: Path) -> None:
    """They may have been slow, as first ones are, or of another machine."""
    work = Work(four_runs(4), tmp_path)
    config, slow, fast = work.study.runs[0], {"epoch": 1, "seconds": 100.0}, {"epoch": 2, "seconds": 10.0}
    folder = work.folder(config)
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(json.dumps(slow) + "\n")
    told: list[Any] = []
    on_epoch = module.until(machine.now + 40, work, config, told.append)
    assert on_epoch is not None
    on_epoch(slow)
    machine.now += 10
    on_epoch(fast)
    machine.now += 10
    on_epoch(fast | {"epoch": 3})
    machine.now += 10
    with pytest.raises(Paused):
        on_epoch(fast | {"epoch": 3})
    assert told == [slow, fast, fast | {"epoch": 3}, fast | {"epoch": 3}]


# --- several workers ------------------------------------------------------------------------------------------------


def test_workers_pause_in_time_and_lose_no_epoch(tmp_path: Path) -> None:
    """With real clocks, and epochs that take longer than was said."""
    probe, diary = Mishap(tmp_path, times=0, slow_s=0.5, saves=False), Diary()
    work, executor = Work(four_runs(30), tmp_path / "out", probe, nothing), Executor(workers=2)
    deadline, pace = time.monotonic() + 12, {PLAIN: 0.01, BLOCK: 0.01}
    assert run_study(work, device=CPU, progress=diary, executor=executor, deadline=deadline, epoch_seconds=pace) == []
    assert time.monotonic() < deadline + 5, "unpaused it would take 15 s after the start"
    assert sorted(short(run) for run, _ in diary.of("paused")) == ["b0", "p0"]
    assert {word for word, _, _ in diary.entries} == {"workers", "started", "epoch", "paused"}
    for run, _ in diary.of("paused"):
        folder = work.out / "runs" / run
        assert [text for name, text in diary.of("epoch") if name == run][-1] == records.epochs_done(folder) < 30
        assert (folder / "trainer.safetensors").exists()
        assert not (folder / "log.txt").exists()
    work = replace(work, probe=replace(probe, slow_s=0.0))
    assert len(run_study(work, device=CPU, progress=Diary(), executor=executor)) == 4
    assert len(probe.epochs()) == 4 * 30, "each once"
