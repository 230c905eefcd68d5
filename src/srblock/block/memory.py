"""What is stored: the P maps that are recalled (Sec. III-C).

A memory is coefficients times a basis. It turns the recall weights (N, P) into `coefficients` (N, R) of the R maps of
its `basis` (R, C, h, w), which may be fewer than P or lie on a coarser grid, and shows as `maps` (P, C, H, W) what
weight 1 on each block would recall. All its parameters start so that it recalls nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from srblock.block.compute import repeated


class Dense(nn.Module):
    """Store a map of its own for every block.

    Args: blocks P, channels C, size (H, W), grid (h, w), which divides it; factory: device and dtype of the parameter
        `values` (P, C, h, w).
    """

    def __init__(
        self, blocks: int, channels: int, size: tuple[int, int], grid: tuple[int, int], **factory: Any
    ) -> None:
        super().__init__()
        self.size = size
        self.values = nn.Parameter(torch.empty(blocks, channels, *grid, **factory))

    def reset_parameters(self) -> None:
        """Clear the memory: a fresh block is the identity."""
        nn.init.zeros_(self.values)

    def coefficients(self, weights: Tensor) -> Tensor:
        """Turn recall weights into coefficients of the basis. Shapes: (N, P) -> (N, P)."""
        return weights

    def basis(self) -> Tensor:
        """Return the maps that are summed, (P, C, h, w)."""
        return self.values

    def maps(self) -> Tensor:
        """Return what each block recalls, (P, C, H, W)."""
        return repeated(self.values, self.size)
