"""Adding a weighted sum of maps to a feature map, without ever holding (N, P, C, H, W).

Every memory is coefficients times a basis of maps, so one product serves all: it accumulates onto the input, over maps
flattened in the order in which the input lies in memory, so that nothing of the input's size is copied. A basis on a
coarser grid than the map it is for is summed on its own grid, and each of the sum's positions stands for a rectangle of
the map. Where the input is of another size than that map, the sum is resized.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F


def add(x: Tensor, coefficients: Tensor, basis: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Add a weighted sum of maps to every map of x, in the dtype and memory format of x.

    Shapes: x (N, C, H, W), coefficients (N, R), basis (R, C, h, w) -> (N, C, H, W).

    Args:
        size: of the map that the basis is for, a multiple of (h, w); (h, w) if not given.
    """
    grid = tuple(basis.shape[-2:])
    if differs(size or grid, x.shape[-2:]):
        return x + recall(x, coefficients, basis, size)
    if size is None or grid == size:
        return _weighted_sum(coefficients, basis, like=x, onto=x)
    return add_coarse(x, _weighted_sum(coefficients, basis, like=x))


def recall(x: Tensor, coefficients: Tensor, basis: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Return the weighted sum of maps that `add` adds to x.

    Shapes: x (N, C, H, W), coefficients (N, R), basis (R, C, h, w) -> (N, C, H, W).
    """
    summed = _weighted_sum(coefficients, basis, like=x)
    if size is not None:
        summed = repeated(summed, size)
    return to_grid(summed, x.shape[-2:]).to(x.dtype)


def add_coarse(x: Tensor, maps: Tensor) -> Tensor:
    """Add maps on a coarser grid to x, each position to the rectangle that it stands for, without a map of x's size.

    Shapes: x (N, C, H, W), maps (N, C, h, w), H and W multiples of h and w -> (N, C, H, W).
    """
    (images, channels, height, width), (rows, columns) = x.shape, maps.shape[-2:]
    divided = x.view(images, channels, rows, height // rows, columns, width // columns)  # in any memory format
    return (divided + maps[:, :, :, None, :, None]).flatten(4, 5).flatten(2, 3)


def repeated(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat each position of maps over the rectangle that it stands for; maps of this size stay as they are.

    Shapes: maps (N, C, h, w), size (H, W), multiples of h and w -> (N, C, H, W).
    """
    grid = maps.shape[-2:]
    for axis in (2, 3):
        if grid[axis - 2] != size[axis - 2]:
            maps = maps.repeat_interleave(size[axis - 2] // grid[axis - 2], axis)
    return maps


def to_grid(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps bilinearly to a grid of another size; on the same grid they stay as they are.

    Shapes: maps (N, C, h, w), size (H, W) -> (N, C, H, W).
    """
    if differs(maps.shape[-2:], size):
        return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
    return maps


def differs(grid: Sequence[int], other: Sequence[int]) -> bool:
    """Tell whether two grids have other sizes; in a program exported for any size they do.

    There a comparison would decide for all sizes what is true of the example's. Between equal grids resizing is exact.
    """
    if torch.compiler.is_exporting():
        from torch.fx.experimental.symbolic_shapes import statically_known_true  # slow to import

        return not all(statically_known_true(ours == theirs) for ours, theirs in zip(grid, other, strict=True))
    return tuple(grid) != tuple(other)


def _weighted_sum(coefficients: Tensor, basis: Tensor, *, like: Tensor, onto: Tensor | None = None) -> Tensor:
    """Sum maps by weight, in the dtype and memory format of `like`; add to `onto` in the same product.

    Shapes: coefficients (N, R), basis (R, C, h, w) -> (N, C, h, w).
    """
    nhwc = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    order, back = ((0, 2, 3, 1), (0, 3, 1, 2)) if nhwc else ((0, 1, 2, 3), (0, 1, 2, 3))
    basis = basis.permute(order)
    with _full_precision(like):
        rows, coefficients = basis.flatten(1).to(like.dtype), coefficients.to(like.dtype)
        if onto is None:
            summed = coefficients @ rows
        else:
            summed = torch.addmm(onto.permute(order).flatten(1), coefficients, rows)
    return summed.view(like.shape[0], *basis.shape[1:]).permute(back)


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Turn autocast off: it would cast a float32 map down, and a fresh block would no longer be the identity."""
    if x.device.type == "meta":
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)
