"""The Squeeze-and-Remember block (Cakaj, Mehnert, Yang, ICMLA 2024, arXiv 2410.00823, Sec. III).

    a = address(X)                       weigh P memory blocks for each image
    Y = X + sum_p a_p M_p                add what was remembered

The memory starts at zero unless told otherwise, so a fresh block is the identity.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from srblock.block.address import Address
from srblock.block.checks import as_size, check_count
from srblock.block.compute import add, recall, tap
from srblock.block.draws import stream
from srblock.block.geometry import memory_grid
from srblock.block.memory import Dense, LowRank
from srblock.block.options import Options

# The block's parameters: their short names, which are also their keys in older state dicts, and their keys.
PARTS = {"squeeze": "address.squeeze", "fc1": "address.fc1", "fc2": "address.fc2", "memory": "memory.values"}


class SqueezeRemember2d(nn.Module):
    """Add to a feature map the sum of P learned maps, weighted for each image (Sec. III, Fig. 1).

    Shapes: (N, C, H, W) -> (N, C, H, W), in the input's dtype and memory format.

    Args:
        channels: C of the feature map.
        size: its (H, W), or one number for a square map. The block belongs to this size.
        device, dtype: of the parameters.
        options: fields of `srblock.block.Options`, which says what they mean, such as blocks=10, hidden=8.

    Raises: ValueError or TypeError for arguments and inputs that do not fit, saying what would.

    Attributes:
        options: the settings, checked.
        address: the module that computes the recall weights.
        memory: the module that holds what is recalled; `memory.maps()` are the P maps.
        bypassed: while True the block returns its input (see `srblock.bypassed`).
    """

    def __init__(
        self,
        channels: int,
        size: int | tuple[int, int],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_count("channels", channels)
        self.channels, self.size, self.options = channels, as_size(size), Options(**options)
        grid = memory_grid(self.size, self.options)
        self.bypassed = False
        # In the order in which optimizers have always numbered the parameters: squeeze, fc1, fc2, memory.
        self.address = Address(channels, self.size, self.options, device=device, dtype=dtype)
        kind = Dense if self.options.rank is None else LowRank
        self.memory = kind(self.options, channels, self.size, grid, device=device, dtype=dtype)
        self.register_load_state_dict_pre_hook(_before_loading)  # type: ignore[no-untyped-call]
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw squeeze and addressing weights anew and start the memory anew (Sec. III-A, III-B).

        Without a generator the draw follows the global random state but leaves it as it is, so that inserting a
        block changes nothing else that a seed decides.
        """
        generator = stream(0x5152) if generator is None else generator
        self.address.reset_parameters(generator)
        self.memory.reset_parameters(generator)

    def recall_weights(self, x: Tensor) -> Tensor:
        """Weigh the memory blocks for each image; rows sum to 1 (Sec. III-A, III-B).

        Shapes: x (N, C, H, W) -> (N, P).
        """
        self._check(x)
        weights: Tensor = self.address(x)
        return weights

    def recall(self, x: Tensor) -> Tensor:
        """Return what the block adds to x: sum_p a_p M_p (Sec. III-C).

        Shapes: x (N, C, H, W) -> (N, C, H, W).
        """
        return recall(x, self.memory.coefficients(self.recall_weights(x)), self.memory.basis(), self.size)

    def forward(self, x: Tensor) -> Tensor:
        """Add the recalled map to x.

        Shapes: x (N, C, H, W) -> (N, C, H, W).
        """
        if isinstance(x, torch.fx.Proxy):
            return node(self, x)
        if self.bypassed:
            return x
        self._check(x)
        x, squeezed = tap(x, self.address.squeeze)
        weights = self.address(x, squeezed)
        return add(x, self.memory.coefficients(weights), self.memory.basis(), self.size)

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
        if self.options.resize is None and x.shape[-2:] != self.size:
            raise ValueError(
                f"expected a {height}x{width} map, got {x.shape[2]}x{x.shape[3]}: the memory belongs to one size; feed "
                f"images of the size the block was built for, build it with size={tuple(x.shape[-2:])}, or pass "
                'resize="bilinear"'
            )

    def extra_repr(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in asdict(self.options).items())
        return f"{self.channels}, size={self.size}, {options}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"  # one line, which builds it again


def node(block: nn.Module, x: torch.fx.Proxy) -> Any:
    """Stand in a traced graph as one node, as torch's own layers do: what happens in a block depends on sizes.

    Raises: ValueError for a block that is traced by itself.
    """
    name = x.tracer.path_of_module(block)  # type: ignore[attr-defined]
    if not name:
        raise ValueError("a block is one node in a graph and has none of its own; trace the network that it stands in")
    return x.tracer.create_proxy("call_module", name, (x,), {})


def rename_old_keys(state_dict: dict[str, Any], prefix: str) -> None:
    """Give a block's parameters in an older state dict the keys that they have now."""
    for old, key in PARTS.items():
        if prefix + old in state_dict:
            state_dict[prefix + key] = state_dict.pop(prefix + old)


def _before_loading(block: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    rename_old_keys(state_dict, prefix)
