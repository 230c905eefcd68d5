"""The optimizer of a recipe, whose groups of parameters keep a rate and a decay of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from srblock.training.recipe import Recipe

Groups = Callable[[nn.Module], list[dict[str, Any]]]
"""Sort a model's trainable parameters into groups, as torch's optimizers take them: "params", and where they differ
from the rest "weight_decay" and "lr", or "lr_scale", the factor of the rate (timm's word), and "frozen", how many
epochs they wait before they are trained."""


SECOND_BETA = 0.999  # of AdamW, torch's default
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def make_optimizer(
    model: nn.Module, recipe: Recipe, device: torch.device, groups: Groups | None = None
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer, without `groups` of one group; the rate is set at every step.

    With `bias_lr_scale` the biases of batch norms without a trained scale leave each group for one of their own. With
    `decoupled` the rate and the decay of every group are turned into those of torch's SGD, see `decouple`.
    """
    chosen = [{"params": [p for p in model.parameters() if p.requires_grad]}] if groups is None else groups(model)
    if recipe.bias_lr_scale != 1:
        biases = {id(m.bias) for m in model.modules() if isinstance(m, BATCH_NORMS) and not _has_scale(m)}
        chosen = [part for group in chosen for part in _apart(group, biases, recipe.bias_lr_scale)]
    if recipe.decoupled:
        chosen = [decouple(group, recipe) for group in chosen]
    fused = device.type in ("cuda", "cpu")
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            chosen,
            lr=recipe.learning_rate,
            betas=(recipe.momentum, SECOND_BETA),
            weight_decay=recipe.weight_decay,
            fused=fused,
            capturable="graph" in recipe.engine,
        )
    return torch.optim.SGD(
        chosen,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=fused,
    )


def _has_scale(norm: nn.Module) -> bool:
    return isinstance(norm.weight, nn.Parameter) and norm.weight.requires_grad


def _apart(group: dict[str, Any], biases: set[int], lr_scale: float) -> list[dict[str, Any]]:
    """Divide a group into the other parameters and the given biases, which get their factor; leave out empty ones."""
    rest = [parameter for parameter in group["params"] if id(parameter) not in biases]
    own = [parameter for parameter in group["params"] if id(parameter) in biases]
    scaled = {"lr_scale": lr_scale * group.get("lr_scale", 1.0)}
    return [part for part in (group | {"params": rest}, group | {"params": own} | scaled) if part["params"]]


def decouple(group: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Turn a group's rate and decay, in airbench's units, into those of torch's SGD.

    There both are per 1,024 images, for a loss summed over images, and divided by 1 + 1 / (1 - momentum), about what
    momentum multiplies a step by; the decay at the schedule's top is the same whatever the rate. (K. Jordan, arXiv
    2404.00498, and its program.)
    """
    lr_scale = group.get("lr_scale", 1.0)
    per_step = recipe.batch_size / 1024 / (1 + 1 / (1 - recipe.momentum))
    decay = group.get("weight_decay", recipe.weight_decay) / (recipe.learning_rate * lr_scale)
    return group | {"lr_scale": lr_scale * per_step, "weight_decay": decay}


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


def freeze(optimizer: torch.optim.Optimizer, epoch: int) -> bool:
    """Let the gradients of groups that are frozen in an epoch (from 0) be left out; tell whether that changed any."""
    changed = False
    for group in optimizer.param_groups:
        trained = epoch >= group.get("frozen", 0)
        for parameter in group["params"]:
            changed |= parameter.requires_grad != trained
            parameter.requires_grad_(trained)
            if not trained:
                parameter.grad = None
    return changed
