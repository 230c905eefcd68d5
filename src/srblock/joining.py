"""Let the parameters of a new block join an optimizer that was built before it.

They become a group of their own, with the settings that the parameters beside them have now, which need not be those
that the optimizer was built with.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

GROUP_OWN = ("params", "param_names", "step")  # some of timm's count their steps by group


def settings_beside(optimizer: torch.optim.Optimizer, model: nn.Module, target: nn.Module) -> dict[str, Any]:
    """Copy the settings of the group that trains a module's last weights, or else the nearest before it, or after.

    Weights, not biases: these often are in a group without weight decay.

    Raises: TypeError for what is no optimizer; ValueError for one that has none of the model's parameters, that a
        learning-rate scheduler counts the groups of, or that takes no parameters after it was built.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    groups = {id(value): group for group in optimizer.param_groups for value in group["params"]}
    beside = [value for value in _by_distance(model, target) if id(value) in groups]
    if not beside:
        raise ValueError(
            "the optimizer has none of the model's parameters, so it was built for another model (or a copy); pass the "
            "one that trains this model, or insert first and build it afterwards"
        )
    if isinstance(optimizer, (torch.optim.Adagrad, torch.optim.LBFGS)):
        raise ValueError(
            f"{type(optimizer).__name__} takes no parameters after it was built; insert first and build it afterwards"
        )
    if any("initial_lr" in group for group in optimizer.param_groups):
        raise ValueError(
            "the optimizer has a learning-rate scheduler (its groups have an initial_lr), which would not know a new "
            "group; insert before the scheduler is built, or, if it is no longer used, delete each group's 'initial_lr'"
        )
    group = groups[id(next((value for value in beside if value.ndim > 1), beside[0]))]
    return {key: copy.deepcopy(value) for key, value in group.items() if key not in GROUP_OWN}


def _by_distance(model: nn.Module, target: nn.Module) -> list[nn.Parameter]:
    """List the model's parameters: from a module's last one back to the model's first, then those after it."""
    modules, within = list(model.modules()), set(target.modules())
    end = max(place for place, module in enumerate(modules) if module in within) + 1
    before, after = (
        [value for module in part for value in module.parameters(recurse=False)]
        for part in (modules[:end], modules[end:])
    )
    return [*reversed(before), *after]


def join(optimizer: torch.optim.Optimizer, block: nn.Module, name: str, settings: dict[str, Any]) -> None:
    """Add a block's parameters as a group; name: the block's in the model, for optimizers that keep names."""
    named = any("param_names" in group for group in optimizer.param_groups)
    own = [(f"{name}.{key}", value) if named else value for key, value in block.named_parameters()]
    optimizer.add_param_group({**settings, "params": own})
