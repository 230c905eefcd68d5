"""Replaying what comes before a block gives what the whole network gives, and computes only what comes behind it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import srblock
from srblock.inspection.controls import controls
from srblock.inspection.information import effective, information
from srblock.inspection.look import KEPT, look
from srblock.inspection.mean_weights import mean_weights
from srblock.inspection.replay import Replay
from srblock.surgery import blocks, bypassed
from srblock.training.classification import Classification
from srblock.training.segmentation import Segmentation
from srblock.variants.build import build
from srblock.variants.notation import parse

NETWORKS = [
    ("R8 + SR(M=2, P=3)", 32),
    ("R8 + SR(M=1, P=2) + SR(M=3, P=2)", 32),
    ("R20 + CBAM + SR(M=3, P=2)", 32),
    ("VGG16 + SR(M=4, P=2)", 32),
    ("Airbench94 + SR(M=2, P=2)", 32),
    ("R8 + SR(after=layer2.0.conv1, P=2)", 32),
    ("torchvision/densenet121 + SR(after=features.transition2, P=2)", 64),
    ("torchvision/mobilenet_v3_small + SR(M=3, P=2)", 64),
    ("timm/resnet10t + SR(M=3, P=2)", 64),
]


def network(text: str, side: int) -> nn.Module:
    model = build(parse(text), classes=5, image_size=side, seed=3).eval()
    with torch.no_grad():
        for block in blocks(model).values():
            block.memory.values.normal_()
    return model


@contextmanager
def convolutions() -> Iterator[list[nn.Module]]:
    """Note every convolution that is computed."""
    calls: list[nn.Module] = []
    forward = nn.Conv2d.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", lambda self, x: (calls.append(self), forward(self, x))[1])
        yield calls


@pytest.mark.parametrize(("text", "side"), NETWORKS, ids=[text for text, _ in NETWORKS])
def test_the_rest_of_a_network_gives_what_the_whole_gives(text: str, side: int) -> None:
    model, replay = network(text, side), None
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        intact = model(images)
        with bypassed(model):
            removed = model(images)
        assert not torch.equal(intact, removed)
        replay = Replay(model)
        with replay.record():
            assert torch.equal(model(images), intact)
        with convolutions() as behind:
            for _ in range(2):  # what was noted is not used up, nor changed in place
                with replay.replayed(), bypassed(model):
                    assert torch.equal(model(images), removed)
                with replay.replayed():
                    assert torch.equal(model(images), intact)
        with convolutions() as all_:
            assert torch.equal(model(images), intact), "afterwards all is as before"
        assert len(behind) / 4 < len(all_)
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_only_what_comes_behind_is_computed() -> None:
    model = network("R8 + SR(M=2, P=3)", 32)
    images, replay = torch.randn(2, 3, 32, 32), Replay(model)
    with torch.inference_mode(), replay.record():
        model(images)
    with torch.inference_mode(), replay.replayed(), convolutions() as calls:
        model(images)
    names = {module: name for name, module in model.named_modules()}
    assert {names[module].partition(".")[0] for module in calls} == {"layer3"}


def test_a_network_without_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="no block; nothing comes before it"):
        Replay(nn.Conv2d(1, 1, 1))


class Served:
    mean, std = (0.5,) * 3, (0.25,) * 3

    def __init__(self, images: Tensor, targets: Tensor, size: int) -> None:
        self.images, self.targets, self.size = images, targets, size

    def epoch(self, epoch: int) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.images.split(self.size), self.targets.split(self.size), strict=True))


def test_controls_of_windows_are_those_of_each_window() -> None:
    """Three windows a scene, and a meter over them: shuffled weights stay those of a window, mean ones their mean."""
    model = build(parse("FCN-R18 + SR(M=3, P=2)"), classes=3, image_size=(32, 48), seed=0).eval()
    with torch.no_grad():
        blocks(model)["layer3"].memory.values.normal_(std=20)
    task = Segmentation(3, (32, 48))
    generator = torch.Generator().manual_seed(0)
    served = Served(
        torch.randn(4, 3, 32, 100, generator=generator), torch.randint(3, (4, 32, 100), generator=generator), 1
    )
    seen = look(model, served, task, 3, {2: "scene 2"})  # type: ignore[arg-type]
    weights = seen.blocks["layer3"].weights
    assert weights.shape == (12, 2)
    torch.testing.assert_close(seen.blocks["layer3"].by_image, weights.view(4, 3, 2).mean(1))
    assert seen.shown.sum().item() == 4 * 32 * 100
    assert seen.blocks["layer3"].closeups[2].before.shape == (4, 6)
    found = controls(model, {"layer3": weights}, lambda: served.epoch(0), task)
    assert found["intact"] == seen.figures
    with bypassed(model):
        assert look_at(model, served, task) == found["removed"]
    average, count = mean_weights(model, served.epoch(0), task, 3)
    torch.testing.assert_close(average["layer3"], weights.mean(0))
    assert count == 4
    handle = blocks(model)["layer3"].address.register_forward_hook(lambda module, inputs, own: weights.mean(0)[None])
    assert look_at(model, served, task) == pytest.approx(found["mean"])
    handle.remove()


def look_at(model: nn.Module, served: Served, task: Segmentation) -> dict[str, float]:
    meter = task.meter(torch.device("cpu"))
    with torch.inference_mode():
        for images, target in served.epoch(0):
            output = task.predict(model, images)
            meter.add(task.loss(output, target), output, target)
    read = meter.read()
    return {figure.key: read[figure.key] for figure in task.figures}


def test_mean_weights_stop_at_the_last_block() -> None:
    model = network("R8 + SR(M=1, P=2) + SR(M=2, P=2)", 32)
    images = torch.randn(4, 3, 32, 32)
    with convolutions() as calls:
        found, count = mean_weights(model, [(images, torch.zeros(4))], Classification(), 5)
    names = {module: name for name, module in model.named_modules()}
    assert {names[module].partition(".")[0] for module in calls} == {"conv1", "layer1", "layer2"}
    assert (set(found), count) == ({"layer1", "layer2"}, 4)
    with pytest.raises(ValueError, match="no block; there are no recall weights"):
        mean_weights(nn.Conv2d(1, 1, 1), [], Classification(), 5)


def test_the_images_that_recall_most_are_found_in_any_batches() -> None:
    model = network("R8 + SR(M=2, P=3)", 32)
    images = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(40) % 5
    seen = [look(model, Served(images, labels, size), Classification(), 5, {}) for size in (40, 7)]  # type: ignore[arg-type]
    weights = seen[0].blocks["layer2"].by_image
    for one in seen:
        best = weights.argsort(dim=0, descending=True, stable=True)[:KEPT].T
        assert torch.equal(one.top["layer2"], best)
        assert set(one.images) == set(best.flatten().tolist())
        number = int(best[0, 0])
        shown = (255 * (images[number] * 0.25 + 0.5)).round().clamp(0, 255).to(torch.uint8)
        assert torch.equal(torch.tensor(one.images[number]), shown)
    with pytest.raises(ValueError, match="no block to look into"):
        look(nn.Conv2d(3, 2, 1), Served(images, labels, 8), Classification(), 5, {})  # type: ignore[arg-type]


def test_information_by_hand() -> None:
    """Two classes, two blocks: weights (1, 0) and (0, 1) hold one bit, equal ones none."""
    labels = torch.tensor([0, 1] * 50)
    certain = torch.nn.functional.one_hot(labels, 2).float()
    found = information(certain, labels)
    assert found.bits == pytest.approx(1)
    assert found.explained == pytest.approx(1)
    assert found.bits_p == pytest.approx(1 / 201)
    assert effective(certain) == (pytest.approx(1), pytest.approx(2))
    half = torch.full((100, 2), 0.5)
    half[::4] = torch.tensor([0.75, 0.25])  # of class 0 alone, half of its images
    p = torch.tensor([0.625, 0.5625, 0.5])
    expected = _binary(0.5625) - (_binary(0.625) + _binary(0.5)) / 2
    found = information(half, labels)
    assert found.bits == pytest.approx(expected, abs=1e-6)
    between = ((p[0] - p[1]) ** 2).item()
    assert found.explained == pytest.approx(between / (0.25 * 0.75 * 0.25**2), abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    unrelated = torch.rand(100, 2, generator=generator).softmax(1)
    found = information(unrelated, labels)
    assert found.bits_p > 0.05
    assert found.bits == pytest.approx(found.null_bits, abs=0.01)


def _binary(p: float) -> float:
    values = torch.tensor([p, 1 - p], dtype=torch.float64)
    return float(-(values * values.log2()).sum())


def test_a_hook_of_the_users_own_stays() -> None:
    """A module whose forward was replaced on the instance, as some libraries do, has it again afterwards."""
    model = network("R8 + SR(M=2, P=3)", 32)
    own = model.get_submodule("layer1").forward
    model.get_submodule("layer1").forward = own  # type: ignore[method-assign]
    replay = Replay(model)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        with replay.record():
            before = model(images)
        with replay.replayed():
            assert torch.equal(model(images), before)
    assert model.get_submodule("layer1").__dict__["forward"] is own
    assert srblock.remove(model) == ["layer2"]
