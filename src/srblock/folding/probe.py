"""Where the map of a block goes: whether all it does is to be averaged over positions and pass a linear layer.

Not read off the network's code but proved by exchange. In a copy the block returns noise of every scale and sign: if
that arrives at a module bit for bit, whatever lies between is the identity; if the module returns its mean, it is
global average pooling; and if other noise with the same pooled values leaves the outputs bit for bit as they are, no
other path exists. The same is then done from the pooling to the linear layer.
"""

from __future__ import annotations

import enum
import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from srblock.block import SqueezeRemember2d
from srblock.inputs import Inputs
from srblock.tracing import leaves, tensors

PLAIN = (str, bytes, bool, int, float, complex, type(None))
EXACT = 1e-12  # of the largest value, in float64


@dataclass(frozen=True)
class Head:
    """The modules between which a block's memory can be carried over: its pooling, and the linear layer after that."""

    pool: str
    linear: str


class Stays(Exception):
    """Something of a block stays as it is; the message says why."""


@dataclass
class Taken:
    """Which modules took a tensor as it is, in the order of their calls, what they returned, and how often all ran."""

    outputs: dict[str, Tensor] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)


def outputs_of(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """Run a copy of a network without gradients and autocast, return what its output is made of, draw nothing anew.

    Raises: Stays if something of it is no tensor and cannot be made one.
    """
    fresh = inputs.fresh()
    with torch.no_grad(), torch.autocast("cpu", enabled=False), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return [_tensor(leaf) for leaf in leaves(model(*fresh.args, **fresh.kwargs)) if leaf is not None]


def _tensor(leaf: object) -> Tensor:
    """Make a part of an output a tensor: numbers, arrays and text too are compared."""
    if isinstance(leaf, Tensor):
        return leaf.detach()
    if isinstance(leaf, (type, ModuleType)) or inspect.isbuiltin(leaf):
        leaf = getattr(leaf, "__name__", "")
    elif isinstance(leaf, (enum.Enum, torch.dtype, torch.device)):
        leaf = str(leaf)
    elif isinstance(leaf, (set, frozenset)) and all(isinstance(part, PLAIN) for part in leaf):
        leaf = str(sorted(map(repr, leaf)))
    if isinstance(leaf, (str, bytes)):
        text = leaf.encode() if isinstance(leaf, str) else leaf
        return torch.tensor(int.from_bytes(hashlib.sha256(text).digest()[:7]))
    try:
        return torch.from_numpy(np.array(leaf))
    except (TypeError, ValueError) as error:
        raise Stays(
            f"the network's output holds a {type(leaf).__name__}, which cannot be compared; fold the part of the "
            "network that returns tensors"
        ) from error


def agree(outputs: list[Tensor], expected: list[Tensor]) -> bool:
    """Tell whether outputs are equal but for the rounding of float64."""
    return len(outputs) == len(expected) and all(
        one.shape == other.shape
        and (
            torch.allclose(one, other, rtol=0, atol=_rounding(other), equal_nan=True)
            if other.is_floating_point()
            else one.equal(other)
        )
        for one, other in zip(outputs, expected, strict=True)
    )


def _rounding(value: Tensor) -> float:
    finite = value[value.isfinite()]
    return EXACT * max(1.0, float(finite.abs().max())) if finite.numel() else 0.0


def called(
    model: nn.Module, found: Mapping[str, SqueezeRemember2d], inputs: Inputs
) -> tuple[dict[str, list[torch.Size]], list[Tensor]]:
    """Run a network. -> the shapes that each block was given, by name in the order of first calls; the outputs."""
    shapes: dict[str, list[torch.Size]] = {}
    with ExitStack() as hooks:
        for name, block in found.items():

            def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name) -> None:
                shapes.setdefault(name, []).append(next(tensors([*args, *kwargs.values()])).shape)

            hooks.callback(block.register_forward_pre_hook(note, with_kwargs=True).remove)
        return shapes, outputs_of(model, inputs)


def find_head(model: nn.Module, block: SqueezeRemember2d, shape: torch.Size, inputs: Inputs) -> Head:
    """Find the pooling and the linear layer that all of a block's map passes.

    Args:
        model: a copy in float64 on the CPU, in evaluation mode.
        shape: of the map, (N, C, H, W).

    Raises: Stays if there are no such, saying what follows instead.
    """
    noise, other = _noise(shape, 1), _noise(shape, 2, scales=False)  # of unit size: what saturates must show too
    seen, outputs = _exchanged(model, inputs, {block: noise}, noise)
    whole = [value.dim() > 0 for value in outputs if not value.is_floating_point()]  # constants have no dimension
    if any(whole) or len(whole) == len(outputs):
        raise Stays("the network returns labels, or other whole numbers, which do not show every path of its map")
    if not all(value.isfinite().all() for value in outputs):
        raise Stays("the network's output is not finite for every map, so that it cannot be told where its map goes")
    pool = _pooling(model, seen, noise)
    pooled = seen.outputs[pool]
    module = model.get_submodule(pool)
    _, again = _exchanged(model, inputs, {block: other, module: pooled}, other)
    if not _equal(again, outputs):
        raise Stays(f"its map goes into {pool!r} and elsewhere too")
    noise, other = _noise(pooled.shape, 3), _noise(pooled.shape, 4, scales=False)
    seen, outputs = _exchanged(model, inputs, {module: noise}, noise)
    linear = _linear(model, seen, pool, noise)
    instead = {module: other, model.get_submodule(linear): seen.outputs[linear]}
    _, again = _exchanged(model, inputs, instead, other)
    if not _equal(again, outputs):
        raise Stays(f"what {pool!r} pools goes into {linear!r} and elsewhere too")
    return Head(pool, linear)


def _pooling(model: nn.Module, seen: Taken, noise: Tensor) -> str:
    """Name the module that averages the map over positions."""
    means, shape = noise.mean((2, 3)), noise.shape[:2]
    for name, output in seen.outputs.items():
        if output.shape in (shape, (*shape, 1, 1)) and agree([output.flatten(1)], [means]):
            _once(model, name, seen)
            return name
    raise Stays(
        f"{_where_to(model, seen, 'its map', noise)}, not straight into a module that averages it over positions"
    )


def _linear(model: nn.Module, seen: Taken, pool: str, noise: Tensor) -> str:
    """Name the linear layer that takes what was pooled."""
    for name in seen.outputs:
        layer = model.get_submodule(name)
        if type(layer) is nn.Linear:
            _once(model, name, seen)
            hooks = (*layer._forward_hooks.values(), *layer._forward_pre_hooks.values())
            if hooks:
                raise Stays(f"the linear layer {name!r} has hooks, which may use its weights")
            holders = [key for key, value in model.named_parameters(remove_duplicate=False) if value is layer.weight]
            if len(holders) > 1:
                raise Stays(f"the weights of the linear layer {name!r} are used elsewhere too ({holders[-1]!r})")
            return name
    raise Stays(f"{_where_to(model, seen, f'what {pool!r} pools', noise)}, not straight into an nn.Linear")


def _once(model: nn.Module, name: str, seen: Taken) -> None:
    names = [other for other, module in model.named_modules(remove_duplicate=False) if module is _at(model, name)]
    if len(names) > 1 or seen.calls[name] > 1:
        raise Stays(f"{name!r} ({type(_at(model, name)).__name__}) is used more than once")


def _at(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name)


def _where_to(model: nn.Module, seen: Taken, what: str, noise: Tensor) -> str:
    """Say which modules take what is looked for: the innermost ones, without those that hand it on as it is."""
    passing = {name for name, output in seen.outputs.items() if _same(output, noise)}
    leaves = [
        name
        for name in dict.fromkeys(seen.names)
        if name and name not in passing and not list(_at(model, name).children())
    ]
    if not leaves:
        return f"{what} goes into code"
    said = [f"{name!r} ({type(_at(model, name)).__name__})" for name in leaves[:2]]
    return f"{what} goes into {' and '.join(said)}{' and others' if len(leaves) > 2 else ''}"


def _exchanged(
    model: nn.Module, inputs: Inputs, instead: Mapping[nn.Module, Tensor], sought: Tensor
) -> tuple[Taken, list[Tensor]]:
    """Run a network in which modules return other tensors, and note which modules take the one that is sought.

    A module that takes it is noted before it can change it in place, and with an output only if it has no other
    argument.
    """
    seen = Taken()
    waiting: list[str] = []

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = [*args, *kwargs.values()]
            seen.calls[name] += 1
            if any(_same(value, sought) for value in tensors(given)):
                seen.names.append(name)
                if len(given) == 1:
                    waiting.append(name)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            if waiting and waiting[-1] == name:
                waiting.pop()
                if isinstance(output, Tensor):
                    seen.outputs[name] = output.detach().clone()

        return hook

    with ExitStack() as hooks:
        inside = {id(part) for module in instead for part in module.modules()}
        for module, value in instead.items():

            def swap(module: nn.Module, args: object, output: object, value: Tensor = value) -> Tensor:
                return value.clone()

            hooks.callback(module.register_forward_hook(swap).remove)
        for name, module in model.named_modules():
            if id(module) in inside and not any(module is other for other in instead):
                continue
            hooks.callback(module.register_forward_pre_hook(before(name), with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(after(name)).remove)
        return seen, outputs_of(model, inputs)


def _noise(shape: torch.Size, seed: int, *, scales: bool = True) -> Tensor:
    """Draw values of both signs; with scales from a thousandth to a thousand: only the identity passes them on."""
    generator = torch.Generator().manual_seed(seed)
    values, powers = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return values * 10 ** powers.clamp(-3, 3) if scales else values


def _same(value: Tensor, sought: Tensor) -> bool:
    """Tell whether two batches hold the same, bit for bit, flattened or not."""
    if value.shape[:1] != sought.shape[:1] or value.numel() != sought.numel() or value.dtype != sought.dtype:
        return False
    return torch.equal(value.flatten(1), sought.flatten(1))


def _equal(outputs: list[Tensor], others: list[Tensor]) -> bool:
    return len(outputs) == len(others) and all(map(_identical, outputs, others))


def _identical(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num()) if one.is_floating_point() else torch.equal(one, other)
