"""One optimization step: forward, loss, backward, update, count."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.training.metrics import Meter, autocast
from srblock.training.recipe import Recipe


class Step:
    """Train a model on one batch after another, without waiting for the device.

    Args:
        model: the network, in its place; `Step` calls it and nothing else, so a wrapped one will do.
        optimizer: of its parameters.

    Attributes:
        meter: the sums over the batches since the last `start`.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, device: torch.device
    ) -> None:
        self.model, self.optimizer, self.recipe, self.device = model, optimizer, recipe, device
        self.meter = Meter(device)

    def start(self) -> None:
        """Begin a pass: training mode, sums at zero."""
        self.model.train()
        self.meter.reset()

    def __call__(self, images: Tensor, labels: Tensor, rate: float) -> None:
        """Train on a batch at a learning rate.

        Shapes: images (N, C, H, W), labels (N,).
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._run(images, labels)

    def _run(self, images: Tensor, labels: Tensor) -> None:
        with autocast(self.recipe, self.device):
            logits = self.model(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.meter.add(loss, logits, labels)
