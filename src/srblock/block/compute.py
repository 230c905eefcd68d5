"""Adding a weighted sum of maps to a feature map, without ever holding (N, P, C, H, W).

Every memory is coefficients times a basis of maps, so one product serves all: it accumulates onto the input, over maps
flattened in the order in which the input lies in memory, so that nothing of the input's size is copied. A basis on a
coarser grid than the map it is for is summed on its own grid, and each of the sum's positions stands for a rectangle of
the map. Where the input is of another size than that map, the sum is resized.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 16  # images of which a CPU sums the maps in one product
PIECES = 16  # of a map, whose products a CPU computes side by side
LONG = 2**15  # numbers of a single map from which on that pays


def squeeze(x: Tensor, weight: Tensor) -> Tensor:
    """Sum the channels of a map by weight: a 1x1 convolution, to one channel or K.

    Shapes: x (N, C, H, W), weight (K, C, 1, 1) -> (N, K, H, W).
    """
    if x.device.type != "cpu" or len(weight) > 1 or recorded():
        return F.conv2d(x, weight)
    return _squeezed(x, weight)


def tap(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a map, and it squeezed; where both are used, the gradient of the map is one sum, not a product and a sum.

    Shapes: x (N, C, H, W), weight (K, C, 1, 1) -> (N, C, H, W), (N, K, H, W).
    """
    plain = x.device.type != "cpu" or len(weight) > 1 or recorded() or torch.is_autocast_enabled("cpu")
    if plain or torch.compiler.is_compiling() or not learning(x, weight):  # a compiler joins the two by itself
        return x, squeeze(x, weight)
    through, squeezed = _Tap.apply(x, weight)
    return through, squeezed


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
    nhwc = lies_channels_last(like)
    order, back = ((0, 2, 3, 1), (0, 3, 1, 2)) if nhwc else ((0, 1, 2, 3), (0, 1, 2, 3))
    basis = basis.permute(order)
    with full_precision(like):
        rows, coefficients = basis.flatten(1).to(like.dtype), coefficients.to(like.dtype)
        if onto is None:
            summed = coefficients @ rows
        else:
            summed = _add_product(onto.permute(order).flatten(1), coefficients, rows)
    return summed.view(like.shape[0], *basis.shape[1:]).permute(back)


def _add_product(onto: Tensor, coefficients: Tensor, rows: Tensor) -> Tensor:
    """Add a product of matrices. Shapes: onto (N, L), coefficients (N, R), rows (R, L) -> (N, L)."""
    if onto.device.type != "cpu" or onto.dtype.itemsize < 4 or recorded():
        return torch.addmm(onto, coefficients, rows)
    if not learning(onto, coefficients, rows):
        return _product(onto, coefficients, rows)
    form = _Product if torch.compiler.is_compiling() else _ProductForward
    summed: Tensor = form.apply(onto, coefficients, rows)
    return summed


# --- on a CPU ---------------------------------------------------------------------------------------------------------
# The same sums in the forms that a CPU is fastest at; `benchmarks/block_ways.py` measures them against the plain ones.
# Devices that were not measured have the plain ones, and so have exported programs. So has the product in half
# precision, where it is faster. torch.compile takes no function with forward derivatives: those are for eager ones.


def _squeezed(x: Tensor, weight: Tensor) -> Tensor:
    """Squeeze by products of matrices instead of a convolution."""
    images, channels, height, width = x.shape
    if lies_channels_last(x):
        squeezed = x.permute(0, 2, 3, 1).flatten(0, 2) @ weight.flatten()
    else:
        squeezed = torch.bmm(weight.view(1, 1, channels).expand(images, 1, channels), x.flatten(2))
    return squeezed.view(images, 1, height, width)


def _product(onto: Tensor, coefficients: Tensor, rows: Tensor) -> Tensor:
    """Add a product of few coefficients and long rows: for a few images at a time, or to a few pieces of one image."""
    (images, length), repeats = onto.shape, coefficients.shape[1]
    if images == 1 and length >= LONG:
        pieces = math.gcd(length, PIECES)
        parts, weights = onto.view(pieces, 1, -1), coefficients.expand(pieces, 1, repeats)
        return torch.baddbmm(parts, weights, rows.view(repeats, pieces, -1).transpose(0, 1)).view(1, length)
    if images % ROWS or images == ROWS:
        return torch.addmm(onto, coefficients, rows)
    parts, weights = (value.view(-1, ROWS, value.shape[1]) for value in (onto, coefficients))
    return torch.baddbmm(parts, weights, rows.expand(images // ROWS, *rows.shape)).flatten(0, 1)


def _of_coefficients(gradient: Tensor, rows: Tensor) -> Tensor:
    """Multiply long rows by long rows, piece by piece. Shapes: gradient (N, L), rows (R, L) -> (N, R)."""
    length = rows.shape[1]
    pieces = math.gcd(length, PIECES)
    by_piece, gradient = (value.view(-1, pieces, length // pieces).transpose(0, 1) for value in (rows, gradient))
    return torch.bmm(by_piece, gradient.transpose(1, 2)).sum(0).t()


class _Tap(torch.autograd.Function):
    """`tap`. The gradient of the map is that of the map plus that of the squeezed one, times the weight."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return x.view_as(x), _squeezed(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, through: Tensor, squeezed: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad
        return (
            torch.addcmul(through, weight, squeezed) if of_x else None,
            _lying_as(weight, _by_channel(x, squeezed)) if of_weight else None,
        )

    @staticmethod
    def jvp(ctx: Any, by_x: Tensor, by_weight: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return by_x.view_as(by_x), _squeezed(by_x, weight) + _squeezed(x, by_weight)


def _by_channel(x: Tensor, squeezed: Tensor) -> Tensor:
    """Sum a map times a squeezed one over images and positions. Shapes: (N, C, H, W), (N, 1, H, W) -> (C,)."""
    if lies_channels_last(x):
        return x.permute(0, 2, 3, 1).flatten(0, 2).t() @ squeezed.flatten()
    return torch.bmm(x.flatten(2), squeezed.flatten(2).transpose(1, 2)).sum((0, 2))


def _lying_as(weight: Tensor, values: Tensor) -> Tensor:
    """Shape values (C,) as (1, C, 1, 1), with the strides of the weight: DDP's buckets lie like it."""
    return values.view(1, 1, 1, -1).permute(0, 3, 1, 2) if weight.stride(3) > 1 else values.view(1, -1, 1, 1)


class _Product(torch.autograd.Function):
    """`_product`, and the gradients of its three parts."""

    generate_vmap_rule = True

    @staticmethod
    def forward(onto: Tensor, coefficients: Tensor, rows: Tensor) -> Tensor:
        return _product(onto, coefficients, rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        coefficients, rows = ctx.saved_tensors
        of_onto, of_coefficients, of_rows = ctx.needs_input_grad
        return (
            gradient if of_onto else None,
            _of_coefficients(gradient, rows) if of_coefficients else None,
            coefficients.t() @ gradient if of_rows else None,
        )


class _ProductForward(_Product):
    """`_product` with its forward derivative too."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        _Product.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def jvp(ctx: Any, by_onto: Tensor, by_coefficients: Tensor, by_rows: Tensor) -> Tensor:
        coefficients, rows = ctx.saved_tensors
        changed: Tensor = by_onto + by_coefficients @ rows + coefficients @ by_rows
        return changed


def recorded() -> bool:
    """Tell whether what is computed is being written down as a program for other machines: exported or traced."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


def learning(*tensors: Tensor) -> bool:
    """Tell whether a gradient of any of them is wanted."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def lies_channels_last(x: Tensor) -> bool:
    """Tell whether a map lies in memory with its channels last, and not also with them first."""
    try:
        return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    except RuntimeError:  # torch.func.vmap does not answer; the sums are the same either way
        return False


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Turn autocast off: it would cast a float32 map down, and a fresh block would no longer be the identity."""
    if x.device.type == "meta":
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)
