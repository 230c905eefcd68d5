"""Holm's correction: a worked example, its laws, and false findings in simulated tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srblock.statistics.differences import Estimate, welch
from srblock.statistics.multiple import holm


def test_worked_example() -> None:
    # By hand: 0.005 * 4, 0.01 * 3, then 0.03 * 2, and 0.04 * 1 raised to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []
    assert holm([0.03]).tolist() == [0.03]
    assert holm([[0.01, 0.5], [0.04, 0.03]]) == pytest.approx(np.array([[0.02, 0.5], [0.06, 0.06]]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.3]))
def test_rejects_what_the_step_down_rule_rejects(p: list[float], alpha: float) -> None:
    rejected = 0  # the rule itself: walk up from the smallest, stop at the first that is too large
    ordered = sorted(p)
    while rejected < len(p) and ordered[rejected] * (len(p) - rejected) <= alpha:
        rejected += 1
    assert (holm(p) <= alpha).sum() == rejected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_lies_between_the_bare_and_bonferronis(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(len(p) * np.array(p), 1) + 1e-12).all()
    assert holm(p[::-1]).tolist() == adjusted[::-1].tolist()


@pytest.mark.parametrize("wrong", [[0.1, 1.2], [-0.1], [float("nan")]])
def test_refuses_what_is_no_p_value(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="p-values lie between 0 and 1"):
        holm(wrong)


@pytest.mark.parametrize("effects", [(0.0,) * 6, (0.0, 0.0, 0.0, 0.0, 0.6, 3.0)])
@pytest.mark.parametrize(("std_baseline", "stds"), [(0.3, (0.3,) * 6), (0.7, (0.2, 0.3) * 3), (0.2, (0.2, 0.7) * 3)])
@pytest.mark.parametrize("n", [5, 30])
def test_a_table_has_a_false_finding_in_at_most_5_percent(
    n: int, std_baseline: float, stds: tuple[float, ...], effects: tuple[float, ...]
) -> None:
    """Six variants against one baseline, some or none of them truly different."""
    random, tables = np.random.default_rng(2410), 12_000
    baseline = random.normal(0, std_baseline, (tables, 1, n))
    ours = random.normal(0, 1, (tables, 6, n)) * np.array(stds)[:, None] + np.array(effects)[:, None]
    error = welch(baseline.std(2, ddof=1), n, ours.std(2, ddof=1), n)
    found = holm(Estimate(ours.mean(2) - baseline.mean(2), *error).p) < 0.05
    false = found[:, np.array(effects) == 0].any(1).mean()
    assert false <= 0.055
    assert false >= 0.01  # a test that never rejects would pass, too
