"""The figures: determinism, what they show of many classes, sizes at their limits."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from run_fixture import BASELINE, DIGITS, WITH_SR, recall_figures, write_run, write_runs

from srblock.report import block_figures, figures
from srblock.report.svg import VARIABLES
from srblock.statistics.comparison import comparison


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
        assert all(found.startswith(("a-", "b-", "recall-", "d-")) for found in re.findall(r' id="([^"]*)"', svg))
        assert all(f'id="{target}"' in svg for target in re.findall(r'(?:href="#|url\(#)([^")]*)', svg))


def test_every_seed_is_a_dot(tmp_path: Path) -> None:
    rows = comparison(write_runs(tmp_path, seeds=range(7)))
    svg = figures.seeds(rows, "a", 900)
    for index in (0, 1):
        assert len(re.findall(rf"<use [^>]*fill: var\(--series-{index}\)", svg)) == 7
    assert {BASELINE, WITH_SR} <= set(texts(svg))


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
