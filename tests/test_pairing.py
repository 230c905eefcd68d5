"""Pairing by seed: Student's sleep data, scipy's paired test, and how often the correlation's interval is right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, ttest_rel

from srblock.statistics.differences import Difference, Estimate, difference
from srblock.statistics.pairing import Comparison, Pairing, pairing

SLEEP = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def by_seed(baseline: list[float], ours: list[float]) -> Pairing | None:
    return pairing(dict(enumerate(baseline)), dict(enumerate(ours)))


def test_students_sleep_data() -> None:
    # R prints for the paired t.test: t = -4.0621, df = 9, p-value = 0.002833, interval -2.4598858 to -0.7001142. The
    # correlation's interval by hand: z = atanh(0.79517) = 1.08534, 1.95996 / sqrt(7) = 0.74080, tanh of both ends.
    found = by_seed(SLEEP[1], SLEEP[0])
    assert found is not None
    assert found.estimate is not None
    assert (found.n, found.estimate.freedom) == (10, 9)
    assert found.estimate.mean / found.estimate.standard_error == pytest.approx(-4.0621, abs=5e-5)
    assert found.estimate.p == pytest.approx(0.002833, abs=5e-7)
    assert found.estimate.interval() == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    assert found.correlation == pytest.approx(0.79517, abs=5e-6)
    assert found.correlation_interval == pytest.approx(
        (np.tanh(1.08534 - 0.74080), np.tanh(1.08534 + 0.74080)), abs=2e-5
    )


values = st.lists(st.floats(60, 80).map(lambda value: round(value, 2)), min_size=5, max_size=5).filter(
    lambda some: np.std(some) > 0.1
)


@given(values, values)
def test_agrees_with_scipy(a: list[float], b: list[float]) -> None:
    found = by_seed(a, b)
    assert found is not None
    if found.estimate is not None:
        assert found.estimate.p == pytest.approx(ttest_rel(b, a).pvalue, rel=1e-6, abs=1e-12)
    assert found.correlation == pytest.approx(pearsonr(a, b).statistic, abs=1e-9)
    if found.correlation_interval is not None:
        interval = pearsonr(a, b).confidence_interval()
        assert found.correlation_interval == pytest.approx((interval.low, interval.high), abs=1e-6)


def test_only_shared_seeds_count() -> None:
    found = pairing({0: 70.0, 1: 71.0, 2: 99.0}, {7: 1.0, 1: 71.5, 0: 70.1})
    assert found is not None
    assert (found.n, found.mean) == (2, pytest.approx(0.3))
    assert found.correlation is None
    assert pairing({0: 70.0, 1: 71.0}, {1: 70.0, 2: 71.0}) is None


def test_what_cannot_be_said_is_none() -> None:
    three = by_seed([70.0, 71.0, 71.5], [70.0, 70.5, 72.0])
    assert three is not None
    assert three.correlation is not None
    assert three.correlation_interval is None
    flat = by_seed([70.0, 70.0, 70.0, 70.0], [70.0, 70.5, 72.0, 71.0])
    assert flat is not None
    assert flat.correlation is None
    loose = by_seed([70.0, 71.0, 71.5, 70.2], [71.0, 70.5, 72.0, 70.0])
    assert loose is not None
    assert loose.correlation_interval is not None
    assert loose.correlation_interval[0] < 0 < (loose.correlation or 0)
    shifted = by_seed([70.1, 70.2, 70.3, 70.7], [70.4, 70.5, 70.6, 71.0])  # by 0.3, but for rounding
    assert shifted is not None
    assert shifted.estimate is None
    assert shifted.correlation_interval is None
    assert shifted.with_more(5) is None


def test_more_seeds_sharpen_the_paired_test() -> None:
    found = by_seed([70.0, 71.0, 71.5], [70.0, 70.5, 72.0])
    assert found is not None
    more = found.with_more(6)
    assert more is not None
    assert (more.freedom, more.standard_error) == (8, pytest.approx(found.std / 3))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="finite number"):
        by_seed([1.0, float("nan")], [1.0, 2.0])


@pytest.mark.parametrize("truth", [0.0, 0.6])
def test_the_correlations_interval_covers_the_truth(truth: float) -> None:
    draws = np.random.default_rng(2410).multivariate_normal([70, 70], [[1, truth], [truth, 1]], (1500, 10))
    covered = 0
    for pairs in draws:
        found = by_seed(*pairs.T.tolist())
        assert found is not None
        assert found.correlation_interval is not None
        low, high = found.correlation_interval
        covered += low <= truth <= high
    assert 0.93 <= covered / 1500 <= 0.97


def test_the_number_of_shared_seeds_alone_decides_which_test_counts() -> None:
    random = np.random.default_rng(2410)
    for shared, paired in ((7, False), (8, True), (30, True)):
        baseline, ours = random.normal(70, 1, (2, shared)).tolist()  # nothing goes together
        found = Comparison(difference(baseline, ours), by_seed(baseline, ours)).counts
        assert isinstance(found, Pairing) == paired
    many, other = random.normal(70, 1, (2, 20)).tolist()
    few = pairing(dict(enumerate(many)), dict(enumerate(other, start=15)))
    assert isinstance(Comparison(difference(many, other), few).counts, Difference), (
        "twenty seeds each, five of them shared"
    )
    assert isinstance(Comparison(difference([1.0], [2.0])).counts, Difference)


@pytest.mark.parametrize("n", [8, 10, 30])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, -0.3])
def test_the_test_that_counts_keeps_its_promises_whatever_the_correlation(n: int, correlation: float) -> None:
    """At most 5.5% false findings and 93 to 97% coverage, from 20,000 studies."""
    truth = 0.4
    spreads = [[1.0, correlation * 0.7], [correlation * 0.7, 0.49]]
    draws = np.random.default_rng(n).multivariate_normal([70, 70 + truth], spreads, (20_000, n))
    apart = draws[:, :, 1] - draws[:, :, 0]
    all_at_once = Estimate(apart.mean(1), apart.std(1, ddof=1) / np.sqrt(n), n - 1)  # type: ignore[arg-type]
    for index in range(20):  # what the simulation works out at once is what the code works out
        baseline, ours = draws[index].T.tolist()
        estimate = Comparison(difference(baseline, ours), by_seed(baseline, ours)).estimate
        assert estimate is not None
        assert estimate.p == pytest.approx(np.asarray(all_at_once.p)[index])
    low, high = all_at_once.interval()
    assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.97
    null = Estimate(apart.mean(1) - truth, all_at_once.standard_error, n - 1)  # type: ignore[arg-type]
    assert np.mean(np.asarray(null.p) < 0.05) <= 0.055
