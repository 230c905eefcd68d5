"""TensorBoard's event files: what metrics.jsonl says, each epoch once, wherever a run is trained."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mishaps import Diary, four_runs
from test_resume import study

from srblock.cli import main
from srblock.executors.execute import Executor, run_study
from srblock.inspection.recall import memory_probe
from srblock.runs import events
from srblock.runs.records import read_metrics
from srblock.runs.run_one import Paused, Work, train_one

CPU = torch.device("cpu")
needs_tensorboard = pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")


def shown(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Read what TensorBoard would show of a run: for each curve its epochs and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard")).Reload()
    return {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def recorded(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Say the same of metrics.jsonl, by names written out here."""
    names = {
        "lr": "lr",
        "seconds/train": "train_seconds",
        "seconds/epoch": "seconds",
        "train/loss": "train_loss",
        "train/top1": "train_top1",
        "validation/loss": "validation_loss",
        "validation/top1": "validation_top1",
    }
    records = read_metrics(run)
    found = {tag: [(record["epoch"], record[name]) for record in records] for tag, name in names.items()}
    for name in records[0]["probe"]:
        found[f"probe/{name}"] = [(record["epoch"], record["probe"][name]) for record in records]
    return found


def same(run: Path) -> bool:
    """Compare both, in the precision of an event file: float32."""
    mine, other = shown(run), recorded(run)
    assert mine.keys() == other.keys()
    return all(
        [step for step, _ in mine[tag]] == [step for step, _ in points]
        and [value for _, value in mine[tag]] == pytest.approx([value for _, value in points], rel=1e-6)
        for tag, points in other.items()
    )


def changed(run: Path) -> dict[Path, int]:
    """Say when each file of a run was last changed, but for its lock: older filelocks truncate it to take it."""
    return {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock"}


def status(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run as `srblock ...` would."""
    monkeypatch.setattr(sys, "argv", ["srblock", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@needs_tensorboard
def test_curves_are_those_of_the_metrics_and_interrupting_doubles_none(tmp_path: Path) -> None:
    work = Work(study(4), tmp_path, memory_probe, tensorboard=True)
    config = work.study.runs[1]
    folder = work.folder(config)

    def pause_after(epochs: int) -> Any:
        def tell(record: dict[str, Any]) -> None:
            if record["epoch"] == epochs:
                raise Paused

        return tell

    assert train_one(work, config, CPU, on_epoch=pause_after(2)).ending == "paused"
    assert [step for step, _ in shown(folder)["train/loss"]] == [1, 2], "an epoch is there before anyone can pause"
    assert train_one(work, config, CPU, on_epoch=pause_after(3)).ending == "paused"
    assert train_one(work, config, CPU).ending == "done"
    assert [step for step, _ in shown(folder)["train/loss"]] == [1, 2, 3, 4]
    assert any(name.endswith("/memory_rms") for name in shown(folder))
    assert same(folder)
    assert len(list((folder / "tensorboard").iterdir())) == 1
    before = changed(folder)
    assert train_one(work, config, CPU).ending == "done"
    assert changed(folder) == before, "a finished run is left alone"


@needs_tensorboard
def test_a_run_is_the_same_with_and_without(tmp_path: Path) -> None:
    for out, tensorboard in ((tmp_path / "with", True), (tmp_path / "without", False)):
        work = Work(study(2), out, tensorboard=tensorboard)
        train_one(work, work.study.runs[1], CPU)
    folders = [next((tmp_path / which / "runs").iterdir()) for which in ("with", "without")]
    assert folders[0].name == folders[1].name
    weights = [(folder / "checkpoint.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]
    assert [(folder / "tensorboard").exists() for folder in folders] == [True, False]


@needs_tensorboard
def test_workers_write_them_too(tmp_path: Path) -> None:
    work = Work(replace(four_runs(2), seeds=(0,)), tmp_path, memory_probe, tensorboard=True)
    runs = run_study(work, device=CPU, progress=Diary(), executor=Executor(workers=2))
    assert len(runs) == 2
    assert all(same(run.directory) for run in runs)


@needs_tensorboard
def test_the_option_reaches_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        status(monkeypatch, "train", "R8", "--data", "digits", "--epochs", 1, "--out", tmp_path, "--tensorboard") == 0
    )
    (folder,) = (tmp_path / "runs").iterdir()
    assert same(folder)


def test_without_tensorboard_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(events.importlib.util, "find_spec", lambda name: None)
    command = ("compare", "R8", "R8 + SR(M=3)", "--data", "digits", "--out", tmp_path / "out", "--tensorboard")
    assert status(monkeypatch, *command) == 2
    assert 'pip install "srblock[tensorboard]"' in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_curves_have_the_usual_names() -> None:
    figures = {"train_loss": 0.5, "train_miou": 40.0, "validation_macc": 50.0}
    record = {"epoch": 3, "lr": 0.1, **figures, "train_seconds": 1.0, "seconds": 2.0, "probe": {"layer3/x": 0.01}}
    named = {"train/loss": 0.5, "train/miou": 40.0, "validation/macc": 50.0}
    others = {"lr": 0.1, "seconds/train": 1.0, "seconds/epoch": 2.0, "probe/layer3/x": 0.01}
    assert events.scalars(record) == named | others
