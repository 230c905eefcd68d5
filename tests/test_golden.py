"""What must not change unsaid: names, figures and bits of a small study, the published tables.

`data/golden.json` was made by the code of 2026-11-24. Bits depend on the processor and on torch; where these are not
the recorded ones, names and counts are compared exactly and accuracies roughly.

    SRBLOCK_GOLDEN=write python -m pytest tests/test_golden.py      makes the file anew: only with NUMERICS raised
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from srblock.report.published import write_tables

DATA = Path(__file__).parent / "data"
GOLDEN = DATA / "golden.json"
RESULTS = Path(__file__).parents[1] / "results"
STUDY = ("R8", "R8 + SR(M=2, P=8)", "--data", "digits", "--image-size", "16", "--epochs", "2", "--seeds", "2")
# One kind of arithmetic on all processors that have it, in one thread.
PLAIN = {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}
PROGRAM = """
import srblock.runs.side_by_side as times
from srblock.cli import main
times.SECONDS = 0.2  # what follows the runs says nothing here
main()
"""
TIMES = ("train_ms_per_image", "eval_ms_per_image", "wall_s")
ROUGHLY = 8.0  # points of accuracy after two epochs


def machine() -> dict[str, str]:
    """Describe what bits depend on."""
    text = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    entries = dict(line.partition(":")[::2] for line in text.partition("\n\n")[0].splitlines())
    known = {key.strip(): value.strip() for key, value in entries.items()}
    processor = [known.get(key, "?") for key in ("vendor_id", "cpu family", "model", "stepping")]
    return {"processor": " ".join(processor), "torch": version("torch").partition("+")[0]}


def digest(weights: Path) -> str:
    """Return a hash of all values in a file of weights, whatever their names."""
    values = load_file(weights).values()
    each = sorted(hashlib.sha256(str(v.shape).encode() + v.tobytes()).hexdigest() for v in values)
    return hashlib.sha256("".join(each).encode()).hexdigest()


def figures(directory: Path) -> dict[str, Any]:
    result = json.loads((directory / "result.json").read_text())
    numbers = {key: value for key, value in result.items() if type(value) in (int, float) and key not in TIMES}
    return numbers | {"weights": digest(directory / "checkpoint.safetensors")}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Run the study anew, as a person would."""
    out = tmp_path_factory.mktemp("golden")
    command = [sys.executable, "-c", PROGRAM, "compare", *STUDY, "--out", str(out)]
    done = subprocess.run(command, env=os.environ | PLAIN, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {folder.name: figures(folder) for folder in sorted((out / "runs").iterdir())}
    if os.environ.get("SRBLOCK_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps({"machine": machine(), "runs": found}, indent=1) + "\n")
    return found


def test_a_study_has_the_names_and_figures_it_had(study: dict[str, dict[str, Any]]) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert study.keys() == golden["runs"].keys()
    if machine() == golden["machine"]:
        assert study == golden["runs"]
    for name, now in study.items():
        then = golden["runs"][name]
        assert {k: v for k, v in now.items() if type(v) is int and k != "best_epoch"} == {
            k: v for k, v in then.items() if type(v) is int and k != "best_epoch"
        }
        for key in ("test_top1", "validation_top1", "last_test_top1"):
            assert now[key] == pytest.approx(then[key], abs=ROUGHLY), (name, key)


def test_the_published_tables_follow_from_the_records(tmp_path: Path) -> None:
    for made_from in ("records", "protocols"):
        shutil.copytree(RESULTS / made_from, tmp_path / made_from)
    made = {path.name: path.read_text() for path in write_tables(tmp_path)}
    assert made == {path.name: path.read_text() for path in (RESULTS / "tables").iterdir()}
