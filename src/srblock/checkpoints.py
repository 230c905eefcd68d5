"""Load weights into a network with blocks, whatever the checkpoint was wrapped in and whatever resolution it is of.

A block's memory (P, C, H, W) and first linear layer (U, H*W) belong to one map size. Both are maps and can be resized:
the memory as it is, the linear layer so that its units, sums over positions, become what they would be of maps brought
to the old size. A memory on a coarser grid (`grid`) does not say which map it is for, so such a block is loaded as it
is or not at all.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.block import SqueezeRemember2d
from srblock.block.block import PARTS, rename_old_keys
from srblock.surgery import plain_name

WRAPPING_KEYS = ("state_dict", "model", "model_state_dict")
Shapes = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint and a model had in common, key by key.

    `missing` keys are the model's, and keep their values; `unexpected` are the checkpoint's and stay unused; `resized`
    and `mismatched` map keys to (the checkpoint's shape, the model's); mismatched ones keep the model's values.
    """

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: dict[str, Shapes] = field(default_factory=dict)
    mismatched: dict[str, Shapes] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Tell whether every key of either side found its partner."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} keys fit"]
        lines += [f"  resized    {key}: {old} -> {new}" for key, (old, new) in self.resized.items()]
        lines += [f"  missing    {key}" for key in self.missing]
        lines += [f"  unexpected {key}" for key in self.unexpected]
        lines += [
            f"  mismatched {key}: {old} in the checkpoint, {new} in the model"
            for key, (old, new) in self.mismatched.items()
        ]
        return "\n".join(lines)


def load_state(
    model: nn.Module, state_dict: Mapping[str, Any], *, resize: bool = False, strict: bool = True
) -> LoadReport:
    """Load a checkpoint, all of it unless told otherwise; nothing is loaded when this raises.

    Args:
        state_dict: keys to tensors, or a checkpoint that holds this as "state_dict", "model" or "model_state_dict".
            Prefixes that DDP and torch.compile put before the keys are understood, on both sides.
        resize: fit blocks that were trained on maps of another size, bilinearly.
        strict: False loads what fits, and warns with every key that did not.

    Raises:
        ValueError for a tensor that is sparse, complex, quantized, without values, or of whole numbers where the
            model's are not; if a block's P, C or U differs, or its size without `resize`; if strict, also for every
            other key that is missing, unexpected or of another shape.
        TypeError for what is no state_dict.
    """
    given = _plain_keys(_unwrap(state_dict))
    own = _plain_keys(model.state_dict())
    names = dict(zip(own, model.state_dict(), strict=True))
    _refuse_odd(given, own)
    report = LoadReport()
    given = _fit_blocks(model, given, report, resize=resize)
    for key, value in own.items():
        if key not in given:
            # As torch does for checkpoints older than this counter.
            if not key.endswith("num_batches_tracked"):
                report.missing.append(key)
        elif isinstance(value, Tensor) and (shape := _shape(key, given[key])) != tuple(value.shape):
            report.mismatched[key] = (shape, tuple(value.shape))
        else:
            report.loaded.append(key)
    report.unexpected.extend(key for key in given if key not in own)
    if not report.complete:
        if strict:
            raise ValueError(
                f"the checkpoint does not fit the model, and nothing was loaded; {_hint(report)}\n{report}"
            )
        warnings.warn(f"the checkpoint does not fit the model\n{report}", stacklevel=2)
    model.load_state_dict({names[key]: given[key] for key in report.loaded}, strict=False)
    return report


def _unwrap(state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"expected a state_dict, a mapping from keys to tensors, got {type(state_dict).__name__}; "
            "pass model.state_dict() or torch.load(path, weights_only=True)"
        )
    for key in WRAPPING_KEYS:
        if isinstance(state_dict.get(key), Mapping):
            return _unwrap(state_dict[key])
    return state_dict


def _plain_keys(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    plain = {plain_name(key): value for key, value in state_dict.items()}
    if len(plain) != len(state_dict):
        raise ValueError("two keys of the state_dict become the same without the prefixes of DDP and torch.compile")
    return plain


def _refuse_odd(given: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    odd = []
    for key, value in given.items():
        partner = own.get(key)
        if isinstance(value, Tensor) and (kind := oddity(value, partner if isinstance(partner, Tensor) else None)):
            odd.append(f"{key} is {kind}")
    if odd:
        raise ValueError(
            f"the checkpoint holds what is no weight, and nothing was loaded: {', '.join(odd[:3])}; expected dense "
            "floating-point tensors with their values, as model.state_dict() has them"
        )


def _shape(key: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, Tensor):
        raise TypeError(f"expected a tensor for {key!r}, got {type(value).__name__}")
    return tuple(value.shape)


def oddity(value: Tensor, own: Tensor | None) -> str:
    """Say why a tensor is no weight that torch would copy as it is; "" if it is one.

    Args: own: the model's tensor of that name.
    """
    if value.is_meta:
        return "meta, without values"
    if value.is_nested or value.is_quantized:
        return "nested" if value.is_nested else "quantized"
    if value.layout != torch.strided:
        return f"sparse ({str(value.layout).removeprefix('torch.')})"
    if value.is_complex() or (own is not None and own.is_floating_point() and not value.is_floating_point()):
        return str(value.dtype).removeprefix("torch.")
    return ""


def _fit_blocks(model: nn.Module, given: dict[str, Any], report: LoadReport, *, resize: bool) -> dict[str, Any]:
    """Check the blocks in a checkpoint against the model's, and resize those of another map size."""
    fitted = dict(given)
    for name, block in model.named_modules():
        if not isinstance(block, SqueezeRemember2d):
            continue
        prefix = plain_name(f"{name}.") if name else ""
        rename_old_keys(fitted, prefix)
        parts = _parts(block)
        present = {part: fitted[prefix + key] for part, key in parts.items() if prefix + key in fitted}
        if not present:
            continue
        where = f"the checkpoint's block {prefix[:-1]!r}" if prefix else "the checkpoint"
        kept = block.state_dict()
        if others := [key for key in fitted if key.startswith(prefix) and key.removeprefix(prefix) not in kept]:
            raise ValueError(
                f"{where} has {', '.join(others)}, and the model's has not: it has other options, such as rank and "
                "logits; insert the block with the checkpoint's before loading"
            )
        old = _map_size(where, present, block)
        if lacking := [key for key in kept if prefix + key not in fitted]:
            raise ValueError(
                f"{where} lacks {', '.join(lacking)}, which the model's has: it has other options, such as logits; "
                "insert the block with the checkpoint's before loading"
            )
        if old == block.size:
            continue
        if not resize:
            raise ValueError(
                f"{where} belongs to maps of {old[0]}x{old[1]}, the model's to {block.size[0]}x{block.size[1]}; pass "
                "resize=True to fit it, or insert the block for the input_size that it was trained on"
            )
        units = _resize_units(present["fc1"].unflatten(1, (-1, *old)), block.size).flatten(1)
        for part, value in (("fc1", units), ("memory", _resize(present["memory"], block.size))):
            fitted[prefix + parts[part]] = value
            report.resized[prefix + parts[part]] = (tuple(present[part].shape), tuple(value.shape))
    return fitted


def _parts(block: SqueezeRemember2d) -> dict[str, str]:
    """Name the keys of a block's parts; of a memory of low rank the maps of one channel are what has positions."""
    if block.options.rank is None:
        return PARTS
    return PARTS | {"channels": "memory.channels", "memory": "memory.positions"}


def _map_size(where: str, present: dict[str, Any], block: SqueezeRemember2d) -> tuple[int, int]:
    """Read the (H, W) of a checkpoint's block and check that all else about it is as in the model's.

    Raises: ValueError naming what differs.
    """
    if missing := [part for part in _parts(block) if part not in present]:
        raise ValueError(
            f"{where} is incomplete, it lacks {', '.join(missing)}; a block loads as a whole or not at all"
        )
    shapes = {part: _shape(f"{where}: {part}", value) for part, value in present.items()}
    rank = block.options.rank
    kinds = {"squeeze": 4, "fc1": 2, "fc2": 2, "memory": 4, "channels": 3}
    if any(len(shape) != kinds[part] for part, shape in shapes.items()):
        raise ValueError(f"{where} is not a block of this package; its shapes are {shapes}")
    (blocks, second, *size), hidden, squeezed = shapes["memory"], shapes["fc2"][1], shapes["squeeze"][0]
    channels = second if rank is None else shapes["channels"][2]
    own, positions = block.memory.grid, shapes["fc1"][1] // max(squeezed, 1)
    coarse = positions > math.prod(size) and positions % math.prod(size) == 0
    if own != block.size or coarse:
        if (tuple(size), positions) != (own, math.prod(block.size)):
            raise ValueError(
                f"{where} has a memory on a grid of {size[0]}x{size[1]} for maps of {positions} positions, the model's "
                f"is {own[0]}x{own[1]} for {block.size[0]}x{block.size[1]}, and a coarse memory is not resized; insert "
                "the block with the checkpoint's grid and for the input_size that it was trained on"
            )
        size = list(block.size)
    expected: dict[str, int | None] = {"P": block.options.blocks, "C": block.channels, "U": block.options.hidden}
    expected |= {"K": block.options.squeeze_channels, "rank": rank}
    found = {"P": blocks, "C": channels, "U": hidden, "K": squeezed, "rank": None if rank is None else second}
    if found != expected:
        pairs = [
            f"{key}={found[key]} (the model has {value})" for key, value in expected.items() if found[key] != value
        ]
        raise ValueError(
            f"{where} has {', '.join(pairs)}; insert the block with the checkpoint's values before loading"
        )
    whole = {
        "squeeze": (squeezed, channels, 1, 1),
        "fc1": (hidden, squeezed * math.prod(size)),
        "fc2": (blocks, hidden),
    }
    if rank is not None:
        whole["channels"] = (blocks, second, channels)
    if any(shapes[part] != shape for part, shape in whole.items()):
        raise ValueError(f"{where} contradicts itself; its shapes are {shapes}")
    return size[0], size[1]


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return F.interpolate(wide, size, mode="bilinear", align_corners=False).to(maps.dtype)


def _resize_units(units: Tensor, size: tuple[int, int]) -> Tensor:
    """Apply the transpose of what brings maps (H, W) of `size` to the units' size, so that no position is left out.

    Shapes: (U, K, H old, W old) -> (U, K, H, W).
    """
    wide = units.to(torch.promote_types(units.dtype, torch.float32))
    with torch.inference_mode(False), torch.enable_grad():
        maps = torch.zeros(*wide.shape[:2], *size, dtype=wide.dtype, device=wide.device, requires_grad=True)
        old = F.interpolate(maps, wide.shape[2:], mode="bilinear", align_corners=False, antialias=True)
        (found,) = torch.autograd.grad(old, maps, wide.detach().clone())
    return found.to(units.dtype)


def _hint(report: LoadReport) -> str:
    ends = tuple(f".sr.{end}" for names in PARTS.items() for end in names)
    if any(f".{key}".endswith(ends) for key in report.unexpected):
        return "the checkpoint has a block where the model has none: insert it first (srblock.insert)"
    if any(".sr." in f".{key}" for key in report.missing):
        return (
            "the model has a block that the checkpoint lacks: load the weights first and insert afterwards, or pass "
            "strict=False to keep the block as it is"
        )
    return "pass strict=False to load what fits"
