"""Running the part of a network behind its first block again, with what comes before taken from memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from srblock.surgery import blocks

TOGETHER = 128  # images whose maps are held in memory at a time
Outputs = dict[str, list[Any]]  # of each module, call by call


class Replay:
    """What the modules before a network's first block returned, to be returned again.

    `record` notes it; within `replayed` the same images in the same order run through the rest of the network alone.
    Modules are those that stand beside the blocks and their parents. What a parent's own forward does (an addition, a
    concatenation) is done again, so the result is exact for every network that is a function of its input.

    Raises: ValueError if the model has no block.
    """

    def __init__(self, model: nn.Module) -> None:
        found = blocks(model)
        if not found:
            raise ValueError("the model has no block; nothing comes before it")
        self.model, self.blocks = model, tuple(found.values())
        inside = set(self.blocks)
        around = {id(module) for module in model.modules() if inside & set(module.modules())}
        self.modules = {
            f"{name}.{child_name}": child
            for name, module in model.named_modules()
            if id(module) in around and module not in inside
            for child_name, child in module.named_children()
            if id(child) not in around
        }
        self._passes: list[Outputs] = []

    @contextmanager
    def record(self) -> Iterator[None]:
        """Note what is returned before the first block while the context lasts, in place of what was noted before."""
        self._passes = []
        before = False

        def begin(module: nn.Module, inputs: object) -> None:
            nonlocal before
            before = True
            self._passes.append({})

        def reach(module: nn.Module, inputs: object) -> None:
            nonlocal before
            before = False

        with ExitStack() as hooks:
            hooks.enter_context(_hook(self.model.register_forward_pre_hook(begin)))
            for block in self.blocks:
                hooks.enter_context(_hook(block.register_forward_pre_hook(reach)))
            for name, module in self.modules.items():

                def note(module: nn.Module, inputs: object, output: Any, name: str = name) -> None:
                    if before:
                        self._passes[-1].setdefault(name, []).append(tree_map(_copy, output))

                hooks.enter_context(_hook(module.register_forward_hook(note)))
            yield

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Return again what was noted while the context lasts; calls behind the first block are made."""
        passes = iter(self._passes)
        waiting: Outputs = {}

        def begin(module: nn.Module, inputs: object) -> None:
            waiting.clear()
            waiting.update({name: list(outputs) for name, outputs in next(passes).items()})

        with ExitStack() as changes:
            changes.enter_context(_hook(self.model.register_forward_pre_hook(begin)))
            for name, module in self.modules.items():
                changes.enter_context(_answering(name, module, waiting))
            yield


@contextmanager
def _answering(name: str, module: nn.Module, waiting: Outputs) -> Iterator[None]:
    """Let a module answer with what is waiting for it, and compute once that is used up."""
    own, forward = module.__dict__.get("forward"), module.forward

    def answer(*inputs: Any, **more: Any) -> Any:
        if waiting.get(name):
            return tree_map(_copy, waiting[name].pop(0))
        return forward(*inputs, **more)

    module.forward = answer
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


@contextmanager
def _hook(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _copy(value: Any) -> Any:
    """Copy a tensor: what follows may change it in place."""
    return value.clone() if isinstance(value, Tensor) else value
