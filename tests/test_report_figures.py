"""The figures: determinism, what they show of many classes, sizes at their limits."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from run_fixture import BASELINE, DIGITS, WITH_SR, recall_figures, write_run, write_runs

from srblock.report import block_figures, figures
from srblock.report.difference_figure import differences, seed_differences
from srblock.report.difference_figure import frame as difference_frame
from srblock.report.svg import VARIABLES, Plate
from srblock.statistics.comparison import comparison
from srblock.statistics.differences import mean_interval


def recall_figure(blocks: int = 8, classes: tuple[str, ...] = DIGITS, width: int = 900) -> str:
    data = recall_figures(np.random.default_rng(0), len(classes), blocks, (2, 2), 0.02)
    mean, overall, std = (data[f"layer3/{key}"] for key in ("class_mean", "mean", "std"))
    return block_figures.recall_weights(mean, overall, std, classes, "recall", width)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def test_figures_are_the_same_on_every_run(tmp_path: Path) -> None:
    runs = write_runs(tmp_path)
    rows = comparison(runs)

    def all_figures() -> list[str]:
        groups = [(row.variant, [run for run in runs if str(run.variant) == row.variant]) for row in rows]
        return [
            figures.seeds(rows, "a", 350),
            figures.learning_curves(groups, "b", 350),
            recall_figure(),
            block_figures.memories(runs[1].recall["layer3/memory"], "d", 350),
            differences(rows, "e", 350),
        ]

    first = all_figures()
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "svg.hashsalt": None}):  # a user's own settings
        assert all_figures() == first
        assert mpl.rcParams["font.size"] == 30
    for svg in first:
        ElementTree.fromstring(svg)  # well formed
        assert not any(stand_in in svg for stand_in in VARIABLES)
        assert "<style" not in svg
        assert "http" not in svg
        assert all(found.startswith(("a-", "b-", "recall-", "d-", "e-")) for found in re.findall(r' id="([^"]*)"', svg))
        assert all(f'id="{target}"' in svg for target in re.findall(r'(?:href="#|url\(#)([^")]*)', svg))


def test_every_seed_is_a_dot(tmp_path: Path) -> None:
    rows = comparison(write_runs(tmp_path, seeds=range(7)))
    svg = figures.seeds(rows, "a", 900)
    for index in (0, 1):
        assert len(re.findall(rf"<use [^>]*fill: var\(--series-{index}\)", svg)) == 7
    assert {BASELINE, WITH_SR} <= set(texts(svg))


def test_an_interval_of_few_seeds_is_not_drawn(tmp_path: Path) -> None:
    rows = comparison(write_runs(tmp_path, seeds=range(4)))
    assert all(figures.bar(row) == mean_interval(row.values) for row in rows)
    rows = comparison(write_runs(tmp_path / "b", seeds=range(3)))
    assert [figures.bar(row) for row in rows] == [None, None]
    assert "stroke-width: 9" not in figures.seeds(rows, "a", 900)


def test_every_pair_of_seeds_is_a_dot_of_the_difference(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, BASELINE, seed, test_top1=90.0 + seed) for seed in (0, 1, 2)]
    runs += [write_run(tmp_path, WITH_SR, seed, test_top1=92.0 + seed / 2) for seed in (1, 2, 3)]
    rows = comparison(runs)
    assert seed_differences(rows[1], rows) == [1.5, 1.0]
    svg = differences(rows, "a", 900)
    assert len(re.findall(r"<use [^>]*fill: var\(--series-1\)", svg)) == 2, "seeds 1 and 2 of both"
    assert "stroke-width: 9" in svg
    assert "95% -0.08 to +4.08" in svg
    assert texts(svg).count(WITH_SR) == 1
    assert BASELINE not in texts(svg)


def test_the_difference_of_one_seed_is_a_dot(tmp_path: Path) -> None:
    svg = differences(comparison(write_runs(tmp_path, seeds=[0])), "a", 350)
    assert len(re.findall(r"<use [^>]*fill: var\(--series-1\)", svg)) == 1
    assert "stroke-width: 9" not in svg


@pytest.mark.parametrize(
    ("values", "span"), [([0.5, 1.0], (-0.2, 1.0)), ([-31.0, 33.0], (-31, 33)), ([0.1], (-0.2, 0.2))]
)
def test_the_axis_of_differences_holds_zero_and_the_margin(values: list[float], span: tuple[float, float]) -> None:
    low, high = difference_frame(values, 0.2)
    space = 0.06 * (span[1] - span[0])
    assert (low, high) == pytest.approx((span[0] - space, span[1] + space))


def test_frame_holds_all_dots_and_never_magnifies_chance(tmp_path: Path) -> None:
    rows = comparison([*write_runs(tmp_path, seeds=[0, 1], test_top1=98.0)])
    assert figures.frame(rows) == pytest.approx((97.5, 98.5))
    runs = write_runs(tmp_path / "apart", seeds=[0, 1])
    low, high = figures.frame(comparison(runs))
    assert low < min(run.score for run in runs)
    assert max(run.score for run in runs) < high
    spread = np.ptp([run.score for run in runs])
    assert high - low <= max(1.0, 3 * spread * 1.13)


def test_frame_ends_at_a_hundred_percent(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, BASELINE, seed, test_top1=98.0 + seed) for seed in range(3)]
    low, high = figures.frame(comparison(runs))
    assert low < 98
    assert 100 < high < 100.2, "the dot at 100 is whole, and the axis ends there"


def test_recall_numbers_are_the_weights() -> None:
    data = recall_figures(np.random.default_rng(0), 10, 8, (2, 2), 0.02)
    shown = texts(recall_figure())
    for value in [*data["layer3/class_mean"].ravel(), *data["layer3/mean"], *data["layer3/std"]]:
        assert f"{value:.3f}" in shown
    assert {"all images", "sd over images", "1/8", *DIGITS} <= set(shown)


def test_many_blocks_have_colors_only() -> None:
    assert not any(re.fullmatch(r"0?\.\d{3}", text) for text in texts(recall_figure(blocks=60))[:-3])


def test_only_the_classes_that_deviate_most_are_shown() -> None:
    overall = np.full(4, 0.25)
    mean = np.tile(overall, (100, 1))
    mean[50:70] += [0.1, -0.1, 0, 0]
    assert block_figures.shown_classes(mean, overall) == list(range(50, 70))
    mean[55] = np.nan  # a class without test images
    assert 55 not in block_figures.shown_classes(mean, overall)
    assert block_figures.shown_classes(mean[:10], overall) == list(range(10))


def test_nearly_equal_weights_look_equal() -> None:
    flat = np.full((3, 4), 0.25) + 1e-4 * np.eye(3, 4)
    svg = block_figures.recall_weights(flat, flat.mean(0), np.zeros(4), ("a", "b", "c"), "recall", 900)
    assert "0.225" in texts(svg)  # the scale spans a tenth of 1/P at least
    assert "0.275" in texts(svg)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 2), (10, 14, 7), (2, 1, 32), (70, 8, 8)])
def test_memory_of_any_shape(shape: tuple[int, int, int]) -> None:
    memory = np.random.default_rng(1).normal(size=shape)
    svg = block_figures.memories(memory, "memory", 350)
    assert svg.count("<image") == min(shape[0], block_figures.MEMORIES_SHOWN) + 1  # and the color bar
    found = re.search(r'width="([\d.]+)" height', svg)
    assert found is not None
    assert float(found[1]) <= 350


def test_memory_scale_is_centered_at_zero() -> None:
    shown = texts(block_figures.memories(np.array([[[0.5]], [[-0.1]]]), "memory", 900))
    assert {"-0.5", "0", "0.5"} <= set(shown)
    assert {"-1", "0", "1"} <= set(texts(block_figures.memories(np.zeros((2, 2, 2)), "memory", 900)))


def test_control_characters_of_names_are_shown_by_their_codes() -> None:
    """A terminal that shows the file would obey them, and XML has no place for them."""

    def paint(figure: Figure) -> None:
        figure.text(0.5, 0.5, "a\x1b[31mred\x07\x9b\x00")

    plate = Plate(200, 100, "of \x1b[31m", paint)
    assert [node.text for node in ElementTree.fromstring(plate.svg()).iter() if node.text and "red" in node.text] == [
        r"a\x1b[31mred\x07\x9b\x00"
    ]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", plate.svg() + plate.inline("x"))
    assert plate.png().startswith(b"\x89PNG")


def test_names_of_any_script_and_length() -> None:
    svg = recall_figure(classes=("<b>&", "鳥", "$x^2$", "a name that is much too long for a figure, class 17"))
    assert {"<b>&", "鳥", "$x^2$", "a name that is…ure, class 17"} <= set(texts(svg))


def test_many_seeds_become_a_band(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, [BASELINE], seeds=range(12), epochs=3)
    one = figures.learning_curves([(BASELINE, runs[:10])], "a", 900)
    many = figures.learning_curves([(BASELINE, runs)], "a", 900)
    assert one.count("opacity: 0.45") == 2 * 10
    assert many.count("opacity: 0.45") == 0
    assert many.count("fill-opacity: 0.2") == 2
