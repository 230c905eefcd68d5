"""docs/runs.md on metrics.jsonl: every key that runs write, where it says so, and no other."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scene_fixture import write_cityscapes
from test_resume import study as images

from srblock.data import load_scenes
from srblock.runs.records import read_metrics
from srblock.runs.run_one import Work, train_one
from srblock.runs.study import Study, recipe_for
from srblock.variants.notation import parse

CPU = torch.device("cpu")
PAGE = Path(__file__).parents[1] / "docs" / "runs.md"


def documented() -> dict[str, set[str]]:
    """Read the table: of each key what a run must have for it."""
    (section,) = re.findall(r"^## metrics\.jsonl\n(.*?)^## ", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]*) \| ([^|]+) \| ([^|]*) \|$", section, re.MULTILINE)
    assert len(rows) == section.count("\n| `"), "a row has another number of columns"
    return {key: set(where.strip().split(", ")) for key, _, where, _ in rows}


def keys(study: Study, out: Path) -> set[str]:
    """Train the last run of a study and list the keys of its epochs, a block's name as NAME."""
    config = study.runs[-1]
    outcome = train_one(Work(study, out), config, CPU)
    assert outcome.ending == "done", outcome.text
    found = set()
    for record in read_metrics(out / "runs" / config.name):
        found |= record.keys() | {f"NAME/{name.rpartition('/')[2]}" for name in record["probe"]}
    return found


@pytest.mark.usefixtures("decoded_here")
def test_every_key_of_a_run_is_documented_and_the_other_way_round(tmp_path: Path) -> None:
    held = images(2)
    all_trained_on = replace(held, recipe=replace(held.recipe, validation_fraction=0.0), variants=held.variants[:1])
    scenes = load_scenes(f"cityscapes:{write_cityscapes(tmp_path / 'cityscapes', {'train': 9, 'val': 3})}")
    recipe = recipe_for(scenes, CPU, "scenes", 1, batch_size=3, crop_size=(32, 64), validation_fraction=0.2)
    pixels = Study((parse("FCN-R18 + SR(M=3, P=2)"),), (0,), scenes, "scenes", recipe)
    table = documented()
    for study, has in (
        (held, {"images", "held out", "blocks"}),
        (all_trained_on, {"images"}),
        (pixels, {"scenes", "held out", "blocks"}),
    ):
        expected = {key for key, needs in table.items() if needs <= has | {"every run"}}
        assert keys(study, tmp_path / "out") == expected
