"""The Squeeze-and-Remember block (Cakaj, Mehnert, Yang, ICMLA 2024, arXiv 2410.00823, Sec. III).

    q = flatten(conv1x1(X))              squeeze C channels to one
    a = softmax(W2 . act(W1 . q))        weigh P memory blocks for each image
    Y = X + sum_p a_p M_p                add what was remembered

No layer has a bias, as Eq. (1) counts none. The activation between the two linear layers is the identity unless
asked for: the paper names none. Both readings of the paper's initialization are here (`init`). The memory starts at
zero, so a fresh block is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {None: lambda x: x, "relu": F.relu}
INITS = ("fan_in", "channels")
RESIZES = (None, "bilinear")


def parameter_count(channels: int, size: int | tuple[int, int], *, blocks: int = 10, hidden: int = 8) -> int:
    """Count the parameters of one block: C + HW*U + U*P + P*C*HW (Eq. 1).

    Args: channels C, size (H, W) or the side of a square, blocks P, hidden U.

    Raises: TypeError or ValueError for counts that are no positive integers.
    """
    _check_counts(channels=channels, blocks=blocks, hidden=hidden)
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


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


class SqueezeRemember2d(nn.Module):
    """Add to a feature map the sum of P learned maps, weighted for each image (Sec. III, Fig. 1).

    Shapes: (N, C, H, W) -> (N, C, H, W), in the input's dtype and memory format.

    Args:
        channels: C of the feature map.
        size: its (H, W), or one number for a square map. The memory belongs to this size.
        blocks: P, the number of memory blocks.
        hidden: U, the units between the two linear layers.
        activation: None for the identity (the paper names none), or "relu".
        init: "fan_in" draws each layer from U(-sqrt(k), sqrt(k)) with k = 1/fan_in; "channels" uses k = 1/C in
            every layer, the other reading of Sec. III-B.
        resize: None refuses maps of another size; "bilinear" resizes the squeezed map to the memory's grid and the
            recalled map to the input's. At the memory's own size both are the same.
        device, dtype: of the parameters.

    Raises: ValueError or TypeError for arguments and inputs that do not fit, saying what would.

    Attributes:
        memory: parameter (P, C, H, W), zero at the start.
        bypassed: while True the block returns its input (see `srblock.bypassed`).
        inserted: whether `srblock.insert` put it where it is, so that `srblock.remove` may take it out.
    """

    def __init__(
        self,
        channels: int,
        size: int | tuple[int, int],
        *,
        blocks: int = 10,
        hidden: int = 8,
        activation: str | None = None,
        init: str = "fan_in",
        resize: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_counts(channels=channels, blocks=blocks, hidden=hidden)
        for name, choice, known in (
            ("activation", activation, tuple(ACTIVATIONS)),
            ("init", init, INITS),
            ("resize", resize, RESIZES),
        ):
            if choice not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {choice!r}")
        self.channels, self.size = channels, as_size(size)
        self.blocks, self.hidden = blocks, hidden
        self.activation, self.init, self.resize = activation, init, resize
        self.bypassed = self.inserted = False
        height, width = self.size
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.squeeze = nn.Parameter(torch.empty(1, channels, 1, 1, **factory))
        self.fc1 = nn.Parameter(torch.empty(hidden, height * width, **factory))
        self.fc2 = nn.Parameter(torch.empty(blocks, hidden, **factory))
        self.memory = nn.Parameter(torch.empty(blocks, channels, height, width, **factory))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw squeeze and addressing weights anew and clear the memory (Sec. III-A, III-B).

        Without a generator the draw follows the global random state but leaves it as it is, so that inserting a
        block changes nothing else that a seed decides.
        """
        if generator is None:
            peek = torch.Generator().set_state(torch.get_rng_state())
            # A stream of its own: later layers draw from the very state that was peeked at.
            generator = torch.Generator().manual_seed(
                int(torch.randint(2**62, (), generator=peek, device="cpu")) ^ 0x5152
            )
        with torch.no_grad():
            for weight, fan_in in (
                (self.squeeze, self.channels),
                (self.fc1, self.fc1.shape[1]),
                (self.fc2, self.hidden),
            ):
                bound = math.sqrt(1 / (fan_in if self.init == "fan_in" else self.channels))
                draw = torch.empty(weight.shape, dtype=torch.float64, device="cpu").uniform_(
                    -bound, bound, generator=generator
                )
                weight.copy_(draw)
            self.memory.zero_()

    def recall_weights(self, x: Tensor) -> Tensor:
        """Weigh the memory blocks for each image; rows sum to 1 (Sec. III-A, III-B).

        Shapes: x (N, C, H, W) -> (N, P).
        """
        self._check(x)
        squeezed = F.conv2d(x, self.squeeze)
        if squeezed.shape[-2:] != self.size:
            squeezed = F.interpolate(squeezed, self.size, mode="bilinear", align_corners=False)
        units = ACTIVATIONS[self.activation](F.linear(squeezed.flatten(1), self.fc1))
        return F.linear(units, self.fc2).softmax(dim=1)

    def recall(self, x: Tensor) -> Tensor:
        """Return what the block adds to x: sum_p a_p M_p (Sec. III-C).

        Shapes: x (N, C, H, W) -> (N, C, H, W).
        """
        recalled = self._weighted_sum(self.recall_weights(x), like=x)
        if x.shape[-2:] == self.size:
            return recalled
        return F.interpolate(recalled, x.shape[-2:], mode="bilinear", align_corners=False).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Add the recalled map to x.

        Shapes: x (N, C, H, W) -> (N, C, H, W).
        """
        if self.bypassed:
            return x
        if x.shape[-2:] != self.size:
            return x + self.recall(x)
        return self._weighted_sum(self.recall_weights(x), like=x, onto=x)

    def _weighted_sum(self, weights: Tensor, *, like: Tensor, onto: Tensor | None = None) -> Tensor:
        """Sum the memory blocks by weight, in the dtype and memory format of `like`; add to `onto` in the same product.

        Over maps flattened in the order in which the input lies in memory: nothing of the input's size is copied.
        Shapes: weights (N, P) -> (N, C, H, W).
        """
        nhwc = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
        order, back = ((0, 2, 3, 1), (0, 3, 1, 2)) if nhwc else ((0, 1, 2, 3), (0, 1, 2, 3))
        memory = self.memory.permute(order)
        with _full_precision(like):
            rows, weights = memory.flatten(1).to(like.dtype), weights.to(like.dtype)
            summed = weights @ rows if onto is None else torch.addmm(onto.permute(order).flatten(1), weights, rows)
        return summed.view(like.shape[0], *memory.shape[1:]).permute(back)

    def _check(self, x: Tensor) -> None:
        height, width = self.size
        if x.dim() != 4:
            remedy = "for one map pass x.unsqueeze(0)" if x.dim() < 4 else "fold further dimensions into the batch"
            raise ValueError(
                f"expected a batch of feature maps (N, {self.channels}, {height}, {width}), got a {x.dim()}-D tensor "
                f"of shape {tuple(x.shape)}; {remedy}"
            )
        if not x.is_floating_point():
            raise TypeError(f"expected a floating-point feature map, got {x.dtype}; convert it with x.float()")
        if x.shape[1] != self.channels:
            raise ValueError(
                f"expected {self.channels} channels, got {x.shape[1]} in shape {tuple(x.shape)}; build the block with "
                f"channels={x.shape[1]}, and mind that maps are (N, C, H, W)"
            )
        if x.shape[-2:] != self.size and self.resize is None:
            raise ValueError(
                f"expected a {height}x{width} map, got {x.shape[2]}x{x.shape[3]}: the memory belongs to one size; feed "
                f"images of the size the block was built for, build it with size={tuple(x.shape[-2:])}, or pass "
                'resize="bilinear"'
            )

    def extra_repr(self) -> str:
        return (
            f"{self.channels}, size={self.size}, blocks={self.blocks}, hidden={self.hidden}, "
            f"activation={self.activation!r}, init={self.init!r}, resize={self.resize!r}"
        )


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Turn autocast off: it would cast a float32 map down, and a fresh block would no longer be the identity."""
    if x.device.type == "meta":
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)
