"""SGD whose groups of parameters keep a rate and a decay of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from srblock.training.recipe import Recipe

Groups = Callable[[nn.Module], list[dict[str, Any]]]
"""Sort a model's trainable parameters into groups, as torch's optimizers take them: "params", and where they differ
from the rest "weight_decay" and "lr", or "lr_scale", the factor of the rate (timm's word)."""


def sgd(model: nn.Module, recipe: Recipe, device: torch.device, groups: Groups | None = None) -> torch.optim.SGD:
    """Return the recipe's optimizer, without `groups` of one group; the rate is set at every step."""
    return torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad] if groups is None else groups(model),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=device.type in ("cuda", "cpu"),
    )


def scale_rates(optimizer: torch.optim.Optimizer) -> None:
    """Let every group keep its own rate along the schedule: note how it relates to the optimizer's."""
    for group in optimizer.param_groups:
        group.setdefault("lr_scale", float(group["lr"]) / optimizer.defaults["lr"])


def keep_rates_on(device: torch.device, optimizer: torch.optim.Optimizer) -> None:
    """Keep the rates in memory of the device, where a CUDA graph reads them."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=device)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group: the given one, times the group's lr_scale."""
    for group in optimizer.param_groups:
        own = rate * group["lr_scale"]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own
