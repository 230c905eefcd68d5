"""Recall figures against blocks whose weights are known by hand."""

import math

import pytest
import torch
from torch import nn

import srblock
from srblock.inspection.look import Look, look
from srblock.inspection.recall import by_class, memory_probe, summarize_recall
from srblock.training.classification import Classification


class OneBlock(nn.Module):
    """A network whose block weighs its two memories by the sign of the image's mean: sigmoid(+-10)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Identity(), nn.Identity())
        srblock.insert(self, after="body.0", input_size=(1, 2, 3), blocks=2, hidden=1)
        block = srblock.blocks(self)["body.0"]
        with torch.no_grad():
            block.address.squeeze.fill_(1.0)
            block.address.fc1.fill_(1 / 6)
            block.address.fc2.copy_(torch.tensor([[5.0], [-5.0]]))
            block.memory.values[0], block.memory.values[1] = 3.0, -1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Served:
    """A loader of given batches, normalized by nothing."""

    mean, std = (0.0,), (1.0,)

    def __init__(self, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.batches = batches

    def epoch(self, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return self.batches


def looked(model: nn.Module) -> Look:
    return look(model, Served(batches()), OneAnswer(), 3, {})


class OneAnswer(Classification):
    """Answers with the map's values in the place of logits."""

    def predict(self, model: nn.Module, images: torch.Tensor, *, tta: str = "none") -> torch.Tensor:
        return model(images).flatten(1)[:, :3]


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Class 0 is 1 everywhere, class 1 is -1, class 2 is one of each."""
    values = torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0])
    images = values.view(5, 1, 1, 1).expand(5, 1, 2, 3)
    labels = torch.tensor([0, 0, 1, 2, 2])
    return [(images[:3], labels[:3]), (images[3:], labels[3:])]


def test_weights_by_class() -> None:
    high, low = 1 / (1 + math.exp(-10)), 1 / (1 + math.exp(10))
    seen = looked(OneBlock())
    weights, labels = seen.blocks["body.0"].weights, seen.shown
    assert labels.tolist() == [0, 0, 1, 2, 2]
    torch.testing.assert_close(weights[:, 0], torch.tensor([high, high, low, high, low]))
    mean, std = by_class(weights, labels, 3)
    torch.testing.assert_close(mean, torch.tensor([[high, low], [low, high], [0.5, 0.5]]))
    spread = (high - low) / 2
    torch.testing.assert_close(std, torch.tensor([[0.0, 0.0], [0.0, 0.0], [spread, spread]]), atol=1e-6, rtol=1e-6)


def test_the_summary_is_what_the_report_reads() -> None:
    model = OneBlock()
    summary = summarize_recall(model, looked(model), 3)
    assert {key: tuple(value.shape) for key, value in summary.items()} == {
        "body.0/class_mean": (3, 2),
        "body.0/class_std": (3, 2),
        "body.0/mean": (2,),
        "body.0/std": (2,),
        "body.0/memory": (2, 2, 3),
    }
    torch.testing.assert_close(summary["body.0/mean"], torch.tensor([0.6, 0.4]), atol=1e-4, rtol=0)
    torch.testing.assert_close(summary["body.0/memory"][:, 0, 0], torch.tensor([3.0, -1.0]))
    assert not srblock.blocks(model)["body.0"]._forward_pre_hooks, "no hook stays behind"


def test_a_class_without_images_is_not_a_number() -> None:
    mean, std = by_class(torch.tensor([[0.25, 0.75]]), torch.tensor([1]), 2)
    assert mean[0].isnan().all()
    assert std[0].isnan().all()
    assert mean[1].tolist() == [0.25, 0.75]


def test_the_probe_measures_size_and_spread_of_the_memory() -> None:
    """M_1 = 3, M_2 = -1: root mean square sqrt(5); mean 1, each 2 away from it."""
    figures = memory_probe(OneBlock())
    assert figures == pytest.approx({"body.0/memory_rms": math.sqrt(5), "body.0/memory_spread": 2.0})


def test_the_probe_of_a_fresh_or_absent_block() -> None:
    model = OneBlock()
    with torch.no_grad():
        srblock.blocks(model)["body.0"].memory.values.zero_()
    assert memory_probe(model) == {"body.0/memory_rms": 0.0}
    assert memory_probe(nn.Linear(1, 1)) == {}


def test_the_probe_gives_no_spread_around_a_mean_of_rounding() -> None:
    """A memory started from features is without a common mean."""
    model = OneBlock()
    with torch.no_grad():
        memory = srblock.blocks(model)["body.0"].memory.values
        memory[1] = -memory[0] * (1 + 1e-7)
    assert set(memory_probe(model)) == {"body.0/memory_rms"}
