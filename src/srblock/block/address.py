"""From a feature map to the weights of the memory blocks (Sec. III-A, III-B).

    q = flatten(conv1x1(X))              squeeze C channels to one
    a = softmax(W2 . act(W1 . q))        weigh P memory blocks for each image

No layer has a bias, as Eq. (1) counts none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.block.compute import squeeze, to_grid
from srblock.block.options import Options

ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {None: lambda x: x, "relu": F.relu}


class Address(nn.Module):
    """Weigh the memory blocks for each image; rows sum to 1.

    Shapes: (N, C, H, W) -> (N, P). Maps of another size than `grid` are resized once they are squeezed.

    Args: channels C, grid (H, W), the block's options; factory: device and dtype of the parameters.
    """

    def __init__(self, channels: int, grid: tuple[int, int], options: Options, **factory: Any) -> None:
        super().__init__()
        self.grid, self.activation, self.init = grid, options.activation, options.init
        self.squeeze = nn.Parameter(torch.empty(1, channels, 1, 1, **factory))
        self.fc1 = nn.Parameter(torch.empty(options.hidden, math.prod(grid), **factory))
        self.fc2 = nn.Parameter(torch.empty(options.blocks, options.hidden, **factory))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw squeeze, fc1 and fc2, in this order, in float64 on the CPU (Sec. III-B)."""
        channels = self.squeeze.shape[1]
        for weight in (self.squeeze, self.fc1, self.fc2):
            bound = math.sqrt(1 / (weight.shape[1] if self.init == "fan_in" else channels))
            draw = torch.empty(weight.shape, dtype=torch.float64, device="cpu")
            with torch.no_grad():
                weight.copy_(draw.uniform_(-bound, bound, generator=generator))

    def forward(self, x: Tensor, squeezed: Tensor | None = None) -> Tensor:
        """Weigh the memory blocks. Shapes: (N, C, H, W) -> (N, P).

        Args: squeezed: the map squeezed, (N, 1, H, W), if that is done already (`compute.tap`).
        """
        squeezed = to_grid(squeeze(x, self.squeeze) if squeezed is None else squeezed, self.grid)
        units = ACTIVATIONS[self.activation](F.linear(squeezed.flatten(1), self.fc1))
        return F.linear(units, self.fc2).softmax(dim=1)
