"""What two variants say differently of test classes and images: figures against scikit-learn, and what chance does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from run_fixture import BASELINE, WITH_SR, write_run
from safetensors.numpy import save_file
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, recall_score

from srblock.runs.records import Answers, Run, read_run
from srblock.statistics import classes as statistics
from srblock.statistics.comparison import comparison
from srblock.statistics.multiple import holm

SIX = tuple("abcdef")


def answers(
    random: np.random.Generator, true: np.ndarray, right: float | np.ndarray = 0.7, classes: int = 6
) -> Answers:
    """Draw answers that are right with a chance, of all images or of each class."""
    chance = np.broadcast_to(right, classes)[true]
    said = np.where(random.random(len(true)) < chance, true, random.integers(0, classes, len(true)))
    dtype = np.uint8 if classes <= 256 else np.uint16
    return Answers(said.astype(dtype), true.astype(dtype))


def test_figures_are_those_of_scikit_learn() -> None:
    """With one class that is never said, and uint8 numbers whose product would not fit."""
    random = np.random.default_rng(0)
    true = random.choice(100, 2000, p=random.dirichlet([1.0] * 100))
    found = answers(random, true, 0.4, 100)
    found.said[found.said == 7] = 8
    matrix = statistics.confusion(found, 100)
    assert matrix.tolist() == confusion_matrix(found.true, found.said, labels=range(100)).tolist()
    assert statistics.macro_f1(matrix) == pytest.approx(100 * f1_score(found.true, found.said, average="macro"))
    there = np.unique(true)
    expected = recall_score(found.true, found.said, labels=there, average=None)
    assert statistics.recall_by_class(matrix)[there] == pytest.approx(100 * expected)
    assert statistics.balanced_accuracy(matrix) == pytest.approx(100 * expected.mean())
    assert len(there) < 100
    assert np.isnan(np.delete(statistics.recall_by_class(matrix), there)).all()


@pytest.mark.parametrize(("counts", "uneven"), [((10, 30), None), ((10, 31), (10, 31)), ((5, 0, 16), (5, 16))])
def test_classes_are_uneven_above_three_times(counts: tuple[int, ...], uneven: tuple[int, int] | None) -> None:
    assert statistics.uneven(np.repeat(np.arange(len(counts)), counts)) == uneven


def test_a_class_that_differs_is_found_and_no_other() -> None:
    """Over 8 seeds; the others differ by chance alone. Corrected for all classes, those without a test among them."""
    random = np.random.default_rng(1)
    true = np.repeat(np.arange(6), 100)
    worse, easy = np.full(6, 0.7), np.full(6, 0.7)
    worse[2], worse[5], easy[5] = 0.3, 1.0, 1.0
    before = {seed: answers(random, true, easy) for seed in range(8)}
    now = {seed: answers(random, true, worse) for seed in range(8)}
    found = statistics.class_changes(before, now, 6)
    assert [one.number for one in found] == list(range(6))
    assert [one.holm_p is not None and one.holm_p < 0.05 for one in found] == [False, False, True, False, False, False]
    assert found[5].holm_p is None
    p = [1.0 if one.comparison.estimate is None else one.comparison.estimate.p for one in found]
    assert [one.holm_p for one in found[:5]] == holm(p)[:5].tolist()
    assert p[2] < found[2].holm_p == 6 * p[2], "of six classes, not of the five that can be tested"
    share = [[100 * np.mean(side[s].said[true == 2] == 2) for s in range(8)] for side in (before, now)]
    assert found[2].comparison.counts.mean == pytest.approx(np.mean(share[1]) - np.mean(share[0]))
    assert found[2].comparison.counts is found[2].comparison.pairing, "from 8 shared seeds on the paired test counts"


def test_classes_without_test_images_are_left_out() -> None:
    said = Answers(np.array([0, 2]), np.array([0, 2]))
    assert [one.number for one in statistics.class_changes({0: said}, {0: said}, 4)] == [0, 2]


def test_pairs_are_those_whose_mean_count_changed_most() -> None:
    true = np.array([0] * 6 + [1] * 4)
    before = {
        0: Answers(np.array([1, 1, 0, 0, 0, 0, 1, 1, 1, 2]), true),
        1: Answers(np.array([1, 2] + [0] * 4 + [1] * 4), true),
    }
    now = {0: Answers(np.array([0] * 6 + [0, 0, 0, 0]), true)}
    found = statistics.pair_changes(before, now, 3, 2)
    assert [(one.true, one.said, one.baseline, one.ours) for one in found] == [(1, 0, 0.0, 4.0), (0, 1, 1.5, 0.0)]
    everything = statistics.pair_changes(before, now, 3, 9)
    assert [(one.true, one.said) for one in everything] == [(1, 0), (0, 1), (0, 2), (1, 2)], "no diagonal, no zeros"
    assert statistics.pair_changes(before, before, 3, 9) == []


def test_images_that_one_alone_has_right_in_most_seeds() -> None:
    """Columns: always gained; gained in two of three; never; a tie of the baseline's two seeds; lost."""
    true = np.zeros(5, dtype=int)
    before = {0: Answers(np.array([1, 2, 0, 0, 0]), true), 1: Answers(np.array([2, 2, 0, 1, 0]), true)}
    now = {
        0: Answers(np.array([0, 0, 0, 0, 2]), true),
        1: Answers(np.array([0, 0, 0, 0, 1]), true),
        2: Answers(np.array([0, 1, 0, 0, 1]), true),
    }
    found = statistics.image_changes(before, now)
    assert [(one.number, one.said, one.right, one.wrong) for one in found.gained] == [(0, 1, 3, 2), (1, 2, 2, 2)]
    assert [(one.number, one.said, one.right, one.wrong) for one in found.lost] == [(4, 1, 2, 3)]


def test_what_chance_gives_is_counted_over_all_exchanges() -> None:
    """One image that two seeds gain: of four ways to exchange, one gains it, one loses it, two leave it open."""
    true = np.zeros(2, dtype=int)
    wrong, right = Answers(np.array([1, 0]), true), Answers(np.array([0, 0]), true)
    found = statistics.image_changes({0: wrong, 1: wrong}, {0: right, 1: right})
    assert (len(found.gained), len(found.lost), found.by_chance) == (1, 0, 0.25)
    assert statistics.image_changes({0: wrong}, {0: right}).by_chance is None, "one seed always gives half of both"
    assert statistics.image_changes({0: wrong, 1: wrong}, {2: right, 3: right}).by_chance is None


@pytest.mark.parametrize("seeds", [5, 9])
def test_of_two_equal_networks_as_many_images_differ_as_chance_says(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    true = random.integers(0, 6, 4000)
    before, now = ({seed: answers(random, true, 0.5) for seed in range(seeds)} for _ in range(2))
    found = statistics.image_changes(before, now)
    assert found.by_chance == pytest.approx(len(found.gained), rel=0.1)
    assert found.by_chance == pytest.approx(len(found.lost), rel=0.1)


def write_answers(run: Run, said: Answers) -> Run:
    """Give a finished run what it said of the test images, and the accuracy and the number that follow from it."""
    file = run.directory / "result.json"
    result = json.loads(file.read_text())
    result["data"]["test"] = len(said.true)
    file.write_text(json.dumps(result | {"test_top1": 100 * float(np.mean(said.said == said.true))}))
    save_file({"predictions": said.said, "labels": said.true}, run.directory / "predictions.safetensors")
    return read_run(run.directory)


@pytest.mark.parametrize(("sizes", "known"), [((40, 5, 5, 5, 5, 5), True), ((10,) * 6, False)])
def test_a_comparison_has_balanced_figures_of_uneven_classes_only(
    tmp_path, sizes: tuple[int, ...], known: bool
) -> None:
    random = np.random.default_rng(0)
    true = np.repeat(np.arange(6), sizes)
    runs = [
        write_answers(write_run(tmp_path, variant, seed, classes=SIX), answers(random, true))
        for seed in range(3)
        for variant in (BASELINE, WITH_SR)
    ]
    row = comparison(runs)[1]
    assert (row.balance is not None) == known
    if row.balance is not None:
        each = [100 * balanced_accuracy_score(run.answers.true, run.answers.said) for run in runs[1::2]]
        assert row.balance.accuracy.mean == pytest.approx(np.mean(each))
        assert row.balance.accuracy.std == pytest.approx(np.std(each, ddof=1))
        f1 = [100 * f1_score(run.answers.true, run.answers.said, average="macro") for run in runs[1::2]]
        assert row.balance.macro_f1.mean == pytest.approx(np.mean(f1))
        assert row.balance.images == (5, 40)
    older = write_run(tmp_path, WITH_SR, 7, classes=SIX)
    assert comparison([*runs, older])[1].balance is None, "not of some seeds only"
