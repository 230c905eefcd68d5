"""Equivalence: showing that a difference is small, which a test that merely finds none does not."""

from __future__ import annotations

import numpy as np

from srblock.statistics.differences import Estimate

MARGIN = 0.2
"""Percentage points below which a difference is called none. A choice, not a fact: the paper's median gain is 0.2."""


def tost_p(estimate: Estimate, margin: float = MARGIN) -> float:
    """Return the p-value of the claim that the true difference lies within -margin to +margin.

    Two one-sided t-tests (D. Schuirmann, 1987; Welch's, if the estimate is), of which the larger p counts. It is below
    alpha exactly if the (1 - 2 alpha) interval lies within the margin: 90% for alpha = 0.05.

    Raises: ValueError if the margin is not above 0.
    """
    if not 0 < margin < np.inf:
        raise ValueError(
            f"the margin must be above 0 percentage points and finite, got {margin}; {MARGIN} is the default"
        )
    p: float = np.maximum(estimate.p_below(margin), estimate.p_above(-margin))
    return p
