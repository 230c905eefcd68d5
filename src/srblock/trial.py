"""Try a block at a place: on a copy of the network, so that a place where it cannot stand leaves no trace.

The block becomes the child `sr` of a module. A plain `nn.Sequential` runs its new last child itself, and so do modules
that loop over their children; any other gets one forward hook, a function of this file, so that copies and pickles of
the network use their own block.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import Any, Literal

import torch
from torch import Tensor, nn

from srblock.block import SqueezeRemember2d
from srblock.tracing import Trace, run, runs_new_child, tensors

Hooked = bool | Literal["first", "last"]
"""Whether a hook runs a block, and which of a module's hooks; True is of before 0.3.0, when it was the last one."""

CHILD = "sr"
DRAWS = 4  # of noise: a label may stay by chance
MARK = "sr_inserted"  # attribute of a block from `attach` and of the module that runs it; copies and pickles keep it


def _run_block(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """Forward hook: hand the module's output to its block."""
    return module.sr(output)  # type: ignore[operator]


def attach(target: nn.Module, block: SqueezeRemember2d, hooked: Hooked) -> None:
    """Put a block behind a module, whose own child it becomes.

    A hook that runs it comes before those that look at the module's output, which then see what the network goes on
    with; or after all ("last"), where one of them makes the output.
    """
    target.add_module(CHILD, block)
    for module in (target, block):
        setattr(module, MARK, True)
    if hooked:
        target.register_forward_hook(_run_block, prepend=hooked == "first")


def detach(target: nn.Module) -> None:
    """Take away the block that `attach` put there."""
    for module in (target._modules[CHILD], target):
        vars(module).pop(MARK, None)  # a block pickled by 0.2 has none
    delattr(target, CHILD)
    for key in [key for key, hook in target._forward_hooks.items() if hook is _run_block]:
        del target._forward_hooks[key]


def was_inserted_into(module: nn.Module) -> bool:
    """Tell whether a module has a block from `attach`."""
    return MARK in vars(module) and CHILD in module._modules


def refuse_stranded(model: nn.Module) -> None:
    """Refuse a model with a block that nothing runs any more, as its module became another layer of PyTorch.

    Raises: ValueError saying where it hangs and what to do.
    """
    for name, module in model.named_modules():
        block, kind = module._modules.get(CHILD), type(module).__module__
        layer = kind.startswith(("torch.nn.modules.", "torch.ao.")) and not kind.endswith((".module", ".container"))
        if layer and isinstance(block, SqueezeRemember2d) and MARK in vars(block) and MARK not in vars(module):
            raise ValueError(
                f"nothing runs the block {f'{name}.{CHILD}'!r}: the module that it was inserted after was replaced, as "
                "torch.nn.SyncBatchNorm.convert_sync_batchnorm and fusing do; convert or fuse first and insert then, "
                "or insert after a module that stays"
            )


def is_hooked(module: nn.Module) -> Hooked:
    """Tell how a module's block is run by a hook, if not by the module itself."""
    hooks = list(module._forward_hooks.values())
    return _run_block in hooks and ("last" if hooks.index(_run_block) else "first")


class Unfit(Exception):
    """A block cannot stand where it was tried; the message says why."""


def needs_hook(seen: Trace, name: str, block: SqueezeRemember2d) -> Hooked:
    """Find out on the copy how module `name` runs a block: by itself, as a last child, or through which hook.

    Raises: Unfit if neither works.
    """
    if runs_new_child(seen.copied.get_submodule(name)):
        _try(seen, name, block, False)
        return False
    try:
        _try(seen, name, block, "first")
    except Unfit:
        others = seen.copied.get_submodule(name)._forward_hooks
        ways: tuple[Hooked, ...] = ("last", False) if others else (False,)
        for way in ways:
            with suppress(Unfit):
                _try(seen, name, block, way)
                return way
        raise
    return "first"


def _try(seen: Trace, name: str, block: SqueezeRemember2d, hooked: Hooked) -> None:
    """Run the copy with a block after module `name`.

    Raises: Unfit unless the block is run once and last, with the model's output unchanged and dependent on it.
    """
    target = seen.copied.get_submodule(name)
    maps: list[tuple[Tensor, Tensor]] = []
    results: list[object] = []
    attach(target, block, hooked)
    watches = (
        block.register_forward_hook(lambda module, args, output: maps.append((args[0], output))),
        target.register_forward_hook(lambda module, args, output: results.append(output)),
    )
    try:
        outputs = run(seen.copied, seen.inputs)
    except Exception as error:
        raise Unfit(f"with the block in it a forward pass fails with {type(error).__name__}: {error}") from error
    finally:
        for watch in watches:
            watch.remove()
        detach(target)
    if len(maps) != 1:
        raise Unfit(f"a forward pass runs the block {len(maps)} times instead of once")
    given, returned = maps[0]
    if len(results) != 1 or results[0] is not returned:
        raise Unfit("the module goes on computing after it has run the block")
    exact = seen.inputs.image.device.type == "cpu" and given.stride() == returned.stride()
    if not _unchanged(outputs, seen.outputs, exact):
        raise Unfit("the model's output changes although a fresh block adds nothing")
    depends = _reaches(outputs, set(block.memory.parameters()))
    if depends is None:
        depends = not outputs or seen.inputs.is_meta or _moves(seen, target, block, hooked)
    if not depends:
        raise Unfit(
            "the model's output does not depend on the block, which could never learn: the map is not used, or no "
            "gradient comes back to it"
        )


def _moves(seen: Trace, target: nn.Module, block: SqueezeRemember2d, hooked: Hooked) -> bool:
    """Tell whether outputs are ever others with noise added to the block's map.

    Or to what those modules return that are then given something else: a later layer may start at zero.
    """
    attach(target, block, hooked)
    try:
        given = _given(seen, ())
        if any(not _unchanged(_shaken(seen, (block,), draw), seen.outputs, exact=True) for draw in range(DRAWS)):
            return True
        moved = [
            module
            for module, values in _given(seen, (block,)).items()
            if module is not block and not _unchanged(values, given.get(module, []), exact=True)
        ]
        return any(not _unchanged(_shaken(seen, moved, draw), seen.outputs, exact=True) for draw in range(DRAWS))
    except Exception:  # of a network that refuses such values, so they reach it
        return True
    finally:
        detach(target)


def _shaken(seen: Trace, modules: Iterable[nn.Module], draw: int) -> list[Tensor]:
    """Run the copy with noise added to what some modules return, and return its outputs."""
    generator = torch.Generator().manual_seed(draw)

    def shake(module: nn.Module, args: object, output: Any) -> Any:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        return output + 1000 * torch.randn(output.shape, generator=generator).to(output)

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(shake).remove)
        return run(seen.copied, seen.inputs)


def _given(seen: Trace, shaken: Iterable[nn.Module]) -> dict[nn.Module, list[Tensor]]:
    """Return what each module is given, with noise added to what some return."""
    found: dict[nn.Module, list[Tensor]] = {}

    def note(module: nn.Module, args: object) -> None:
        found.setdefault(module, []).extend(value.detach().clone() for value in tensors(args))

    with ExitStack() as stack:
        for module in seen.copied.modules():
            stack.callback(module.register_forward_pre_hook(note).remove)
        _shaken(seen, shaken, 0)
    return found


def _unchanged(outputs: list[Tensor], before: list[Tensor], exact: bool) -> bool:
    """Compare outputs: bit for bit, or up to rounding where another device or layout may choose another kernel."""
    if [value.shape for value in outputs] != [value.shape for value in before]:
        return False
    pairs = [pair for pair in zip(outputs, before, strict=True) if pair[1].device.type != "meta"]
    for new, old in pairs:
        tolerance = 0.0
        if not exact and old.is_floating_point() and old.numel():
            tolerance = 100 * torch.finfo(old.dtype).eps * float(old.abs().max())
        same = torch.equal(new, old) or (
            old.is_floating_point() and torch.allclose(new, old, rtol=0, atol=tolerance, equal_nan=True)
        )
        if not same:
            return False
    return True


def _reaches(outputs: list[Tensor], parameters: set[nn.Parameter]) -> bool | None:
    """Tell whether outputs depend on any of these, from the graph alone (a gradient may be zero by initialization).

    None if the graph does not say: of labels, or what was computed without gradients or in a reentrant checkpoint.
    """
    waiting = [value.grad_fn for value in outputs if value.grad_fn is not None]
    if not waiting:
        return None
    known = set(waiting)
    hidden = False
    while waiting:
        node = waiting.pop()
        if getattr(node, "variable", None) in parameters:
            return True
        hidden = hidden or node.name() == "CheckpointFunctionBackward"
        new = {after for after, _ in node.next_functions if after is not None} - known
        known |= new
        waiting.extend(new)
    return None if hidden else False
