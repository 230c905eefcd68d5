"""Replaying what comes before a block gives what the whole network gives, and computes only what comes behind it."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import srblock
from srblock.inspection.analyze import analyze
from srblock.inspection.attribution import attribution
from srblock.inspection.controls import controls
from srblock.inspection.exemplars import exemplars
from srblock.inspection.information import effective, information
from srblock.inspection.look import KEPT, look
from srblock.inspection.mean_weights import _Front, mean_weights
from srblock.inspection.recall import recall_figures
from srblock.inspection.replay import Replay
from srblock.report.analysis_words import attribution_line, change_line
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


class Twice(nn.Module):
    """One activation, which may work in place, in two places before the block and behind it."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), act)
        self.act = act
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), act)
        self.last = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) - 0.2
        x = self.body(self.act(x)) + x
        return self.fc(self.act(self.last(self.act(x))).mean((2, 3)))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("after", ["body", "last"])
def test_modules_in_several_places_and_in_place_change_nothing(after: str, inplace: bool) -> None:
    model = Twice(nn.ReLU(inplace))
    srblock.insert(model, after=after, input_size=(3, 8, 8), blocks=3)
    (block,) = blocks(model).values()
    nn.init.normal_(block.memory.values)
    model.eval()
    images, labels = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(2)), torch.arange(50) % 5
    with torch.inference_mode():
        intact = model(images)
        with bypassed(model):
            removed = model(images)
        replay = Replay(model)
        for _ in range(2):
            with replay.record():
                assert torch.equal(model(images), intact)
            with replay.replayed(), bypassed(model):
                assert torch.equal(model(images), removed)
    weights = {after: torch.rand(50, 3).softmax(1)}
    found = controls(model, weights, lambda: [(images, labels)], Classification())
    for name, output in (("intact", intact), ("removed", removed)):
        assert found[name]["top1"] == pytest.approx(100 * float((output.argmax(1) == labels).float().mean()))
    told = attribution(model, after, [(images, labels)], 5)
    by_class = torch.stack([(intact - removed)[labels == label].mean(0) for label in range(5)])
    torch.testing.assert_close(torch.tensor(told.by_class).float(), by_class, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("scale", "exact"), [(0.0, None), (1e-5, None), (1.0, False)])
def test_little_that_a_block_adds_does_not_tell_what_follows(scale: float, exact: bool | None) -> None:
    """After the block stand a ReLU, a convolution and a ReLU."""
    model = Twice(nn.ReLU())
    srblock.insert(model, after="body", input_size=(3, 8, 8), blocks=3)
    (block,) = blocks(model).values()
    nn.init.normal_(block.memory.values, 0, scale)
    images = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    told = attribution(model, "body", [(images, torch.arange(50) % 5)], 5)
    assert told.exact is exact
    assert told.by_block is None
    words = attribution_line(told)
    assert ("too little beside rounding" in words) == (exact is None)


def test_images_that_come_as_zeros_have_no_share_by_which_they_change() -> None:
    """Of a map of zeros no share can be said, and a run is finished all the same."""
    model = nn.Sequential(nn.ReLU(), nn.AvgPool2d(1), nn.Flatten(), nn.Linear(3 * 64, 2))
    srblock.insert(model, after="0", input_size=(3, 8, 8), blocks=2)
    (block,) = blocks(model).values()
    nn.init.ones_(block.memory.values)
    images = torch.cat([torch.zeros(4, 3, 8, 8), torch.full((4, 3, 8, 8), 2.0)])
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    seen = look(model, Served(images, labels, 3), Classification(), 2, {})  # type: ignore[arg-type]
    assert recall_figures(seen)["0"]["change"] == pytest.approx(50)
    classes = ("dark", "light")
    dark = look(model, Served(images[:4], labels[:4], 3), Classification(), 2, {})  # type: ignore[arg-type]
    assert "change" not in recall_figures(dark)["0"]
    for shown, change, by_label in ((images, 50, [math.nan, 50]), (images[:4], math.nan, [math.nan, math.nan])):
        served = Served(shown, labels[: len(shown)], 3)
        (found,) = analyze(model, served, Classification(), classes, {}).blocks  # type: ignore[arg-type]
        assert found.change == pytest.approx(change, nan_ok=True)
        assert found.class_change.tolist() == pytest.approx(by_label, nan_ok=True)
        assert ("cannot be said" in change_line(found, classes)) == math.isnan(change)


def test_images_of_equal_weight_are_no_favorites() -> None:
    """Where as many more have it, the first in the folder are not those that recall a block most."""
    labels = torch.arange(1000) // 100
    classes = [f"c{label}" for label in range(10)]
    best, pictures = torch.zeros(2, 1, dtype=torch.int64), {0: np.zeros((3, 4, 4), dtype=np.uint8)}
    equal = exemplars(torch.full((1000, 2), 0.5), labels, classes, best, pictures)
    assert [one.enriched for one in equal] == [(), ()]
    weights = torch.full((1000, 2), 0.5)
    weights[300:400, 0] = 0.9
    told, other = exemplars(weights, labels, classes, best, pictures)
    assert told.enriched[0][:2] == ("c3", 100)
    assert other.enriched == ()


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
    shown = seen.blocks["layer3"].closeups[2]
    assert shown.before.shape == (4, 6)
    assert shown.image.shape == (3, 32, 48), "the window that the maps are of"
    assert shown.weights == tuple(weights[6].tolist()), "the first of the third scene's three"
    alone = look(model, Served(served.images[2:3, :, :, :48], served.targets[2:3, :, :48], 1), task, 3, {0: "it"})  # type: ignore[arg-type]
    assert shown.change_percent == pytest.approx(alone.blocks["layer3"].closeups[0].change_percent, rel=1e-4)
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
    names = {module: name for name, module in model.named_modules()}
    with convolutions() as calls:
        found, count = mean_weights(model, [(images, torch.zeros(4))] * 3, Classification(), 5)
    parts = Counter(names[module].partition(".")[0] for module in calls)
    assert parts["conv1"] == 4, "three batches, and one image that tells how often blocks are called"
    assert (parts["layer1"], parts["layer3"]) == (8, 2), "behind the last block that one image alone"
    assert (set(found), count) == ({"layer1", "layer2"}, 12)
    assert _Front(model, 10**6)(images).untyped_storage().nbytes() == 4, "logits of all pixels would be large"
    with pytest.raises(ValueError, match="no block; there are no recall weights"):
        mean_weights(nn.Conv2d(1, 1, 1), [], Classification(), 5)


class TwiceThrough(nn.Module):
    """A network of one's own that goes through its block twice."""

    def __init__(self) -> None:
        super().__init__()
        self.block = srblock.SqueezeRemember2d(3, (4, 4), blocks=3)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.block.memory.values.normal_(std=3)
            self.block.address.fc2.normal_(std=5)

    def forward(self, x: Tensor) -> Tensor:
        head: Tensor = self.head(self.block(self.block(x)).mean((2, 3)))
        return head


def test_mean_weights_of_a_block_that_is_called_twice_are_of_both_calls() -> None:
    torch.manual_seed(0)
    model, images = TwiceThrough().eval(), torch.randn(6, 3, 4, 4)
    with torch.inference_mode():
        once = model.block.recall_weights(images)
        again = model.block.recall_weights(model.block(images))
    found, count = mean_weights(model, [(images, torch.zeros(6))], Classification(), 2)
    assert (once.mean(0) - again.mean(0)).abs().max() > 0.01
    torch.testing.assert_close(found["block"], (once.mean(0) + again.mean(0)) / 2)
    assert count == 6


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
