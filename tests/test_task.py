"""The loop takes names, losses and figures from the task alone: one unlike classification goes through it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import CPU, RECIPE, loaders, network
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.training.classification import Classification, views
from srblock.training.loop import train
from srblock.training.optimizer import make_optimizer
from srblock.training.step import Step
from srblock.training.task import Figure, evaluate
from srblock.training.tasks import find_task


class Confusions:
    """A matrix of sums."""

    def __init__(self, device: torch.device) -> None:
        self.matrix, self.loss = torch.zeros(2, 2, device=device), torch.zeros(2, device=device)

    def reset(self) -> None:
        self.matrix.zero_(), self.loss.zero_()

    def add(self, loss: Tensor, output: Any, target: Tensor) -> None:
        said = (output["out"] if isinstance(output, dict) else output).argmax(1)
        self.matrix += torch.bincount(2 * target.flatten() + said.flatten(), minlength=4).view(2, 2)
        self.loss += torch.stack([loss.detach(), torch.ones(())])

    def read(self) -> dict[str, float]:
        wrong = 1 - self.matrix.trace() / self.matrix.sum()
        return {"loss": float(self.loss[0] / self.loss[1]), "wrong": float(wrong), "seen": float(self.matrix.sum())}

    def details(self) -> dict[str, Any]:
        return {"matrix": self.matrix.tolist()}


class Counting:
    """Classes of images or of their pixels, with a second head in training; the fewest errors select."""

    tta = ("none",)
    figures = (Figure("wrong", "errors", larger_is_better=False), Figure("seen", "seen"))

    def loss(self, output: Any, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        if isinstance(output, dict):
            return F.cross_entropy(output["out"], target) + 0.5 * F.cross_entropy(output["aux"], target)
        return F.cross_entropy(output, target)

    def training_loss(self, output: Any, target: Tensor, *, label_smoothing: float) -> Tensor:
        return self.loss(output, target, label_smoothing=label_smoothing)

    def __init__(self) -> None:
        self.asked = 0

    def predict(self, model: nn.Module, images: Tensor, *, tta: str = "none") -> Tensor:
        """Ask twice, as sliding windows do."""
        self.asked += len(images)
        return (model(images) + model(images.flip(0)).flip(0)) / 2

    def meter(self, device: torch.device) -> Confusions:
        return Confusions(device)


TASK = Counting()


class TwoHeads(nn.Module):
    """Two heads in training, one afterwards; at the first and the last validation it answers the opposite."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.validations = body, 0

    def forward(self, x: Tensor) -> Any:
        logits = self.body(x)
        if self.training:
            return {"out": logits, "aux": -logits.detach()}
        return logits if self.validations in (1, 2) else -logits


def test_another_task_goes_through_the_loop(tmp_path: Path) -> None:
    model = TwoHeads(network())

    def probe(model: nn.Module) -> dict[str, float]:
        model.validations += 1  # type: ignore[operator]
        return {}

    result = train(model, loaders(), TASK, RECIPE, directory=tmp_path, run="x", seed=0, device=CPU, probe=probe)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    wrong = [record["validation_wrong"] for record in records]
    assert wrong[0] > 0.5 > min(wrong)
    assert wrong[3] > 0.5
    assert result["best_epoch"] == 1 + wrong.index(min(wrong))
    assert result["validation_wrong"] == min(wrong)
    assert result["last_validation_wrong"] == wrong[3]
    assert result["last_test_wrong"] > 0.5
    assert result["test_seen"] == 32
    assert {record["train_seen"] for record in records} == {96}
    assert not [key for key in {*result, *records[0]} if "top1" in key]


def test_targets_may_be_maps() -> None:
    model = TwoHeads(nn.Conv2d(1, 2, 1))
    step = Step(model, make_optimizer(model, RECIPE, CPU), TASK, RECIPE, CPU)
    images, target = torch.randn(4, 1, 3, 5), torch.randint(2, (4, 3, 5))
    step.start()
    step(images, target, 0.1)
    assert step.meter.read()["seen"] == 60
    task = Counting()
    assert evaluate(model, [(images, target)] * 2, task, RECIPE, CPU)["seen"] == 120
    assert task.asked == 8


def test_classification_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    target = torch.tensor([0, 0, 1])
    task = Classification()
    meter = task.meter(CPU)
    for part in (slice(0, 2), slice(2, 3)):
        meter.add(task.loss(logits[part], target[part]), logits[part], target[part])
    each = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(1)), math.log(1 + math.exp(3))]
    assert meter.read() == pytest.approx({"loss": sum(each) / 3, "top1": 100 / 3})
    smooth = task.loss(logits[:1], target[:1], label_smoothing=0.2)
    assert float(smooth) == pytest.approx(0.9 * each[0] + 0.1 * (each[0] + 2))


def test_a_task_is_found_by_name() -> None:
    assert find_task("classification", 2, RECIPE).figures == (Figure("top1", "top-1", per_image=True),)
    with pytest.raises(ValueError, match="there is no task 'detection'; there are: classification, segmentation"):
        find_task("detection", 2, RECIPE)
    with pytest.raises(ValueError, match="for segmentation has a crop_size"):
        find_task("segmentation", 2, RECIPE)
    with pytest.raises(
        ValueError, match="tta for classification must be one of none, flip, flip\\+translate, got 'mult"
    ):
        find_task("classification", 2, replace(RECIPE, tta="multiscale"))


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("flip", 2), ("flip+translate", 6)])
def test_views_are_the_image_its_mirror_and_its_shifts(tta: str, count: int) -> None:
    """Weighed as airbench94 does: both sides of the image a half, both sides of two shifts the other half."""
    image = torch.arange(16.0).view(1, 1, 4, 4)
    seen = list(views(image, tta))
    assert len(seen) == count
    assert sum(weight for weight, _ in seen) == 1
    assert torch.equal(seen[0][1], image)
    if count > 1:
        assert torch.equal(seen[1][1], image.flip(3))
        assert seen[0][0] == seen[1][0] == (0.5 if count == 2 else 0.25)
    if count > 2:
        down, up = seen[2][1][0, 0], seen[4][1][0, 0]
        assert torch.equal(down[1:, 1:], image[0, 0, :3, :3]), "the image a pixel down and right"
        assert torch.equal(up[:3, :3], image[0, 0, 1:, 1:]), "a pixel up and left"
        assert down[0].tolist() == [5, 4, 5, 6], "what comes in is mirrored"
        assert up[3].tolist() == [9, 10, 11, 10]
        assert torch.equal(seen[3][1], seen[2][1].flip(3))
        assert {weight for weight, _ in seen[2:]} == {0.125}


def test_logits_are_averaged_over_the_views_in_validation_and_test() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    images = torch.randn(6, 1, 8, 8)
    task, recipe = Classification(), replace(RECIPE, tta="flip")
    expected = (model(images) + model(images.flip(3))).detach() / 2
    assert torch.allclose(task.predict(model, images, tta="flip"), expected, atol=1e-6)
    assert torch.equal(task.predict(model, images), model(images))
    target = torch.zeros(6, dtype=torch.int64)
    loss = evaluate(model, [(images, target)], task, recipe, CPU)["loss"]
    assert math.isclose(loss, float(F.cross_entropy(expected, target)), rel_tol=1e-5)
