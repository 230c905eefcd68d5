"""Does what a block recalls matter? Accuracies with the block removed, and with other recall weights than its own.

    removed    every block returns its input (the paper: -0.4 points, Sec. IV-D)
    mean       the mean recall weights over the images: a static bias map
    uniform    1 / P for every memory block
    shuffled   another image's recall weights

A network whose accuracy is the same with `mean` or `shuffled` does not use which image it sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from srblock.surgery import blocks, bypassed

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


def controls(model: nn.Module, collected: dict[str, Tensor], batches: Batches) -> dict[str, dict[str, float]]:
    """Test a classifier as it is and under each control, the same images in the same order.

    Args:
        collected: the blocks' recall weights over these images (`recall.recall_weights`), (images, P) each.
        batches: begins a pass over images (N, C, H, W) and labels (N,), in evaluation order.

    Returns by control, "intact" first: "top1" in percent, and of the images how many the control "lost" (right before,
    wrong now) and "gained", what McNemar's test takes.

    Raises: ValueError if the model has no block.
    """
    if not blocks(model):
        raise ValueError("the model has no block to control; insert one and train it first")
    intact = _hits(model, batches())
    other = torch.randperm(len(intact), generator=torch.Generator().manual_seed(0))
    replaced = {
        "mean": {name: weights.mean(0).expand_as(weights) for name, weights in collected.items()},
        "uniform": {name: torch.full_like(weights, 1 / weights.shape[1]) for name, weights in collected.items()},
        "shuffled": {name: weights[other] for name, weights in collected.items()},
    }
    ways = {"removed": partial(bypassed, model)} | {
        name: partial(_recalling, model, weights) for name, weights in replaced.items()
    }
    found = {"intact": {"top1": 100 * intact.double().mean().item()}}
    for name, way in ways.items():
        with way():
            hits = _hits(model, batches())
        lost, gained = (intact & ~hits).sum().item(), (hits & ~intact).sum().item()
        found[name] = {"top1": 100 * hits.double().mean().item(), "lost": lost, "gained": gained}
    return found


def _hits(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Tell for each image whether the model is right. Shapes: (images,), bool, on the CPU."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([(model(images).argmax(1) == labels).cpu() for images, labels in batches])


@contextmanager
def _recalling(model: nn.Module, weights: dict[str, Tensor]) -> Iterator[None]:
    """Give each block these recall weights (images, P) in the place of its own, image after image."""

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
