"""The recipe for trained weights: groups of parameters, frozen backbone, AdamW, moving average, class weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from srblock.data import ImageData, Loader
from srblock.models.segmentation import Segmentation
from srblock.runs.groups import check_patterns, head, parameter_groups
from srblock.runs.study import Study, recipe_for
from srblock.training.average import Ema, showing
from srblock.training.checkpoint import CheckpointError, copy_weights
from srblock.training.classification import Classification, balanced
from srblock.training.loop import Loaders, train
from srblock.training.optimizer import freeze, make_optimizer, scale_rates, set_rate
from srblock.training.recipe import RECIPES, Recipe
from srblock.training.step import Step
from srblock.variants.build import build
from srblock.variants.notation import parse

CPU = torch.device("cpu")
TASK = Classification()
RECIPE = Recipe(
    epochs=4, batch_size=8, optimizer="adamw", learning_rate=0.01, weight_decay=0.05, norm_weight_decay=0.0,
    backbone_lr_scale=0.1, freeze_epochs=1, schedule="cosine", padding=0, flip=False, memory_format="contiguous",
)  # fmt: skip


def small(name: str = "R8 + SR(M=3, P=4)", classes: int = 2, channels: int = 1) -> nn.Module:
    return build(parse(name), classes=classes, channels=channels, image_size=(8, 8), seed=0)


def served(recipe: Recipe = RECIPE) -> Loaders:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(32) % 2
    images = torch.randint(0, 120, (32, 1, 8, 8), generator=generator)
    images[labels == 1, :, :, :4] += 100

    def loader(training: bool) -> Loader:
        return Loader(images.to(torch.uint8), labels, batch_size=recipe.batch_size, mean=[0.4], std=[0.2],
                      shuffle=training)  # fmt: skip

    return Loaders(loader(True), loader(False), loader(False))


def groups(model: nn.Module, recipe: Recipe = RECIPE) -> list[dict[str, Any]]:
    return parameter_groups(model, recipe, 2)


def run(folder: Path, model: nn.Module, recipe: Recipe = RECIPE, **options: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return train(
        model, served(recipe), TASK, recipe, directory=folder, run="t", seed=0, device=CPU,
        groups=lambda network: groups(network, recipe), **options,
    )  # fmt: skip


# --- groups ----------------------------------------------------------------------------------------------------------


def by_name(model: nn.Module, recipe: Recipe, classes: int = 2) -> dict[str, tuple[float, float | None, int]]:
    """Factor of the rate, own decay and frozen epochs of every parameter by its name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group.get("lr_scale", 1.0), group.get("weight_decay"), group.get("frozen", 0))
        for group in parameter_groups(model, recipe, classes)
        for parameter in group["params"]
    }


def test_every_parameter_has_its_rate_and_decay() -> None:
    model = small()
    recipe = replace(RECIPE, memory_lr_scale=5.0, memory_weight_decay=0.01, lr_scales=("conv1.*=0.5", "*.bias=2"))
    found = by_name(model, recipe)
    assert found.keys() == dict(model.named_parameters()).keys()
    inside = {name for name in found if ".sr." in name}
    memory = next(name for name in inside if "memory" in name)
    assert found[memory] == (5.0, 0.01, 0)
    assert {found[name] for name in inside - {memory}} == {(1.0, None, 0)}
    assert found["fc.weight"] == (1.0, None, 0)
    assert found["fc.bias"] == (2.0, 0.0, 0), "the pattern, no decay, not the backbone"
    assert found["conv1.weight"] == (pytest.approx(0.05), None, 1), "the first pattern, and the backbone's factor"
    assert found["bn1.weight"] == (0.1, 0.0, 1)
    assert found["bn1.bias"] == (pytest.approx(0.2), 0.0, 1)


def test_without_fields_of_its_own_a_recipe_has_one_group() -> None:
    model = small()
    (group,) = groups(model, Recipe())
    assert [*group] == ["params"]
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]


@pytest.mark.parametrize(
    ("name", "layer"),
    [("R8", "fc"), ("VGG16", "head.6"), ("Airbench94", "fc"), ("torchvision/squeezenet1_1", "classifier.1"),
     ("timm/convnext_atto", "head.fc")],
)  # fmt: skip
def test_the_head_is_the_layer_that_says_the_class(name: str, layer: str) -> None:
    model = build(parse(name), classes=7, image_size=(64, 64), seed=0)
    (found,) = head(model, 7)
    assert found is dict(model.named_modules())[layer]
    assert isinstance(found, nn.Linear | nn.Conv2d)
    assert found.weight.shape[0] == 7


def test_a_segmentation_network_has_its_heads() -> None:
    model = build(parse("FCN-R18"), classes=5, image_size=(64, 64), seed=0, task="segmentation")
    assert isinstance(model, Segmentation)
    found = head(model, 5)
    assert len(found) == 2
    waits = {name: bool(frozen) for name, (_, _, frozen) in by_name(model, RECIPE, 5).items()}
    assert waits == {name: not name.startswith(("head.", "auxiliary.")) for name in waits}


def test_refuses_a_network_without_a_head_and_patterns_that_fit_nothing() -> None:
    with pytest.raises(ValueError, match="no layer with 9 outputs that could be the head"):
        parameter_groups(nn.Linear(3, 2), RECIPE, 9)
    recipe = replace(RECIPE, lr_scales=("fc.*=2", "blocks.*=2"))
    with pytest.raises(
        ValueError, match=r"--lr-scale blocks.*=2: no parameter has a name like that; there are such as"
    ):
        check_patterns(recipe, [small()])
    check_patterns(replace(recipe, lr_scales=("*.sr.*=2",)), [small("R8"), small()])


# --- frozen backbone -------------------------------------------------------------------------------------------------


def test_the_backbone_waits_with_its_statistics(tmp_path: Path) -> None:
    model = small()
    before = copy_weights(model)
    frozen = {name for name, (_, _, waits) in by_name(model, RECIPE).items() if waits}
    statistics = {name for name, _ in model.named_buffers()}
    seen: list[dict[str, torch.Tensor]] = []

    def look(network: nn.Module) -> dict[str, float]:
        seen.append(copy_weights(network))
        return {}

    run(tmp_path, model, probe=look)
    changed = {name for name, value in seen[0].items() if not torch.equal(value, before[name])}
    assert frozen
    assert not changed & (frozen | statistics)
    assert {"fc.weight", "fc.bias"} <= changed
    assert any("memory" in name for name in changed)
    later = {name for name, value in seen[1].items() if not torch.equal(value, seen[0][name])}
    assert frozen | {name for name in statistics if "running" in name} <= later
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_norms_without_parameters_wait_with_what_is_around_them() -> None:
    model = nn.Sequential()
    for name in ("body", "fc"):
        model.add_module(name, nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False)))
    body, fc = model.body, model.fc
    optimizer = torch.optim.SGD(
        [{"params": list(body.parameters()), "frozen": 1}, {"params": list(fc.parameters())}], lr=0.1
    )
    for epoch, moved in ((0, [False, True]), (1, [True, True])):
        freeze(optimizer, epoch)
        step = Step(model, optimizer, TASK, RECIPE, CPU)
        before = [norm[1].running_mean.clone() for norm in (body, fc)]
        step.start()
        step(torch.randn(8, 4) + 5, torch.arange(8) % 2, 0.1)
        assert [
            not torch.equal(norm[1].running_mean, was) for norm, was in zip((body, fc), before, strict=True)
        ] == moved


def test_weights_of_classes_count_what_is_trained_on() -> None:
    """Of a class of two images one is held out."""
    labels = torch.tensor([0] * 1000 + [1] * 2)
    images = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
    data = ImageData.build(
        "uneven",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        classes=("a", "b"),
        flip=False,
    )
    recipe = replace(recipe_for(data, CPU), class_weights="balanced", validation_fraction=0.1)
    study = Study((parse("R8"),), (0,), data, "uneven", recipe)
    kept = study.loaders(0, CPU).train.plan.samples
    counts = torch.bincount(labels[kept])
    logits = torch.randn(2, 2)
    each = [study.task.training_loss(logits[k : k + 1], torch.tensor([k]), label_smoothing=0) for k in (0, 1)]
    plain = F.cross_entropy(logits, torch.tensor([0, 1]), reduction="none")
    torch.testing.assert_close(torch.stack(each) / plain, len(kept) / (2 * counts))


def test_freezing_is_told_once_and_leaves_no_gradient() -> None:
    model = small()
    optimizer = make_optimizer(model, RECIPE, CPU, groups)
    sum(p.sum() for p in model.parameters()).backward()  # type: ignore[union-attr]
    assert freeze(optimizer, 0)
    assert not freeze(optimizer, 0)
    assert {p.requires_grad for p in model.parameters()} == {True, False}
    assert all((p.grad is None) != p.requires_grad for p in model.parameters())
    assert freeze(optimizer, 1)
    assert all(p.requires_grad for p in model.parameters())


# --- AdamW and the moving average ------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{}, {"ema": 0.9}, {"freeze_epochs": 0}, {"freeze_epochs": 2, "ema": 0.5}])
def test_goes_on_bit_for_bit(tmp_path: Path, change: dict[str, Any]) -> None:
    """Stopped after each epoch: moments, steps and the average go on, the frozen backbone thaws when it should."""
    recipe = replace(RECIPE, **change)

    class Stop(Exception): ...

    whole = small()
    expected = run(tmp_path / "whole", whole, recipe)
    for stop_after in (1, 2, 3):

        def stop(record: dict[str, Any], last: int = stop_after) -> None:
            if record["epoch"] == last:
                raise Stop

        again = small()
        folder = tmp_path / f"stopped-{stop_after}"
        with pytest.raises(Stop):
            run(folder, small(), recipe, on_epoch=stop)
        found = run(folder, again, recipe)
        assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))
        assert {k: v for k, v in found.items() if "_ms_" not in k and k != "wall_s"} == {
            k: v for k, v in expected.items() if "_ms_" not in k and k != "wall_s"
        }


def test_a_state_of_sgd_does_not_go_on_with_a_moving_average(tmp_path: Path) -> None:
    def stop(record: dict[str, Any]) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run(tmp_path, small(), on_epoch=stop)
    with pytest.raises(CheckpointError, match="does not fit the network"):
        run(tmp_path, small(), replace(RECIPE, ema=0.9))


def test_adamw_is_torchs_with_our_rates() -> None:
    """Three steps by hand: m and v with bias correction, the decay apart from the gradient, a rate for each group."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    recipe = replace(RECIPE, freeze_epochs=0, momentum=0.8)
    optimizer = make_optimizer(model, recipe, CPU, groups)
    scale_rates(optimizer)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in weights.items()}
    for step in range(1, 4):
        rate = 0.01 * step
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        x = torch.full((5, 3), 0.1 * step, dtype=torch.float64)
        F.cross_entropy(model(x), torch.tensor([0, 1, 0, 1, 1])).backward()
        gradients = {name: value.grad.clone() for name, value in model.named_parameters()}  # type: ignore[union-attr]
        optimizer.step()
        for name, value in weights.items():
            own = rate * (0.1 if name.startswith("0.") else 1.0)
            first, second = moments[name]
            first.mul_(0.8).add_(0.2 * gradients[name])
            second.mul_(0.999).add_(0.001 * gradients[name] ** 2)
            value *= 1 - own * (0.0 if name.endswith("bias") else 0.05)
            value -= own * (first / (1 - 0.8**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), weights[name], atol=1e-10, rtol=1e-8)


def test_the_average_is_the_published_one_and_is_shown_only_for_a_while() -> None:
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    average = Ema(model, 0.6)
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    for step in range(1, 7):
        with torch.no_grad():
            model[0].weight.add_(1.0)
            model[1].running_mean.add_(2.0)  # type: ignore[union-attr, operator]
        average.follow(step, 100)
        decay = min(0.6, (1 + step) / (10 + step))
        for key in ("0.weight", "1.running_mean"):
            expected[key] = decay * expected[key] + (1 - decay) * model.state_dict()[key]
    own = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyError):  # noqa: PT012, SIM117
        with showing(average):
            for key in ("0.weight", "1.running_mean"):
                torch.testing.assert_close(model.state_dict()[key], expected[key])
            raise KeyError
    assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())


def test_a_tensor_with_two_names_comes_back_from_showing() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    model.add_module("again", model[0])
    average = Ema(model, 0.5)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    average.follow(1, 10)
    own, kept = copy.deepcopy(model.state_dict()), {key: value.clone() for key, value in average.slow.items()}
    for _ in range(2):
        with showing(average):
            torch.testing.assert_close(model[0].weight, kept["0.weight"])
            assert not torch.equal(model[0].weight, own["0.weight"])
        assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())
        assert all(torch.equal(value, kept[key]) for key, value in average.slow.items())


def test_what_is_tested_and_kept_is_the_average(tmp_path: Path) -> None:
    recipe = replace(RECIPE, ema=0.9, freeze_epochs=0)
    model = small()
    shown: list[dict[str, torch.Tensor]] = []

    def look(network: nn.Module) -> dict[str, float]:
        shown.append(copy_weights(network))
        return {}

    result = run(tmp_path, model, recipe, probe=look)
    kept = load_file(tmp_path / "checkpoint.safetensors")
    assert all(torch.equal(kept[key], value) for key, value in shown[result["best_epoch"] - 1].items())
    raw = small()
    run(tmp_path / "raw", raw, replace(recipe, ema=None))
    assert any(
        not torch.equal(a, b) for a, b in zip(model.state_dict().values(), raw.state_dict().values(), strict=True)
    )


# --- class weights ---------------------------------------------------------------------------------------------------


def test_balanced_weights_are_scikit_learns_and_1_on_average() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = torch.tensor([0] * 7 + [1] * 2 + [3])
    weights = balanced(labels, 4)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels.numpy())
    assert weights[[0, 1, 3]].tolist() == pytest.approx(expected)
    assert weights[2] == 0
    assert float(weights[labels].mean()) == pytest.approx(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_training_loss_is_weighted_and_the_tests_is_not(smoothing: float) -> None:
    """Each image's by its own class: hard labels and the same as shares of a mixed batch, over halves as the whole."""
    weights = torch.tensor([0.5, 2.0, 1.0])
    task = Classification(weights)
    logits, labels = torch.randn(8, 3), torch.tensor([0, 1, 2, 0, 0, 1, 0, 2])
    log_p = F.log_softmax(logits, 1)
    shares = (1 - smoothing) * F.one_hot(labels, 3) + smoothing / 3
    expected = -(weights[labels, None] * shares * log_p).sum(1).mean()
    for target in (labels, F.one_hot(labels, 3).float()):
        torch.testing.assert_close(task.training_loss(logits, target, label_smoothing=smoothing), expected)
    halves = [task.training_loss(logits[i : i + 4], labels[i : i + 4], label_smoothing=smoothing) for i in (0, 4)]
    torch.testing.assert_close(torch.stack(halves).mean(), expected)
    torch.testing.assert_close(task.loss(logits, labels), F.cross_entropy(logits, labels))
    torch.testing.assert_close(
        Classification().training_loss(logits, labels, label_smoothing=smoothing),
        F.cross_entropy(logits, labels, label_smoothing=smoothing),
    )


def test_smoothed_labels_of_uneven_classes_are_learned() -> None:
    """The least loss over a free logit for each class: each image's class, however rare the other one is."""
    labels = torch.tensor([0] * 1000 + [1] * 20)
    task = Classification(balanced(labels, 2))
    logits = torch.zeros(2, 2, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=50)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = task.training_loss(logits[labels], labels, label_smoothing=0.1)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logits.softmax(1), torch.tensor([[0.95, 0.05], [0.05, 0.95]]), rtol=0, atol=1e-3)


def test_hits_of_mixed_images_are_of_the_larger_share() -> None:
    meter = TASK.meter(CPU)
    target = torch.tensor([[0.3, 0.7], [0.9, 0.1]])
    meter.add(torch.tensor(1.0), torch.tensor([[0.0, 1.0], [0.0, 1.0]]), target)
    assert meter.read() == {"loss": 1.0, "top1": 50.0}


# --- the recipe ------------------------------------------------------------------------------------------------------


def test_finetune_fits_any_images_and_what_is_given_counts() -> None:
    from srblock.data import load_data
    from srblock.data.sources.published import stand_in

    digits = load_data("digits")
    recipe = recipe_for(digits, CPU, "finetune")
    assert (recipe.optimizer, recipe.crop, recipe.auto_augment) == ("adamw", "padded", "trivialaugment")
    assert (recipe.padding, recipe.test_resize) == (1, None)
    large = recipe_for(stand_in("imagenet:x", None), CPU, "finetune")
    assert (large.crop, large.padding, large.test_resize) == ("resized", 0, 256)
    cut = recipe_for(digits, CPU, "finetune", crop="resized")
    assert (cut.crop, cut.padding, cut.test_resize) == ("resized", 0, 9)
    given = recipe_for(digits, CPU, "finetune", epochs=3, freeze_epochs=2, auto_augment="none", mixup=0.2)
    assert (given.epochs, given.freeze_epochs, given.auto_augment, given.mixup) == (3, 2, "none", 0.2)
    assert RECIPES["finetune"].with_epochs(3).freeze_epochs == 1, "given epochs win over the share of the run"
