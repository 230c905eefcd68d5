"""Loss and top-1 accuracy over a pass, summed on the device and read once at its end."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.training import distributed
from srblock.training.recipe import Recipe


class Meter:
    """Sum loss and hits without a host synchronization."""

    def __init__(self, device: torch.device) -> None:
        self.images = 0
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)

    def reset(self) -> None:
        """Begin anew, in the same memory."""
        self.images = 0
        self.sums.zero_()

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch; loss () is its mean, logits (N, classes), labels (N,)."""
        self.images += len(labels)
        hits = (logits.detach().argmax(1) == labels).sum()
        self.sums += torch.stack([loss.detach().double() * len(labels), hits.double()])

    def read(self) -> tuple[float, float]:
        """Return mean loss and top-1 in percent, over all processes of the run; each of them must ask."""
        images = torch.tensor([self.images], dtype=torch.float64, device=self.sums.device)
        loss, hits, count = distributed.all_reduce(torch.cat([self.sums, images])).tolist()
        return loss / count, 100 * (hits / count)


def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], recipe: Recipe, device: torch.device
) -> tuple[float, float]:
    """Return mean cross-entropy and top-1 in percent, in evaluation mode; leaves the model in it.

    Of several processes each sees its own batches and gets the figures over all.
    """
    model.eval()
    meter = Meter(device)
    with torch.inference_mode():
        for images, labels in batches:
            with autocast(recipe, device):
                logits = model(images)
            meter.add(F.cross_entropy(logits.float(), labels), logits, labels)
    return meter.read()


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Return the recipe's precision as a context."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16")
