"""The page's section on the test data, the CSV files and the terminal: what differs by class and by image."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from run_fixture import BASELINE, WITH_SR, write_run, write_runs
from test_classes import answers, write_answers
from test_report_html import COMMAND, Page

from srblock.data import ImageData, ImageFiles
from srblock.data.pictures import pictures
from srblock.experiments.compare import write_reports
from srblock.report import html, tables
from srblock.report.classes import THUMB, class_views, thumbnail
from srblock.runs.records import Answers, Run
from srblock.statistics.comparison import comparison

NASTY = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&b")


pytestmark = pytest.mark.usefixtures("unpainted")


def study(
    out: Path,
    true: np.ndarray,
    classes: Sequence[str],
    seeds: int = 3,
    variants: Sequence[str] = (BASELINE, WITH_SR),
    better: float = 0.6,
) -> list[Run]:
    """Write runs that say something of test images; the last variant is right with a chance of its own."""
    random = np.random.default_rng(0)
    return [
        write_answers(
            write_run(out, variant, seed, classes=classes, recall=False),
            answers(random, true, better if variant == variants[-1] else 0.6, len(classes)),
        )
        for seed in range(seeds)
        for variant in variants
    ]


def images(true: np.ndarray, classes: Sequence[str], channels: int = 3) -> ImageData:
    """Test images of which each has its number as its color."""
    values = torch.arange(len(true)).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, 4, 4)
    labels = torch.from_numpy(true)
    return ImageData.build("some", train_images=values.clone(), train_labels=labels, test_images=values.clone(),
                           test_labels=labels, classes=classes, flip=False)  # fmt: skip


def render(folder: Path, runs: Sequence[Run], data: ImageData | None = None) -> tuple[str, Page]:
    path = folder / "report.html"
    html.write_report(path, runs, comparison(runs), COMMAND, data)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def decoded(source: str) -> np.ndarray:
    """Return the pixels of a data URI."""
    head, _, content = source.partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_strip_shows_the_images_that_one_alone_has_right(tmp_path: Path, channels: int) -> None:
    true = np.arange(150) % 3
    runs = study(tmp_path, true, NASTY)
    before, now = (
        np.mean([run.answers.said == true for run in runs[side::2] if run.answers is not None], axis=0)
        for side in (0, 1)
    )
    view = class_views(comparison(runs), runs, images(true, NASTY, channels))[0]
    assert [(strip.right, strip.wrong) for strip in view.strips] == [(WITH_SR, BASELINE), (BASELINE, WITH_SR)]
    assert f"{WITH_SR} alone has {view.strips[0].count}, {BASELINE} alone {view.strips[1].count}." in view.alone
    for strip, one, other in ((view.strips[0], now, before), (view.strips[1], before, now)):
        expected = np.flatnonzero((one > 0.5) & (other < 0.5))
        assert strip.count == len(expected) > 8
        assert len(strip.images) == 8
        for image in strip.images:
            number = int(decoded(image.source)[0, 0, 0])
            assert number in expected
            assert image.true == NASTY[true[number]] != image.said
            right, wrong = round(3 * one[number]), round(3 * (1 - other[number]))
            assert image.seeds == f"right in {right} of 3, wrong in {wrong} of 3"


def test_the_page_shows_hostile_names_as_text(tmp_path: Path) -> None:
    true = np.repeat(np.arange(3), (90, 20, 20))
    _, page = render(tmp_path, study(tmp_path, true, NASTY), images(true, NASTY))
    assert page.tags["img"] == 16
    assert all(target.startswith("data:image/png;base64,") for tag, target in page.references if tag == "img")
    assert not page.tags.keys() & {"script", "u"}
    for name in NASTY:
        assert f"{name} 90 images" in page.text or f"{name} 20 images" in page.text
    assert "<script>alert(1)</script> → a&b" in page.text
    assert "balanced accuracy macro F1" in page.text
    assert "The classes have 20 to 90 test images" in page.text


def test_no_images_without_data_and_no_section_without_predictions(tmp_path: Path) -> None:
    true = np.arange(150) % 3
    runs = study(tmp_path / "new", true, NASTY)
    _, page = render(tmp_path, runs)
    assert "Class by class" in page.text
    assert f"{WITH_SR} alone has" in page.text
    assert "img" not in page.tags
    assert "With every class counted alike" not in page.text, "50 images each"
    older = write_runs(tmp_path / "old", classes=NASTY, recall=False, seeds=[3, 4, 5])
    assert "Class by class" not in render(tmp_path, older)[1].text
    mixed = [*runs, *older]
    assert f"{WITH_SR} against {BASELINE} (3 seeds each)" in render(tmp_path, mixed)[1].text, (
        "of those that recorded it"
    )


def test_chance_is_said_and_a_class_is_named_after_holm_only(tmp_path: Path) -> None:
    classes = [f"kind {number}" for number in range(40)]
    true = np.repeat(np.arange(40), 20)
    random = np.random.default_rng(0)
    chance = np.full(40, 0.6)
    runs = []
    for variant, of_five in ((BASELINE, 0.6), (WITH_SR, 0.0)):
        chance[5] = of_five
        runs += [
            write_answers(
                write_run(tmp_path, variant, seed, classes=classes, recall=False), answers(random, true, chance, 40)
            )
            for seed in range(10)
        ]
    view = class_views(comparison(runs), runs)[0]
    assert view.lines[-1].name == "kind 5"
    assert len(view.lines) == 16
    assert len(view.rest) == 24
    changes = [float(line.difference) for line in view.lines]
    assert changes == sorted(changes, reverse=True), "from the most gained to the most lost"
    assert max(abs(float(line.difference)) for line in view.rest) <= min(map(abs, changes))
    assert [line.name for line in (*view.lines, *view.rest) if line.holm] == ["kind 5"]
    found = re.fullmatch(
        r"Among 40 classes tested, (\d) 95% intervals? leaves? out zero; by chance alone about 2\.0 would\. After "
        r"Holm's correction over all classes this one differs: kind 5 \(-\d\d\.\d\)\.",
        view.told,
    )
    assert found is not None, view.told
    assert 1 <= int(found[1]) < 8
    with_one_seed = class_views(comparison(runs[::10]), runs[::10])[0]
    assert with_one_seed.told.startswith("No class can be tested")
    assert "Another seed of the same network differs on images, too." in with_one_seed.alone


def test_a_thousand_classes_and_several_variants_stay_small(tmp_path: Path) -> None:
    classes = [f"class {number}" for number in range(1000)]
    variants = (BASELINE, "R8 + SE", WITH_SR)
    true = np.tile(np.arange(1000), 3)
    runs = study(tmp_path, true, classes, 2, variants)
    text, page = render(tmp_path, runs)
    assert len(text) < 200_000
    assert "The other 984 classes stand in classes.csv" in page.text
    files = dict(write_reports(tmp_path / "report", runs, comparison(runs), COMMAND))
    with files["every class"].open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2000
    view = class_views(comparison(runs), runs)[1]
    line = next(line for line in lines if line["variant"] == WITH_SR and line["class"] == view.lines[0].name)
    assert float(line["difference"]) == pytest.approx(float(line["mean"]) - float(line["baseline_mean"]))
    assert f"{float(line['difference']):+.1f}" == view.lines[0].difference


def test_csv_and_terminal_have_balanced_figures_of_uneven_classes_only(tmp_path: Path) -> None:
    for name, sizes in (("uneven", (90, 20, 20)), ("even", (20, 20, 20))):
        runs = study(tmp_path / name, np.repeat(np.arange(3), sizes), NASTY)
        rows = comparison(runs)
        row, line = tables.variant_lines(rows)[1], tables.run_lines(runs, tmp_path)[1]
        console = Console(file=io.StringIO(), width=300)
        tables.print_table(rows, console)
        said = console.file.getvalue()  # type: ignore[attr-defined]
        if name == "even":
            assert "balanced_accuracy" not in {*row, *line}
            assert "balanced" not in said
            continue
        balance = rows[1].balance
        assert balance is not None
        assert (row["balanced_accuracy"], row["macro_f1"]) == (balance.accuracy.mean, balance.macro_f1.mean)
        each = [float(str(line["test_balanced_accuracy"])) for line in tables.run_lines(runs, tmp_path)[1::2]]
        assert np.mean(each) == pytest.approx(balance.accuracy.mean)
        assert "Test classes have 20 to 90 images" in said
        assert (
            f"{WITH_SR} {balance.accuracy.mean:.2f} ± {balance.accuracy.std:.2f} and {balance.macro_f1.mean:.2f}"
            in said
        )


def test_of_files_only_the_shown_ones_are_decoded(tmp_path: Path) -> None:
    for number in range(3):
        wide = np.full((8, 12, 3), 40 * number, np.uint8)
        wide[:, :2] = wide[:, -2:] = 255  # what the center square leaves out
        Image.fromarray(wide).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    files = ImageFiles.below(tmp_path, [f"{number}.png" for number in range(3)], [1, 1, 1], 8)
    found = pictures(files, [2, 0])
    assert [picture.shape for picture in found] == [(8, 8, 3)] * 2
    assert [int(picture.max()) for picture in found] == [80, 0]


def test_a_file_that_is_gone_costs_the_pictures_and_not_the_page(tmp_path: Path) -> None:
    true = np.arange(150) % 3
    runs, data = study(tmp_path, true, NASTY), images(true, NASTY)
    gone = ImageFiles.below(tmp_path, [f"{number}.png" for number in range(150)], [1] * 150, 8)
    object.__setattr__(data, "test_images", gone)
    with pytest.warns(UserWarning, match="the report shows no test images: .*png"):
        views = class_views(comparison(runs), runs, data)
    assert views[0].strips[0].count > 0
    assert views[0].strips[0].images == ()


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), (64, 64)), ((300, 150), (THUMB, THUMB // 2)), ((80, 80), (80, 80))]
)
def test_large_images_are_made_smaller(size: tuple[int, int], expected: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), 77, np.uint8)
    picture = decoded(thumbnail(pixels))
    assert picture.shape[:2] == expected
    assert abs(int(picture[0, 0, 0]) - 77) < 3


def test_a_class_that_nobody_says_is_fine(tmp_path: Path) -> None:
    true = np.array([0, 1, 2, 2])
    runs = [
        write_answers(
            write_run(tmp_path, variant, 0, classes=NASTY, recall=False),
            Answers(np.zeros(4, np.uint8), true.astype(np.uint8)),
        )
        for variant in (BASELINE, WITH_SR)
    ]
    text, page = render(tmp_path, runs, images(np.array([0, 1, 2, 2, 0, 1]), NASTY))
    assert f"{WITH_SR} alone has 0, {BASELINE} alone 0" in page.text
    assert "What is confused" not in text
