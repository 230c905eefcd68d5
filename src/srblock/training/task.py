"""What is predicted: its loss, its figures, and how these are summed over a pass. The loop knows a task by these alone.

A data set names its task (`srblock.data.ImageData.task`), and `tasks.find_task` returns it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from srblock.training import runtime
from srblock.training.predictions import Predictions
from srblock.training.recipe import Recipe


@dataclass(frozen=True)
class Figure:
    """A figure of merit.

    Attributes:
        key: its name in records, after that of the part: "top1" stands there as train_top1, validation_top1, test_top1.
        label: its name for people.
        larger_is_better: the direction in which epochs are selected.
        per_image: whether it is a share of the images in percent, so that its chance over test images is known.
    """

    key: str
    label: str
    larger_is_better: bool = True
    per_image: bool = False


class Meter(Protocol):
    """Sums over the batches of a pass, without a host synchronization before `read`.

    All sums are tensors that `add` changes in place: a CUDA graph that has recorded it then counts at every replay.
    """

    def reset(self) -> None:
        """Begin anew, in the same memory."""

    def add(self, loss: Tensor, output: Any, target: Tensor) -> None:
        """Count a batch: its mean loss, and what the model said for the target."""

    def read(self) -> dict[str, float]:
        """Return the mean "loss" and each figure by its key, over all processes of the run; each of them must ask."""

    def details(self) -> dict[str, Any]:
        """Return what else is worth recording of a test, as JSON can hold it; each of several processes must ask."""


class Task(Protocol):
    """What train, step and evaluate need to know of a task."""

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What is measured; the first figure on the validation part selects the epoch."""

    @property
    def tta(self) -> tuple[str, ...]:
        """The ways to average a prediction over views of an image that `predict` takes; "none" is the first."""

    def loss(self, output: Any, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean loss of a batch, (), in float32, for what the model returns in training or `predict` gave."""

    def training_loss(self, output: Any, target: Tensor, *, label_smoothing: float) -> Tensor:
        """Return what training makes smaller: the same, or with weights of the classes."""

    def predict(self, model: nn.Module, images: Tensor, *, tta: str = "none") -> Any:
        """Ask a model in evaluation mode about images (N, C, H, W) of any size that the task allows.

        Args:
            tta: which views of each image to average over.
        """

    def meter(self, device: torch.device) -> Meter:
        """Return sums at zero."""


def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], task: Task, recipe: Recipe, device: torch.device
) -> dict[str, float]:
    """Return "loss" and the task's figures by key, in evaluation mode; leaves the model in it.

    Of several processes each sees its own batches and gets the figures over all.
    """
    return measure(model, batches, task, recipe, device).read()


def measure(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    task: Task,
    recipe: Recipe,
    device: torch.device,
    predictions: Predictions | None = None,
) -> Meter:
    """Return the sums over a pass in evaluation mode; leaves the model in it.

    Args:
        predictions: gets what was said of each image as well, of a task whose answers are logits (N, classes).
    """
    model.eval()
    meter = task.meter(device)
    with torch.inference_mode():
        for images, target in batches:
            with runtime.autocast(recipe, device):
                output = task.predict(model, images, tta=recipe.tta)
            meter.add(task.loss(output, target), output, target)
            if predictions is not None:
                predictions.add(output, target)
    return meter
