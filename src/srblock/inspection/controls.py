"""Does what a block recalls matter? Figures with the block removed, and with other recall weights than its own.

    removed    every block returns its input (the paper: -0.4 points, Sec. IV-D)
    mean       the mean recall weights over the images: a static bias map
    uniform    1 / P for every memory block
    shuffled   another image's recall weights

A network whose figures are the same with `mean` or `shuffled` does not use which image it sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from srblock.surgery import blocks, bypassed
from srblock.training.task import Task

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


def controls(
    model: nn.Module, collected: dict[str, Tensor], batches: Batches, task: Task
) -> dict[str, dict[str, float]]:
    """Test a network as it is and under each control, the same images in the same order.

    Args:
        collected: the blocks' recall weights over these images (`recall.recall_weights`), (looks, P) each.
        batches: begins a pass over images (N, C, H, W) and their targets, in evaluation order.

    Returns by control, "intact" first: the task's figures, and of a share of images how many the control "lost" (right
    before, wrong now) and "gained", what McNemar's test takes.

    Raises: ValueError if the model has no block.
    """
    if not blocks(model):
        raise ValueError("the model has no block to control; insert one and train it first")
    figures, intact = _test(model, batches(), task)
    looks = len(next(iter(collected.values())))
    other = torch.randperm(looks, generator=torch.Generator().manual_seed(0))
    replaced = {
        "mean": {name: weights.mean(0).expand_as(weights) for name, weights in collected.items()},
        "uniform": {name: torch.full_like(weights, 1 / weights.shape[1]) for name, weights in collected.items()},
        "shuffled": {name: weights[other] for name, weights in collected.items()},
    }
    ways = {"removed": partial(bypassed, model)} | {
        name: partial(_recalling, model, weights) for name, weights in replaced.items()
    }
    found = {"intact": figures}
    for name, way in ways.items():
        with way():
            figures, hits = _test(model, batches(), task)
        changes: dict[str, float] = {}
        if intact is not None and hits is not None:
            changes = {"lost": (intact & ~hits).sum().item(), "gained": (hits & ~intact).sum().item()}
        found[name] = figures | changes
    return found


def _test(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], task: Task
) -> tuple[dict[str, float], Tensor | None]:
    """Return the task's figures; where they are shares of images, for each whether the model is right, (images,)."""
    model.eval()
    meter, hits = None, []
    with torch.inference_mode():
        for images, target in batches:
            output = task.predict(model, images)
            meter = meter or task.meter(images.device)
            meter.add(task.loss(output, target), output, target)
            if task.figures[0].per_image:
                hits.append((output.argmax(1) == target).cpu())
    assert meter is not None  # a data set has images
    read = meter.read()
    return {figure.key: read[figure.key] for figure in task.figures}, torch.cat(hits) if hits else None


@contextmanager
def _recalling(model: nn.Module, weights: dict[str, Tensor]) -> Iterator[None]:
    """Give each block these recall weights (looks, P) in the place of its own, look after look."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        served = 0

        def replace(module: nn.Module, inputs: tuple[Tensor, ...], own: Tensor) -> Tensor:
            nonlocal served
            served += len(own)
            return weights[name][served - len(own) : served].to(own)

        return replace

    handles = [block.address.register_forward_hook(hook(name)) for name, block in blocks(model).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
