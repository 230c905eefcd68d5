"""TOST: a published example, the interval it equals, and how often it claims too much."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from srblock.statistics.differences import Estimate, Summary, difference, difference_of_summaries, welch
from srblock.statistics.equivalence import tost_p


def test_published_example() -> None:
    # Moery and Calin-Jageman (2016) in D. Lakens' TOSTER, not assuming equal variances: bounds of 0.43 standard
    # deviations, t = -2.69, p = 0.004 (it prints the 182 degrees of freedom of equal variances).
    found = difference_of_summaries(Summary(89, 5.22, 0.83), Summary(95, 5.25, 0.95)).estimate
    assert found is not None
    margin = 0.43 * np.sqrt((0.95**2 + 0.83**2) / 2)
    assert found.freedom == pytest.approx(181.13, abs=5e-3)
    assert (found.mean - margin) / found.standard_error == pytest.approx(-2.69, abs=5e-3)
    assert tost_p(found, margin) == pytest.approx(0.004, abs=5e-4)


def test_agrees_with_scipys_one_sided_tests() -> None:
    a, b = [76.3, 76.6, 76.2, 76.7, 76.5], [76.5, 76.4, 76.8, 76.6, 76.6]
    above = ttest_ind(np.array(b) + 0.4, a, equal_var=False, alternative="greater").pvalue
    below = ttest_ind(np.array(b) - 0.4, a, equal_var=False, alternative="less").pvalue
    found = difference(a, b).estimate
    assert found is not None
    assert tost_p(found, 0.4) == pytest.approx(max(above, below))


estimates = st.builds(Estimate, st.floats(-1, 1), st.floats(0.01, 1), st.floats(1, 60))


@given(estimates, st.floats(0.01, 1), st.sampled_from([0.01, 0.05, 0.2]))
def test_is_significant_exactly_if_the_interval_lies_within(found: Estimate, margin: float, alpha: float) -> None:
    low, high = found.interval(1 - 2 * alpha)
    assert (tost_p(found, margin) < alpha) == (-margin < low and high < margin)


@given(estimates, st.floats(0.01, 1))
def test_is_symmetric_and_falls_with_the_margin(found: Estimate, margin: float) -> None:
    mirrored = Estimate(-found.mean, found.standard_error, found.freedom)
    assert tost_p(found, margin) == pytest.approx(tost_p(mirrored, margin))
    assert tost_p(found, 2 * margin) <= tost_p(found, margin)


@pytest.mark.parametrize("margin", [0.0, -0.2, float("nan")])
def test_refuses_a_margin_of_nothing(margin: float) -> None:
    with pytest.raises(ValueError, match="the margin must be above 0"):
        tost_p(Estimate(0.1, 0.1, 8), margin)


@pytest.mark.parametrize("stds", [(0.1, 0.1), (0.05, 0.2)])
@pytest.mark.parametrize("n", [5, 30])
def test_a_difference_of_the_margin_is_called_none_in_at_most_5_percent(n: int, stds: tuple[float, float]) -> None:
    random = np.random.default_rng(2410)
    a, b = (random.normal(mean, std, (20_000, n)) for mean, std in zip((0, 0.2), stds, strict=True))
    found = Estimate(b.mean(1) - a.mean(1), *welch(a.std(1, ddof=1), n, b.std(1, ddof=1), n))
    assert 0.03 <= np.mean(tost_p(found, 0.2) < 0.05) <= 0.055
