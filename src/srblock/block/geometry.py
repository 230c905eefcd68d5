"""What follows from the shape of a map alone: its size, read, and the parameters of a block for it (Eq. 1)."""

from __future__ import annotations

from collections.abc import Iterable

from srblock.block.options import Options, check_count


def parameter_count(
    channels: int, size: int | tuple[int, int], *, blocks: int = Options.blocks, hidden: int = Options.hidden
) -> int:
    """Count the parameters of one block: C + HW*U + U*P + P*C*HW (Eq. 1).

    Args: channels C, size (H, W) or the side of a square, blocks P, hidden U.

    Raises: TypeError or ValueError for counts that are no positive integers.
    """
    check_count("channels", channels)
    Options(blocks=blocks, hidden=hidden)
    height, width = as_size(size)
    area = height * width
    return channels + area * hidden + hidden * blocks + blocks * channels * area


def as_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Read a side or an (H, W) pair as (H, W).

    Raises: TypeError or ValueError if it is no pair of positive integers.
    """
    pair = tuple(size) if isinstance(size, Iterable) else (size, size)
    if len(pair) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in pair):
        raise TypeError(f"size must be an integer or a pair of integers (H, W), got {size!r}; for a square map size=8")
    if min(pair) < 1:
        raise ValueError(f"size must be at least 1 in both directions, got {size!r}")
    return pair[0], pair[1]
