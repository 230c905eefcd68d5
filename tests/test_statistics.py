"""Statistics of seeds: against scipy's own, worked examples, and coverage on simulated seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test, ttest_1samp, ttest_ind

from srblock.report.units import signed
from srblock.statistics.differences import (
    Estimate,
    Summary,
    difference,
    difference_of_summaries,
    mean_interval,
    summarize,
    welch,
)

THREE_EQUAL = [0.1, 0.1, 0.1]  # NumPy's std of these is 1e-17, not 0


def test_summary_uses_the_sample_standard_deviation() -> None:
    summary = summarize([92.0, 94.0, 96.0])
    assert (summary.n, summary.mean, summary.std) == (3, 94.0, 2.0)


def test_either_reading_of_a_printed_deviation_gives_the_same_test() -> None:
    a, b = [92.0, 94.0, 96.0, 95.0], [91.0, 90.5, 93.0]
    assert summarize(a, ddof=0).std == pytest.approx(np.std(a))
    assert summarize(a, ddof=0).sample_std == pytest.approx(np.std(a, ddof=1))
    sides = [difference_of_summaries(summarize(a, ddof), summarize(b, ddof)) for ddof in (0, 1)]
    assert sides[0].p == pytest.approx(sides[1].p)
    assert sides[1].p == pytest.approx(ttest_ind(b, a, equal_var=False).pvalue)
    # The same printed figure read with n instead of n - 1 hides a greater spread.
    assert Summary(5, 77.0, 0.2, ddof=0).sample_std == pytest.approx(0.2 * math.sqrt(5 / 4))


def test_one_value_has_no_standard_deviation() -> None:
    assert summarize([92.5]).std is None
    assert mean_interval([92.5]) is None


def test_welch_by_hand() -> None:
    # Equal variances of 1 and n = 3 give df = 4, and every table has t(0.975, 4) = 2.776.
    found = difference([90.0, 91.0, 92.0], [92.0, 93.0, 94.0])
    assert found.mean == 2.0
    half = 2.776 * math.sqrt(2 / 3)
    assert found.interval == pytest.approx((2 - half, 2 + half), abs=1e-3)
    assert found.p_greater == 8.5 / 9  # 92 wins twice and ties once; 93 and 94 win thrice
    assert (found.n_baseline, found.n) == (3, 3)


def test_welch_satterthwaite_by_hand() -> None:
    # Variances 1 and 4, n = 3: squared error 5/3, df = (5/3)^2 / ((1/9 + 16/9) / 2) = 50/17, t(0.975) = 3.2188 there.
    found = difference([90.0, 91.0, 92.0], [91.0, 93.0, 95.0])
    assert found.interval is not None
    assert found.interval[0] == pytest.approx(2 - 3.2188 * math.sqrt(5 / 3), abs=1e-3)
    assert found.p_greater == 7.5 / 9


# Student's own data (1908): extra hours of sleep of ten patients with either drug. R prints for t.test(extra ~ group):
# t = -1.8608, df = 17.776, p-value = 0.07939, interval -3.3654832 to 0.2054832 (drug 1 minus drug 2).
SLEEP = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_welch_on_students_sleep_data() -> None:
    found = difference(SLEEP[1], SLEEP[0])
    assert found.estimate is not None
    assert found.estimate.mean / found.estimate.standard_error == pytest.approx(-1.8608, abs=5e-5)
    assert found.estimate.freedom == pytest.approx(17.776, abs=5e-4)
    assert found.p == pytest.approx(0.07939, abs=5e-6)
    assert found.interval == pytest.approx((-3.3654832, 0.2054832), abs=5e-8)
    means, stds = [np.mean(side) for side in SLEEP], [np.std(side, ddof=1) for side in SLEEP]
    printed = difference_of_summaries(Summary(10, means[1], stds[1]), Summary(10, means[0], stds[0]))
    assert printed.p == pytest.approx(found.p)
    assert printed.interval == pytest.approx(found.interval)


def test_p_is_near_that_of_all_permutations() -> None:
    a, b = [76.3, 76.6, 76.2, 76.7, 76.5], [76.9, 76.4, 77.1, 76.8, 76.6]
    exact = permutation_test((a, b), lambda x, y: np.mean(y) - np.mean(x), n_resamples=np.inf)
    assert difference(a, b).p == pytest.approx(exact.pvalue, abs=0.02)


numbers = st.floats(0, 100).map(lambda value: round(value, 2))
spread = st.lists(numbers, min_size=2, max_size=6).filter(lambda values: len(set(values)) > 1)  # scipy warns of less


@given(spread, spread, st.floats(0.5, 0.99))
def test_welch_agrees_with_scipy(a: list[float], b: list[float], confidence: float) -> None:
    ours = difference(a, b)
    assert ours.estimate is not None
    test = ttest_ind(b, a, equal_var=False)
    theirs = test.confidence_interval(confidence)
    assert ours.estimate.interval(confidence) == pytest.approx((theirs.low, theirs.high), rel=1e-7, abs=1e-7)
    assert ours.p == pytest.approx(test.pvalue, rel=1e-6, abs=1e-12)
    printed = difference_of_summaries(summarize(a), summarize(b))
    assert (printed.interval, printed.p) == (ours.interval, ours.p)


@given(spread, spread)
def test_the_interval_excludes_0_exactly_if_p_is_small(a: list[float], b: list[float]) -> None:
    found = difference(a, b)
    assert found.p is not None
    assert found.interval is not None
    assert (found.interval[0] > 0 or found.interval[1] < 0) == (found.p < 0.05)


@given(spread)
def test_interval_of_the_mean_agrees_with_scipy(values: list[float]) -> None:
    assert mean_interval(values, 0.9) == pytest.approx(tuple(ttest_1samp(values, 0).confidence_interval(0.9)))


def test_one_side_may_be_constant() -> None:
    found = difference(THREE_EQUAL, [0.1, 0.2, 0.3])
    assert found.interval is not None
    assert found.interval[0] == pytest.approx(0.1 - 4.302653 * 0.1 / math.sqrt(3), abs=1e-6)  # t(0.975, df = 2)


@pytest.mark.parametrize(
    ("baseline", "values"),
    [([90.0], [91.0, 92.0]), ([90.0, 91.0], [92.0]), ([90.0], [91.0]), (THREE_EQUAL, THREE_EQUAL)],
)
def test_no_interval_without_spread_on_both_sides(baseline: list[float], values: list[float]) -> None:
    found = difference(baseline, values)
    assert found.interval is None
    assert found.p is None
    assert found.with_more(3) is None or min(found.n, found.n_baseline) > 1


@given(st.lists(numbers, min_size=1, max_size=5), st.lists(numbers, min_size=1, max_size=5))
def test_swapping_the_sides_mirrors_the_difference(a: list[float], b: list[float]) -> None:
    there, back = difference(a, b), difference(b, a)
    assert there.p_greater + back.p_greater == pytest.approx(1)
    assert there.mean == pytest.approx(-back.mean)
    assert (there.interval is None) == (back.interval is None)
    if there.interval is not None and back.interval is not None:
        assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))


def test_p_greater_counts_pairs_of_unequal_samples() -> None:
    assert difference([1.0], [0.0, 1.0, 2.0, 3.0]).p_greater == 2.5 / 4
    assert difference([5.0, 6.0], [1.0]).p_greater == 0.0


def test_p_greater_of_summaries_is_that_of_normal_distributions() -> None:
    found = difference_of_summaries(Summary(5, 70.0, 0.3), Summary(5, 70.5, 0.4))
    draws = np.random.default_rng(1).normal([70.0, 70.5], [0.3, 0.4], (100_000, 2))
    assert found.p_greater == pytest.approx(np.mean(draws[:, 1] > draws[:, 0]), abs=0.005)
    assert difference_of_summaries(Summary(1, 70.0, None), Summary(5, 70.5, 0.4)).p_greater is None
    assert difference_of_summaries(Summary(5, 70.0, 0.0), Summary(5, 70.5, 0.0)).p_greater is None


def test_with_more_seeds_the_error_shrinks_and_the_spread_stays() -> None:
    found = difference_of_summaries(Summary(3, 70.0, 0.3, ddof=0), Summary(5, 70.5, 0.4))
    more = found.with_more(7)
    assert more is not None
    assert more.mean == pytest.approx(0.5)
    assert more.standard_error == pytest.approx(math.sqrt(0.3**2 * 3 / 2 / 10 + 0.4**2 / 12))


def test_tiny_spreads_do_not_vanish() -> None:
    error, freedom = welch(1e-200, 5, 1e-200, 5)
    assert (error, freedom) == pytest.approx((1e-200 * math.sqrt(2 / 5), 8))


def simulate(n: int, stds: tuple[float, float], repeats: int, seed: int = 2410) -> Estimate:
    """Draw many comparisons of two variants whose true difference is 0.6."""
    random = np.random.default_rng(seed)
    a, b = (random.normal(mean, std, (repeats, n)) for mean, std in zip((70, 70.6), stds, strict=True))
    return Estimate(b.mean(1) - a.mean(1), *welch(a.std(1, ddof=1), n, b.std(1, ddof=1), n))


@pytest.mark.parametrize("stds", [(0.3, 0.3), (0.2, 0.7)])
@pytest.mark.parametrize("n", [5, 30])
def test_intervals_cover_the_truth_as_often_as_they_say(n: int, stds: tuple[float, float]) -> None:
    low, high = simulate(n, stds, 20_000).interval()
    assert 0.93 <= np.mean((low <= 0.6) & (high >= 0.6)) <= 0.97


def test_coverage_of_the_function_that_is_called() -> None:
    draws = np.random.default_rng(2410).normal([70.0, 70.6], 0.3, size=(1000, 3, 2))
    found = [difference(a.tolist(), b.tolist()) for a, b in draws.transpose(0, 2, 1)]
    covered = [one.interval[0] <= 0.6 <= one.interval[1] for one in found if one.interval is not None]
    assert 0.93 <= sum(covered) / 1000 <= 0.97


def test_signed_has_no_minus_zero() -> None:
    assert [signed(value) for value in (-0.001, 0.0, 0.5, -0.5)] == ["0.00", "0.00", "+0.50", "-0.50"]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no values to summarize"):
        summarize([])
    with pytest.raises(ValueError, match="finite number"):
        difference([1.0, math.nan], [1.0])
    with pytest.raises(ValueError, match="ddof must be 1"):
        summarize([1.0], ddof=2)
    for wrong in (Summary(0, 1.0, None), Summary(3, math.nan, 0.1), Summary(3, 1.0, -0.1), Summary(3, 1.0, 0.1, 3)):
        with pytest.raises(ValueError, match="need n >= 1, a finite mean"):
            difference_of_summaries(wrong, Summary(3, 1.0, 0.1))
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got 95"):
        mean_interval([1.0, 2.0], 95)
