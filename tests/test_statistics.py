"""Statistics of seeds: against scipy's own, a worked example, and coverage on simulated seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp, ttest_ind

from srblock.analysis.statistics import Difference, difference, mean_interval, signed, summarize, verdict

THREE_EQUAL = [0.1, 0.1, 0.1]  # NumPy's std of these is 1e-17, not 0


def test_summary_uses_the_sample_standard_deviation() -> None:
    summary = summarize([92.0, 94.0, 96.0])
    assert (summary.n, summary.mean, summary.std) == (3, 94.0, 2.0)


def test_one_value_has_no_standard_deviation() -> None:
    assert summarize([92.5]).std is None
    assert mean_interval([92.5]) is None


def test_welch_by_hand() -> None:
    # Equal variances of 1 and n = 3 give df = 4, and every table has t(0.975, 4) = 2.776.
    found = difference([90.0, 91.0, 92.0], [92.0, 93.0, 94.0])
    assert found.mean == 2.0
    assert found.low == pytest.approx(2 - 2.776 * math.sqrt(2 / 3), abs=1e-3)
    assert found.high == pytest.approx(2 + 2.776 * math.sqrt(2 / 3), abs=1e-3)
    assert found.p_greater == 8.5 / 9  # 92 wins twice and ties once; 93 and 94 win thrice
    assert (found.n_baseline, found.n) == (3, 3)


def test_welch_satterthwaite_by_hand() -> None:
    # Variances 1 and 4, n = 3: squared error 5/3, df = (5/3)^2 / ((1/9 + 16/9) / 2) = 50/17, t(0.975) = 3.2188 there.
    found = difference([90.0, 91.0, 92.0], [91.0, 93.0, 95.0])
    assert found.low == pytest.approx(2 - 3.2188 * math.sqrt(5 / 3), abs=1e-3)
    assert found.p_greater == 7.5 / 9


numbers = st.floats(0, 100).map(lambda value: round(value, 2))
spread = st.lists(numbers, min_size=2, max_size=6).filter(lambda values: len(set(values)) > 1)  # scipy warns of less


@given(spread, spread, st.floats(0.5, 0.99))
def test_welch_agrees_with_scipy(a: list[float], b: list[float], confidence: float) -> None:
    ours = difference(a, b, confidence)
    theirs = ttest_ind(b, a, equal_var=False).confidence_interval(confidence)
    assert ours.low == pytest.approx(theirs.low, rel=1e-7, abs=1e-7)
    assert ours.high == pytest.approx(theirs.high, rel=1e-7, abs=1e-7)


@given(spread)
def test_interval_of_the_mean_agrees_with_scipy(values: list[float]) -> None:
    assert mean_interval(values, 0.9) == pytest.approx(tuple(ttest_1samp(values, 0).confidence_interval(0.9)))


def test_one_side_may_be_constant() -> None:
    found = difference(THREE_EQUAL, [0.1, 0.2, 0.3])
    assert found.low == pytest.approx(0.1 - 4.302653 * 0.1 / math.sqrt(3), abs=1e-6)  # t(0.975, df = 2)


@pytest.mark.parametrize(
    ("baseline", "values"),
    [([90.0], [91.0, 92.0]), ([90.0, 91.0], [92.0]), ([90.0], [91.0]), (THREE_EQUAL, THREE_EQUAL)],
)
def test_no_interval_without_spread_on_both_sides(baseline: list[float], values: list[float]) -> None:
    found = difference(baseline, values)
    assert found.low is None
    assert found.high is None


@given(st.lists(numbers, min_size=1, max_size=5), st.lists(numbers, min_size=1, max_size=5))
def test_swapping_the_sides_mirrors_the_difference(a: list[float], b: list[float]) -> None:
    there, back = difference(a, b), difference(b, a)
    assert there.p_greater + back.p_greater == pytest.approx(1)
    assert there.mean == pytest.approx(-back.mean)
    assert (there.low is None) == (back.high is None)
    if there.low is not None:
        assert there.low == pytest.approx(-back.high)


def test_p_greater_counts_pairs_of_unequal_samples() -> None:
    assert difference([1.0], [0.0, 1.0, 2.0, 3.0]).p_greater == 2.5 / 4
    assert difference([5.0, 6.0], [1.0]).p_greater == 0.0


@pytest.mark.parametrize("n", [3, 5])
def test_intervals_cover_the_truth_as_often_as_they_say(n: int) -> None:
    draws = np.random.default_rng(2410).normal([70.0, 70.6], 0.3, size=(2000, n, 2))
    covered = 0
    for a, b in draws.transpose(0, 2, 1):
        found = difference(a.tolist(), b.tolist())
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.6 <= found.high
    assert 0.93 <= covered / 2000 <= 0.97


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.1, 0.9, "better: the interval reaches from +0.10 to +0.90"),
        (-0.9, -0.1, "worse: the interval reaches from -0.90 to -0.10"),
        (-0.4, 0.6, "no difference found: the interval reaches from -0.40 to +0.60"),
        (0.0, 0.6, "no difference found: the interval reaches from 0.00 to +0.60"),
    ],
)
def test_verdict_follows_the_interval(low: float, high: float, words: str) -> None:
    assert verdict(Difference((low + high) / 2, low, high, 0.5, 3, 3)) == words


def test_verdict_without_an_interval_says_why() -> None:
    assert verdict(difference([90.0], [95.0])) == "one seed each: nothing can be said about chance"
    assert verdict(difference([90.0], [95.0, 96.0])).startswith("one seed on one side")
    assert verdict(difference([90.0, 90.0], [95.0, 95.0])).startswith("every seed gave the same value")


def test_signed_has_no_minus_zero() -> None:
    assert [signed(value) for value in (-0.001, 0.0, 0.5, -0.5)] == ["0.00", "0.00", "+0.50", "-0.50"]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no values to summarize"):
        summarize([])
    with pytest.raises(ValueError, match="finite number"):
        difference([1.0, math.nan], [1.0])
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got 95"):
        difference([1.0], [1.0], 95)
