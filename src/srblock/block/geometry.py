"""What follows from the shape of a map alone: the parameters of a block for it (Eq. 1), and the grid of its memory."""

from __future__ import annotations

from srblock.block.checks import as_size, check_count
from srblock.block.options import Options


def parameter_count(
    channels: int,
    size: int | tuple[int, int],
    *,
    blocks: int = Options.blocks,
    hidden: int = Options.hidden,
    grid: int | tuple[int, int] | None = None,
    rank: int | None = None,
    squeeze_channels: int = Options.squeeze_channels,
) -> int:
    """Count the parameters of one block: C + HW*U + U*P + P*C*HW (Eq. 1).

    Args: channels C, size (H, W) or the side of a square, blocks P, hidden U; grid: of a coarser memory, whose
        positions count in the last term instead of HW; rank: r of a memory of low rank, which has P*r*(C + HW);
        squeeze_channels: K, by which C and HW*U are multiplied.

    Raises: TypeError or ValueError for counts that are no positive integers, and for a grid that does not divide size.
    """
    check_count("channels", channels)
    options = Options(blocks=blocks, hidden=hidden, grid=grid, rank=rank, squeeze_channels=squeeze_channels)
    height, width = as_size(size)
    rows, columns = memory_grid((height, width), options)
    numbers = channels * rows * columns if rank is None else rank * (channels + rows * columns)
    return squeeze_channels * (channels + height * width * hidden) + hidden * blocks + blocks * numbers


def memory_grid(size: tuple[int, int], options: Options) -> tuple[int, int]:
    """Return the positions (h, w) that the memory of a block for maps of a size has.

    Raises: ValueError if the map's height and width are no multiples of them.
    """
    if options.grid is None:
        return size
    (height, width), (rows, columns) = size, as_size(options.grid)
    if height % rows or width % columns:
        raise ValueError(
            f"the map is {height}x{width} and the memory's grid {rows}x{columns}: each of its positions must stand for "
            f"equally many of the map's; rows can be {_divisors(height)}, columns {_divisors(width)}"
        )
    return rows, columns


def _divisors(side: int) -> str:
    return ", ".join(str(number) for number in range(1, side + 1) if side % number == 0)
