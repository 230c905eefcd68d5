"""What a block adds to the logits: exactly where all that follows is affine, measured elsewhere.

Directly before global average pooling and a linear classifier W a block adds sum_p a_p(x) v_p to the logits of image x,
v_p = W mean_hw(M_p): each memory block argues for some classes and against others, the same for every image. Whether
what follows is affine is not read off the network but tried: v_p is measured at one image, and holds if the sum is the
difference of logits at others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from srblock.block import SqueezeRemember2d
from srblock.inspection.analysis import Attribution
from srblock.inspection.replay import TOGETHER, Replay
from srblock.surgery import blocks

EXACT = 1e-5  # of the largest logit or 1: what float32 leaves


def attribution(model: nn.Module, name: str, batches: Iterable[tuple[Tensor, Tensor]], classes: int) -> Attribution:
    """Measure what a block adds to the logits over images with one class each, in evaluation mode.

    Other blocks stay as they are. Shapes: batches of images (N, C, H, W) and labels (N,).
    """
    model.eval()
    block, replay = blocks(model)[name], Replay(model)
    voices: Tensor | None = None
    sums = torch.zeros(classes, classes, dtype=torch.float64)
    counts = torch.zeros(classes, dtype=torch.float64)
    error = largest = effect = 0.0
    with torch.inference_mode():
        for batch, targets in batches:
            for images, labels in zip(torch.split(batch, TOGETHER), torch.split(targets, TOGETHER), strict=True):
                with replay.record(), _weights(block) as recalled:
                    logits = model(images)
                with replay.replayed(), _alone(block):
                    added = (logits - model(images)).double().cpu()
                if voices is None:
                    voices = _voices(model, block, images[:1])
                error = max(error, float((recalled[0].double().cpu() @ voices - added).abs().max()))
                largest = max(largest, float(logits.abs().max()))
                effect = max(effect, float(added.abs().max()))
                sums.index_add_(0, labels.cpu(), added)
                counts += torch.bincount(labels.cpu(), minlength=classes)
    assert voices is not None  # a data set has images
    rounding = error <= EXACT * max(1.0, largest)
    exact = None if rounding and 100 * error >= effect else rounding
    by_class = (sums / counts[:, None]).numpy()
    return Attribution(exact, error, effect, voices.float().numpy() if exact else None, by_class)


def _voices(model: nn.Module, block: SqueezeRemember2d, image: Tensor) -> Tensor:
    """Measure at one image what each memory block with weight 1 adds to the logits. -> (P, classes)."""
    replay, count = Replay(model), block.options.blocks
    with replay.record():
        model(image)
    with replay.replayed(), _alone(block):
        without = model(image)
    heard = []
    for number in range(count):
        with replay.replayed(), _one(block, number):
            heard.append((model(image) - without)[0])
    return torch.stack(heard).double().cpu()


@contextmanager
def _alone(block: SqueezeRemember2d) -> Iterator[None]:
    """Bypass one block."""
    before = block.bypassed
    block.bypassed = True
    try:
        yield
    finally:
        block.bypassed = before


@contextmanager
def _one(block: SqueezeRemember2d, number: int) -> Iterator[None]:
    """Let a block recall one memory block alone."""

    def replace(module: nn.Module, inputs: tuple[Tensor, ...], own: Tensor) -> Tensor:
        weights = torch.zeros_like(own)
        weights[:, number] = 1
        return weights

    handle = block.address.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _weights(block: SqueezeRemember2d) -> Iterator[list[Tensor]]:
    """Collect a block's recall weights, call by call."""
    collected: list[Tensor] = []
    handle = block.address.register_forward_hook(lambda module, inputs, own: collected.append(own))
    try:
        yield collected
    finally:
        handle.remove()
