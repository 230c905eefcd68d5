"""What docs/compatibility.md promises: what a release wrote is read by those after it, and names stay.

`data/VERSION/` holds a run folder and a record that the release wrote; CONTRIBUTING.md says how they are made.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_cli import invoke

import srblock
from srblock.report.published import write_tables
from srblock.runs.evaluate import evaluate_run
from srblock.runs.record_file import as_run, pack_run, read_record
from srblock.variants.build import build
from srblock.variants.notation import parse

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"
RELEASES = sorted(path.name for path in DATA.iterdir() if path.is_dir())
RUNS = {release: next(path.parent for path in (DATA / release).rglob("result.json")) for release in RELEASES}
OLD_RUN = RUNS["0.1.0"]
BEFORE_LOAD_RUN = ("0.1.0",)
each_release = pytest.mark.parametrize("release", RELEASES)


def test_every_release_of_the_changelog_is_kept() -> None:
    headings = re.findall(r"^## (\S+) \((.*)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sorted(version for version, day in headings if day != "unreleased") == RELEASES
    assert headings[0][0].split(".") >= srblock.__version__.split("."), "the newest stands first"


@each_release
def test_a_run_folder_gives_the_figure_it_recorded(release: str, tmp_path: Path) -> None:
    folder = shutil.copytree(RUNS[release], tmp_path / RUNS[release].name)
    found = evaluate_run(folder, device=torch.device("cpu"))
    then = json.loads((folder / "result.json").read_text())
    assert found.value == pytest.approx(found.recorded, abs=0.3)  # one image of 360
    assert found.loss == pytest.approx(then["test_loss"], rel=1e-4)
    assert pack_run(folder)["name"] == folder.name


@pytest.mark.filterwarnings("ignore:.* is reused but was made with")
@each_release
def test_a_comparison_reuses_a_run_and_reports_it(release: str, tmp_path: Path) -> None:
    config = json.loads((RUNS[release] / "config.json").read_text())
    shutil.copytree(RUNS[release], tmp_path / "runs" / RUNS[release].name)
    words = ("--data", config["source"], "--image-size", config["image_size"], "--epochs", config["recipe"]["epochs"])
    done = invoke("compare", "R8", config["variant"], *words, "--seeds", "0-0", "--out", tmp_path)
    assert done.exit_code == 0
    assert f"{config['variant']}, seed 0  found " in done.output
    (report,) = tmp_path.glob("compare-*/report.html")
    assert config["variant"] in report.read_text()
    assert len([path for path in (tmp_path / "runs").iterdir() if path.is_dir()]) == 2, "R8 alone was trained"


@each_release
def test_weights_load_into_the_network_of_today(release: str) -> None:
    config, weights = (
        json.loads((RUNS[release] / "config.json").read_text()),
        load_file(next(RUNS[release].glob("c*.s*"))),
    )
    model = build(parse(config["variant"]), classes=10, channels=1, image_size=config["image_size"], seed=5)
    model.load_state_dict(weights)
    assert srblock.load_state(model, weights).complete


@each_release
def test_load_run_takes_a_run_folder_or_says_why_not(release: str) -> None:
    if release in BEFORE_LOAD_RUN:
        with pytest.raises(ValueError, match="older version of srblock"):
            srblock.load_run(RUNS[release])
    else:
        run = srblock.load_run(RUNS[release])
        assert len(run.predict(torch.zeros(3, 1, 16, 16, dtype=torch.uint8))) == 3


@each_release
def test_a_record_is_read_and_makes_tables(release: str, tmp_path: Path) -> None:
    (kept,) = (DATA / release).glob("*.json")
    record = read_record(kept)
    assert as_run(record, kept).environment["srblock"] == release
    (tmp_path / "records").mkdir()
    shutil.copy(kept, tmp_path / "records")
    digest = hashlib.sha256(kept.read_bytes()).hexdigest()
    (tmp_path / "records" / "SHA256SUMS").write_text(f"{digest}  {kept.name}\n")
    said = "".join(path.read_text() for path in write_tables(tmp_path))
    assert record["config"]["variant"] in said
    assert f"{as_run(record, kept).score:.2f}" in said


def test_the_page_lists_the_public_names() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text()
    section = page.partition("## Public names\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(listed) == sorted({*srblock.__all__, *srblock._EXPERIMENTS})
    api = (ROOT / "docs" / "api.md").read_text()
    assert not [name for name in listed if not re.search(rf":: srblock\.{name}\b", api)]
