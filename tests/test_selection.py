"""What choosing gains by chance: against simulation, and against tables made by hand."""

import math

import numpy as np
import pytest

from srblock.statistics.selection import expected_largest, gain_of_selection, noise_std


@pytest.mark.parametrize(("count", "expected"), [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi))])
def test_the_largest_of_few_normal_values_in_closed_form(count: int, expected: float) -> None:
    assert expected_largest(count) == pytest.approx(expected, abs=1e-9)


def test_the_largest_of_many_as_simulated() -> None:
    draws = np.random.default_rng(0).normal(size=(200_000, 12)).max(1)
    assert expected_largest(12) == pytest.approx(draws.mean(), abs=4 * draws.std() / math.sqrt(len(draws)))
    assert expected_largest(1000) == pytest.approx(3.2414, abs=1e-3)
    with pytest.raises(ValueError, match="largest of 0 values"):
        expected_largest(0)


def test_effects_of_settings_and_seeds_are_no_noise() -> None:
    settings, seeds = np.array([70.0, 71.0, 73.5]), np.array([-0.4, 0.1, 0.0, 0.9])
    assert noise_std((settings[:, None] + seeds).tolist()) == pytest.approx(0, abs=1e-12)


def test_noise_is_found_whatever_the_effects() -> None:
    random = np.random.default_rng(1)
    found = [
        noise_std((random.normal(size=(12, 1)) * 3 + random.normal(size=(1, 4)) * 2 + 0.3 * noise).tolist()) or 0.0
        for noise in random.normal(size=(400, 12, 4))
    ]
    assert math.sqrt(np.mean(np.square(found))) == pytest.approx(0.3, rel=0.02)


def test_one_seed_or_one_setting_shows_no_noise() -> None:
    assert noise_std([[70.0], [71.0]]) is None
    assert noise_std([[70.0, 71.0]]) is None
    with pytest.raises(ValueError, match=r"a value of every seed, got \[2, 1\]"):
        noise_std([[1.0, 2.0], [3.0]])


def test_the_gain_of_selection_is_what_a_null_sweep_shows() -> None:
    """12 equal settings, 2 seeds each that move all settings alike, noise 0.3."""
    random = np.random.default_rng(2)
    values = 70 + random.normal(size=(20_000, 1, 2)) + 0.3 * random.normal(size=(20_000, 12, 2))
    gains = values.mean(2).max(1) - values.mean((1, 2))
    assert gain_of_selection(12, 2, 0.3) == pytest.approx(gains.mean(), rel=0.02)
