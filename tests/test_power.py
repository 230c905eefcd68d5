"""Power: textbook sample sizes, the noncentral t integrated anew, and simulation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import chi, norm
from scipy.stats import t as student

from srblock.statistics.differences import Estimate, welch
from srblock.statistics.equivalence import tost_p
from srblock.statistics.power import detection_power, equivalence_power, seeds_needed, smallest, smallest_detectable


@pytest.mark.parametrize(("effect", "n"), [(0.2, 394), (0.5, 64), (0.8, 26)])
def test_cohens_sample_sizes(effect: float, n: int) -> None:
    # J. Cohen, "A power primer" (1992): small, medium and large effects at alpha = 0.05 and power 0.8 (393 by his
    # approximation, 394 exactly).
    assert seeds_needed(effect, 1, 1) == n
    assert seeds_needed(-effect / 4, 0.25, 0.25) == n


def integrated(difference: float, error: float, freedom: float, alpha: float) -> float:
    """Power from its definition: a normal mean over an independent chi, integrated over the chi."""
    critical, root = student.ppf(1 - alpha / 2, freedom), math.sqrt(freedom)

    def rejected(x: float) -> float:
        shift = difference / error
        both = norm.sf(critical * x - shift) + norm.cdf(-critical * x - shift)
        return float(both * chi.pdf(x * root, freedom) * root)

    return float(quad(rejected, 0, 1, limit=200)[0] + quad(rejected, 1, 12, limit=200)[0])


@pytest.mark.parametrize("freedom", [1.0, 4.7, 8.0, 58.0])
@pytest.mark.parametrize("difference", [0.0, 0.1, 0.4, 2.0])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_power_by_integration(freedom: float, difference: float, alpha: float) -> None:
    expected = integrated(difference, 0.15, freedom, alpha)
    assert detection_power(difference, 0.15, freedom, alpha) == pytest.approx(expected, abs=1e-6)


def test_great_shifts_do_not_break_scipys_distribution() -> None:
    for shift in (30, 40, 200, 5e4):
        assert detection_power(shift, 1, 8) == pytest.approx(1)
        assert equivalence_power(shift, 1, 8) == pytest.approx(1)


@given(st.floats(0.02, 2), st.floats(0.05, 1), st.floats(0, 1))
def test_seeds_needed_is_the_smallest_number(difference: float, std_baseline: float, std: float) -> None:
    n = seeds_needed(difference, std_baseline, std)
    assert detection_power(difference, *welch(std_baseline, n, std, n)) >= 0.8
    assert n == 2 or detection_power(difference, *welch(std_baseline, n - 1, std, n - 1)) < 0.8
    if n < 1000:
        assert smallest_detectable(*welch(std_baseline, n, std, n)) <= difference * (1 + 1e-6)


@given(st.floats(0.05, 1), st.floats(0, 1), st.integers(2, 40), st.integers(2, 40))
def test_smallest_detectable_has_the_power(std_baseline: float, std: float, n_baseline: int, n: int) -> None:
    found = smallest_detectable(*welch(std_baseline, n_baseline, std, n))
    assert detection_power(found, *welch(std_baseline, n_baseline, std, n)) == pytest.approx(0.8, abs=1e-6)
    assert smallest_detectable(*welch(2 * std_baseline, n_baseline, 2 * std, n)) == pytest.approx(2 * found)


def draw(difference: float, stds: tuple[float, float], n: int, repeats: int = 20_000) -> Estimate:
    random = np.random.default_rng(2410)
    a, b = (random.normal(mean, std, (repeats, n)) for mean, std in zip((0, difference), stds, strict=True))
    return Estimate(b.mean(1) - a.mean(1), *welch(a.std(1, ddof=1), n, b.std(1, ddof=1), n))


@pytest.mark.parametrize(
    ("difference", "stds"), [(0.2, (0.25, 0.25)), (0.5, (0.25, 0.25)), (0.3, (0.15, 0.45)), (0.34, (0.24, 0.25))]
)
def test_power_is_reached_at_the_seeds_computed(difference: float, stds: tuple[float, float]) -> None:
    n = seeds_needed(difference, *stds)
    planned = detection_power(difference, *welch(stds[0], n, stds[1], n))
    assert 0.8 <= planned < 0.9
    assert np.mean(draw(difference, stds, n).p < 0.05) == pytest.approx(planned, abs=0.012)


@pytest.mark.parametrize(("stds", "n"), [((0.25, 0.25), 28), ((0.1, 0.1), 6), ((0.15, 0.4), 30)])
def test_equivalence_is_shown_as_often_as_planned(stds: tuple[float, float], n: int) -> None:
    planned = equivalence_power(0.2, *welch(stds[0], n, stds[1], n))
    assert 0.5 < planned < 0.95
    assert np.mean(tost_p(draw(0.0, stds, n), 0.2) < 0.05) == pytest.approx(planned, abs=0.012)


def test_equivalence_cannot_be_shown_where_noise_is_great() -> None:
    assert equivalence_power(0.2, 1.0, 8) == 0


def test_smallest_finds_the_first_that_is_enough() -> None:
    for truth in (0, 1, 2, 3, 17, 1000):
        assert smallest(lambda n, truth=truth: n >= truth, first=0) == truth  # type: ignore[misc]
    assert smallest(lambda n: n >= 1, first=2) == 2


def test_the_table_of_the_docs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "statistics.md").read_text()
    lines = [line.strip("| ").split(" | ") for line in text.partition("| std |")[2].split("\n\n")[0].splitlines()[2:]]
    assert [line[0] for line in lines] == ["0.15", "0.25", "0.4", "0.7"]
    for std, *seeds in lines:
        assert seeds == [str(seeds_needed(gap, float(std), float(std))) for gap in (0.5, 0.3, 0.2, 0.1)]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no number of seeds finds a difference of 0"):
        seeds_needed(0, 1, 1)
    with pytest.raises(ValueError, match="not both 0, got 0 and 0"):
        seeds_needed(1, 0, 0)
    with pytest.raises(ValueError, match="the standard error must be above 0, got -1"):
        smallest_detectable(-1, 8)
    with pytest.raises(ValueError, match="alpha must be between 0 and 1"):
        seeds_needed(1, 1, 1, alpha=5)
