"""What every number on the command line must be: finite, and no more than 64 bits hold."""

from __future__ import annotations

import math
from typing import Any

from cyclopts.validators import Number

LARGEST = 2**63 - 1
LARGEST_SIDE = 2**16  # of an image in pixels; 12 GiB in color
MOST_SEEDS = 100_000  # more are a slip of the pen, and each has a name in a list


def within(_: Any, value: Any) -> None:
    """Refuse infinity, NaN and whole numbers beyond 64 bits, alone or in a tuple; what is no number passes.

    Raises: ValueError, which the command line puts behind the option's name and what came.
    """
    if isinstance(value, (tuple, list)):
        for part in value:
            within(_, part)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("Must be a finite number.")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"Must be a number of at most 64 bits, {LARGEST:,}.")


def number(**limits: float) -> tuple[Any, ...]:
    """Return what checks a number of these limits (`gte`, `gt`, `lte`), and `within`."""
    return (within, Number(**limits))


AT_LEAST_1 = number(gte=1)
SIDE = number(gte=1, lte=LARGEST_SIDE)
