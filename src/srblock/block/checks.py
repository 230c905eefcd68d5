"""Counts and sizes as they are given, read and refused in one way for the block, its options and its parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable


def check_count(name: str, value: object) -> None:
    """Refuse what is no integer of at least 1.

    Raises: TypeError or ValueError.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def check_positive(name: str, value: object) -> None:
    """Refuse what is no finite number above 0.

    Raises: TypeError or ValueError.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, got {value}")


def as_size(size: int | tuple[int, int], name: str = "size") -> tuple[int, int]:
    """Read a side or an (H, W) pair as (H, W).

    Raises: TypeError or ValueError if it is no pair of positive integers.
    """
    pair = tuple(size) if isinstance(size, Iterable) else (size, size)
    if len(pair) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in pair):
        example = "a square map size=8" if name == "size" else f"a square one {name}=2"
        raise TypeError(f"{name} must be an integer or a pair of integers (H, W), got {size!r}; for {example}")
    if min(pair) < 1:
        raise ValueError(f"{name} must be at least 1 in both directions, got {size!r}")
    return pair[0], pair[1]
