"""Where a model's blocks stand, as JSON can hold it, and surgery done again from that before weights are loaded."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from srblock.block import Options, SqueezeRemember2d
from srblock.inputs import memory_format
from srblock.tracing import Trace, refuse_wrapped, trace
from srblock.trial import CHILD, attach, detach, is_hooked, was_inserted_into

InputSize = int | tuple[int, ...]
"""Side of a square image, (H, W), or (C, H, W)."""


def places(model: nn.Module) -> list[dict[str, Any]]:
    """List the inserted blocks: the module each follows, its map, how it is run, its options.

    Raises: ValueError for a wrapped, compiled or scripted model.
    """
    refuse_wrapped(model)
    inserted = {name: module for name, module in model.named_modules() if was_inserted_into(module)}
    return [
        {"after": name, **_geometry(block), "hooked": is_hooked(module), "options": asdict(block.options)}
        for name, module in inserted.items()
        for block in [_block(module)]
    ]


def put_back(model: nn.Module, listed: Sequence[dict[str, Any]], input_size: InputSize | None = None) -> list[str]:
    """Insert the blocks that `places` listed, all or none; one that stands there already, the same, is left.

    Args:
        input_size: of the images, where it is known: the maps are then compared with the blocks'.

    Returns: the names of the modules after which blocks were put.

    Raises: ValueError if a module is not there, has something else in the place, or hands on another map; for a
    wrapped, compiled or scripted model.
    """
    refuse_wrapped(model)
    missing = [entry for entry in listed if not _stands(model, entry)]
    if missing and input_size is not None:
        seen = _traced(model, input_size)
        for entry in missing:
            _compare(entry, seen)
    for entry in missing:
        _put(model, entry)
    return [entry["after"] for entry in missing]


def take_out(model: nn.Module, names: Sequence[str]) -> None:
    """Take out the blocks after these modules."""
    for name in names:
        detach(model.get_submodule(name))


def _block(module: nn.Module) -> SqueezeRemember2d:
    block = module.get_submodule(CHILD)
    assert isinstance(block, SqueezeRemember2d)
    return block


def _geometry(block: SqueezeRemember2d) -> dict[str, Any]:
    return {"channels": block.channels, "size": list(block.size)}


def _options(entry: dict[str, Any]) -> Options:
    return Options(**entry["options"])


def _words(entry: dict[str, Any]) -> str:
    height, width = entry["size"]
    return f"{entry['channels']}x{height}x{width}"


def _stands(model: nn.Module, entry: dict[str, Any]) -> bool:
    """Tell whether a listed block stands in its place.

    Raises: ValueError if it neither does nor can.
    """
    name = entry["after"]
    modules = dict(model.named_modules())
    if name not in modules:
        near = difflib.get_close_matches(name, [other for other in modules if other], n=3, cutoff=0.5)
        hint = f"the nearest names are {', '.join(map(repr, near))}" if near else "nothing is called alike"
        raise ValueError(
            f"the block stood after {name!r}, and {type(model).__name__} has no such module; {hint}; build the model "
            "as it was when it was saved"
        )
    target = modules[name]
    if not was_inserted_into(target):
        if hasattr(target, CHILD):
            raise ValueError(f"{name!r} has an attribute {CHILD!r} of its own, the name that the block would take")
        return False
    block = _block(target)
    # Compared as options: JSON has lists for tuples, and what was saved before an option was there lacks it.
    if any(entry[key] != value for key, value in _geometry(block).items()) or block.options != _options(entry):
        raise ValueError(
            f"{name!r} has a block already, {block}, and the saved one is for {_words(entry)} with {entry['options']}; "
            "remove it first (srblock.remove)"
        )
    return True


def _traced(model: nn.Module, input_size: InputSize) -> Trace:
    try:
        return trace(model, input_size, hollow=True)
    except ValueError:  # some networks look at values
        return trace(model, input_size)


def _compare(entry: dict[str, Any], seen: Trace) -> None:
    name, call = entry["after"], seen.calls.get(entry["after"])
    if call is None:
        raise ValueError(f"the block stood after {name!r}, which is not called in a forward pass of this model")
    if call.shape[1:] != (entry["channels"], *entry["size"]):
        raise ValueError(
            f"the block after {name!r} belongs to maps of {_words(entry)}, and this model's are "
            f"{'x'.join(map(str, call.shape[1:]))} for images of {'x'.join(map(str, seen.inputs.image.shape[1:]))}; "
            "build the model as it was when it was saved"
        )


def _put(model: nn.Module, entry: dict[str, Any]) -> None:
    target = model.get_submodule(entry["after"])
    near = [value for value in (*target.parameters(), *model.parameters()) if value.is_floating_point()]
    where: dict[str, Any] = {"device": near[0].device, "dtype": near[0].dtype} if near else {}
    with torch.inference_mode(False):
        block = SqueezeRemember2d(entry["channels"], tuple(entry["size"]), **where, **asdict(_options(entry)))
    attach(target, block.to(memory_format=memory_format(model)).train(target.training), entry["hooked"])
