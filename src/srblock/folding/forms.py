"""What stands in a folded network where a block stood: modules for inference that hold what is left of it.

None is a `SqueezeRemember2d`: nothing here is trained on, removed, bypassed or looked into.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.block import SqueezeRemember2d
from srblock.block.address import ACTIVATIONS, Address
from srblock.block.block import node
from srblock.block.compute import add, add_coarse, repeated, squeeze, to_grid


class Linears(nn.Module):
    """Weigh the memory blocks as an `Address` does in evaluation, by the linear layers alone.

    Standardization and temperature are in the last layer and a bias of P.

    Shapes: (N, C, H, W) -> (N, P).

    Args: one_matrix: the two linear layers become one, which needs an address without activation.
    """

    def __init__(self, address: Address, one_matrix: bool) -> None:
        super().__init__()
        self.grid, self.activation = address.grid, address.activation
        self.squeeze = _frozen(address.squeeze)
        last, bias = wide(address.fc2) / address.temperature, None
        if (standardize := address.standardize) is not None:
            scale = torch.rsqrt(wide(standardize.variance) + standardize.EPS)
            last, bias = last * scale[:, None], -wide(standardize.mean) * scale / address.temperature
        if one_matrix:
            last = last @ wide(address.fc1)
        self.first = None if one_matrix else _frozen(address.fc1)
        self.last = _frozen(last.to(address.fc2))
        self.bias = None if bias is None else _frozen(bias.to(address.fc2))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the memory blocks. Shapes: (N, C, H, W) -> (N, P)."""
        units = to_grid(squeeze(x, self.squeeze), self.grid).flatten(1)
        if self.first is not None:
            units = ACTIVATIONS[self.activation](F.linear(units, self.first))
        return F.linear(units, self.last, self.bias).softmax(dim=1)


class Recall(nn.Module):
    """Do what a block does, with another address.

    Shapes: (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, block: SqueezeRemember2d, address: nn.Module) -> None:
        super().__init__()
        self.size, self.resize = block.size, block.options.resize
        self.address, self.memory = address, block.memory.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Add the recalled map to x. Shapes: (N, C, H, W) -> (N, C, H, W)."""
        if isinstance(x, torch.fx.Proxy):
            return node(self, x)
        if self.resize is None:
            _check(x, self.size)
        return add(x, self.memory.coefficients(self.address(x)), self.memory.basis(), self.size)

    def extra_repr(self) -> str:
        return f"size={self.size}, resize={self.resize!r}"


class Constant(nn.Module):
    """Add the one map of a block of P = 1, whose weight is 1 for every image.

    Shapes: (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, block: SqueezeRemember2d) -> None:
        super().__init__()
        self.size, self.resize = block.size, block.options.resize
        self.map = _frozen(block.memory.gain * block.memory.basis())

    def forward(self, x: Tensor) -> Tensor:
        """Add the map. Shapes: (N, C, H, W) -> (N, C, H, W)."""
        if isinstance(x, torch.fx.Proxy):
            return node(self, x)
        if self.resize is not None:
            return x + to_grid(repeated(self.map, self.size), x.shape[-2:]).to(x.dtype)
        _check(x, self.size)
        added = self.map.to(x.dtype)
        return x + added if added.shape[-2:] == self.size else add_coarse(x, added)

    def extra_repr(self) -> str:
        return f"size={self.size}, resize={self.resize!r}"


class Pooled(nn.Module):
    """Pool a map, and append to its C means the P recall weights of the block that stood before.

    The classifier that follows has P more columns, which hold what each memory block adds to the logits.

    Shapes: (N, C, H, W) -> (N, C + P) or (N, C + P, 1, 1), as `pool` returns it.
    """

    def __init__(self, pool: nn.Module, address: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.pool, self.address, self.size = pool, address.requires_grad_(False), size

    def forward(self, x: Tensor) -> Tensor:
        """Pool and weigh. Shapes: (N, C, H, W) -> (N, C + P, ...)."""
        if isinstance(x, torch.fx.Proxy):
            return node(self, x)
        _check(x, self.size)
        pooled = self.pool(x)
        weights = self.address(x).to(pooled.dtype)
        return torch.cat([pooled, weights if pooled.dim() == 2 else weights[:, :, None, None]], 1)

    def extra_repr(self) -> str:
        return f"size={self.size}"


def with_table(linear: nn.Linear, means: Tensor) -> nn.Linear:
    """Give a linear layer a column more for each memory block: what it adds to the layer's outputs.

    Shapes: means of the maps over positions (P, C), `wide` -> weight (outputs, C + P).
    """
    table = wide(linear.weight) @ means.T
    return _linear(torch.cat([linear.weight.detach(), table.to(linear.weight)], 1), linear.bias)


def with_bias(linear: nn.Linear, means: Tensor) -> nn.Linear:
    """Add to the bias of a linear layer what one constant map adds to its outputs. Shapes: means (1, C), `wide`."""
    added = (wide(linear.weight) @ means.T)[:, 0]
    if linear.bias is not None:
        added = added + wide(linear.bias)
    return _linear(linear.weight, added.to(linear.weight))


def wide(value: Tensor) -> Tensor:
    """Copy values to compute with: in float64, on the CPU, which has it always."""
    return value.detach().to("cpu", torch.float64)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    outputs, inputs = weight.shape
    made = nn.Linear(inputs, outputs, bias is not None, device="meta")
    made.weight = _frozen(weight)
    if bias is not None:
        made.bias = _frozen(bias)
    return made.eval()


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone(), requires_grad=False)


def _check(x: Tensor, size: tuple[int, int]) -> None:
    if x.shape[-2:] != size:
        raise ValueError(
            f"expected a {size[0]}x{size[1]} map, got {x.shape[-2]}x{x.shape[-1]}: what was folded here is exact at "
            "one size alone; feed images of the size that the network was folded for, or use the network as it was"
        )
