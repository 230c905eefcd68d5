"""Several tests at once: Holm's correction, so that a table of nulls shows a finding in at most 5% of all tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p: ArrayLike) -> NDArray[Any]:
    """Adjust p-values for how many there are (S. Holm, 1979): the smallest times m, the next times m - 1, ...

    An adjusted value never falls below that of a smaller p, and never exceeds 1. The chance of one or more false
    findings in the table stays at or below the level that adjusted values are held against, whatever ties the tests
    together (here: the one baseline).

    Shapes: (..., m) -> (..., m), in the order given; every row is a table of its own.

    Raises: ValueError if a value is not between 0 and 1.
    """
    values = np.asarray(p, dtype=float)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p-values lie between 0 and 1, got {values.tolist()}")
    order = values.argsort(axis=-1)
    factors = values.shape[-1] - np.arange(values.shape[-1])
    ordered = np.minimum(np.take_along_axis(values, order, -1) * factors, 1)
    adjusted = np.empty_like(values)
    np.put_along_axis(adjusted, order, np.maximum.accumulate(ordered, axis=-1), -1)
    return adjusted
