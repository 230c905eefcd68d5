"""What is stored: the P maps that are recalled (Sec. III-C).

A memory is coefficients times a basis. It turns the recall weights (N, P) into `coefficients` (N, R) of the R maps of
its `basis` (R, C, h, w), which may be fewer than P or lie on a coarser grid, and shows as `maps` (P, C, H, W) what
weight 1 on each block would recall. All its parameters start so that it recalls nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from srblock.block.compute import learning, lies_channels_last, recorded, repeated


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
        self._converted: tuple[tuple[Any, ...], Tensor, Tensor] | None = None  # of what, that, and in the other format

    def reset_parameters(self) -> None:
        """Clear the memory: a fresh block is the identity."""
        nn.init.zeros_(self.values)

    def coefficients(self, weights: Tensor) -> Tensor:
        """Turn recall weights into coefficients of the basis. Shapes: (N, P) -> (N, P)."""
        return weights

    def basis(self) -> Tensor:
        """Return the maps that are summed, (P, C, h, w)."""
        return self.values

    def basis_like(self, x: Tensor) -> Tensor:
        """Return `basis` as x lies in memory and in its dtype.

        For inference it is converted once and kept as long as the memory stays as it is: a network in channels_last
        whose block is not would copy its memory at every call.
        """
        basis, layout = self.basis(), torch.channels_last if lies_channels_last(x) else torch.contiguous_format
        fits = basis.dtype == x.dtype and basis.is_contiguous(memory_format=layout)
        if fits or recorded() or learning(basis) or basis.is_inference() or basis.is_meta:
            return basis
        key = basis.data_ptr(), basis._version, x.dtype, layout
        if self._converted is None or self._converted[0] != key:
            # The memory itself is kept beside it, so that no other one can come to lie at its address.
            self._converted = key, basis.detach(), basis.detach().to(x.dtype, memory_format=layout)
        return self._converted[2]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the converted copy, which a copy or a pickle makes for itself."""
        return self.__dict__ | {"_converted": None}

    def maps(self) -> Tensor:
        """Return what each block recalls, (P, C, H, W)."""
        return repeated(self.values, self.size)
