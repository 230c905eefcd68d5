"""Run folders that were damaged or edited: what is read, evaluated, loaded and shown, or refused in words."""

from __future__ import annotations

import functools
import json
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from run_fixture import write_runs
from test_classes import answers, write_answers
from test_compatibility import OLD_RUN

from fuzz.bounds import Record, tries
from fuzz.mutations import mutated, mutated_arrays, spoiled
from srblock.data import load_data
from srblock.report.html import write_report
from srblock.runs.evaluate import evaluate_run
from srblock.runs.records import Run, read_run
from srblock.statistics.comparison import comparison


def change(file: Path, draw: random.Random) -> str:
    """Change a file of a run as hands, disks and strangers do; return what was done."""
    if file.suffix == ".safetensors":
        if draw.random() < 0.3:
            file.write_bytes(spoiled(file.read_bytes(), draw))
            return f"{file.name}: bytes"
        return f"{file.name}: {mutated_arrays(file, draw)}"
    if draw.random() < 0.1:
        file.write_bytes(spoiled(file.read_bytes(), draw))
        return f"{file.name}: bytes"
    text = file.read_text()
    if file.suffix == ".jsonl":
        found, what = mutated([json.loads(line) for line in text.splitlines()], draw)
        lines = found if isinstance(found, list) else [found]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        found, what = mutated(json.loads(text), draw)
        file.write_text(json.dumps(found))
    return f"{file.name}: {what}"


def rounds(kind: str, record: Record, seed: int, folder: Path, copy: Path) -> Iterator[str]:
    """Give a copy of a folder with one file changed, again and again, and say what was changed."""
    draw = random.Random(seed)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.*") if path.is_file())
    for _ in tries(kind, record):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        yield change(copy / draw.choice(files), draw)


def in_range(run: Run) -> bool:
    figures = [*run.test.values(), *run.validation.values(), *run.last_test.values(), *run.last_validation.values()]
    return all(-1e-6 <= value <= 100 + 1e-6 for value in figures) and 1 <= run.best_epoch <= len(run.metrics)


def test_a_changed_run_is_refused_or_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    monkeypatch.setattr("srblock.runs.reopen.load_data", functools.cache(load_data))
    for what in rounds("run folder, evaluated", record_property, 0, OLD_RUN, tmp_path / "run"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert in_range(read_run(tmp_path / "run")), what
                found = evaluate_run(tmp_path / "run", device=torch.device("cpu"))
            except (ValueError, FileNotFoundError):
                continue
            except Exception as error:
                raise AssertionError(f"{what}: {error!r}") from error
        assert 0 <= found.value <= 100, what


def test_a_changed_study_is_refused_or_shown(tmp_path: Path, record_property: Record) -> None:
    """Without the pictures, which take long and are of what was checked."""
    generator = np.random.default_rng(0)
    true = generator.integers(0, 10, 50)
    written = write_runs(tmp_path / "out", epochs=2, seeds=(0, 1))
    for run in written:
        write_answers(run, answers(generator, true, classes=10))
    write_report(tmp_path / "report.html", written, comparison(written), "srblock compare")  # the first takes longest
    for what in rounds("study of runs, reported", record_property, 1, tmp_path / "out" / "runs", tmp_path / "copy"):
        try:
            runs = [read_run(folder) for folder in sorted((tmp_path / "copy").iterdir())]
            assert all(map(in_range, runs)), what
            write_report(tmp_path / "report.html", runs, comparison(runs), "srblock compare")
        except ValueError:
            continue
        except Exception as error:
            raise AssertionError(f"{what}: {error!r}") from error
