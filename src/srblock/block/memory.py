"""What is stored: the P maps that are recalled (Sec. III-C).

A memory is coefficients times a basis. It turns the recall weights (N, P) into `coefficients` (N, R) of the R maps of
its `basis` (R, C, h, w), which may be fewer than P or lie on a coarser grid, and shows as `maps` (P, C, H, W) what
weight 1 on each block would recall. `store` puts given maps into it, as well as it can hold them. The option `gain` is
in the coefficients and the maps, not in the basis.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.block.compute import full_precision, repeated
from srblock.block.draws import stream
from srblock.block.options import Options

STD = 0.01  # of the maps' numbers where they start from a normal distribution


class Dense(nn.Module):
    """Store a map of its own for every block.

    Args: options of the block, channels C, size (H, W), grid (h, w), which divides it; factory: device and dtype of the
        parameter `values` (P, C, h, w).
    """

    def __init__(
        self, options: Options, channels: int, size: tuple[int, int], grid: tuple[int, int], **factory: Any
    ) -> None:
        super().__init__()
        self.size, self.grid, self.gain, self.normal = size, grid, options.gain, options.start == "normal"
        self.values = nn.Parameter(torch.empty(options.blocks, channels, *grid, **factory))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Clear the memory, or draw small numbers."""
        self.clear()
        if self.normal:
            _draw(self.values, STD / self.gain, stream(0x5154) if generator is None else generator)

    def clear(self) -> None:
        """Let the block be the identity."""
        nn.init.zeros_(self.values)

    @torch.no_grad()
    def store(self, maps: Tensor) -> None:
        """Take over maps (P, C, H, W), or their means where the grid is coarser."""
        self.values.copy_(_averaged(maps, self.grid) / self.gain)

    def coefficients(self, weights: Tensor) -> Tensor:
        """Turn recall weights into coefficients of the basis. Shapes: (N, P) -> (N, P)."""
        return weights if self.gain == 1 else self.gain * weights

    def basis(self) -> Tensor:
        """Return the maps that are summed, (P, C, h, w)."""
        return self.values

    def maps(self) -> Tensor:
        """Return what each block recalls, (P, C, H, W)."""
        return repeated(self.gain * self.basis(), self.size)


class LowRank(nn.Module):
    """Store for every block r vectors of channels and r maps of one channel, and recall the sum of their products.

    P r (C + h w) numbers instead of P C h w. The maps of one channel start at random, so that the vectors, which start
    at zero, have a gradient; scaled so that a first step on the vectors changes the recalled maps as one on maps of
    their own would in these r directions.

    Args: as of `Dense`; the parameters are `channels` (P, r, C) and `positions` (P, r, h, w).
    """

    def __init__(
        self, options: Options, channels: int, size: tuple[int, int], grid: tuple[int, int], **factory: Any
    ) -> None:
        super().__init__()
        assert options.rank is not None
        self.size, self.grid, self.gain, self.normal = size, grid, options.gain, options.start == "normal"
        self.channels = nn.Parameter(torch.empty(options.blocks, options.rank, channels, **factory))
        self.positions = nn.Parameter(torch.empty(options.blocks, options.rank, *grid, **factory))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the maps of one channel; clear the vectors, or draw small ones."""
        generator = stream(0x5154) if generator is None else generator
        rank, places = self.positions.shape[1], math.prod(self.positions.shape[2:])
        _draw(self.positions, math.sqrt(1 / places), generator)
        self.clear()
        if self.normal:
            _draw(self.channels, STD / self.gain * math.sqrt(places / rank), generator)

    def clear(self) -> None:
        """Let the block be the identity."""
        nn.init.zeros_(self.channels)

    @torch.no_grad()
    def store(self, maps: Tensor) -> None:
        """Take over the nearest maps of this rank, by singular value decomposition. Shapes: (P, C, H, W)."""
        rank = self.channels.shape[1]
        left, sizes, right = torch.linalg.svd(
            _averaged(maps, self.grid).double().flatten(2) / self.gain, full_matrices=False
        )
        count = min(rank, sizes.shape[1])
        self.clear()
        self.channels[:, :count] = (left * sizes[:, None])[:, :, :count].transpose(1, 2).to(self.channels)
        self.positions[:, :count] = right[:, :count].unflatten(2, self.grid).to(self.positions)

    def coefficients(self, weights: Tensor) -> Tensor:
        """Turn recall weights into coefficients of the basis. Shapes: (N, P) -> (N, P)."""
        return weights if self.gain == 1 else self.gain * weights

    def basis(self) -> Tensor:
        """Return the maps that are summed, (P, C, h, w), in channels_last and as exact as the parameters."""
        count, _, height, width = self.positions.shape
        with full_precision(self.positions):
            flat = self.positions.flatten(2).transpose(1, 2) @ self.channels  # (P, h w, C)
        return flat.view(count, height, width, -1).permute(0, 3, 1, 2)

    def maps(self) -> Tensor:
        """Return what each block recalls, (P, C, H, W)."""
        return repeated(self.gain * self.basis(), self.size)


def _draw(values: Tensor, std: float, generator: torch.Generator) -> None:
    """Draw from a normal distribution, in float64 on the CPU as all that a seed decides."""
    with torch.no_grad():
        values.copy_(torch.empty(values.shape, dtype=torch.float64, device="cpu").normal_(0, std, generator=generator))


def _averaged(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average maps over the rectangles that the positions of a grid stand for. Shapes: (P, C, H, W) -> (P, C, h, w)."""
    return maps if maps.shape[-2:] == grid else F.adaptive_avg_pool2d(maps, grid)
