"""Does what a block recalls matter? Figures with the block removed, and with other recall weights than its own.

A network whose figures are the same with `mean` or `shuffled` does not use which image it sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from srblock.block import SqueezeRemember2d
from srblock.inspection.replay import TOGETHER, Replay
from srblock.surgery import blocks, bypassed
from srblock.training.task import Meter, Task

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]

CONTROLS = {
    "removed": "every block returns its input (the paper: -0.4 points, Sec. IV-D)",
    "mean": "the mean recall weights: a static bias map",
    "uniform": "1 / P for every memory block",
    "shuffled": "another image's recall weights",
    "largest": "only the image's largest weight, set to 1",
    "flat": "every memory block replaced by its mean over the positions",
}


def controls(
    model: nn.Module,
    collected: dict[str, Tensor],
    batches: Batches,
    task: Task,
    *,
    mean: dict[str, Tensor] | None = None,
) -> dict[str, dict[str, float]]:
    """Test a network as it is and under each of `CONTROLS`, the same images in the same order.

    What comes before the first block is computed once.

    Args:
        collected: the blocks' recall weights over these images (`recall.recall_weights`), (looks, P) each.
        batches: begins a pass over images (N, C, H, W) and their targets, in evaluation order.
        mean: recall weights (P,) of each block for the control "mean"; their mean over these images if not given.

    Returns by control, "intact" first: the task's figures, and of a share of images how many the control "lost" (right
    before, wrong now) and "gained", what McNemar's test takes.

    Raises: ValueError if the model has no block.
    """
    if not blocks(model):
        raise ValueError("the model has no block to control; insert one and train it first")
    looks = len(next(iter(collected.values())))
    other = _others(looks)
    means = mean or {name: weights.mean(0) for name, weights in collected.items()}
    replaced: dict[str, Callable[[str, Tensor, slice], Tensor]] = {
        "mean": lambda name, own, here: means[name].expand_as(own),
        "uniform": lambda name, own, here: torch.full_like(own, 1 / own.shape[1]),
        "shuffled": lambda name, own, here: collected[name][other[here]],
        "largest": lambda name, own, here: nn.functional.one_hot(own.argmax(1), own.shape[1]),
    }
    seen = {name: _Seen(task) for name in ("intact", *CONTROLS)}
    replay, served = Replay(model), 0
    first = next(iter(blocks(model).values()))
    model.eval()
    with torch.inference_mode():
        for batch, targets in batches():
            for images, target in zip(torch.split(batch, TOGETHER), torch.split(targets, TOGETHER), strict=True):
                with replay.record(), _counting(first) as counted:
                    seen["intact"].add(task.predict(model, images), target)
                ways: Mapping[str, AbstractContextManager[None]] = {
                    name: _recalling(model, weigh, served) for name, weigh in replaced.items()
                } | {"removed": bypassed(model), "flat": _flat(model)}
                for name in CONTROLS:
                    with replay.replayed(), ways[name]:
                        seen[name].add(task.predict(model, images), target)
                served += sum(counted)
    intact = seen["intact"].hits
    found = {}
    for name, one in seen.items():
        found[name] = one.figures()
        if name != "intact" and intact:
            before, after = torch.cat(intact), torch.cat(one.hits)
            found[name] |= {
                "lost": (before & ~after).sum().item(),
                "gained": (after & ~before).sum().item(),
            }
    return found


def _others(looks: int) -> Tensor:
    """Give each look another one at random; a single look has only itself."""
    other = torch.randperm(looks, generator=torch.Generator().manual_seed(0))
    own = (other == torch.arange(looks)).nonzero().flatten()
    if len(own) == 1:
        own = torch.stack([own[0], (own[0] + 1) % looks])
    other[own] = other[own.roll(1)]
    return other


class _Seen:
    """A network's figures over a pass, and where they are shares of images, for each whether it is right."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.meter: Meter | None = None
        self.hits: list[Tensor] = []

    def add(self, output: Tensor, target: Tensor) -> None:
        if self.meter is None:
            self.meter = self.task.meter(target.device)
        self.meter.add(self.task.loss(output, target), output, target)
        if self.task.figures[0].per_image:
            self.hits.append((output.argmax(1) == target).cpu())

    def figures(self) -> dict[str, float]:
        assert self.meter is not None  # a data set has images
        read = self.meter.read()
        return {figure.key: read[figure.key] for figure in self.task.figures}


@contextmanager
def _counting(block: SqueezeRemember2d) -> Iterator[list[int]]:
    """Count the looks that a block gets, call by call."""
    counted: list[int] = []
    handle = block.register_forward_pre_hook(lambda module, inputs: counted.append(len(inputs[0])))
    try:
        yield counted
    finally:
        handle.remove()


@contextmanager
def _recalling(model: nn.Module, weigh: Callable[[str, Tensor, slice], Tensor], served: int) -> Iterator[None]:
    """Give each block other recall weights in the place of its own.

    Args:
        weigh: from a block's name, its own weights (N, P) and which looks these are to the weights to take, (N, P).
        served: how many looks came before.
    """

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        here = served

        def replace(module: nn.Module, inputs: tuple[Tensor, ...], own: Tensor) -> Tensor:
            nonlocal here
            here += len(own)
            return weigh(name, own, slice(here - len(own), here)).to(own)

        return replace

    handles = [block.address.register_forward_hook(hook(name)) for name, block in blocks(model).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _flat(model: nn.Module) -> Iterator[None]:
    """Let each memory recall its mean over the positions."""
    memories = [block.memory for block in blocks(model).values()]
    flat = [(memory.basis().mean((2, 3), keepdim=True).expand_as(memory.basis())) for memory in memories]
    try:
        for memory, basis in zip(memories, flat, strict=True):
            memory.basis = lambda basis=basis: basis  # type: ignore[method-assign,misc]
        yield
    finally:
        for memory in memories:
            memory.__dict__.pop("basis", None)
