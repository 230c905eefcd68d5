"""A change of accuracy on the same images: against scipy, a worked example, and the coverage of its interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, poisson

from srblock.statistics.paired_images import (
    FEWEST,
    detectable_change,
    difference_interval,
    mcnemar_p,
    mean_difference_interval,
    paired_change,
    wilson_interval,
)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_test_of_one_half(lost: int, gained: int) -> None:
    expected = binomtest(lost, lost + gained, 0.5).pvalue if lost + gained else 1.0
    assert mcnemar_p(lost, gained) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p(lost, gained) == mcnemar_p(gained, lost)


def test_mcnemar_by_hand() -> None:
    assert mcnemar_p(0, 5) == 2 / 32
    assert mcnemar_p(1, 5) == 2 * 7 / 64
    assert mcnemar_p(3, 3) == mcnemar_p(0, 0) == mcnemar_p(0, 1) == 1.0
    assert mcnemar_p(3000, 3200) == pytest.approx(binomtest(3000, 6200, 0.5).pvalue, rel=1e-9)
    assert mcnemar_p(0, 3000) == 0.0


@given(st.integers(1, 3000), st.data())
def test_wilson_is_scipys(images: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, images))
    expected = binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert wilson_interval(100 * right / images, images) == pytest.approx((100 * expected.low, 100 * expected.high))


def test_difference_by_hand() -> None:
    # n = 98 gives denominators of 100: 0.10 - 0.05, and a variance of (0.15 - 0.0025) / 100.
    low, high = difference_interval(4, 9, 98)
    assert ((low + high) / 2, (high - low) / 2) == pytest.approx((5.0, 100 * 1.959964 * 0.1475**0.5 / 10))
    assert difference_interval(9, 4, 98) == pytest.approx((-high, -low))
    assert detectable_change(4, 9, 98) == pytest.approx(100 * (1.959964 + 0.841621) * 0.1475**0.5 / 10)
    assert detectable_change(0, 0, 1000) == 0.7906, "six of none are needed"
    assert poisson.sf(5, FEWEST) == pytest.approx(0.8, abs=1e-4)
    assert mcnemar_p(6, 0) < 0.05 < mcnemar_p(5, 0)
    assert detectable_change(1, 1, 2) == 100
    assert difference_interval(1, 0, 1)[0] == -100, "nothing is below -100"
    found = paired_change(4, 9, 98)
    assert found.points == pytest.approx(100 * 5 / 98)
    assert (found.interval, found.p) == ((low, high), mcnemar_p(4, 9))


@pytest.mark.parametrize(
    ("shares", "images"), [((0.01, 0.01), 360), ((0.0, 0.02), 360), ((0.02, 0.03), 10_000), ((0.1, 0.2), 50)]
)
def test_the_interval_covers_the_true_difference(shares: tuple[float, float], images: int) -> None:
    counts = np.random.default_rng(0).multinomial(images, [*shares, 1 - sum(shares)], 4000)
    truth = 100 * (shares[1] - shares[0])
    bounds = np.array([difference_interval(int(lost), int(gained), images) for lost, gained, _ in counts])
    covered = ((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).mean()
    assert 0.935 < covered < 0.995


def test_the_detectable_change_is_found_four_times_in_five() -> None:
    images, changed = 10_000, 400
    points = detectable_change(changed // 2, changed // 2, images)
    lost, gained = (changed / images + sign * points / 100 for sign in (-1, 1))
    counts = np.random.default_rng(1).multinomial(images, [lost / 2, gained / 2, 1 - changed / images], 2000)
    found = np.mean([mcnemar_p(int(a), int(b)) < 0.05 for a, b, _ in counts])
    assert found == pytest.approx(0.8, abs=0.04)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="got -1 lost and 2 gained"):
        mcnemar_p(-1, 2)
    with pytest.raises(ValueError, match="of 3 images 2 were lost and 2 gained"):
        difference_interval(2, 2, 3)
    with pytest.raises(ValueError, match="at least 1 image, got 50 and 0"):
        wilson_interval(50, 0)
    with pytest.raises(ValueError, match="0 to 100"):
        wilson_interval(100.1, 5)


def test_of_one_network_each_the_mean_differs_as_two_proportions() -> None:
    before, now = np.zeros(50, bool), np.zeros(50, bool)
    before[:30], now[5:40] = True, True
    assert mean_difference_interval([before], [now]) == pytest.approx(difference_interval(5, 10, 50))
    assert mean_difference_interval([before] * 3, [now] * 2) == pytest.approx(difference_interval(5, 10, 50))
    with pytest.raises(ValueError, match="need a network or more on both sides, got 0 and 1"):
        mean_difference_interval([], [now])


def test_the_mean_differs_by_less_where_networks_disagree() -> None:
    """Of images that only some of the networks have right each counts by that share."""
    random = np.random.default_rng(0)
    before, now = (random.random((20, 400)) < share for share in (0.6, 0.65))
    low, high = mean_difference_interval(list(before), list(now))
    assert low < 100 * (now.mean() - before.mean()) < high
    one = mean_difference_interval([before[0]], [now[0]])
    assert high - low < (one[1] - one[0]) / 3
