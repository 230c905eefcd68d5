"""A published record: what of a run enters it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from run_fixture import BASELINE, WITH_SR, write_run
from test_archive import edit

from srblock.runs.record_file import dumps, pack_run


def test_a_record_is_readable_and_small(tmp_path: Path) -> None:
    """200 epochs stay under 60 kB with every digit, each epoch in a line of its own."""
    run = write_run(tmp_path, WITH_SR, 0, epochs=200, classes=[f"class number {n}" for n in range(100)])
    text = dumps(pack_run(run.directory))
    assert len(text.encode()) < 60_000
    lines = text.splitlines()
    starts = [line for line in lines if line.startswith("  [")]
    assert len(starts) == 200
    assert json.loads(starts[6].rstrip(","))[0] == 7
    assert text.count("class number 42") == 1


def test_the_day_is_the_one_of_the_result(tmp_path: Path) -> None:
    run = write_run(tmp_path, BASELINE, 0)
    os.utime(run.directory / "result.json", (86_400 * 365, 86_400 * 365))
    assert pack_run(run.directory)["date"] == "1971-01-01"


def test_the_place_of_the_data_stays_out(tmp_path: Path) -> None:
    run = write_run(tmp_path, BASELINE, 0)
    edit(run.directory / "config.json", source=f"cifar100:{tmp_path}/images")
    text = dumps(pack_run(run.directory))
    assert str(tmp_path) not in text
    assert "source" not in text


def test_slashes_that_are_no_places_pass(tmp_path: Path) -> None:
    run = write_run(tmp_path, "timm/resnet18.a1_in1k + SR(after=layer3, P=2)", 0, classes=["/", "a/b", "n/a"])
    assert pack_run(run.directory)["config"]["variant"] == "timm/resnet18.a1_in1k + SR(after=layer3, P=2)"


def test_a_run_without_all_its_epochs_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, BASELINE, 0, epochs=3)
    history = run.directory / "metrics.jsonl"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(ValueError, match="has 2 epochs, its recipe 3"):
        pack_run(run.directory)
