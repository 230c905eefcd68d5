"""The page of an analysis: its words on both sides of every threshold, its files, and how a browser shows it."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from analysis_fixture import IMAGES, made_up, run_of
from PIL import Image
from run_fixture import DIGITS
from test_report_html import Page

from srblock.inspection.analysis import Analysis, BlockAnalysis, Controlled, Information
from srblock.inspection.controls import CONTROLS
from srblock.report import analysis_figures, analysis_pictures, analysis_words, control_words
from srblock.report.analysis import write_analysis
from srblock.report.analysis_exhibits import block_exhibits
from srblock.report.analysis_numbers import around_mean, epoch_series, own_logits
from srblock.report.block_figures import memory_plate
from srblock.report.svg import LIGHT, SERIES, VARIABLES, Plate
from srblock.runs.analyze import subject_of
from srblock.statistics.paired_images import mcnemar_p, wilson_interval
from srblock.training.classification import Classification
from srblock.training.segmentation import Segmentation

TOP1, MIOU = Classification.figures[0], Segmentation.figures[0]
COMMAND = "srblock analyze out/runs/r8-sr-m3-p8-s0"
NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a&b",
    "鳥と猫",
    "قطة",
    "$x^2$",
    "=1+1",
    'a,b\n"c"',
)


def write(
    tmp_path: Path, found: Analysis, classes: Sequence[str] = DIGITS, *, scenes: bool = False, named: int = 3
) -> tuple[Path, Page, list[tuple[str, Path]]]:
    run = subject_of(run_of(tmp_path, found, classes, scenes=scenes))
    folder = tmp_path / "analysis"
    written = write_analysis(folder, run, found, command=COMMAND, classes=classes[:named])
    return folder, Page((folder / "analysis.html").read_text(encoding="utf-8")), written


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def with_control(name: str, lost: int, gained: int, others: int = 0, images: int = IMAGES) -> Analysis:
    """Return an analysis with this control, and others that change nothing."""
    found = replace(made_up(memories=2), images=images)
    points = 100 * (gained - lost) / images
    control = Controlled(name, {"top1": 90.0 + points}, lost, gained)
    same = tuple(Controlled(f"other {n}", {"top1": 90.0}, 10, 10) for n in range(others))
    return replace(found, controls=(control, *same))


def headline(found: Analysis, blocks: int = 1) -> str:
    return control_words.control_headline(control_words.judge_controls(found, TOP1)[0], blocks)


# --- words of the controls -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "worse", "better"),
    [
        ("removed", "The block matters", "The network does better without the block"),
        ("mean", "The block is more than a bias map", "The network does better with a fixed bias map"),
        (
            "shuffled",
            "It matters which image the recall weights are of",
            "The network does better with another",
        ),
        ("uniform", "It matters how the memory blocks are weighed", "The network does better with equal weights"),
        ("largest", "It matters that memory blocks are mixed", "The network does better with one memory block"),
        ("flat", "It matters where in the map the memory adds", "The network does better with the same at all"),
    ],
)
def test_a_control_is_a_finding_a_hint_or_no_sign(name: str, worse: str, better: str) -> None:
    assert mcnemar_p(6, 0) < 0.05 < mcnemar_p(5, 0) < 2 * mcnemar_p(6, 0) + 0.05
    assert headline(with_control(name, 6, 0)) == worse
    assert headline(with_control(name, 0, 6)).startswith(better)
    assert headline(with_control(name, 5, 0)) == f"No sign that {worse[0].lower()}{worse[1:]}"
    assert headline(with_control(name, 0, 5)) == f"No sign that {worse[0].lower()}{worse[1:]}"
    assert headline(with_control(name, 6, 0, others=1)) == (
        f"A hint that {worse[0].lower()}{worse[1:]}, too weak after Holm's correction"
    )
    assert headline(with_control(name, 0, 6, others=1)).startswith(f"A hint that {better[0].lower()}{better[1:]}")
    assert headline(with_control(name, 7, 0, others=1)) == worse, "0.0156 twice is below 0.05"


def test_every_control_has_words() -> None:
    assert control_words.WAYS.keys() == CONTROLS.keys()
    assert set(control_words.FIRST) <= CONTROLS.keys()
    assert headline(with_control("removed", 6, 0), blocks=2) == "The blocks matter"
    assert headline(with_control("mean", 5, 0), blocks=2) == "No sign that the blocks are more than a bias map"


def test_evidence_has_the_figures() -> None:
    found = with_control("mean", 20, 8, others=1)
    judged = control_words.judge_controls(found, TOP1)[0]
    text = control_words.control_evidence(judged, found, TOP1)
    assert "(mean over 9,000 training images)" in text
    assert "top-1 changes by -1.20 points, 95% interval -2.27 to -0.13, McNemar's p = 0.0357, 0.0714 after Holm" in text
    assert "(20 of 1,000 images lost, 8 gained)" in text
    assert "could have shown a change of about 1.5 points" in text
    alone = control_words.control_evidence(
        control_words.judge_controls(with_control("mean", 20, 8), TOP1)[0], with_control("mean", 20, 8), TOP1
    )
    assert "Holm" not in alone, "nothing to correct for"
    assert "could have shown" not in alone, "what was found needs no excuse"
    few = with_control("mean", 1, 1, images=2)
    text = control_words.control_evidence(control_words.judge_controls(few, TOP1)[0], few, TOP1)
    assert "This test set is too small to show any change." in text
    removed = with_control("removed", 5, 5)
    text = control_words.control_evidence(control_words.judge_controls(removed, TOP1)[0], removed, TOP1)
    assert text.endswith("The paper: -0.4 points, of a ResNet-50 on ImageNet (Sec. IV-D).")


def test_without_counts_there_is_no_test() -> None:
    found = made_up(scenes=True)
    judged = control_words.judge_controls(found, MIOU)
    assert {one.sign for one in judged} == {"untested"}
    assert control_words.control_headline(judged[0], 1) == "Not tested whether the block matters"
    assert control_words.control_evidence(judged[0], found, MIOU).startswith(
        "Every block returns its input: mIoU changes by -4.80 points."
    )
    said = control_words.untested(judged, MIOU)
    assert said is not None
    assert "mIoU is no share of the images" in said
    assert control_words.untested(control_words.judge_controls(made_up(), TOP1), TOP1) is None


# --- words of a block ------------------------------------------------------------------------------------------------


def block(**changes: Any) -> BlockAnalysis:
    return replace(made_up(memories=4).blocks[0], **changes)


def test_memory_is_zero_single_closed_or_open() -> None:
    say = analysis_words.block_headline
    assert say(block(spread=None)) == "The memory is zero: the block adds nothing"
    assert say(made_up(memories=1).blocks[0]) == "One memory block, so the same map is added to every image"
    assert say(block(spread=0.0999)).startswith("The memory is nearly closed: 4 memory blocks")
    assert say(block(spread=0.1)).startswith("The memory is open: 4 memory blocks")
    assert "bias map by construction" in analysis_words.memory_line(made_up(memories=1).blocks[0])
    assert "no effect" in analysis_words.memory_line(block(spread=None))


@pytest.mark.parametrize(("std", "bias"), [(0.0124, True), (0.0126, False)])
def test_what_is_added_is_almost_the_same_below_a_tenth(std: float, bias: bool) -> None:
    text = analysis_words.memory_line(block(spread=2.0, std=np.full(4, std)))  # the bound is 4 * 2 * std
    assert "differ from their mean map by 200% of its size" in text
    assert ("at most 9.9%" if bias else "at most 10%") in text
    assert ("almost the same map for every image" in text) == bias


def test_information_against_permutations() -> None:
    def say(bits: float, p: float) -> str:
        return analysis_words.information_line(Information(bits, 0.004, p, 0.31, 0.01, 0.2), 16)

    assert say(0.5, 0.049).startswith("The recall weights depend on the class: 0.5 bits of at most 4.00")
    assert say(0.5, 0.05).startswith("No sign that the recall weights depend on the class: ")
    assert say(0.0439, 0.005).startswith("The recall weights depend on the class, but hardly: ")
    assert say(0.0441, 0.005).startswith("The recall weights depend on the class: ")
    assert "permuted classes give 0.004 (p = 0.0490); 31% of the weights' variance" in say(0.5, 0.049)


def test_change_and_use_have_their_figures() -> None:
    change = np.array([3.0, math.nan, 7.21, 2.04])
    text = analysis_words.change_line(block(class_change=change), ("a", "b", "c", "d"))
    assert text == "The block changes its map by 3.4% on average, from 2.0% (d) to 7.2% (c); the paper has 2 to 10%."
    none = analysis_words.change_line(block(change=0.0, class_change=np.zeros(4)), ("a", "b", "c", "d"))
    assert none == "The block changes its map by 0% on average; the paper has 2 to 10%."
    assert "An image uses 3.6 of the 4 memory blocks on average" in analysis_words.use_line(block())


def test_enriched_classes_are_corrected_for_how_many_were_tried() -> None:
    shown = made_up(memories=4).blocks[0]

    def say(p: float) -> list[str]:
        one = replace(shown.exemplars[0], enriched=(("cat", 30, 10.0, p),))
        return analysis_words.enriched_lines(replace(shown, exemplars=(one, *shown.exemplars[1:3], one)), 10)

    assert say(0.0012)[0] == "Memory block 1: cat (30, chance gives 10.0)."
    assert not any("cat" in line for line in say(0.00126)), "0.05 over 4 memory blocks and 10 classes"


# --- the numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unpainted")
def test_csvs_hold_the_numbers_of_the_figures(tmp_path: Path) -> None:
    found = made_up(memories=3, size=(2, 3))
    folder, _, _ = write(tmp_path, found)
    one = found.blocks[0]
    recall = table(folder, "recall")
    assert [float(row["class_mean"]) for row in recall] == one.class_mean.ravel().tolist(), "every digit"
    assert [float(row["all_images_sd"]) for row in recall[:3]] == one.std.tolist()
    assert (recall[4]["class"], recall[4]["memory_block"], recall[4]["class_images"]) == ("1", "2", "50")
    memory = table(folder, "memory")
    assert [float(row["channel_mean"]) for row in memory] == one.memory.ravel().tolist()
    assert (memory[5]["memory_block"], memory[5]["row"], memory[5]["column"]) == ("1", "2", "3")
    assert [float(row["cosine"]) for row in table(folder, "cosine")] == one.cosine.ravel().tolist()
    closeups = table(folder, "closeups")
    assert [float(row["after"]) for row in closeups[:6]] == one.closeups[0].after.ravel().tolist()
    assert [float(row["absolute_difference"]) for row in closeups[:6]] == one.closeups[0].difference.ravel().tolist()
    assert [float(row["recall_weight"]) for row in table(folder, "closeup_weights")[:3]] == list(
        one.closeups[0].weights
    )
    assert [float(row["change_percent"]) for row in table(folder, "change")] == one.class_change.tolist()
    exemplars = table(folder, "exemplars")
    assert [float(row["recall_weight"]) for row in exemplars[:10]] == list(one.exemplars[0].weights)
    assert [int(row["image"]) for row in exemplars[:10]] == list(one.exemplars[0].numbers)
    assert table(folder, "information")[0]["bits"] == "0.21"
    assert table(folder, "enriched")[0] | {"block": ""} == {
        "block": "", "memory_block": "1", "top_images": "100", "class": "0", "images": "30", "expected_images": "10.0",
        "p": "1e-09",
    }  # fmt: skip
    epochs = [row for row in table(folder, "epochs") if row["figure"] == "memory_spread"]
    assert [row["value"] for row in epochs[:3]] == ["", "1.0", "0.5"], "an epoch without it has an empty cell"
    argued = [row for row in table(folder, "attribution") if row["memory_block"]]
    assert one.attribution is not None
    assert one.attribution.by_block is not None
    assert [float(row["logit"]) for row in argued] == one.attribution.by_block.ravel().tolist()
    assert sum(float(row["logit_less_mean"]) for row in argued[:10]) == pytest.approx(0, abs=1e-12)
    own = [row for row in table(folder, "attribution") if row["image_class"]]
    assert [float(row["logit"]) for row in own] == np.diagonal(one.attribution.by_class).tolist()
    controls = table(folder, "controls")
    assert [row["control"] for row in controls] == ["intact", *CONTROLS]
    assert controls[0]["change_points"] == ""
    removed = controls[1]
    assert float(removed["percent"]) == found.controls[0].figures["top1"]
    assert float(removed["low_percent"]) == wilson_interval(found.controls[0].figures["top1"], IMAGES)[0]
    assert (removed["lost_images"], removed["gained_images"]) == ("60", "12")
    assert float(removed["mcnemar_p"]) == mcnemar_p(60, 12)
    assert float(removed["holm_p"]) == pytest.approx(6 * mcnemar_p(60, 12))
    assert float(removed["low_points"]) < -4.8 < float(removed["high_points"])


def test_logits_are_seen_against_their_mean() -> None:
    by_class = np.array([[3.0, 1.0], [2.0, 6.0]])
    assert own_logits(by_class).tolist() == [1.0, 2.0]
    assert around_mean(by_class).tolist() == [[1.0, -1.0], [-2.0, 2.0]]


def test_series_need_a_value_where_it_counts(tmp_path: Path) -> None:
    found = made_up()
    run = subject_of(run_of(tmp_path, found))
    assert [key for key, _ in epoch_series(run, "layer3")] == ["memory_rms", "memory_spread"]
    assert epoch_series(run, "layer") == []
    del run.metrics[run.best_epoch - 1]["probe"]["layer3/memory_spread"]
    assert [key for key, _ in epoch_series(run, "layer3")] == ["memory_rms"]


# --- the page --------------------------------------------------------------------------------------------------------

CASES: dict[str, dict[str, Any]] = {
    "one block": {},
    "two blocks, not exact, gray": {
        "names": ("layer3", "layer4.1.conv2"), "exact": False, "image": (1, 28, 28), "size": (4, 7), "memories": 3,
    },
    "scenes": {"scenes": True, "memories": 3, "size": (8, 16), "image": (3, 64, 128)},
    "no controls": {"controls": False, "memories": 2},
    "one memory block, two classes": {"memories": 1, "classes": ("a", "b")},
    "100 classes": {"classes": tuple(f"class number {n}" for n in range(100)), "memories": 14, "size": (8, 8)},
    "names": {"classes": NASTY, "memories": 2},
}  # fmt: skip


Pages = Callable[[str], Path]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """Write the page of a case once."""

    @cache
    def pages(case: str) -> Path:
        changes = CASES[case]
        classes, scenes = changes.get("classes", DIGITS), changes.get("scenes", False)
        with pytest.MonkeyPatch.context() as patch:
            if case != "one block":  # half of the time, for pixels that no test of a page looks at
                patch.setattr(Plate, "png", lambda *_: b"")
            folder, _, written = write(tmp_path_factory.mktemp("page"), made_up(**changes), classes, scenes=scenes)
        assert written[0] == ("page", folder / "analysis.html")
        files = [path for _, path in written]
        assert sorted(files) == sorted(path for path in folder.rglob("*") if path.is_file())
        return folder

    return pages


@pytest.mark.parametrize("case", CASES)
def test_page_of_every_kind(case: str, pages: Pages) -> None:
    folder, found = pages(case), made_up(**CASES[case])
    text = (folder / "analysis.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags.keys() & {"script", "link", "iframe", "object", "base", "img"}
    assert all(times == 1 for times in page.ids.values()), "ids must be unique"
    assert len(text) < 3_000_000
    for tag, target in page.references:
        if tag == "a" and target != "https://arxiv.org/abs/2410.00823":
            assert (folder / target).is_file(), f"{target} is not there"
        elif tag != "a":
            assert target.startswith(("#", "data:image/png;base64,"))
    svgs = re.findall(r"<svg[^>]*>", text)
    assert len(svgs) == 2 * len(list((folder / "figures").glob("*.svg"))), "each wide and narrow, and as a file"
    assert all('role="img" aria-label="' in svg for svg in svgs)
    for one in found.blocks:
        assert f"After {one.name}" in page.text
    assert ("The controls were left out" in page.text) == (not found.controls)
    assert not re.search(r"\bnan\b", re.sub(r'"data:[^"]*"', "", text))


@pytest.mark.usefixtures("unpainted")
def test_controls_come_first_and_in_the_order_of_questions(tmp_path: Path) -> None:
    _, page, _ = write(tmp_path, made_up(memories=2))
    sentences = ("more than a bias map.", "weights are of.", "The block matters.", "After layer3", "Controls")
    places = [page.text.index(words) for words in sentences]
    assert places == sorted(places)
    assert "removed 85.20 \N{MINUS SIGN}4.80" in page.text
    assert "60 12 <0.001 <0.001 mean" in page.text


@pytest.mark.usefixtures("unpainted")
def test_blocks_of_alike_names_have_files_of_their_own(tmp_path: Path) -> None:
    folder, _, written = write(tmp_path, made_up(names=("a.b", "a-b"), memories=2))
    assert (folder / "figures" / "1-a.b-memory.svg").is_file()
    assert (folder / "figures" / "2-a-b-memory.svg").is_file()
    assert len({path for _, path in written}) == len(written)
    folder, _, _ = write(tmp_path / "apart", made_up(names=("a.b", "c"), memories=2))
    assert (folder / "figures" / "a.b-memory.svg").is_file(), "no numbers where names tell blocks apart"


@pytest.mark.usefixtures("unpainted")
def test_zero_memory(tmp_path: Path) -> None:
    found = made_up(memories=3)
    zero = replace(
        found.blocks[0], memory=np.zeros((3, 4, 4)), cosine=np.zeros((3, 3)), spread=None, change=0.0,
        class_change=np.zeros(10), class_mean=np.full((10, 3), 1 / 3), class_std=np.zeros((10, 3)),
        mean=np.full(3, 1 / 3), std=np.zeros(3),
    )  # fmt: skip
    _, page, _ = write(tmp_path, replace(found, blocks=(zero,)))
    assert "The memory is zero: the block adds nothing." in page.text


def test_classes_without_images_are_left_out(tmp_path: Path) -> None:
    found = made_up(memories=2, exact=False)
    one = found.blocks[0]
    for values in (one.class_mean, one.class_std, one.class_change, one.attribution.by_class):  # type: ignore[union-attr]
        values[1] = np.nan
    folder, page, _ = write(tmp_path, replace(found, blocks=(replace(one, class_change=one.class_change),)))
    assert "(50 of 0, 50 of 2)" in page.text
    assert table(folder, "change")[1]["change_percent"] == ""
    nothing = replace(one, class_mean=np.full((10, 2), np.nan), class_change=np.full(10, np.nan))
    keys = [exhibit.key for exhibit in block_exhibits(subject_of(run_of(tmp_path / "b", found)), nothing, DIGITS[:3])]
    assert not {"recall", "recall-classes", "change"} & set(keys)


@pytest.mark.usefixtures("unpainted")
def test_nothing_of_an_earlier_analysis_stands_beside_the_page(tmp_path: Path) -> None:
    found = made_up(memories=2)
    folder, _, whole = write(tmp_path / "a", found)
    (folder / "own.csv").write_text("kept")
    (folder / "figures" / "own.svg").write_text("kept")
    run = subject_of(run_of(tmp_path / "b", found))
    fewer = replace(found, controls=(), blocks=tuple(replace(one, attribution=None) for one in found.blocks))
    written = write_analysis(folder, run, fewer, command=COMMAND, classes=())
    assert {path.name for _, path in whole} > {path.name for _, path in written}
    there = {path.name for path in folder.rglob("*") if path.is_file()}
    assert there == {path.name for _, path in written} | {"own.csv", "own.svg"}


def test_an_unknown_class_is_refused(tmp_path: Path) -> None:
    run = subject_of(run_of(tmp_path, made_up(memories=2)))
    with pytest.raises(ValueError, match=r"no class 'dog' in the data; there are 0, 1, 2"):
        write_analysis(tmp_path / "analysis", run, made_up(memories=2), command=COMMAND, classes=["0", "dog"])


# --- figures ---------------------------------------------------------------------------------------------------------


def bars_at(plate: Plate) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(plate.inline("a")).iter("text")]


def test_light_colors_are_those_of_the_pages() -> None:
    style = Path(analysis_words.__file__).with_name("page.css").read_text()
    light = style[: style.index("@media")]
    assert LIGHT.keys() == VARIABLES.keys()
    for stand_in, variable in VARIABLES.items():
        assert f"{variable}: {LIGHT[stand_in]};" in light


def test_files_have_light_colors_on_white() -> None:
    plate = Plate(40, 20, 'a "square"', lambda figure: figure.add_axes((0, 0, 0.5, 1), facecolor=SERIES[1]).axis("on"))
    text = plate.svg()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (root.get("width"), root.get("viewBox"), root.get("aria-label")) == ("64", "-12 -12 64 44", 'a "square"')
    assert '<rect x="-12" y="-12" width="100%" height="100%" fill="#ffffff"/>' in text
    assert LIGHT[SERIES[1]] in text
    assert not any(stand_in in text for stand_in in VARIABLES)
    assert "var(--series-1)" in plate.inline("a"), "a page keeps its variables afterwards"
    assert plate.svg() == text
    data = plate.png()
    assert struct.unpack(">II", data[16:24]) == (128, 88)
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert pixels[44, 44].tolist() == [0x00, 0x72, 0xB2]
    assert pixels[44, 94].tolist() == [255, 255, 255]


def test_own_scales_name_the_end_of_each_map() -> None:
    memory = np.array([[[0.5, -0.1]], [[-0.02, 0.01]]])
    shown = bars_at(memory_plate(memory, 900, own_scales=True))
    assert {"1: ±0.5", "2: ±0.02"} <= set(shown)
    assert "0.5" not in shown
    assert {"1", "2", "-0.5", "0.5"} <= set(bars_at(memory_plate(memory, 900)))
    scaled = np.stack([memory[0], 0.1 * memory[0]])
    for own_scales, drawings in ((True, 1), (False, 2)):
        svg = memory_plate(scaled, 900, own_scales=own_scales).inline("a")
        assert len(set(re.findall(r'href="(data:[^"]*)"', svg)[:2])) == drawings, "weak maps look like strong ones"


def test_descriptions_say_what_is_found() -> None:
    shown = made_up(memories=2).blocks[0]
    shown.class_mean[:] = shown.mean
    shown.class_mean[3] += np.array([0.1, -0.1])
    plate = analysis_figures.class_recall(shown, [(0, "zero"), (3, "three")], 900)
    assert plate.description.endswith("The greatest difference is 0.100, of three at memory block 1.")
    change = analysis_figures.by_class(np.array([2.0, math.nan, 5.5]), 3.0, "abc", "change, %", 350)
    assert change.description == "change, %: most for c (5.5), least for a (2); 3 over all images."
    dots = analysis_figures.control_dots([("mean", -0.2, (-1.0, 0.6)), ("flat", 0.0, None)], "top-1", 100, 900)
    assert dots.description == "Change of top-1 under each control in points: mean -0.20 (-1.00 to +0.60); flat 0.00."
    cosine = np.array([[1, 0.25, -0.5], [0.25, 1, 0.1], [-0.5, 0.1, 1]])
    assert analysis_pictures.cosines(cosine, 350).description == "Cosine between 3 memory blocks: from -0.50 to 0.25."


def test_many_classes_are_cut_to_both_ends() -> None:
    values = np.arange(40.0)
    shown = bars_at(analysis_figures.by_class(values, None, [f"class {n}" for n in range(40)], "x", 900))
    assert {"…", "class 39", "class 30", "class 9", "class 0"} <= set(shown)
    assert not {"class 29", "class 10"} & set(shown)
    assert analysis_figures.class_order(np.array([1.0, math.nan, 3.0, 3.0])) == [2, 3, 0]


def test_memory_blocks_argue_at_both_ends() -> None:
    values = np.array([0.0, 5.0, -3.0, 1.0, -4.0, 2.0])
    assert analysis_figures.ends(values, 2) == [1, 5, 2, 4]
    names = [f"class {n}" for n in range(6)]
    plate = analysis_figures.argued(values[None], [0], names, 350)
    assert plate.description == "What memory blocks argue for most: 1 for class 1, against class 4."
    assert bars_at(analysis_figures.argued(np.zeros((1, 2)), [0], ("a", "b"), 350))


@pytest.mark.parametrize("width", [350, 900])
@pytest.mark.parametrize("case", ["two blocks, not exact, gray", "scenes", "100 classes", "names"])
def test_figures_fit_their_page(case: str, width: int, tmp_path: Path) -> None:
    changes = CASES[case]
    found, classes = made_up(**changes), changes.get("classes", DIGITS)
    run = subject_of(run_of(tmp_path, found, classes))
    for exhibit in block_exhibits(run, found.blocks[0], classes[:3]):
        plate = exhibit.plan(width)
        assert plate.width <= width + 1, exhibit.key
        assert 0 < plate.height < 6000


# --- a browser -------------------------------------------------------------------------------------------------------

MEASURE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, svg")
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + "." + e.className);
  parent.postMessage([innerWidth, document.documentElement.scrollWidth, "over:", ...wide].join(" "), "*");
});</script>"""
FRAMES = """<!doctype html><title>measured</title><body><script>
addEventListener("message", event => { document.title += "|" + event.data; });
</script>
<iframe src="page.html" style="width: 390px; height: 900px; border: 0"></iframe>
<iframe src="page.html" style="width: 1280px; height: 900px; border: 0"></iframe>"""


@pytest.mark.parametrize("case", CASES)
def test_a_browser_shows_it_without_errors_or_overflow(case: str, pages: Pages, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs Chromium on PATH")
    text = (pages(case) / "analysis.html").read_text(encoding="utf-8")
    opened = text.replace("<details>", "<details open>").replace("</head>", f"{MEASURE}</head>")
    (tmp_path / "page.html").write_text(opened, encoding="utf-8")
    (tmp_path / "frames.html").write_text(FRAMES, encoding="utf-8")
    options = (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}", "--hide-scrollbars", "--window-size=1400,1000",
        "--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom",
    )  # fmt: skip
    done = subprocess.run(
        [browser, *options, (tmp_path / "frames.html").as_uri()],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    title = re.search(r"<title>measured\|([^<]*)</title>", done.stdout)
    assert title is not None, done.stderr[-2000:]
    assert sorted(title[1].split("|")) == ["1280 1280 over:", "390 390 over:"], "nothing is wider than the page"
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]


def test_figures_of_one_view_are_called_so_where_the_test_averaged_several(tmp_path: Path) -> None:
    run = run_of(tmp_path, made_up(memories=2))
    assert subject_of(run).described == f"Seed {run.seed}, epoch {run.best_epoch} of {len(run.metrics)}"
    run = replace(run, config=replace(run.config, recipe=replace(run.config.recipe, tta="flip")))
    assert subject_of(run).described.endswith("; one view of each image here, where its test averaged over views: flip")
