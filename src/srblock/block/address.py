"""From a feature map to the weights of the memory blocks (Sec. III-A, III-B).

    q = flatten(conv1x1(X))              squeeze C channels to K, one in the paper
    a = softmax(W2 . act(W1 . q))        weigh P memory blocks for each image

No layer has a bias, as Eq. (1) counts none. What the softmax takes may be standardized over images and divided by a
temperature first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from srblock.block.compute import squeeze, to_grid
from srblock.block.draws import stream
from srblock.block.options import Options

ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {None: lambda x: x, "relu": F.relu}


class Address(nn.Module):
    """Weigh the memory blocks for each image; rows sum to 1.

    Shapes: (N, C, H, W) -> (N, P). Maps of another size than `grid` are resized once they are squeezed.

    Args: channels C, grid (H, W), the block's options; factory: device and dtype of the parameters.
    """

    def __init__(self, channels: int, grid: tuple[int, int], options: Options, **factory: Any) -> None:
        super().__init__()
        squeezed = options.squeeze_channels
        self.grid, self.activation, self.init, self.temperature = (
            grid, options.activation, options.init, options.temperature,
        )  # fmt: skip
        self.squeeze = nn.Parameter(torch.empty(squeezed, channels, 1, 1, **factory))
        self.fc1 = nn.Parameter(torch.empty(options.hidden, squeezed * math.prod(grid), **factory))
        self.fc2 = nn.Parameter(torch.empty(options.blocks, options.hidden, **factory))
        self.standardize = Standardize(options.blocks, **factory) if options.logits == "standardized" else None

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw squeeze, fc1 and fc2, in this order, in float64 on the CPU (Sec. III-B)."""
        generator = stream(0x5153) if generator is None else generator
        channels = self.squeeze.shape[1]
        for weight in (self.squeeze, self.fc1, self.fc2):
            bound = math.sqrt(1 / (weight.shape[1] if self.init == "fan_in" else channels))
            draw = torch.empty(weight.shape, dtype=torch.float64, device="cpu")
            with torch.no_grad():
                weight.copy_(draw.uniform_(-bound, bound, generator=generator))
        if self.standardize is not None:
            self.standardize.reset_parameters()

    def forward(self, x: Tensor, squeezed: Tensor | None = None) -> Tensor:
        """Weigh the memory blocks. Shapes: (N, C, H, W) -> (N, P).

        Args: squeezed: the map squeezed, (N, K, H, W), if that is done already (`compute.tap`).
        """
        squeezed = to_grid(squeeze(x, self.squeeze) if squeezed is None else squeezed, self.grid)
        logits = F.linear(ACTIVATIONS[self.activation](F.linear(squeezed.flatten(1), self.fc1)), self.fc2)
        if self.standardize is not None:
            logits = self.standardize(logits)
        if self.temperature != 1:
            logits = logits / self.temperature
        return logits.softmax(dim=1)


class Standardize(nn.Module):
    """Shift and scale each logit to mean 0 and variance 1 over images, as a batch norm without an affine part does.

    In training by the batch, that of all processes of a group together, in evaluation by running figures. Unlike
    torch's it takes a batch of one image, whose logits become 0, and variances far below 1e-5: the logits of a fresh
    block vary little.

    Shapes: (N, P) -> (N, P), in float32 at least.
    """

    EPS, MOMENTUM = 1e-8, 0.1
    mean: Tensor
    variance: Tensor

    def __init__(self, count: int, **factory: Any) -> None:
        super().__init__()
        for name in ("mean", "variance"):
            self.register_buffer(name, torch.empty(count, **factory))

    def reset_parameters(self) -> None:
        """Forget what was seen: mean 0 and variance 1."""
        self.mean.zero_()
        self.variance.fill_(1)

    def forward(self, logits: Tensor) -> Tensor:
        """Standardize. Shapes: (N, P) -> (N, P)."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        mean, variance = self._of_batch(logits) if self.training else (self.mean, self.variance)
        return (logits - mean) * torch.rsqrt(variance + self.EPS)

    def _of_batch(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        count = logits.new_full((1,), len(logits))
        total = _over_processes(torch.cat([logits.sum(0), count]))
        count = total[-1]
        mean = total[:-1] / count.clamp(min=1)  # a batch may be empty
        variance = _over_processes((logits - mean).square().sum(0)) / count.clamp(min=1)
        with torch.no_grad():
            self.mean.lerp_(torch.where(count > 0, mean, self.mean).to(self.mean), self.MOMENTUM)
            unbiased = torch.where(count > 1, variance * (count / (count - 1)), self.variance)  # one image has none
            self.variance.lerp_(unbiased.to(self.variance), self.MOMENTUM)
        return mean, variance


def _over_processes(values: Tensor) -> Tensor:
    """Sum over the processes of a distributed run, if there are several."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return values
    summed: Tensor = _AllReduce.apply(values)
    return summed


class _AllReduce(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of all processes' gradients, by any backend."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _over_processes(gradient.contiguous())
