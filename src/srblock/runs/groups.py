"""A network's parameters sorted for the optimizer: which rate and decay each has, and which wait frozen at first."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from srblock.models import segmentation
from srblock.surgery import blocks, plain_name
from srblock.training.ranges import scale_of
from srblock.training.recipe import Recipe


def parameter_groups(model: nn.Module, recipe: Recipe, classes: int) -> list[dict[str, Any]]:
    """Sort the trainable parameters into groups, as `training.optimizer.Groups` says, by their first one's place.

    The backbone is all but the head (`head`) and the SR blocks.

    Raises: ValueError if the recipe treats the backbone differently and the network has no layer that looks like a
    head.
    """
    memories = {id(value) for block in blocks(model).values() for value in block.memory.parameters()}
    fresh: set[int] = set()
    apart = recipe.backbone_lr_scale != 1 or recipe.freeze_epochs > 0
    if apart:
        fresh = {
            id(value) for module in (*head(model, classes), *blocks(model).values()) for value in module.parameters()
        }
    scales = [scale_of(text) for text in recipe.lr_scales]
    groups: dict[tuple[float, float | None, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        memory, backbone = id(parameter) in memories, apart and id(parameter) not in fresh
        lr_scale = next((factor for pattern, factor in scales if fnmatchcase(plain_name(name), pattern)), 1.0)
        lr_scale *= recipe.backbone_lr_scale if backbone else 1.0
        decay = recipe.norm_weight_decay if parameter.dim() <= 1 else None
        if memory:
            lr_scale *= recipe.memory_lr_scale or 1.0
            decay = recipe.memory_weight_decay
        frozen = backbone and recipe.freeze_epochs > 0
        group = groups.setdefault((lr_scale, decay, frozen), {"params": []})
        group["params"].append(parameter)
        if lr_scale != 1:
            group["lr_scale"] = lr_scale
        if decay is not None:
            group["weight_decay"] = decay
        if frozen:
            group["frozen"] = recipe.freeze_epochs
    return list(groups.values())


def head(model: nn.Module, classes: int) -> list[nn.Module]:
    """Return what says the class: the last layer with so many outputs, in our segmentation networks their heads.

    Raises: ValueError if there is none.
    """
    if isinstance(model, segmentation.Segmentation):
        return [module for name, module in model.named_children() if name in segmentation.HEADS]
    found = [
        module
        for module in model.modules()
        if isinstance(weight := getattr(module, "weight", None), nn.Parameter)
        and weight.dim() >= 2
        and len(weight) == classes
    ]
    if not found:
        raise ValueError(
            f"the recipe trains head and backbone differently, and the network has no layer with {classes} outputs "
            "that could be the head; set --freeze-epochs 0 and --backbone-lr-scale 1, and rates by name with --lr-scale"
        )
    return found[-1:]


def check_patterns(recipe: Recipe, models: Iterable[nn.Module]) -> None:
    """Check that each pattern of a recipe fits the name of a parameter in one network or another.

    Raises: ValueError naming the pattern, and names that there are.
    """
    if not recipe.lr_scales:
        return
    names = [plain_name(name) for model in models for name, _ in model.named_parameters()]
    for text in recipe.lr_scales:
        if not any(fnmatchcase(name, scale_of(text)[0]) for name in names):
            raise ValueError(
                f"--lr-scale {text}: no parameter has a name like that; there are such as "
                f"{', '.join(dict.fromkeys((names[0], names[len(names) // 2], names[-1])))}"
            )
