"""benchmarks/: the tables in the docs are those of the records; what measures the block runs, and is run on a GPU."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from srblock.training import runtime

REPOSITORY = Path(__file__).parents[1]
BENCHMARKS = REPOSITORY / "benchmarks"
HERE = {"device": "CPU X", "threads": 2, "cores": 2, "torch": "9.9", "date": "2026-01-02", "commit": "c"}
Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Import a benchmark script."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(runtime, "keep_freed_memory", lambda device: None)  # for good, in this process

    def loaded(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return loaded


def run(module: Any, monkeypatch: pytest.MonkeyPatch, out: Path, *words: str) -> list[dict[str, str]]:
    """Run a script and read the record that it leaves."""
    monkeypatch.setattr(sys, "argv", ["script", *words, "--out", str(out)])
    module.main()
    (path,) = out.iterdir()
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0] | HERE))
        writer.writeheader()
        writer.writerows(row | HERE for row in rows)


# --- the tables in the docs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "count"), [("block.md", 2), ("folding.md", 1)])
def test_the_pages_have_the_tables_of_the_records(page: str, count: int, load: Load) -> None:
    tables = load("tables")
    assert page in tables.PAGES
    text = (REPOSITORY / "docs" / page).read_text()
    assert text.count(": python benchmarks/tables.py -->") == text.count("<!-- end -->") == count
    assert tables.filled(text) == text, "run benchmarks/tables.py"


def test_a_table_of_the_block_alone(load: Load, tmp_path: Path) -> None:
    case = {"dtype": "float32", "engine": "eager", "rounds": 9}
    rows = [
        case | {"shape": shape, "format": layout, "what": what, "module": module, "us": us, "to_se": us / 100,
                "to_copy": 0, "to_constant": us / 10, "to_memory": us / 1000 if shape == "1x2x3x4" else ""}
        for shape in ("8x2x3x4", "1x2x3x4")
        for layout, more in (("nchw", 0), ("channels_last", 60))
        for what, base in (("forward", 200), ("forward + backward", 300))
        for module, us in (("sr", base + more), ("cbam", 7 * base))
    ]  # fmt: skip
    write(tmp_path / "block-x.csv", rows)
    lines = (
        load("tables").filled("<!-- block: python benchmarks/tables.py -->\nold\n<!-- end -->", tmp_path).split("\n")
    )
    assert "CPU X, 2 threads, torch 9.9, 2026-01-02, 9 rounds (`block-x.csv`):" in lines
    assert "old" not in lines
    ratios = "3.00 / 3.60 | 2.00 / 2.60 | 30.00 / 36.00 | 20.00 / 26.00"
    assert f"| 8x2x3x4 | float32 | eager | {ratios} | - / - | 1.20 | 21.00 / 21.00 |" in lines
    assert f"| 1x2x3x4 | float32 | eager | {ratios} | 0.20 / 0.26 | 1.20 | 21.00 / 21.00 |" in lines


def test_a_table_of_whole_networks_on_two_machines(load: Load, tmp_path: Path) -> None:
    case = {"case": "imagenet", "what": "inference, batch 5", "engine": "graph", "rounds": 25}
    rows = [
        case | {"network": network, "ms_per_image": "1.25", "ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.0126}
        for network, ratio in (("R50", 1.0), ("R50 + SR(M=4, P=10)", 1.0026), ("R50 + SE", 1.2))
    ]
    for name in ("network-a.csv", "network-b.csv"):
        write(tmp_path / name, rows)
    text = load("tables").section("network", tmp_path)
    assert "| network | part | engine | plain, ms per image | SR | SE |\n" in text
    line = "1.25 | 1.003 (0.993 to 1.015) | 1.200 (1.190 to 1.213) |"
    assert text.count(f"| R50, 224x224 | inference, batch 5 | graph | {line}\n") == 2


# --- what measures ---------------------------------------------------------------------------------------------------


def test_the_block_alone_is_measured(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = load("block")
    monkeypatch.setattr(module, "SHAPES", ((4, 16, 3, 3), (1, 16, 5, 3)))
    monkeypatch.setattr(module, "AT_LEAST_S", {"cpu": 0})
    found = run(module, monkeypatch, tmp_path, "--rounds", "9", "--seconds", "0", "--without", "cbam")
    assert {row["rounds"] for row in found} == {"5"}, "seconds are over, and there are the least rounds"
    cases = [tuple(row[key] for key in ("shape", "dtype", "format", "what", "module")) for row in found]
    assert len(set(cases)) == len(cases) == 8 * (5 + 6)
    assert {row["module"] for row in found if row["shape"][0] == "4"} == {"sr", "naive", "se", "copy", "constant"}
    for row in found:
        assert (row["to_memory"] != "") == (row["shape"][0] == "1")
        assert float(row[f"to_{row['module']}"] if row["module"] in ("se", "copy", "constant", "memory") else 1) == 1


def test_without_timm_the_others_are_measured(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert list(load("block").modules((2, 16, 3, 3))) == ["sr", "naive", "copy", "constant"]


def test_whole_networks_are_measured(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = load("network")
    monkeypatch.setattr(module, "CASES", {"r8": ("R8", "SR(M=3, P=2)", "cifar100", 2, (1,))})
    monkeypatch.setattr(module, "TURN_S", 0)
    found = run(module, monkeypatch, tmp_path, "--cases", "r8", "--rounds", "2")
    assert [row["network"] for row in found] == 2 * ["R8", "R8 + SR(M=3, P=2)", "R8 + SE", "R8 + CBAM"]
    assert [row["what"] for row in found[::4]] == ["training step, batch 2", "inference, batch 1"]
    assert {row["ratio"] for row in found[::4]} == {"1.0000"}


@pytest.mark.parametrize("wrong", [False, True])
def test_the_check_tells_a_right_block_from_a_wrong_one(
    wrong: bool, load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load("check_block")
    monkeypatch.setattr(module, "SHAPES", ((1, 6, 3, 5), (33, 6, 5, 3)))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)  # put back afterwards
    if wrong:
        plainly = module.plainly
        monkeypatch.setattr(module, "plainly", lambda block, x: plainly(block, x) + 2e-5 * x)
    assert module.main(["--device", "cpu", "--engines", "eager"]) == int(wrong)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 14
    assert ["WRONG" in line for line in lines] == [wrong and "float32" in line for line in lines]


@pytest.mark.parametrize("wrong", [False, True])
def test_the_check_tells_an_engine_that_does_not_train(
    wrong: bool, load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load("check_step")
    monkeypatch.setattr(module, "SIZES", (4, 3, 4))
    if wrong:
        turns, trained = itertools.count(), module.trained

        def untrained(*words: Any) -> Any:
            found = trained(*words)
            return found if next(turns) % 2 == 0 else found | {"weights": (found["weights"][0],) * 2}

        monkeypatch.setattr(module, "trained", untrained)
    assert module.main(["--device", "cpu", "--engines", "eager"]) == int(wrong)
    *lines, last = capsys.readouterr().out.splitlines()
    assert ["WRONG" in line for line in lines] == [wrong] * len(module.SETTINGS)
    assert last == f"{wrong * len(module.SETTINGS)} wrong"


# --- on a GPU --------------------------------------------------------------------------------------------------------

PYTHON = """#!/usr/bin/env bash
printf '%q ' "$@" >> "$LOG"; echo >> "$LOG"
case $1 in *"${SLOW:-none}"*) exec sleep 30 ;; *"${BROKEN:-none}"*) exit 3 ;; esac
"""


@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("timeout") is None, reason="needs bash and timeout")
@pytest.mark.parametrize(("given", "status"), [({}, 0), ({"BROKEN": "check_block"}, 3), ({"SLOW": "fold"}, 0)])
def test_one_command_runs_all_of_it_on_a_gpu(given: dict[str, str], status: int, tmp_path: Path) -> None:
    (fake := tmp_path / "python").write_text(PYTHON)
    fake.chmod(0o755)
    environment = os.environ | {"PYTHON": str(fake), "LOG": str(tmp_path / "log")} | given
    if "SLOW" in given:
        environment["SECONDS_EACH"] = "0.5"
    words = ["bash", str(BENCHMARKS / "on_gpu.sh"), "block", "cifar", str(tmp_path / "out")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stderr
    called = [shlex.split(line) for line in (tmp_path / "log").read_text().splitlines()]
    scripts = ("check_block", "check_step", "block", "network", "fold")
    assert {call[0] for call in called} == {f"benchmarks/{name}.py" for name in scripts}
    for script, *options in called:
        assert options[:2] == ["--device", "cuda"]
        source = (REPOSITORY / script).read_text()
        assert all(f'"{word}"' in source for word in options if word.startswith("--"))
    assert ("its 0.5 s are over" in done.stdout) == ("SLOW" in given)


def test_the_python_that_has_torch_is_found_or_asked_for(tmp_path: Path) -> None:
    for name, status in (("python", 1), ("python3", 0)):
        (tmp_path / name).write_text(f'#!/bin/sh\ncase $1 in -c) exit {status} ;; *) echo "ran $0" ;; esac\n')
        (tmp_path / name).chmod(0o755)
    for tool in ("bash", "dirname", "mkdir", "tee", "timeout"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    words = ["bash", str(BENCHMARKS / "on_gpu.sh"), "block", "cifar", str(tmp_path / "out")]
    environment = {"PATH": str(tmp_path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.count(f"ran {tmp_path / 'python3'}") == 8, done.stderr
    (tmp_path / "python3").unlink()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "neither python nor python3 has torch" in done.stderr) == (2, True)


def test_its_parts_together_take_less_than_nine_minutes() -> None:
    lines = (BENCHMARKS / "on_gpu.sh").read_text().splitlines()
    seconds = [int(line.split()[1]) for line in lines if line.startswith("    part ")]
    assert len(seconds) == 8
    assert sum(seconds) <= 530


def test_starts_are_compared_with_a_memory_of_zeros(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = load("first_step")
    monkeypatch.setattr(module, "STARTS", (("zeros", 0.0), ("normal", 0.0), ("kmeans", 1.0)))
    monkeypatch.setattr(module, "LOGITS", ("standardized",))
    sizes = ["--batch-size", "64", "--age", "2", "--steps", "2", "--seeds", "1"]
    rows = run(module, monkeypatch, tmp_path, "--data", "digits", "--network", "R8", "--recipe", "auto", *sizes)
    assert [row["start"] for row in rows] == 2 * ["zeros", "normal", "kmeans"]
    for row in rows:
        zeros = next(other for other in rows if other["batches_before"] == row["batches_before"])
        assert float(row["loss"]) - float(zeros["loss"]) == pytest.approx(float(row["first"]), abs=2e-5)
        assert (row["start"] == "zeros") == (float(row["first"]) == float(row["later"]) == 0), row
