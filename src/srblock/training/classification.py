"""Classification: one of several classes for each image; cross-entropy and top-1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.training import distributed
from srblock.training.task import Figure


class Classification:
    """One of several classes for each image: cross-entropy and top-1.

    Shapes: output, the logits, (N, classes); target (N,), of mixed images (N, classes).

    Args:
        class_weights: of the training loss, (classes,), see `balanced`; None for 1.
    """

    def __init__(self, class_weights: Tensor | None = None) -> None:
        self._class_weights = class_weights

    figures = (Figure("top1", "top-1", per_image=True),)
    tta = ("none", "flip", "flip+translate")

    def loss(self, output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy, without class weights: what is tested is compared with what others test."""
        return F.cross_entropy(output.float(), target, label_smoothing=label_smoothing)

    def training_loss(self, output: Tensor, target: Tensor, *, label_smoothing: float) -> Tensor:
        """Return the mean cross-entropy of images, each times the weight of its class (of a mixed one, of its classes).

        Not torch's `weight`: with smoothed labels that gives each image a share of the rarest class's weight, and where
        classes are uneven enough the least loss is then to name it always.
        """
        if self._class_weights is None:
            return self.loss(output, target, label_smoothing=label_smoothing)
        weights = self._class_weights = self._class_weights.to(output.device)
        each = F.cross_entropy(output.float(), target, reduction="none", label_smoothing=label_smoothing)
        return (each * (target @ weights if target.is_floating_point() else weights[target])).mean()

    def predict(self, model: nn.Module, images: Tensor, *, tta: str = "none") -> Tensor:
        """Return the logits, averaged over the images' views."""
        logits = [weight * model(view) if weight != 1 else model(view) for weight, view in views(images, tta)]
        return logits[0] if len(logits) == 1 else torch.stack(logits).sum(0)

    def meter(self, device: torch.device) -> HitMeter:
        """Return sums at zero."""
        return HitMeter(device)


def balanced(labels: Tensor, classes: int) -> Tensor:
    """Return weights of the classes inversely to how many images they have, 1 on average over the images.

    Shapes: labels (N,) -> (classes,); a class without images has 0.
    """
    counts = torch.bincount(labels.cpu(), minlength=classes)
    there = counts > 0
    return torch.where(there, len(labels) / (there.sum() * counts.clamp(min=1)), 0.0)


def views(images: Tensor, tta: str) -> Iterator[tuple[float, Tensor]]:
    """Yield the views of images to average a prediction over, each with its weight; weights sum to 1.

    "none": the images. "flip": both sides. "flip+translate": both sides, a half of the weight, and both sides of the
    image shifted by a pixel down and right, and up and left, the other half; what comes in is mirrored (airbench94).
    """
    if tta == "none":
        yield 1.0, images
        return
    sides = [(1.0, images)]
    if tta == "flip+translate":
        height, width = images.shape[2:]
        padded = F.pad(images, (1, 1, 1, 1), "reflect")
        sides = [(0.5, images), (0.25, padded[:, :, :height, :width]), (0.25, padded[:, :, 2:, 2:])]
    for weight, side in sides:
        yield weight / 2, side
        yield weight / 2, side.flip(3)


class HitMeter:
    """Sum losses, hits and images."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)

    def reset(self) -> None:
        """Begin anew, in the same memory."""
        self.sums.zero_()

    def add(self, loss: Tensor, output: Tensor, target: Tensor) -> None:
        """Count a batch; loss () is its mean, output (N, classes), target (N,) or (N, classes)."""
        if target.dim() > 1:
            target = target.argmax(1)
        images = torch.full((), len(target), dtype=torch.float64, device=self.sums.device)
        hits = (output.detach().argmax(1) == target).sum()
        self.sums += torch.stack([loss.detach().double() * images, hits.double(), images])

    def read(self) -> dict[str, float]:
        """Return mean "loss" and "top1" in percent, over all processes of the run; each of them must ask."""
        loss, hits, images = distributed.all_reduce(self.sums).tolist()
        return {"loss": loss / images, "top1": 100 * (hits / images)}

    def details(self) -> dict[str, Any]:
        """Return nothing: a hit is all there is."""
        return {}
