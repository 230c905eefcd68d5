"""VGGs: exact parameter counts, stages that end in their max-pool, the paper's initialization."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from srblock.models.vgg import VGG


def seeded(dropout: float = 0.0) -> VGG:
    torch.manual_seed(3)
    return VGG("VGG16", classes=10, dropout=dropout)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("VGG16", 100, 15_299_748),
        ("VGG19", 100, 20_612_004),
        ("VGG16", 10, 15_253_578),
        ("VGG19", 10, 20_565_834),
    ],
)
def test_parameter_counts(name: str, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in VGG(name, classes=classes).parameters()) == parameters


@pytest.mark.parametrize("side", [32, 64, 224])
def test_a_stage_ends_in_its_max_pool(side: int) -> None:
    with torch.device("meta"):
        model = VGG("VGG16", classes=7, channels=1)
        shapes = []
        for stage in range(1, 6):
            assert isinstance(getattr(model, model.stage(stage))[-1], nn.MaxPool2d)
            getattr(model, model.stage(stage)).register_forward_hook(
                lambda _, __, map: shapes.append(tuple(map.shape[1:]))
            )
        assert model(torch.empty(2, 1, side, side)).shape == (2, 7)
    assert shapes == [(width, side >> n, side >> n) for n, width in enumerate((64, 128, 256, 512, 512), start=1)]


def test_initialization_is_gaussian_for_convolutions_and_kaiming_uniform_for_linear_layers() -> None:
    model = seeded()
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * module.out_channels)), rel=0.05)
            assert module.weight.abs().max() > 2.2 * module.weight.std()  # a uniform draw ends at 1.73
            assert module.bias is not None
            assert (module.bias == 0).all()
    for linear, gain in zip(linears, (6, 6, 3), strict=True):
        bound = math.sqrt(gain / 512)
        assert 0.99 * bound < linear.weight.abs().max() <= bound
        assert (linear.bias == 0).all()


def test_dropout_is_in_the_head_only_in_training_only_and_moves_no_name() -> None:
    plain, dropped = seeded(), seeded(0.5)
    assert plain.state_dict().keys() == dropped.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), dropped.parameters(), strict=True))
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(plain.eval()(x), dropped.eval()(x))
    maps: dict[str, torch.Tensor] = {}
    for index, name in ((0, "first"), (3, "second")):
        hook = lambda _, inputs, out, name=name: maps.update({name: inputs[0].clone(), f"{name} dropped": out.clone()})  # noqa: E731
        dropped.head[index].register_forward_hook(hook)
    dropped.train()(torch.randn(16, 3, 32, 32))
    for name in ("first", "second"):
        before, after = maps[name], maps[f"{name} dropped"]
        kept = after != 0
        assert 0.4 < kept[before != 0].float().mean() < 0.6
        torch.testing.assert_close(after[kept], 2 * before[kept])


def test_gradients_reach_every_weight() -> None:
    model = seeded()
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # Batch norm takes away what a convolution's bias adds, so those gradients may be zero.
    assert not [name for name in dead if name.endswith("weight")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VGG("VGG11", classes=10), "expected one of VGG16, VGG19, got 'VGG11'"),
        (lambda: VGG("VGG16", classes=10, dropout=1.0), "at least 0 and below 1, got 1.0"),
        (
            lambda: VGG("VGG16", classes=10)(torch.empty(2, 3, 28, 32)),
            "needs images of 32x32 or more, got .2, 3, 28, 32.",
        ),
    ],
)
def test_refuses(make: object, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
