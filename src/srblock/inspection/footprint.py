"""What memory training takes: one step and one test, watched on tensors without data."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from srblock.tracing import shadow
from srblock.training import runtime
from srblock.training.recipe import Recipe
from srblock.training.task import Task

CPU = torch.device("cpu")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Footprint:
    """Bytes that a run holds while it trains.

    Attributes:
        weights: of parameters and buffers.
        kept: beside them: gradients, what the optimizer keeps, the selected epoch's weights, an average of them.
        step: the most that a training step takes besides, mostly for activations; None where the network does not run
            without data.
        test: the most that a batch of a test takes besides; None as for `step`.
    """

    weights: int
    kept: int
    step: int | None
    test: int | None

    @property
    def total(self) -> int:
        """All that is held at once at most, as far as it is known."""
        return self.weights + self.kept + max(self.step or 0, self.test or 0)


def footprint(model: nn.Module, task: Task, recipe: Recipe, images: Shape, target: Shape, tested: Shape) -> Footprint:
    """Estimate the memory of training; the model, which may be on the meta device, stays as it is.

    What libraries take inside one operation is not seen, nor what the allocator leaves unused.

    Shapes: images (N, C, H, W) and target (N, ...) of a batch that is trained on; tested (N, C, H, W) of one that is
    tested.
    """
    weights = sum(value.nbytes for value in model.state_dict().values())
    trained = sum(p.nbytes for p in model.parameters())
    copies = (2 if recipe.optimizer == "adamw" else 1 if recipe.momentum else 0) + 1  # and the gradients
    averages = weights if recipe.lookahead or recipe.ema is not None else 0
    kept = copies * trained + weights + averages
    step = test = None
    try:
        with warnings.catch_warnings(action="ignore"):  # of tensors without an address
            step, test = _watched(model, task, recipe, images, target, tested)
    except Exception:  # a network that looks at values
        return Footprint(weights, kept, None, None)
    return Footprint(weights, kept, step, test)


def _watched(
    model: nn.Module, task: Task, recipe: Recipe, images: Shape, target: Shape, tested: Shape
) -> tuple[int, int]:
    """Return the most that a step and a test take besides weights and gradients."""
    hollow = shadow(model, "meta").train()
    with _dataless(recipe) as device, torch.random.fork_rng(devices=[]), torch.device(device):
        layout = runtime.FORMATS[recipe.memory_format]
        _fill(hollow, layout, device)
        batch = torch.empty(images, memory_format=layout)
        truth = torch.zeros(target, dtype=torch.int64) if len(target) != 2 else torch.zeros(target)

        def step() -> Any:
            with runtime.autocast(recipe, CPU):
                output = hollow(batch)
            return task.training_loss(output, truth, label_smoothing=recipe.label_smoothing)

        def test() -> Any:
            with runtime.autocast(recipe, CPU), torch.no_grad():
                return task.predict(hollow.eval(), torch.empty(tested, memory_format=layout), tta=recipe.tta)

        gradients = sum(p.nbytes for p in hollow.parameters() if p.requires_grad)
        return batch.nbytes + _most(step, gradients), _most(test)


@contextmanager
def _dataless(recipe: Recipe) -> Iterator[torch.device]:
    """Choose where tensors have no data: the meta device, or what seems to be the CPU where autocast must know them.

    The second costs seconds of imports.
    """
    if recipe.precision == "float32":
        yield torch.device("meta")
        return
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        yield CPU


def _fill(hollow: nn.Module, layout: torch.memory_format, device: torch.device) -> None:
    """Give a model on the meta device tensors of a memory format on a device."""
    for module in hollow.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                form = layout if parameter.dim() == 4 else torch.preserve_format
                like = torch.empty_like(parameter, device=device, memory_format=form)
                module._parameters[key] = nn.Parameter(like, parameter.requires_grad)
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = torch.empty_like(buffer, device=device)


def _most(compute: Callable[[], Any], gradients: int = 0) -> int:
    """Return the most bytes that a computation, and the backward pass of what it returns, hold at once.

    Args: gradients: bytes of those that the backward pass leaves, which are not counted: the ones of the step before
        were there until it began.
    """
    with _Watch() as watch:
        result = compute()
        forward: int = watch.peak
        if not isinstance(result, Tensor) or not result.requires_grad:
            return forward
        result.backward()  # type: ignore[no-untyped-call]
        return max(forward, int(watch.peak) - gradients)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Add up the memory of all tensors that are made and not yet gone.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._note(value.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
