"""Segmentation against references by hand, NumPy and scikit-learn: figures, loss, windows, views."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.block import SqueezeRemember2d
from srblock.inspection.controls import controls
from srblock.inspection.look import Look, look
from srblock.inspection.recall import by_class
from srblock.training.recipe import Recipe
from srblock.training.segmentation import (
    AUXILIARY,
    ConfusionMeter,
    Segmentation,
    class_accuracy,
    class_iou,
    mean,
    slide,
    starts,
)
from srblock.training.task import evaluate
from srblock.training.tasks import find_task

CPU = torch.device("cpu")
IGNORED = 255
RECIPE = Recipe(crop="scene", crop_size=(8, 12), padding=0)
TASK = Segmentation(3, (8, 12))


def logits_of(said: Tensor, classes: int) -> Tensor:
    """Return logits (N, classes, H, W) whose largest is the class said (N, H, W)."""
    return F.one_hot(said, classes).permute(0, 3, 1, 2).float()


def count(said: Tensor, target: Tensor, classes: int = 3, loss: float = 0.0) -> ConfusionMeter:
    meter = ConfusionMeter(classes, CPU)
    meter.add(torch.tensor(loss), logits_of(said, classes), target)
    return meter


# --- figures ---------------------------------------------------------------------------------------------------------


def test_figures_are_scikit_learns_over_the_whole_set() -> None:
    """Counted over all batches, not averaged over them; classes of very different size, batches too."""
    random = np.random.default_rng(0)
    share = [0.6, 0.3, 0.05, 0.03, 0.02]
    meter, truths, answers = ConfusionMeter(5, CPU), [], []
    for scenes in (3, 1, 2):
        target = torch.from_numpy(random.choice(5, (scenes, 9, 13), p=share))
        target[torch.from_numpy(random.random(target.shape) < 0.2)] = IGNORED
        logits = torch.from_numpy(random.normal(0, 1, (scenes, 5, 9, 13))).float()
        logits += logits_of(target.clamp_max(4), 5)
        meter.add(torch.tensor(float(scenes)), logits, target)
        kept = target != IGNORED
        truths.append(target[kept])
        answers.append(logits.argmax(1)[kept])
    expected = confusion_matrix(torch.cat(truths), torch.cat(answers), labels=range(5))
    assert meter.details()["confusion"] == expected.tolist()
    hits = np.diag(expected)
    iou, accuracy = hits / (expected.sum(0) + expected.sum(1) - hits), hits / expected.sum(1)
    assert iou.min() < 0.7 * iou.max(), "the classes differ, or this test shows nothing"
    assert meter.read() == pytest.approx(
        {"loss": (3 * 3 + 1 + 2 * 2) / 6, "miou": 100 * iou.mean(), "macc": 100 * accuracy.mean()}
    )
    torch.testing.assert_close(class_iou(torch.from_numpy(expected)), torch.from_numpy(100 * iou))
    torch.testing.assert_close(class_accuracy(torch.from_numpy(expected)), torch.from_numpy(100 * accuracy))
    meter.reset()
    assert sum(map(sum, meter.details()["confusion"])) == 0


def test_a_class_that_is_not_there_is_left_out() -> None:
    """Class 2 is in neither: not counted. In the truth alone: 0 of both. Said alone: 0 of mIoU, not of mAcc."""
    target = torch.tensor([[[0, 0, 1, 1]]])
    assert count(torch.tensor([[[0, 0, 1, 1]]]), target).read() == {"loss": 0, "miou": 100, "macc": 100}
    said_alone = count(torch.tensor([[[0, 0, 1, 2]]]), target).read()
    assert said_alone == pytest.approx({"loss": 0, "miou": (100 + 50 + 0) / 3, "macc": (100 + 50) / 2})
    in_truth_alone = count(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 0, 1, 2]]])).read()
    assert in_truth_alone == pytest.approx({"loss": 0, "miou": (100 + 50 + 0) / 3, "macc": (100 + 100 + 0) / 3})
    iou = class_iou(torch.tensor([[2, 0, 0], [0, 1, 0], [0, 0, 0]]))
    assert iou[:2].tolist() == [100, 100]
    assert math.isnan(iou[2])


def test_ignored_pixels_count_for_nothing_whatever_is_said_of_them() -> None:
    target = torch.tensor([[[0, IGNORED, 1, IGNORED]]])
    for wrong in (0, 1, 2):
        meter = count(torch.tensor([[[0, wrong, 1, wrong]]]), target)
        assert meter.details()["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
        assert meter.read()["miou"] == 100
    nothing = count(torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), IGNORED))
    assert nothing.read() == {"loss": 0, "miou": 0, "macc": 0}
    assert mean(torch.tensor([math.nan, math.nan])) == 0


def test_one_pixel_and_one_class() -> None:
    assert count(torch.tensor([[[2]]]), torch.tensor([[[2]]])).read() == {"loss": 0, "miou": 100, "macc": 100}
    assert count(torch.tensor([[[1]]]), torch.tensor([[[2]]])).read() == {"loss": 0, "miou": 0, "macc": 0}
    only = count(torch.zeros(2, 3, 3, dtype=torch.int64), torch.zeros(2, 3, 3, dtype=torch.int64), classes=1)
    assert only.details()["confusion"] == [[18]]
    assert only.read()["miou"] == 100


def test_the_last_of_254_classes_is_no_ignored_one() -> None:
    meter = count(torch.tensor([[[254, 0]]]), torch.tensor([[[254, IGNORED]]]), classes=255)
    assert meter.read() == {"loss": 0, "miou": 100, "macc": 100}


def test_the_meter_judges_the_main_head_at_the_size_of_the_target() -> None:
    said = torch.tensor([[[0, 1], [2, 1]]])
    meter = ConfusionMeter(3, CPU)
    meter.add(torch.zeros(()), {"out": logits_of(said, 3), "aux": logits_of(2 - said, 3)}, said)
    assert meter.read()["miou"] == 100
    large = said.repeat_interleave(4, 1).repeat_interleave(4, 2)
    meter.reset()
    meter.add(torch.zeros(()), logits_of(said, 3), large)
    assert sum(map(sum, meter.details()["confusion"])) == 64
    assert meter.read()["macc"] > 90, "bilinear: its corners are certain"


# --- the loss --------------------------------------------------------------------------------------------------------


def drawn(scenes: int = 2, size: tuple[int, int] = (6, 10)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(3, (scenes, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.3] = IGNORED
    return torch.randn(scenes, 3, *size, generator=generator), target


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_a_mean_over_all_pixels_with_ignored_ones_zero(smoothing: float) -> None:
    """MMSegmentation's (avg_non_ignore=False), not torch's mean over the labeled ones."""
    logits, target = drawn()
    kept = target != IGNORED
    shares = logits.log_softmax(1).permute(0, 2, 3, 1)[kept]
    picked = shares[torch.arange(len(shares)), target[kept]]
    by_hand = -((1 - smoothing) * picked + smoothing * shares.mean(1)).sum() / target.numel()
    torch.testing.assert_close(TASK.loss(logits, target, label_smoothing=smoothing), by_hand)
    over_labeled = F.cross_entropy(logits, target, ignore_index=IGNORED, label_smoothing=smoothing)
    torch.testing.assert_close(by_hand, over_labeled * kept.double().mean().float())


def test_the_auxiliary_head_has_two_fifths() -> None:
    main, target = drawn()
    auxiliary = main.flip(1)
    both = TASK.loss({"out": main, "aux": auxiliary}, target, label_smoothing=0.1)
    parts = [TASK.loss(part, target, label_smoothing=0.1) for part in (main, auxiliary)]
    assert AUXILIARY == 0.4
    torch.testing.assert_close(both, parts[0] + 0.4 * parts[1])


def test_logits_of_another_size_are_resized_to_the_target_not_the_target_to_them() -> None:
    logits, target = drawn()
    small = torch.randn(2, 3, 3, 5, generator=torch.Generator().manual_seed(2))
    enlarged = F.interpolate(small, (6, 10), mode="bilinear", align_corners=False)
    torch.testing.assert_close(TASK.loss(small, target), TASK.loss(enlarged, target))
    torch.testing.assert_close(TASK.loss(logits.half(), target), TASK.loss(logits, target), atol=1e-3, rtol=1e-3)
    assert TASK.loss(logits.half(), target).dtype == torch.float32


def test_all_pixels_ignored_give_no_loss_and_no_gradient() -> None:
    logits, target = drawn()
    logits.requires_grad_()
    loss = TASK.loss({"out": logits, "aux": logits}, torch.full_like(target, IGNORED), label_smoothing=0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_an_ignored_pixel_gets_no_gradient() -> None:
    logits, target = drawn()
    logits.requires_grad_()
    TASK.loss(logits, target, label_smoothing=0.1).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    touched = logits.grad.abs().sum(1) > 0
    assert torch.equal(touched, target != IGNORED)


# --- sliding windows -------------------------------------------------------------------------------------------------


class Watched(nn.Module):
    """A model that keeps what it was shown."""

    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.seen = body, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return self.body(x)


def pixelwise() -> nn.Module:
    """A function of each pixel, linear and then not."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 1), nn.Tanh(), nn.Conv2d(5, 3, 1)).eval().requires_grad_(False)


def images(*size: int, scenes: int = 2) -> Tensor:
    return torch.randn(scenes, 3, *size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("size", [(8, 12), (9, 12), (8, 13), (20, 31), (8, 40), (30, 12), (5, 7), (5, 30), (23, 4)])
def test_windows_give_a_pixelwise_function_back(size: tuple[int, int]) -> None:
    model, scene = Watched(pixelwise()), images(*size)
    torch.testing.assert_close(TASK.predict(model, scene), model.body(scene), atol=1e-5, rtol=1e-5)
    assert {seen.shape for seen in model.seen[:-1]} <= {torch.Size((2, 3, 8, 12))}, "no other size than the window's"


def test_windows_are_as_many_as_the_frameworks() -> None:
    """Of 1024x2048 with windows of 512x1024: 3 x 3, by max(side - window + stride - 1, 0) // stride + 1."""
    assert starts(1024, 512) == [0, 341, 512]
    assert starts(2048, 1024) == [0, 682, 1024]
    assert [len(starts(side, 769)) for side in (769, 1024, 2048)] == [1, 2, 4]
    model = Watched(lambda x: x)
    slide(model, torch.zeros(1, 1, 64, 128), (32, 64))
    assert len(model.seen) == 9


@pytest.mark.parametrize("window", [3, 4, 8, 32, 60, 97, 180, 513])
def test_windows_lie_at_most_two_thirds_of_one_apart_and_end_where_the_scene_does(window: int) -> None:
    for side in [*range(1, 4 * window), 10 * window + 1]:
        found = starts(side, window)
        assert found[0] == 0
        assert found[-1] == max(0, side - window)
        gaps = np.diff(found)
        assert (gaps > 0).all()
        assert (3 * gaps <= 2 * window).all(), (side, found)
        assert len(found) == 1 + math.ceil(max(0, side - window) / (2 * window // 3)), "no more than are needed"


def test_every_window_shows_its_place() -> None:
    row, column = torch.meshgrid(torch.arange(20.0), torch.arange(31.0), indexing="ij")
    places = torch.stack([row, column, torch.ones_like(row)])[None]
    model = Watched(lambda x: x)
    slide(model, places, (8, 12))
    covered = torch.zeros(20, 31)
    for seen in model.seen:
        top, left = int(seen[0, 0, 0, 0]), int(seen[0, 1, 0, 0])
        assert torch.equal(seen, places[:, :, top : top + 8, left : left + 12])
        covered[top : top + 8, left : left + 12] += 1
    assert covered.min() == 1
    assert (covered > 1).double().mean() > 0.5


def test_where_windows_overlap_their_logits_are_averaged() -> None:
    """A model that answers with the column inside its window, counted from 1."""
    inside = torch.arange(1.0, 13).expand(1, 1, 8, 12)
    model = Watched(lambda x: inside.expand(len(x), 1, 8, 12))
    answer = slide(model, torch.zeros(2, 3, 8, 18), (8, 12))
    sums = [sum(column - left + 1 for left in (0, 6) if left <= column < left + 12) for column in range(18)]
    expected = [total / (2 if 6 <= column < 12 else 1) for column, total in enumerate(sums)]
    assert starts(18, 12) == [0, 6]
    torch.testing.assert_close(answer, torch.tensor(expected).expand(2, 1, 8, 18))


def test_a_scene_smaller_than_the_window_is_padded_below_and_to_the_right_with_the_mean_color() -> None:
    model, scene = Watched(pixelwise()), images(5, 7)
    answer = TASK.predict(model, scene)
    (seen,) = model.seen
    assert torch.equal(seen[:, :, :5, :7], scene)
    assert seen[:, :, 5:].abs().sum() == seen[:, :, :, 7:].abs().sum() == 0
    assert seen.shape == (2, 3, 8, 12)
    assert answer.shape == (2, 3, 5, 7)
    taller = Watched(pixelwise())
    assert TASK.predict(taller, images(20, 7)).shape == (2, 3, 20, 7)
    assert len(taller.seen) == 4
    assert all(seen[:, :, :, 7:].abs().sum() == 0 for seen in taller.seen)


def with_block(resize: str | None) -> nn.Module:
    """A pixelwise function with a block that does something, of the size of the window."""
    torch.manual_seed(0)
    block = SqueezeRemember2d(3, (8, 12), blocks=4, hidden=2, resize=resize)
    nn.init.normal_(block.memory.values)
    return nn.Sequential(block, nn.Conv2d(3, 3, 1)).eval().requires_grad_(False)


def test_a_memory_fits_windows_and_a_whole_scene_only_with_resize() -> None:
    scene, whole = images(20, 31), Segmentation(3, (8, 12), "whole")
    assert TASK.predict(with_block(None), scene).shape == (2, 3, 20, 31)
    with pytest.raises(ValueError, match=r"20.*31"):
        whole.predict(with_block(None), scene)
    resized = Watched(with_block("bilinear"))
    answer = whole.predict(resized, scene)
    assert [seen.shape for seen in resized.seen] == [scene.shape], "all of it at once"
    torch.testing.assert_close(answer, resized.body(scene))
    assert not torch.allclose(answer, TASK.predict(with_block("bilinear"), scene), atol=1e-2), "windows see less"


def test_the_recipe_says_how_scenes_are_looked_at() -> None:
    model = Watched(pixelwise())
    for inference, looks in (("slide", 4 * 4), ("whole", 1)):
        task = find_task("segmentation", 3, Recipe(crop="scene", crop_size=(8, 12), padding=0, inference=inference))
        model.seen.clear()
        task.predict(model, images(20, 31))
        assert len(model.seen) == looks
    with pytest.raises(ValueError, match=r"tta for segmentation must be one of none, flip, .*got 'flip\+tran"):
        find_task("segmentation", 3, Recipe(crop="scene", crop_size=(8, 12), padding=0, tta="flip+translate"))


# --- views -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tta", ["flip", "multiscale", "multiscale+flip"])
def test_views_give_log_probabilities_of_the_scenes_size(tta: str) -> None:
    answer = TASK.predict(pixelwise(), images(16, 21), tta=tta)
    assert answer.shape == (2, 3, 16, 21)
    torch.testing.assert_close(answer.exp().sum(1), torch.ones(2, 16, 21))


def test_the_mirror_of_a_symmetric_function_changes_nothing() -> None:
    model, scene = pixelwise(), images(16, 21)
    once = TASK.predict(model, scene).log_softmax(1)
    torch.testing.assert_close(TASK.predict(model, scene, tta="flip"), once, atol=1e-5, rtol=1e-5)


def test_probabilities_of_both_sides_are_averaged_each_in_its_place() -> None:
    """A model that answers by the column, whatever it sees."""
    ramp = torch.linspace(-3, 3, 12).expand(1, 1, 8, 12)
    model = Watched(lambda x: torch.cat([ramp, torch.zeros_like(ramp), -2 * ramp], 1).expand(len(x), 3, 8, 12))
    scene = images(8, 12)
    one = TASK.predict(model, scene).softmax(1)
    expected = ((one + one.flip(3)) / 2).log()
    torch.testing.assert_close(TASK.predict(model, scene, tta="flip"), expected)
    assert torch.equal(model.seen[-1], scene.flip(3))


@pytest.mark.parametrize("flip", [False, True])
def test_multiscale_shows_six_sizes(flip: bool) -> None:
    whole, model = Segmentation(3, (8, 12), "whole"), Watched(pixelwise())
    scene = images(16, 21)
    answer = whole.predict(model, scene, tta="multiscale+flip" if flip else "multiscale")
    sizes = [(8, 11), (12, 16), (16, 21), (20, 26), (24, 32), (28, 37)]
    assert [tuple(seen.shape[2:]) for seen in model.seen] == [size for size in sizes for _ in range(1 + flip)]
    assert torch.equal(model.seen[2 * (1 + flip)], scene), "once as it is"
    alone = []
    for size in sizes:
        small = F.interpolate(scene, size, mode="bilinear", align_corners=False, antialias=True)
        logits = F.interpolate(model.body(small), (16, 21), mode="bilinear", align_corners=False)
        alone.append(logits.softmax(1))
    torch.testing.assert_close(answer, torch.stack(alone).mean(0).log(), atol=1e-5, rtol=1e-5)


def test_multiscale_looks_through_windows_of_one_size() -> None:
    model = Watched(pixelwise())
    TASK.predict(model, images(16, 21), tta="multiscale")
    assert {tuple(seen.shape[2:]) for seen in model.seen} == {(8, 12)}
    sizes = [(8, 11), (12, 16), (16, 21), (20, 26), (24, 32), (28, 37)]
    assert len(model.seen) == sum(len(starts(height, 8)) * len(starts(width, 12)) for height, width in sizes)


def test_a_certain_model_stays_finite_over_views() -> None:
    sure = Watched(lambda x: torch.tensor([1e4, 0.0, -1e4]).view(1, 3, 1, 1).expand(len(x), 3, 8, 12))
    answer = TASK.predict(sure, images(8, 12), tta="flip")
    assert answer.isfinite().all()
    assert TASK.loss(answer, torch.zeros(2, 8, 12, dtype=torch.int64)) == 0


# --- a pass ----------------------------------------------------------------------------------------------------------


def test_a_pass_over_scenes_of_several_sizes() -> None:
    """One after another, as whole scenes come; the target of the second is larger than its image (scene_scale)."""
    model, recipe = pixelwise(), RECIPE
    generator = torch.Generator().manual_seed(5)
    batches = [
        (images(*size, scenes=1), torch.randint(3, (1, *target), generator=generator))
        for size, target in (((16, 21), (16, 21)), ((9, 13), (18, 26)))
    ]
    found = evaluate(model, batches, TASK, recipe, CPU)
    losses, said, truth = [], [], []
    for scene, target in batches:
        logits = F.interpolate(model(scene), target.shape[1:], mode="bilinear", align_corners=False)
        losses.append(float(F.cross_entropy(logits, target)))
        said.append(logits.argmax(1).flatten())
        truth.append(target.flatten())
    matrix = confusion_matrix(torch.cat(truth), torch.cat(said), labels=range(3))
    accuracy = 100 * float((np.diag(matrix) / matrix.sum(1)).mean())
    assert found["loss"] == pytest.approx(sum(losses) / 2, rel=1e-5), "scenes weigh the same"
    assert found["macc"] == pytest.approx(accuracy, abs=0.5)


# --- what blocks recall of scenes ------------------------------------------------------------------------------------


class Reader(nn.Module):
    """Answers with what its block recalls: memory 0 says class 0 and memory 1 class 1, by the sign of the window."""

    def __init__(self) -> None:
        super().__init__()
        self.block = SqueezeRemember2d(3, (4, 4), blocks=2, hidden=1)
        with torch.no_grad():
            self.block.address.squeeze.copy_(torch.tensor([1.0, 0, 0]).view_as(self.block.address.squeeze))
            self.block.address.fc1.fill_(1 / 16)
            self.block.address.fc2.copy_(torch.tensor([[10.0], [-10.0]]))
            maps = self.block.memory.values.zero_().view(2, 3, 16)
            maps[0, 1], maps[1, 2] = 1.0, 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)[:, 1:]


def scenes() -> list[tuple[Tensor, Tensor]]:
    """Scenes of two windows or three, each of one sign: 1 is class 0, -1 class 1; the second has an ignored row."""
    made = []
    for signs in ((1, 1, 1), (-1, -1, -1), (1, 1, 1, 1), (-1, -1, -1)):
        values = torch.tensor(signs, dtype=torch.float32).repeat_interleave(2)
        image = torch.zeros(1, 3, 4, len(values))
        image[0, 0] = values
        target = (image[:, 0] < 0).long()
        made.append((image, target))
    made[1][1][:, 0] = IGNORED
    return made


class Served:
    """A loader of these batches."""

    mean, std = (0.0,) * 3, (1.0,) * 3

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.batches = batches

    def epoch(self, epoch: int) -> list[tuple[Tensor, Tensor]]:
        return self.batches


def looked(batches: list[tuple[Tensor, Tensor]]) -> Look:
    return look(Reader(), Served(batches), Segmentation(2, (4, 4)), 2, {})  # type: ignore[arg-type]


def test_recall_weights_of_scenes_stand_for_what_is_in_them() -> None:
    seen = looked(scenes())
    weights, shown = seen.blocks["block"].by_image, seen.shown
    assert shown.tolist() == [[24, 0], [0, 18], [32, 0], [0, 24]]
    high = 1 / (1 + math.exp(-20))
    expected = torch.tensor([high, high, 1 - high, 1 - high, high, high, high, 1 - high, 1 - high])
    torch.testing.assert_close(seen.blocks["block"].weights[:, 0], expected)
    torch.testing.assert_close(weights[:, 0], torch.tensor([high, 1 - high, high, 1 - high]))
    center, apart = by_class(weights, shown, 2)
    torch.testing.assert_close(center, torch.eye(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(apart, torch.zeros(2, 2), atol=1e-5, rtol=0)


def test_by_class_weighs_scenes_by_their_pixels() -> None:
    """A scene with 3 pixels of a class counts three times one with 1; a class of no scene is not a number."""
    weights, shown = torch.tensor([[0.2, 0.8], [0.6, 0.4]]), torch.tensor([[3, 0, 0], [1, 5, 0]])
    center, apart = by_class(weights, shown, 3)
    torch.testing.assert_close(center[:2], torch.tensor([[0.3, 0.7], [0.6, 0.4]]))
    spread = math.sqrt(0.75 * 0.1**2 + 0.25 * 0.3**2)
    torch.testing.assert_close(apart[:2], torch.tensor([[spread, spread], [0, 0]]))
    assert center[2].isnan().all()
    assert apart[2].isnan().all()


def test_batches_of_scenes_keep_looks_and_pixels_together() -> None:
    """Two scenes in a batch: their windows come corner by corner, each of both."""
    first, second = scenes()[0], scenes()[3]
    batch = torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])
    seen = looked([batch])
    assert seen.shown.tolist() == [[24, 0], [0, 24]]
    assert seen.blocks["block"].weights.argmax(1).tolist() == [0, 1, 0, 1]
    assert seen.blocks["block"].by_image.argmax(1).tolist() == [0, 1]


def test_controls_of_scenes_have_their_figures() -> None:
    task, model = Segmentation(2, (4, 4)), Reader()
    collected = {"block": looked(scenes()).blocks["block"].weights}
    found = controls(model, collected, scenes, task)
    assert list(found) == ["intact", "removed", "mean", "uniform", "shuffled", "largest", "flat"]
    assert found["intact"] == {"miou": 100, "macc": 100}
    # All logits are equal and class 0 is named everywhere: 56 of 98 labeled pixels.
    for name in ("removed", "uniform"):
        assert found[name] == pytest.approx({"miou": 100 * (56 / 98) / 2, "macc": 50})
    assert 0 < found["shuffled"]["macc"] < 100
    assert controls(model, collected, scenes, task) == found, "nothing is left behind"
