"""The published tables: which runs meet in one, what they say, and that those in the repository are of its records."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
import run_fixture
from run_fixture import of_scenes, write_run

from srblock.report.published import markdown, published, study_name, write_tables
from srblock.runs.archive import add_records, read_records
from srblock.runs.protocol import read_protocols
from srblock.statistics.power import smallest_detectable

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fake runs be on CIFAR-100."""

    def describe(classes: Sequence[str]) -> dict[str, Any]:
        return {
            "name": "cifar100",
            "fingerprint": "cd" * 32,
            "classes": [f"class {number}" for number in range(100)],
            "train": 50_000,
            "test": 10_000,
            "size": [3, 32, 32],
        }

    monkeypatch.setattr(run_fixture, "describe", describe)


def record(tmp_path: Path, figures: dict[str, Sequence[float]], **changes: Any) -> Path:
    """Publish runs with these accuracies, seed by seed, and make the tables."""
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    for variant, values in figures.items():
        for seed, value in enumerate(values):
            write_run(out, variant, seed, test_top1=value, **{"epochs": 2, **changes})
    (tmp_path / "results" / "records").mkdir(parents=True, exist_ok=True)
    add_records(out, tmp_path / "results")
    write_tables(tmp_path / "results")
    return tmp_path / "results" / "tables"


FIGURES = {
    "R18 + SR(M=4, P=12)": (70.0, 70.5),
    "R18": (70.0, 70.2, 70.4),
    "R18 + SR(M=4, P=2)": (71.0, 71.2, 71.4),
    "R18 + D2D + SR(M=4, P=12)": (72.0,),
    "R34": (72.0, 72.4),
    "R34 + SR(M=3, P=6)": (72.1, 72.5),
}

GOLDEN = """\
# cifar100, 2 epochs

Made from `records/` by `srblock results tables`; changes by hand are lost.

50,000 training and 10,000 test images of 3x32x32 in 100 classes, fingerprint cdcdcdcdcdcd. 13 runs on CPU \
Example 9000 (2 threads), torch 2.15.0, commit 0123456789ab; 16 s of training in all. Every seed: [NAME.csv](NAME.csv).

Recipe: epochs 2, batch_size 128, learning_rate 0.1, momentum 0.9, nesterov no, weight_decay 0.0005, schedule \
multistep, milestones none, gamma 0.1, warmup_epochs 0, label_smoothing 0.0, clip_norm none, padding 4, flip yes, \
validation_fraction 0.1, precision float32, memory_format channels_last.

| variant | n | test top-1 | difference | 95% interval | p | Holm p | P(A > B) | detectable | overhead | paper | \
paper's difference |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| R18 | 3 | 70.20 ± 0.20 | - | - | - | - | - | - | - | 76.47 ± 0.20 | - |
| R18 + SR(M=4, P=2) | 3 | 71.20 ± 0.20 | +1.00 | +0.55 to +1.45 | 0.0036 | 0.0108 | 1.00 | 0.84 | 2.95% | \
76.74 ± 0.33 | +0.27 |
| R18 + SR(M=4, P=12) | 2 | 70.25 ± 0.35 | +0.05 | -1.71 to +1.81 | 0.878 | 1.000 | 0.58 | 4.89 | 2.95% | - | - |
| R18 + D2D + SR(M=4, P=12) | 1 | 72.00 | - | - | - | - | - | - | 2.95% | 77.93 ± 0.25 | +0.34 |
| R34 | 2 | 72.20 ± 0.28 | - | - | - | - | - | - | - | 77.07 ± 0.45 | - |
| R34 + SR(M=3, P=6) | 2 | 72.30 ± 0.28 | +0.10 | -1.12 to +1.32 | 0.757 | 1.000 | 0.75 | 2.78 | 2.95% | \
77.22 ± 0.30 | +0.15 |

| variant | verdict |
| --- | --- |
| R18 + SR(M=4, P=2) | better |
| R18 + SR(M=4, P=12) | undecided: 10,000 test images measure one accuracy to ±0.46, not to ±0.2; 6 more \
seeds per variant would settle ±0.46 (about 14 s of training) |
| R34 + SR(M=3, P=6) | undecided: 10,000 test images measure one accuracy to ±0.45, not to ±0.2; 9 more \
seeds per variant would settle ±0.45 (about 22 s of training) |

Test top-1 in percent of the epoch selected on validation, mean ± standard deviation (ddof = 1) over n seeds. \
A variant with SR is compared with the same network without it: difference in percentage points; interval and p by \
paired t where both have 8 seeds or more in common, else Welch's t; Holm p corrected over all comparisons of this \
page, and the verdicts follow it. P(A > B): share of seed \
pairs in which SR wins. Detectable: the true difference that these seeds find four times in five, after that \
correction. Overhead: parameters of the SR block over those of the network without it. Paper: Cakaj, Mehnert, Yang, \
ICMLA 2024, 5 seeds a row (ImageNet 4).

- R18 + SR(M=4, P=2) and R18, 3 shared seeds: correlation +1.00; every seed differs by the same.

No run of R18 + D2D is published: there is nothing to compare its SR variants with.

**Not the paper's full recipe**: epochs 2 (full: 200), milestones none (full: 60 120 160), gamma 0.1 (full: 0.2). \
Whether the block helps at this recipe says little about the full one. The paper's figures are of another training and \
stand here for orientation.
"""


def test_a_table_says_what_the_records_hold(tmp_path: Path, cifar: None) -> None:
    tables = record(tmp_path, FIGURES)
    (page,) = (path for path in tables.glob("*.md") if path.name != "index.md")
    assert page.read_text() == GOLDEN.replace("NAME", page.stem)


def test_every_seed_is_in_the_csv_with_its_record(tmp_path: Path, cifar: None) -> None:
    tables = record(tmp_path, FIGURES)
    (path,) = tables.glob("*.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["variant"], []).append(float(row["test_top1"]))
        assert (tables / row["run"]).resolve().is_relative_to(tmp_path / "results" / "records")
        assert (tables / row["run"]).exists()
    assert {variant: tuple(values) for variant, values in found.items()} == FIGURES
    assert next(iter(found)) == "R18"


def test_the_tables_do_not_depend_on_the_order_of_adding(tmp_path: Path, cifar: None) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for variant, values in FIGURES.items():
        one = record(tmp_path / "a", {variant: values})
    for variant, values in reversed(FIGURES.items()):
        other = record(tmp_path / "b", {variant: values})
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in other.iterdir()
    }


def test_other_recipes_data_weights_make_other_studies(tmp_path: Path, cifar: None) -> None:
    record(tmp_path, {"R18": (70.0,)})
    record(tmp_path, {"R18": (71.0,)}, epochs=3)
    studies = published(read_records(tmp_path / "results"))
    assert [study.recipe.epochs for study in studies] == [2, 3]
    (run,) = studies[0].runs
    (other,) = published([replace(run, config=replace(run.config, weights="pretrained"))])
    assert other.name != studies[0].name
    assert other.name.startswith("cifar100-2-epochs-")


def test_differences_over_the_shared_seeds_are_called_so(tmp_path: Path, cifar: None) -> None:
    """Ten seeds and the first eight of them: the difference is not that of the means in the table."""
    rises = [70 + seed / 10 + 0.01 * (seed % 3) for seed in range(10)]
    tables = record(tmp_path, {"R18": rises, "R18 + SR(M=4, P=2)": [70.2 + seed / 10 for seed in range(8)]})
    (text,) = (path.read_text() for path in tables.glob("cifar100-*.md"))
    means = f"with means of {70.55:.2f} and {sum(rises[:8]) / 8:.2f}."
    assert f"difference, interval and p are of the 8 seeds that both have, {means}" in " ".join(text.split())


def test_the_index_lists_the_studies_and_stale_tables_go(tmp_path: Path, cifar: None) -> None:
    tables = record(tmp_path, {"R18": (70.0, 71.0)})
    (tables / "old-study.md").write_text("")
    (tables / "old-study.csv").write_text("")
    record(tmp_path, {"R34": (72.0,)}, epochs=3)
    index = (tables / "index.md").read_text()
    assert "| cifar100 | 2 | 2 | R18 (n = 2) |" in index
    assert "| cifar100 | 3 | 1 | R34 (n = 1) |" in index
    assert not list(tables.glob("old-study.*"))
    assert len(list(tables.glob("*.md"))) == 3


def test_scenes_stand_beside_the_paper_s_miou(tmp_path: Path) -> None:
    names = ("FCN-R50", "FCN-R50 + SR(M=3, P=3, U=32)")
    made = [
        of_scenes(write_run(tmp_path, name, seed, recall=False), 70 + seed, 90) for name in names for seed in (0, 1)
    ]
    (study,) = published(made)
    assert [(row.metric, row.mean) for row in study.paper.values()][:2] == [("miou", 77.33), ("miou", 77.53)]
    assert "| 77.53 ± 0.23 | +0.20 |" in markdown(study)


def test_data_that_the_paper_has_not_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder may be called like a set of the paper."""
    digits = run_fixture.describe()
    monkeypatch.setattr(run_fixture, "describe", lambda classes: digits | {"name": "cifar100"})
    tables = record(tmp_path, {"R18": (70.0,), "R18 + SR(M=4, P=2)": (71.0,)})
    (page,) = (path for path in tables.glob("*.md") if path.name != "index.md")
    assert "aper" not in page.read_text()
    assert "| R18 + SR(M=4, P=2) | 1 | 71.00 | +1.00 | - | - | - | - | - | 2.95% |" in page.read_text()


def test_no_records_make_an_index_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (written,) = write_tables(tmp_path)
    assert "No run has been published yet." in written.read_text()


def test_the_tables_in_the_repository_are_of_its_records(tmp_path: Path) -> None:
    """`srblock results tables` makes them anew; byte for byte what is committed."""
    results = REPOSITORY / "results"
    for made_from in ("records", "protocols"):
        shutil.copytree(results / made_from, tmp_path / made_from)
    write_tables(tmp_path)
    made = {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
    kept = {path.name: path.read_bytes() for path in (results / "tables").iterdir()}
    assert made == kept


@pytest.mark.parametrize("page", ["README.md", "docs/measured.md"])
def test_every_interval_that_a_page_quotes_is_in_a_table(page: str) -> None:
    quoted = re.findall(r"[+-]\d+\.\d\d to [+-]\d+\.\d\d", (REPOSITORY / page).read_text())
    tables = [path.read_text() for path in (REPOSITORY / "results" / "tables").glob("*.md")]
    assert quoted
    assert not [interval for interval in quoted if not any(f"| {interval} |" in table for table in tables)]


def test_the_spread_of_trained_memories_that_memory_md_states_is_in_the_records() -> None:
    records = (REPOSITORY / "results" / "records").glob("airbench94-sr-m?-p8-s*.json")
    last = [dict(zip(record["columns"], record["epochs"][-1], strict=True)) for record in map(_json, records)]
    spreads = [100 * epoch[name] for epoch in last for name in epoch if name.endswith("memory_spread")]
    assert f"by {min(spreads):.2f} to {max(spreads):.2f}% of it" in (REPOSITORY / "docs" / "memory.md").read_text()


def test_the_spread_of_the_networks_trained_on_that_the_log_states_is_in_the_records() -> None:
    results = REPOSITORY / "results"
    (study,) = [plan.study for plan in read_protocols(results) if plan.name == "open-memory-trained-on"]
    runs = [run for run in read_records(results) if study_name(run.config) == study]
    validation = {(run.seed, bool(run.variant.sr_blocks)): run.validation["top1"] for run in runs}
    spread = stdev(validation[seed, True] - validation[seed, False] for seed in range(16, 20))
    detectable = smallest_detectable(spread / 16**0.5, 15)
    text = " ".join((results / "LOG.md").read_text().split())
    assert f"block less none is {spread:.3f} points" in text
    assert f"16 pairs would find a difference of {detectable:.2f} four times in five" in text


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_controls_are_shown_seed_by_seed_against_the_intact_network(tmp_path: Path, cifar: None) -> None:
    """Three seeds that lose 0.3, 0.4 and 0.5 points without their block: -0.40, t interval +- 4.303 * 0.1 / sqrt(3)."""
    out = tmp_path / "out"
    for seed in range(3):
        intact = 70.0 + seed
        removed = {"top1": intact - 0.3 - 0.1 * seed, "lost": 90, "gained": 50}
        same = {"top1": intact, "lost": 0, "gained": 0}
        controls = {"intact": {"top1": intact}, "removed": removed, "mean": same, "uniform": same, "shuffled": same}
        write_run(out, "R18", seed, epochs=2)
        write_run(out, "R18 + SR(M=4, P=2)", seed, epochs=2, controls=controls)
    (tmp_path / "results" / "records").mkdir(parents=True)
    add_records(out, tmp_path / "results")
    page = published(read_records(tmp_path / "results"))[0]
    text = markdown(page)
    assert "| R18 + SR(M=4, P=2) | block removed | 3 | -0.40 | -0.65 to -0.15 |" in text
    assert "| R18 + SR(M=4, P=2) | mean recall weights | 3 | 0.00 |" in text
    assert text.count("| R18 | ") == 1, "a network without a block has no control"


def test_runs_of_before_controls_have_no_table_of_them(tmp_path: Path, cifar: None) -> None:
    page = (record(tmp_path, {"R18": (70, 71), "R18 + SR(M=4, P=2)": (70, 72)})).glob("cifar100-*.md")
    assert "control" not in next(page).read_text()
