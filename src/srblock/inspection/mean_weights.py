"""The mean recall weights over a data set: only the part of a network up to its last block is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor, nn

from srblock.surgery import blocks
from srblock.training.task import Task


def mean_weights(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], task: Task, classes: int
) -> tuple[dict[str, Tensor], int]:
    """Return each block's mean recall weights (P,) over images, in evaluation mode, and over how many images.

    Of scenes the mean is over the windows that they are looked at through.

    Raises: ValueError if the model has no block.
    """
    found = blocks(model)
    if not found:
        raise ValueError("the model has no block; there are no recall weights to average")
    model.eval()
    front = _Front(model, classes)
    sums = {name: torch.zeros(block.options.blocks, dtype=torch.float64) for name, block in found.items()}
    counts = dict.fromkeys(found, 0)
    images = 0

    def note(name: str, own: Tensor) -> None:
        if front.expected:
            sums[name] += own.double().sum(0).cpu()
            counts[name] += len(own)
        front.reached(name)

    handles = [
        block.address.register_forward_hook(lambda module, inputs, own, name=name: note(name, own))
        for name, block in found.items()
    ]
    try:
        with torch.inference_mode():
            for batch, _ in batches:
                task.predict(front, batch)
                images += len(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: (total / counts[name]).float() for name, total in sums.items()}, images


class _Enough(Exception):
    """All blocks were reached."""


class _Front(nn.Module):
    """A network up to the last call of a block; its logits are zero. How often blocks are called, one image tells."""

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model, self.classes = model, classes
        self.calls: Counter[str] = Counter()
        self.expected: Counter[str] = Counter()

    def reached(self, name: str) -> None:
        self.calls[name] += 1
        if self.calls == self.expected:
            raise _Enough

    def forward(self, x: Tensor) -> Tensor:
        if not self.expected:
            self.model(x[:1])
            self.expected = self.calls
        self.calls = Counter()
        with suppress(_Enough):
            self.model(x)
        return x.new_zeros(()).expand(len(x), self.classes, *x.shape[2:])  # for scenes; of images it would be large
