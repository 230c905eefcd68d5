"""ResNets: exact parameter counts, parity with torchvision, shapes, and what a seed decides."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import nn

from srblock.models.regularizers import regularizer
from srblock.models.resnet import SHAPES, PaddedShortcut, ResNet


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def seeded(name: str, **options: object) -> ResNet:
    torch.manual_seed(3)
    return ResNet(name, classes=10, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "classes", "form", "parameters"),
    [
        ("R18", 100, "cifar", 11_220_132),
        ("R34", 100, "cifar", 21_328_292),
        ("R50", 100, "cifar", 23_705_252),
        ("R18", 10, "cifar", 11_173_962),
        ("R34", 10, "cifar", 21_282_122),
        ("R50", 10, "cifar", 23_520_842),
        ("R50", 1000, "imagenet", 25_557_032),
        ("R20", 10, "cifar", 269_722),  # 0.27M in He et al., Table 6
        ("R8", 10, "cifar", 75_290),
    ],
)
def test_parameter_counts(name: str, classes: int, form: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count(ResNet(name, classes=classes, form=form)) == parameters


@pytest.mark.parametrize(("name", "theirs"), [("R18", "resnet18"), ("R34", "resnet34"), ("R50", "resnet50")])
def test_imagenet_form_has_torchvisions_names_and_shapes(name: str, theirs: str) -> None:
    with torch.device("meta"):
        ours, reference = ResNet(name, classes=1000, form="imagenet"), torchvision.models.get_model(theirs)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in reference.state_dict().items()}


@pytest.mark.parametrize(("name", "theirs"), [("R18", "resnet18"), ("R50", "resnet50")])
def test_imagenet_form_computes_what_torchvision_computes(name: str, theirs: str) -> None:
    ours = seeded(name, form="imagenet")
    with torch.device("meta"):
        reference = torchvision.models.get_model(theirs, num_classes=10)
    reference.load_state_dict({key: value.clone() for key, value in ours.state_dict().items()}, assign=True)
    x = torch.randn(2, 3, 64, 96)
    for training in (True, False):
        torch.testing.assert_close(ours.train(training)(x), reference.train(training)(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", SHAPES)
def test_cifar_form_halves_the_map_at_every_stage_but_the_first(name: str) -> None:
    with torch.device("meta"):
        model = ResNet(name, classes=7, channels=1)
        sides = []
        for stage in range(1, len(SHAPES[name].blocks) + 1):
            getattr(model, f"layer{stage}").register_forward_hook(lambda _, __, map: sides.append(tuple(map.shape[1:])))
        assert model(torch.empty(2, 1, 32, 32)).shape == (2, 7)
    width = SHAPES[name].width * (4 if name == "R50" else 1)
    assert sides == [(width << stage, 32 >> stage, 32 >> stage) for stage in range(len(sides))]


def test_imagenet_form_shrinks_224_to_7() -> None:
    with torch.device("meta"):
        model = ResNet("R50", classes=1000, form="imagenet")
        shapes = []
        model.layer4.register_forward_hook(lambda _, __, map: shapes.append(tuple(map.shape)))
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert shapes == [(2, 2048, 7, 7)]


def test_weights_start_kaiming_uniform() -> None:
    model = seeded("R18")
    for module in model.modules():
        match module:
            case nn.Conv2d():
                bound = math.sqrt(6 / module.weight[0].numel())
                assert 0.99 * bound < module.weight.abs().max() <= bound
            case nn.BatchNorm2d():
                assert (module.weight == 1).all()
                assert (module.bias == 0).all()
    bound = math.sqrt(3 / 512)
    assert 0.99 * bound < model.fc.weight.abs().max() <= bound
    assert (model.fc.bias == 0).all()


DROPBLOCK = {"regularizer": lambda: regularizer("DB", 0.1, 3), "regularized": (2, 3)}


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("R8", {"attention": "SE"}),
        ("R8", {"attention": "CBAM"}),
        ("R8", DROPBLOCK),
        ("R50", {"attention": "SE", **DROPBLOCK}),
    ],
)
def test_shared_parameters_start_equal_whatever_else_is_built(name: str, extra: dict[str, object]) -> None:
    plain, other = seeded(name).state_dict(), seeded(name, **extra).state_dict()
    assert plain.keys() <= other.keys()
    for key, value in plain.items():
        assert torch.equal(value, other[key]), key


def layers_of(model: nn.Module, kind: type[nn.Module]) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, kind)]


def test_regularizers_stand_between_convolution_and_batch_norm_shortcuts_included() -> None:
    with torch.device("meta"):
        options = {"regularizer": lambda: regularizer("D", 0.1), "regularized": (3, 4)}
        basic, deep = (ResNet(name, classes=10, **options) for name in ("R18", "R50"))  # type: ignore[arg-type]
    assert layers_of(basic, nn.Dropout) == [
        f"layer{stage}.{place}"
        for stage in (3, 4)
        for place in ("0.drop1", "0.drop2", "0.downsample.drop", "1.drop1", "1.drop2")
    ]
    assert len(layers_of(deep, nn.Dropout)) == 3 * (6 + 3) + 2
    order = [type(module).__name__ for module in basic.layer3[0].downsample]
    assert order == ["Conv2d", "Dropout", "BatchNorm2d"]


def test_regularizer_acts_on_what_enters_the_batch_norm() -> None:
    model = ResNet("R8", classes=10, regularizer=lambda: nn.Dropout2d(0.5), regularized=(3,))
    entered: list[torch.Tensor] = []
    model.layer3[0].bn2.register_forward_hook(lambda _, inputs, __: entered.append(inputs[0]))
    model(torch.randn(8, 3, 16, 16))
    channels = entered[0].flatten(2).abs().sum(2)
    assert 0.3 < (channels == 0).float().mean() < 0.7


@pytest.mark.parametrize("kind", ["D", "D2D", "DB"])
def test_regularizers_act_in_training_only(kind: str) -> None:
    dropped = seeded("R8", regularizer=lambda: regularizer(kind, 0.5, 3), regularized=(3,))
    plain = seeded("R8")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(dropped.eval()(x), plain.eval()(x))
    assert not torch.equal(dropped.train()(x), plain.train()(x))


@pytest.mark.parametrize("attention", [None, "SE", "CBAM"])
def test_gradients_reach_every_parameter(attention: str | None) -> None:
    model = seeded("R8", attention=attention)
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


def test_channels_last_computes_the_same_and_stays_channels_last() -> None:
    x = torch.randn(4, 3, 32, 32)
    model = seeded("R20").eval()
    expected = model(x)
    layouts = []
    for module in model.modules():
        module.register_forward_hook(lambda _, __, map: layouts.append(map))
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)
    maps = [map for map in layouts if map.dim() == 4 and map.shape[2] > 1]
    assert len(maps) > 50
    assert all(map.is_contiguous(memory_format=torch.channels_last) for map in maps)


def test_padded_shortcut_subsamples_and_appends_zeros() -> None:
    x = torch.randn(2, 3, 5, 4)
    y = PaddedShortcut(2, 2)(x)
    assert y.shape == (2, 5, 3, 2)
    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()
    model = seeded("R20")
    assert not [name for name in model.state_dict() if "downsample" in name]


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_inner_place_is_called_once_and_has_the_inner_width(stage: int) -> None:
    with torch.device("meta"):
        model = ResNet("R50", classes=10)
        shapes = []
        model.get_submodule(model.inner(stage)).register_forward_hook(
            lambda _, __, map: shapes.append(tuple(map.shape))
        )
        model(torch.empty(2, 3, 32, 32))
    side = 32 >> (stage - 1)
    assert shapes == [(2, 64 << (stage - 1), side, side)]
    assert model.inner(stage).rsplit(".", 2)[0] == f"layer{stage}"
    assert int(model.inner(stage).split(".")[1]) == len(getattr(model, f"layer{stage}")) - 1


def test_inner_place_feeds_the_last_convolution() -> None:
    with torch.device("meta"):
        model = ResNet("R50", classes=10)
        last = model.get_submodule("layer3.5")
        seen: list[torch.Tensor] = []
        model.get_submodule(model.inner(3)).register_forward_hook(lambda _, __, map: seen.append(map))
        last.conv3.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        model(torch.empty(2, 3, 32, 32))
    assert seen[0] is seen[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "R19"}, "expected one of R8, R18, R20, R34, R50, got 'R19'"),
        ({"name": "R18", "form": "tiny"}, "form must be 'cifar' or 'imagenet', got 'tiny'"),
        ({"name": "R8", "form": "imagenet"}, "R8 is for small images and has no ImageNet form"),
        ({"name": "R8", "regularized": (4,)}, r"R8 has stages 1 to 3, got regularized=\[4\]"),
    ],
)
def test_refuses(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNet(classes=10, **arguments)  # type: ignore[arg-type]


def test_refuses_inner_places_that_do_not_exist() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="this network has basic blocks: use 'stage' or R50"):
        ResNet("R18", classes=10).inner(3)
    with torch.device("meta"), pytest.raises(ValueError, match="stages are 1 to 4, got 5"):
        ResNet("R50", classes=10).inner(5)
