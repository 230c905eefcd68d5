"""Airbench94 and its recipe, against the publication's figures and rules written down anew."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_loop import CPU, TASK, loaders
from test_study import image_data
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.data import ImageData
from srblock.inspection.cost import count_parameters
from srblock.models.airbench import Airbench94, whitening_filters
from srblock.models.regularizers import DropBlock
from srblock.runs.study import Study, recipe_for
from srblock.training.checkpoint import CheckpointError
from srblock.training.loop import train
from srblock.training.recipe import RECIPES, Recipe
from srblock.variants.build import build
from srblock.variants.notation import parse


def noise(count: int, channels: int = 3, side: int = 10, seed: int = 0) -> Tensor:
    """Images whose neighbors and channels go together, as photographs' do."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, channels, side, side, generator=generator).cumsum(3) / 3
    return images + images.mean(1, keepdim=True)


def by_images(count: int = 60, side: int = 16) -> ImageData:
    labels = torch.arange(count) % 2
    pixels = (20 * noise(count, 3, side) + 80 + 80 * labels.view(-1, 1, 1, 1)).clamp(0, 255).to(torch.uint8)
    return ImageData(
        name="noise", train_images=pixels, train_labels=labels, test_images=pixels[:20], test_labels=labels[:20],
        classes=("a", "b"), fingerprint="f" * 64, flip=True,
    )  # fmt: skip


def test_has_the_published_number_of_parameters_and_maps() -> None:
    """1.97 million; maps of 15, 7 and 3 pixels (arXiv 2404.00498, Sec. 3 and its program)."""
    model = Airbench94(classes=10)
    assert count_parameters(model)[0] == 1_972_792
    sizes: list[tuple[int, ...]] = []
    for stage in (1, 2, 3):
        model.get_submodule(model.stage(stage)).register_forward_hook(lambda *a: sizes.append(tuple(a[2].shape[1:])))
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert sizes == [(64, 15, 15), (256, 7, 7), (256, 3, 3)]


def test_widened_it_has_the_parameters_of_a_network_with_a_block() -> None:
    """By hand: two 3x3 convolutions, biases of two batch norms a group, and the head."""
    model = Airbench94(classes=100, widths=(64, 263, 263))
    first, group2, group3 = 24 * 12 + 24 + 64 * 9 * (24 + 64), 263 * 9 * (64 + 263), 2 * 263 * 9 * 263
    expected = first + group2 + group3 + 2 * 2 * (64 + 263 + 263) + 100 * 263
    assert count_parameters(model)[0] == expected
    blocked = build(parse("Airbench94 + SR(M=2, P=8)"), classes=100, image_size=32, seed=0)
    plain, narrower = (Airbench94(classes=100, widths=(64, width, width)) for width in (256, 262))
    assert count_parameters(narrower)[0] < count_parameters(blocked)[0] <= expected
    assert model(torch.zeros(2, 3, 32, 32)).shape == plain(torch.zeros(2, 3, 32, 32)).shape
    with pytest.raises(ValueError, match=r"3 groups of 1 channel or more, got widths=\(64, 256\)"):
        Airbench94(classes=100, widths=(64, 256))


def test_overheads_of_the_studys_blocks() -> None:
    def overhead(variant: str) -> float:
        return count_parameters(build(parse(variant), classes=100, image_size=32, seed=0))[1]

    memory = {stage: 8 * 256 * side**2 + 256 + 8 * side**2 + 8 * 8 for stage, side in ((2, 7), (3, 3))}  # Eq. 1
    for stage, expected in memory.items():
        assert math.isclose(overhead(f"Airbench94 + SR(M={stage}, P=8)"), 100 * expected / 1_995_832)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_whitening_layer_makes_patches_uncorrelated(channels: int) -> None:
    model, images = Airbench94(classes=2, channels=channels), noise(300, channels)
    model.whiten(images)
    size = 4 * channels
    out = model.whitening(images).detach().double()
    assert torch.equal(out[:, :size], -out[:, size:]), "each direction and its opposite"
    values = out[:, :size].permute(1, 0, 2, 3).flatten(1)
    products = (values @ values.T / values.shape[1]).numpy()
    patches = np.lib.stride_tricks.sliding_window_view(images.double().numpy(), (2, 2), (2, 3))
    variances = np.linalg.eigvalsh(np.cov(patches.transpose(1, 4, 5, 0, 2, 3).reshape(size, -1), bias=True))
    # Not centered; the images' mean is small. What is left of a direction's variance v is v / (v + 5e-4).
    assert np.allclose(products, np.diag(np.diag(products)), atol=1e-4)
    assert np.allclose(np.diag(products), variances[::-1] / (variances[::-1] + 5e-4), atol=0.05)
    assert np.diag(products).min() > 0.9


def test_whitening_filters_have_one_sign_and_fall_in_variance() -> None:
    filters = whitening_filters(noise(100), 2)
    half = filters[: len(filters) // 2].flatten(1)
    assert (half.gather(1, half.abs().argmax(1, keepdim=True)) > 0).all()
    lengths = half.norm(dim=1)
    assert (lengths.diff() > 0).all(), "the smaller the variance, the longer the filter"
    assert torch.allclose(whitening_filters(noise(100).flip(0), 2), filters)


def test_convolutions_start_by_passing_channels_on_and_batch_norm_has_no_scale() -> None:
    model = Airbench94(classes=10)
    x = torch.randn(2, 24, 8, 8)
    conv1, conv2 = model.layer1.conv1, model.layer2.conv2
    assert torch.allclose(conv1(x)[:, :24], x)
    assert not torch.allclose(conv1(x)[:, 24:48], x)
    wide = torch.randn(2, 256, 4, 4)
    assert torch.allclose(conv2(wide), wide)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"whitening.weight"} | {f"layer{s}.bn{n}.weight" for s in (1, 2, 3) for n in (1, 2)}
    assert all(model.get_parameter(name).eq(1).all() for name in frozen if "bn" in name)
    norm = model.layer1.bn1
    norm.train()(torch.full((2, 64, 3, 3), 5.0))
    assert torch.allclose(norm.running_mean, torch.tensor(2.0)), "two fifths of the way from 0 to 5"


def test_logits_are_a_ninth() -> None:
    model = Airbench94(classes=10).eval()
    features: list[Tensor] = []
    model.fc.register_forward_hook(lambda *a: features.append(a[2]))
    assert torch.allclose(model(torch.randn(2, 3, 32, 32)) * 9, features[0])


def test_attention_ends_a_group_and_a_regularizer_stands_before_its_batch_norms() -> None:
    model = build(parse("Airbench94 + DB(M=2+3) + SE"), classes=10, image_size=32, seed=0)
    names = [name for name, module in model.named_modules() if isinstance(module, DropBlock)]
    assert names == ["layer2.drop1", "layer2.drop2", "layer3.drop1", "layer3.drop2"]
    order: list[str] = []
    for name, module in model.layer2.named_children():
        module.register_forward_hook(lambda *_, name=name: order.append(name))
    model(torch.randn(2, 3, 32, 32))
    assert order == [
        "conv1", "pool", "drop1", "bn1", "activation1", "conv2", "drop2", "bn2", "activation2", "attention",
    ]  # fmt: skip
    assert type(model.layer1.attention).__name__ == "SEModule"


def test_variants_of_a_seed_share_weights() -> None:
    def weights(variant: str, seed: int = 0) -> dict[str, Tensor]:
        return build(parse(variant), classes=10, image_size=32, seed=seed).state_dict()

    plain = weights("Airbench94")
    for other in ("Airbench94 + SE", "Airbench94 + SR(M=3, P=8)", "Airbench94 + D2D"):
        assert all(torch.equal(weights(other)[key], value) for key, value in plain.items())
    assert not torch.equal(weights("Airbench94", 1)["fc.weight"], plain["fc.weight"])


@pytest.mark.parametrize(
    ("variant", "size", "message"),
    [
        ("Airbench94", 8, r"needs images of 9x9 or more, got 8x8; enlarge the images \(--image-size 16\)"),
        ("Airbench94 + SR(M=4)", 32, "Airbench94 has stages 1 to 3, got M=4"),
        ("Airbench94 + D(M=4)", 32, "D stands in stages 1 to 3 of Airbench94"),
    ],
)
def test_refuses(variant: str, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(parse(variant), classes=10, image_size=size, seed=0)


def test_refuses_small_images_when_called() -> None:
    with pytest.raises(ValueError, match=r"images of 9x9 pixels or more, got \(2, 3, 8, 8\)"):
        Airbench94(classes=10)(torch.zeros(2, 3, 8, 8))
    assert Airbench94(classes=10)(torch.zeros(2, 3, 9, 9)).shape == (2, 10)


# --- in a study ------------------------------------------------------------------------------------------------------


def study(**changes: Any) -> Study:
    data = by_images()
    recipe = recipe_for(data, CPU, "airbench", epochs=2, batch_size=16, **changes)
    return Study((parse("Airbench94"),), (0, 1), data, "noise", recipe)


def test_a_study_whitens_by_the_training_part_alone() -> None:
    """The layer is that of the split's training images, normalized by their own figures, and is the same every time."""
    here = study()
    built = here.build(parse("Airbench94"), 0)
    train_loader = here.loaders(0, CPU).train
    index = train_loader.plan.samples
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (train_loader.mean, train_loader.std))
    images = (here.data.train_images[index].float() / 255 - mean) / std
    assert len(index) == 54
    expected = Airbench94(classes=2)
    expected.whiten(images)
    assert torch.allclose(built.whitening.weight, expected.whitening.weight, atol=1e-4)
    assert torch.equal(built.whitening.weight, here.build(parse("Airbench94 + SR(M=3)"), 0).whitening.weight)
    assert not torch.equal(built.whitening.weight, here.build(parse("Airbench94"), 1).whitening.weight)


def test_a_large_set_is_whitened_by_images_spread_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 may lie sorted by class: the first images would be of one class."""
    monkeypatch.setattr("srblock.runs.loaders.WHITENED", 10)
    seen: list[Tensor] = []
    monkeypatch.setattr(Airbench94, "whiten", lambda self, images: seen.append(images))
    here = study(validation_fraction=0.0)
    here.build(parse("Airbench94"), 0)
    whole = next(here.loaders(0, CPU).test.epoch(0))[0]  # the first 20 images, normalized alike
    assert len(seen[0]) == 10
    assert torch.allclose(seen[0][:4], whole[0:20:6])


def test_weights_from_a_file_bring_their_whitening_layer(tmp_path: Path) -> None:
    here = study()
    saved = here.build(parse("Airbench94"), 1)
    save_file(saved.state_dict(), tmp_path / "weights.safetensors")
    started = replace(here, weights=tmp_path / "weights.safetensors").build(parse("Airbench94"), 0)
    assert all(torch.equal(value, saved.state_dict()[key]) for key, value in started.state_dict().items())


@pytest.mark.parametrize("network", ["R8", "R20", "Airbench94"])
def test_the_recipe_trains_other_networks_too(tmp_path: Path, network: str) -> None:
    """Two classes of different brightness, 32 steps."""
    here = replace(study(validation_fraction=0.0), variants=(parse(network),))
    here = replace(here, recipe=replace(here.recipe, epochs=8))
    model = here.build(here.variants[0], 0)
    result = train(model, here.loaders(0, CPU), here.task, here.recipe, directory=tmp_path, run="t", seed=0, device=CPU)
    assert result["test_top1"] >= 90


def test_the_recipe_is_the_published_one() -> None:
    """The program's table of hyper-parameters."""
    recipe = RECIPES["airbench"]
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (10, 1024, 11.5)
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay, recipe.bias_lr_scale) == (0.85, True, 0.0153, 64)
    assert (recipe.label_smoothing, recipe.padding, recipe.padding_mode) == (0.2, 2, "reflect")
    assert (recipe.flip, recipe.alternating_flip, recipe.tta) == (True, True, "flip+translate")
    assert (recipe.lookahead, recipe.decoupled, recipe.schedule) == (True, True, "triangular")


@pytest.mark.parametrize(
    ("side", "flip", "expected"),
    [
        (32, True, {"padding": 2, "alternating_flip": True, "tta": "flip+translate"}),
        (64, True, {"padding": 4}),
        (16, False, {"padding": 1, "flip": False, "alternating_flip": False, "tta": "none"}),
    ],
)
def test_the_recipe_fits_the_data(side: int, flip: bool, expected: dict[str, Any]) -> None:
    recipe = recipe_for(image_data("flowers", side, flip), CPU, "airbench")
    assert {name: getattr(recipe, name) for name in expected} == expected


class ByHand:
    """The publication's training rules for a network with batch norm, written down from its program."""

    def __init__(self, model: nn.Sequential, recipe: Recipe, total: int) -> None:
        self.model, self.recipe, self.total, self.step = model, recipe, total, 0
        kilostep = 1024 * (1 + 1 / (1 - recipe.momentum))
        lr = recipe.learning_rate / kilostep  # for losses summed over images
        decay = recipe.weight_decay * recipe.batch_size / kilostep
        biases = [module.bias for module in model if isinstance(module, nn.BatchNorm2d)]
        others = [p for p in model.parameters() if p.requires_grad and all(p is not bias for bias in biases)]
        self.optimizer = torch.optim.SGD(
            [
                {"params": biases, "lr": 64 * lr, "weight_decay": decay / (64 * lr)},
                {"params": others, "lr": lr, "weight_decay": decay / lr},
            ],
            momentum=recipe.momentum,
            nesterov=True,
        )
        self.top = [group["lr"] for group in self.optimizer.param_groups]
        self.slow = {key: value.clone() for key, value in model.state_dict().items() if value.is_floating_point()}

    def train(self, images: Tensor, labels: Tensor) -> None:
        share = self.step / self.total
        factor = 0.2 + 0.8 * share / 0.23 if share < 0.23 else 1 - 0.93 * (share - 0.23) / 0.77
        for group, top in zip(self.optimizer.param_groups, self.top, strict=True):
            group["lr"] = top * factor
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(images), labels, label_smoothing=0.2, reduction="sum").backward()
        self.optimizer.step()
        self.step += 1
        own = self.model.state_dict()
        if self.step % 5 == 0:
            keep = 0.95**5 * (self.step / self.total) ** 3
            for key, value in self.slow.items():
                value.mul_(keep).add_(own[key], alpha=1 - keep)
                own[key].copy_(value)
        if self.step == self.total:
            for key, value in self.slow.items():
                own[key].copy_(value)


def tiny() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(144, 2)
    layers[1].weight.requires_grad_(False)
    return nn.Sequential(*layers)


TINY = replace(RECIPES["airbench"], epochs=4, batch_size=16, padding=1, flip=False, alternating_flip=False, tta="none",
               learning_rate=2.0, memory_format="contiguous", validation_fraction=0.0)  # fmt: skip


def part_loaders() -> Any:
    return replace(loaders(TINY), validation=None)


def test_training_follows_the_published_rules(tmp_path: Path) -> None:
    """24 steps: rates, decays, momentum, lookahead with batch statistics, and the slow weights at the end."""
    model = tiny()
    result = train(model, part_loaders(), TASK, TINY, directory=tmp_path, run="t", seed=0, device=CPU)
    expected = ByHand(tiny(), TINY, 24)
    for epoch in range(4):
        for images, labels in part_loaders().train.epoch(epoch):
            expected.train(images, labels)
    for (name, ours), theirs in zip(model.state_dict().items(), expected.model.state_dict().values(), strict=True):
        assert torch.allclose(ours.float(), theirs.float(), atol=1e-5), name
    assert result["best_epoch"] == 4


def test_goes_on_from_between_two_looks_ahead(tmp_path: Path) -> None:
    """Six steps an epoch: an epoch ends where the slow weights are not the model's."""

    class Stop(Exception): ...

    def stop(record: dict[str, Any]) -> None:
        if record["epoch"] == 2:
            raise Stop

    options: dict[str, Any] = {"run": "t", "seed": 0, "device": CPU}
    whole, again = tiny(), tiny()
    (tmp_path / "whole").mkdir(), (tmp_path / "again").mkdir()
    train(whole, part_loaders(), TASK, TINY, directory=tmp_path / "whole", **options)
    with pytest.raises(Stop):
        train(tiny(), part_loaders(), TASK, TINY, directory=tmp_path / "again", on_epoch=stop, **options)
    saved = load_file(tmp_path / "again" / "trainer.safetensors")
    slow = {key for key in saved if key.startswith("slow/")}
    assert len(slow) == 7, "five parameters, and mean and variance of the batch norm"
    assert any(not torch.equal(saved[key], saved[key.replace("slow", "model")]) for key in slow)
    train(again, part_loaders(), TASK, TINY, directory=tmp_path / "again", **options)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_state_without_slow_weights_is_refused(tmp_path: Path) -> None:
    def stop(record: dict[str, Any]) -> None:
        raise RuntimeError

    options: dict[str, Any] = {"directory": tmp_path, "run": "t", "seed": 0, "device": CPU}
    without = replace(TINY, lookahead=False)
    with pytest.raises(RuntimeError):
        train(tiny(), part_loaders(), TASK, without, on_epoch=stop, **options)
    with pytest.raises(CheckpointError, match="does not fit the network"):
        train(tiny(), part_loaders(), TASK, TINY, **options)
