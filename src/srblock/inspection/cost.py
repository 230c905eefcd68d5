"""What a network costs: parameters and operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from srblock.surgery import blocks
from srblock.tracing import duplicate


@dataclass(frozen=True)
class Cost:
    """The size of a network and what its SR blocks add.

    Attributes:
        parameters: of the whole network.
        overhead_percent: the blocks' parameters over those of the network without them, as in the paper's tables.
        flops_per_image: floating-point operations of one forward pass (a multiply-add counts two) of convolutions
            and matrix products.
    """

    parameters: int
    overhead_percent: float
    flops_per_image: int


def cost(model: nn.Module, shape: tuple[int, int, int]) -> Cost:
    """Count parameters and operations for images of shape (C, H, W); the model stays as it is."""
    return Cost(*count_parameters(model), flops_per_image(model, shape))


def count_parameters(model: nn.Module) -> tuple[int, float]:
    """Count a network's parameters, and in percent what its blocks add to those of the rest (see `Cost`)."""
    parameters = sum(p.numel() for p in model.parameters())
    added = sum(p.numel() for block in blocks(model).values() for p in block.parameters())
    return parameters, 100 * added / (parameters - added)


def flops_per_image(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Count the operations of one forward pass on a copy without data, so that no time is spent."""
    hollow = duplicate(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        hollow(torch.empty(1, *shape, device="meta"))
    return int(counter.get_total_flops())
