"""Giving runs to workers and seeing to what becomes of them, with workers that do what the test says."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock
from mishaps import Diary, four_runs

from srblock.executors import dispatch as module
from srblock.executors.budget import Budget
from srblock.executors.dispatch import dispatch
from srblock.executors.execute import run_study
from srblock.runs.outcome import Outcome
from srblock.runs.records import RunConfig
from srblock.runs.run_one import Work
from srblock.training import runtime

NAMES = [config.name for config in four_runs(1).runs]
A, B, C, D = NAMES
DONE, KILLED, MEMORY, BUSY = Outcome("done"), Outcome("killed", "killed"), Outcome("memory", "no room"), Outcome("busy")


class Scripted:
    """Workers whose runs end as the script says, the first given first; results come from a finished study."""

    resumes, poll_s = 1, 0.0

    def __init__(self, finished: Path, out: Path, count: int, script: dict[str, list[Outcome]]) -> None:
        self.finished, self.out, self.count, self.script = finished, out, count, script
        self.description = "scripted"
        self.at_work: list[RunConfig] = []
        self.together: list[tuple[str, ...]] = []
        self.log: list[str] = []
        self.on_give: Callable[[RunConfig], None] = lambda config: None

    def __enter__(self) -> Scripted:
        self.log.append("enter")
        return self

    def __exit__(self, *_: Any) -> None:
        self.log.append("exit")

    def environment(self) -> dict[str, Any] | None:
        return runtime.environment(torch.device("cpu"))

    def restart(self) -> None:
        assert not self.at_work
        self.log.append("renew")

    def submit(self, config: RunConfig, deadline: float | None) -> None:
        self.at_work.append(config)
        assert len(self.at_work) <= self.count
        self.together.append(tuple(each.name for each in self.at_work))
        self.on_give(config)

    def wait(self, timeout_s: float) -> list[tuple[RunConfig, Outcome]]:
        config = self.at_work.pop(0)
        outcome = self.script.get(config.name, [DONE]).pop(0)
        if outcome.ending == "done":
            shutil.copytree(self.finished / "runs" / config.name, self.out / "runs" / config.name, dirs_exist_ok=True)
        return [(config, outcome)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    run_study(Work(four_runs(1), out), device=torch.device("cpu"), progress=Diary())
    return out


def go(finished: Path, out: Path, script: dict[str, list[Outcome]], count: int = 2) -> tuple[Any, Diary, Scripted]:
    workers, diary = Scripted(finished, out, count, script), Diary()
    work = Work(four_runs(1), out)
    return dispatch(work, workers, diary, Budget(work)), diary, workers


def test_a_paused_run_is_told_of_and_left(finished: Path, tmp_path: Path) -> None:
    done, diary, workers = go(finished, tmp_path, {A: [Outcome("paused")]}, count=1)
    assert workers.together == [(A,), (B,), (C,), (D,)]
    assert diary.of("paused") == [(A, "")]
    assert diary.of("failed") == diary.of("again") == []
    assert sorted(done) == sorted([B, C, D])


def test_what_does_not_fit_as_a_whole_is_started_alone(finished: Path, tmp_path: Path) -> None:
    """Until its epoch shows that all are faster than was said."""
    workers, work = Scripted(finished, tmp_path, 2, {}), Work(four_runs(1), tmp_path)
    pace = dict.fromkeys(map(str, work.study.variants), 100.0)
    dispatch(work, workers, Diary(), Budget(work, time.monotonic() + 150, pace))
    assert workers.together == [(A,), (B,), (B, C), (C, D)]


def test_workers_are_not_called_for_what_does_not_fit(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "runs" / B, tmp_path / "runs" / B)
    workers, diary, work = Scripted(finished, tmp_path, 2, {}), Diary(), Work(four_runs(1), tmp_path)
    done = dispatch(work, workers, diary, Budget(work, time.monotonic() - 1))
    assert list(done) == [B]
    assert workers.log == []


def test_a_deadline_ends_the_waiting_for_others(finished: Path, tmp_path: Path) -> None:
    """A is another process's; C comes back out of memory, and there is no time left to try it alone."""
    workers, diary, work = Scripted(finished, tmp_path, 2, {C: [MEMORY]}), Diary(), Work(four_runs(1), tmp_path)
    budget = Budget(work, time.monotonic() + 60)
    workers.on_give = lambda config: setattr(budget, "deadline", time.monotonic()) if config.name == C else None
    (tmp_path / "runs" / A).mkdir(parents=True)
    with FileLock(tmp_path / "runs" / A / ".lock"):
        done = dispatch(work, workers, diary, budget)
    assert workers.together == [(B,), (B, C)]
    assert list(done) == [B]
    assert [name for name, _ in diary.of("again")] == [C]
    assert diary.of("waiting") == []


def sleep_as(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], object]) -> None:
    """Let something happen while the module under test sleeps; other threads of the tests sleep as before."""
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))


def test_every_worker_has_a_run_while_there_are_any(finished: Path, tmp_path: Path) -> None:
    done, diary, workers = go(finished, tmp_path, {})
    assert workers.together == [(A,), (A, B), (B, C), (C, D)]
    assert sorted(done) == sorted(NAMES)
    assert [entry[:2] for entry in diary.entries if entry[1] == A] == [("started", A), ("epoch", A), ("finished", A)]
    assert workers.log == ["enter", "exit"]


def test_a_killed_run_goes_on_at_once_and_fails_the_second_time(finished: Path, tmp_path: Path) -> None:
    done, diary, workers = go(finished, tmp_path, {A: [KILLED, KILLED], B: [KILLED, DONE]}, count=1)
    assert workers.together == [(A,), (A,), (B,), (B,), (C,), (D,)]
    assert diary.of("again") == [(name, "killed; it goes on from its last epoch") for name in (A, B)]
    assert diary.of("failed") == [(A, f"killed, 2 times now; see {tmp_path / 'runs' / A / 'log.txt'}")]
    assert A not in done


def test_out_of_memory_is_tried_again_alone_when_all_others_are_done(finished: Path, tmp_path: Path) -> None:
    done, diary, workers = go(finished, tmp_path, {A: [MEMORY, MEMORY], B: [MEMORY, DONE]})
    assert workers.together[-2:] == [(A,), (B,)]
    assert workers.log == ["enter", "renew", "renew", "exit"]
    assert diary.of("failed") == [(A, "no room")]
    assert sorted(done) == sorted([B, C, D])


def test_out_of_memory_without_others_has_failed(finished: Path, tmp_path: Path) -> None:
    _, diary, _ = go(finished, tmp_path, {A: [MEMORY]}, count=1)
    assert (diary.of("failed"), diary.of("again")) == ([(A, "no room")], [])


def test_runs_that_others_are_at_come_last(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that another process finishes meanwhile is taken as found, one that it leaves is trained."""
    locks = {name: FileLock(tmp_path / "runs" / name / ".lock") for name in (A, B)}
    for name, lock in locks.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        lock.acquire()

    def other_process(seconds: float) -> None:
        shutil.copytree(finished / "runs" / A, tmp_path / "runs" / A, dirs_exist_ok=True)
        for lock in locks.values():
            lock.release()

    sleep_as(monkeypatch, other_process)
    done, diary, workers = go(finished, tmp_path, {})
    assert workers.together == [(C,), (C, D), (B,)]
    assert [name for name, _ in diary.of("waiting")] == [A]
    assert sorted(done) == sorted(NAMES)


def test_a_run_taken_by_others_in_between_comes_last(finished: Path, tmp_path: Path) -> None:
    _, diary, workers = go(finished, tmp_path, {A: [BUSY, DONE]}, count=1)
    assert workers.together == [(A,), (B,), (C,), (D,), (A,)]
    assert len(diary.of("finished")) == 4


def test_a_damaged_result_fails_and_the_others_go_on(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / A).mkdir(parents=True)
    (tmp_path / "runs" / A / "result.json").write_text("{")
    done, diary, _ = go(finished, tmp_path, {})
    ((name, text),) = diary.of("failed")
    assert name == A
    assert "is damaged" in text
    assert sorted(done) == sorted([B, C, D])


def test_a_full_disk_ends_all(finished: Path, tmp_path: Path) -> None:
    workers = Scripted(finished, tmp_path, 2, {A: [Outcome("stop", "cannot write there", 28)]})
    work = Work(four_runs(1), tmp_path)
    with pytest.raises(OSError, match="cannot write there") as caught:
        dispatch(work, workers, Diary(), Budget(work))
    assert caught.value.errno == 28
    assert workers.log == ["enter", "exit"]


def test_warnings_of_workers_reach_people(finished: Path, tmp_path: Path) -> None:
    outcomes = {name: [Outcome("done", warnings=("the weights lack fc",))] for name in NAMES}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        go(finished, tmp_path, outcomes)
    assert [str(each.message) for each in caught] == ["the weights lack fc"], "the same one once"


def test_a_file_that_another_machine_wrote_may_come_late(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    sleep_as(monkeypatch, lambda seconds: shutil.copytree(finished / "runs" / A, folder))
    assert module._read_when_there(folder).score >= 0
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        module._read_when_there(tmp_path / "never")
