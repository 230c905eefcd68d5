"""The guides docs/your-folder.md and docs/the-paper.md, command by command; test_custom.py has your-network.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_fixture import write_run
from test_cli import invoke
from test_pages import ROOT, commands


def printed(page: str, smaller: Mapping[str, str]) -> list[str]:
    """Give a guide's commands in small, with files for `*`; return what each printed.

    Left out is what takes long and other tests have: Table IV (test_reproduce.py) and `overhead` (test_paper.py).
    """
    said = []
    for words in commands(ROOT / "docs" / page):
        if "table4" in words or words == ["overhead"]:
            continue
        for large, little in smaller.items():
            words = [word.replace(large, little) for word in words]
        words = [str(name) for word in words for name in (sorted(Path().glob(word)) if "out/" in word else [word])]
        done = invoke(*words)
        assert done.exit_code == 0, f"{words}: {done.output}"
        said.append(done.output)
    return said


def write_images(folder: Path, count: int) -> None:
    """Write images of one color, another for each folder."""
    random = np.random.default_rng([*folder.name.encode()])
    color = random.integers(0, 200, 3)
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = (color + random.integers(0, 50, (20, 24, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def test_the_guide_to_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    for name in ("my_images/daisy", "my_images/tulip", "photos"):
        write_images(Path(name), 10)
    small = {"R18 + D2D": "R8", "r18-d2d": "r8", "M=4": "M=3", "-m4-": "-m3-"}
    shorter = {"--image-size": "--epochs=1", "64": "--image-size=16", "5": "1"}
    plan, runs, seen, exported = printed("your-folder.md", small | shorter)
    assert "2 runs" in plan
    (report,) = Path("out").glob("compare-*/report.html")
    assert report.name in runs
    assert "daisy" in seen or "tulip" in seen
    assert len(Path("said.csv").read_text().splitlines()) == 11
    assert "net.onnx" in exported
    assert Path("net.onnx").exists()


def test_the_guide_to_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "out", "R8", 0)
    Path("results/records").mkdir(parents=True)
    smaller = {"R18*": "VGG19*", "R18 + D2D": "R8", "{3,4}": "{2,3}", "{2..12:2}": "2", "{8,16,32}": "8"}
    gains, table, sweep, added, _ = printed("the-paper.md", smaller)
    page = " ".join((ROOT / "docs" / "the-paper.md").read_text(encoding="utf-8").split())
    for words in ("7 are significant each for itself, and 3 after the correction", "Of 44 gains"):
        assert words in page
    assert "Of 44 gains, 42 are positive and 7 significant" in " ".join(gains.split())
    assert "over each table 3 (" in " ".join(gains.split())
    assert "VGG19" in table
    assert "R8 + SR(M=2, P=2)" in sweep
    assert "1 added" in added
    (record,) = Path("results/records").glob("*.json")
    assert json.loads(record.read_text())["name"] == record.stem
    assert Path("results/tables/index.md").exists()
