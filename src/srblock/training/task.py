"""What is predicted: its loss, its figures, and how these are summed over a pass. The loop knows a task by these alone.

A data set names its task (`srblock.data.ImageData.task`), and `find_task` returns it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.training import distributed, runtime
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


class Task(Protocol):
    """What train, step and evaluate need to know of a task."""

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What is measured; the first figure on the validation part selects the epoch."""

    def loss(self, output: Any, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean loss of a batch, (), in float32, for what the model returns in training or `predict` gave."""

    def predict(self, model: nn.Module, images: Tensor, *, tta: str = "none") -> Any:
        """Ask a model in evaluation mode about images (N, C, H, W) of any size that the task allows.

        Args:
            tta: the `views` of each image to average over.
        """

    def meter(self, device: torch.device) -> Meter:
        """Return sums at zero."""


class Classification:
    """One of several classes for each image: cross-entropy and top-1.

    Shapes: output, the logits, (N, classes); target (N,).
    """

    figures = (Figure("top1", "top-1", per_image=True),)

    def loss(self, output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(output.float(), target, label_smoothing=label_smoothing)

    def predict(self, model: nn.Module, images: Tensor, *, tta: str = "none") -> Tensor:
        """Return the logits, averaged over the images' views."""
        logits = [weight * model(view) if weight != 1 else model(view) for weight, view in views(images, tta)]
        return logits[0] if len(logits) == 1 else torch.stack(logits).sum(0)

    def meter(self, device: torch.device) -> HitMeter:
        """Return sums at zero."""
        return HitMeter(device)


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
        """Count a batch; loss () is its mean, output (N, classes), target (N,)."""
        images = torch.full((), len(target), dtype=torch.float64, device=self.sums.device)
        hits = (output.detach().argmax(1) == target).sum()
        self.sums += torch.stack([loss.detach().double() * images, hits.double(), images])

    def read(self) -> dict[str, float]:
        """Return mean "loss" and "top1" in percent, over all processes of the run; each of them must ask."""
        loss, hits, images = distributed.all_reduce(self.sums).tolist()
        return {"loss": loss / images, "top1": 100 * (hits / images)}


TASKS: dict[str, Task] = {"classification": Classification()}


def find_task(name: str) -> Task:
    """Return the task that a data set names.

    Raises: ValueError if there is none of this name.
    """
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}; there are: {', '.join(TASKS)}")
    return TASKS[name]


def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], task: Task, recipe: Recipe, device: torch.device
) -> dict[str, float]:
    """Return "loss" and the task's figures by key, in evaluation mode; leaves the model in it.

    Of several processes each sees its own batches and gets the figures over all.
    """
    model.eval()
    meter = task.meter(device)
    with torch.inference_mode():
        for images, target in batches:
            with runtime.autocast(recipe, device):
                output = task.predict(model, images, tta=recipe.tta)
            meter.add(task.loss(output, target), output, target)
    return meter.read()
