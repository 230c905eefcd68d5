"""Segmentation networks: the paper's parameter counts and overheads, parity of the heads, both modes, the block."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import ASPP

from srblock import surgery
from srblock.block import SqueezeRemember2d
from srblock.inspection.cost import cost
from srblock.models.segmentation import DESIGNS, ASPPHead, FCNHead, Segmentation
from srblock.variants.build import build, outline
from srblock.variants.notation import parse

CROP = (512, 1024)


def seeded(name: str = "FCN-R18", **options: Any) -> Segmentation:
    torch.manual_seed(3)
    return Segmentation(name, **{"classes": 5, **options})


def made(text: str, size: tuple[int, int] = (40, 48), **options: Any) -> nn.Module:
    return build(parse(text), **{"classes": 5, "image_size": size, "seed": 0, **options})


def outlined(text: str, size: tuple[int, int] = CROP) -> nn.Module:
    return outline(parse(text), classes=19, image_size=size)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- the paper's figures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("FCN-R50", 49_497_734),
        ("FCN-R50-D8", 49_497_734),
        ("DLv3-R50", 68_113_030),
        ("FCN-R18", 12_822_342),
        ("DLv3-R18", 13_986_374),
    ],
)
def test_parameter_counts(name: str, parameters: int) -> None:
    assert count(outlined(name)) == parameters


@pytest.mark.parametrize(
    ("text", "shape", "added", "printed"),
    [
        ("FCN-R50 + SR(M=3, P=3, U=32)", (3, 1024, 32, 64), 6_358_112, "12.85"),
        ("DLv3-R50 + SR(M=3, P=2, U=16)", (2, 1024, 64, 128), 16_909_344, "24.83"),
    ],
)
def test_the_overheads_that_table_iv_prints(text: str, shape: tuple[int, ...], added: int, printed: str) -> None:
    """Eq. (1); the paper's M=2 counts from zero."""
    counted = cost(outlined(text), (3, *CROP))
    (block,) = surgery.blocks(outlined(text)).values()
    assert block.memory.maps().shape == shape
    plain = count(outlined(text.split(" ")[0]))
    assert counted.parameters - plain == added
    assert f"{counted.overhead_percent:.2f}" == f"{100 * added / plain:.2f}" == printed


@pytest.mark.parametrize(("name", "gmac"), [("FCN-R50", 115.7), ("DLv3-R50", 539.1)])
def test_operations_are_those_of_the_audit(name: str, gmac: float) -> None:
    """Counted in evaluation mode, without the auxiliary head."""
    assert cost(outlined(name), (3, *CROP)).flops_per_image / 2e9 == pytest.approx(gmac, abs=0.05)


# --- heads -----------------------------------------------------------------------------------------------------------


def layers(head: nn.Module, kind: type[nn.Module] = nn.Conv2d) -> list[Any]:
    return [module for module in head.modules() if isinstance(module, kind)]


@pytest.mark.parametrize(
    ("name", "head", "auxiliary"),
    [
        ("FCN-R50", [(2048, 512, 6), (512, 512, 6), (2560, 512, 1)], [(1024, 256, 6)]),
        ("FCN-R50-D8", [(2048, 512, 1), (512, 512, 1), (2560, 512, 1)], [(1024, 256, 1)]),
        (
            "DLv3-R50",
            [(2048, 512, 12), (2048, 512, 24), (2048, 512, 36), (2560, 512, 1)],
            [(1024, 256, 1)],
        ),
        ("FCN-R18", [(512, 128, 1), (128, 128, 1), (640, 128, 1)], [(256, 64, 1)]),
        ("DLv3-R18", [(512, 128, 12), (512, 128, 24), (512, 128, 36), (640, 128, 1)], [(256, 64, 1)]),
    ],
)
def test_3x3_convolutions_of_the_heads(
    name: str, head: list[tuple[int, int, int]], auxiliary: list[tuple[int, int, int]]
) -> None:
    model = outlined(name)
    for part, expected in ((model.head, head), (model.auxiliary, auxiliary)):
        convs = [conv for conv in layers(part) if conv.kernel_size == (3, 3)]
        assert [(conv.in_channels, conv.out_channels, conv.dilation[0]) for conv in convs] == expected
        assert all(conv.padding == conv.dilation and conv.bias is None for conv in convs)
        assert [layer.p for layer in layers(part, nn.Dropout2d)] == [0.1]
        assert part.classifier.bias is not None


def test_aspp_sees_what_torchvisions_sees() -> None:
    """All branches, the global mean among them, as they come to what brings them together."""
    torch.manual_seed(0)
    ours, theirs = ASPPHead(6, 4, 3), ASPP(6, [12, 24, 36], 4)
    with torch.no_grad():
        for conv, other in zip([*layers(ours.branches), *layers(ours.mean)], layers(theirs.convs), strict=True):
            other.weight.copy_(conv.weight)
    met: list[Tensor] = []
    for module in (ours.bottleneck, theirs.project):
        module.register_forward_pre_hook(lambda _, args: met.append(args[0]))
    x = torch.randn(2, 6, 40, 50)
    for training in (True, False):
        ours.train(training)(x)
        theirs.train(training)(x)
        mine, other = met
        torch.testing.assert_close(torch.cat([mine[:, 4:], mine[:, :4]], 1), other)
        met.clear()


def test_the_fcn_head_concatenates_its_input_before_its_last_convolution() -> None:
    torch.manual_seed(0)
    head = FCNHead(3, 2, 4, convs=2, dilation=6, concatenate=True).eval()
    x = torch.randn(2, 3, 9, 11)
    first, second, last, classifier = (conv.weight for conv in layers(head))
    scale = 1 / math.sqrt(1 + 1e-5)  # of a fresh batch norm
    y = F.relu(F.conv2d(F.relu(F.conv2d(x, first, padding=6, dilation=6) * scale), second, padding=6, dilation=6))
    y = F.relu(F.conv2d(torch.cat([x, y * scale], 1), last, padding=1) * scale)
    torch.testing.assert_close(head(x), F.conv2d(y, classifier, head.classifier.bias))


def test_heads_drop_whole_channels_in_training() -> None:
    head = FCNHead(3, 64, 4, convs=1, dilation=1, concatenate=False)
    seen: list[Tensor] = []
    head.dropout.register_forward_hook(lambda _, args, out: seen.extend((args[0], out)))
    head(torch.randn(32, 3, 5, 6))
    before, after = (value.flatten(2).abs().sum(2) for value in seen)
    assert 0.05 < (after[before != 0] == 0).float().mean() < 0.15


# --- forward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DESIGNS)
def test_logits_have_the_images_size_in_both_modes(name: str) -> None:
    with torch.device("meta"):
        model = Segmentation(name, classes=7, channels=4)
        for size in ((32, 32), (33, 70), CROP):
            logits = model.train()(torch.empty(2, 4, *size))
            assert {key: tuple(value.shape) for key, value in logits.items()} == {
                "out": (2, 7, *size),
                "aux": (2, 7, *size),
            }
            assert model.eval()(torch.empty(1, 4, *size)).shape == (1, 7, *size)


def test_logits_are_resized_bilinearly_without_aligned_corners() -> None:
    model = seeded().eval()
    x = torch.randn(2, 3, 37, 50)
    small: list[Tensor] = []
    model.head.register_forward_hook(lambda _, __, out: small.append(out))
    logits = model(x)
    assert small[0].shape == (2, 5, 5, 7)
    torch.testing.assert_close(logits, F.interpolate(small[0], (37, 50), mode="bilinear", align_corners=False))


def test_the_auxiliary_head_looks_at_stage_3() -> None:
    model = seeded()
    maps: list[Tensor] = []
    model.layer3.register_forward_hook(lambda _, __, out: maps.append(out))
    model.auxiliary.register_forward_pre_hook(lambda _, args: maps.append(args[0]))
    model(torch.randn(2, 3, 32, 40))
    assert maps[0] is maps[1]
    model.eval()(torch.randn(2, 3, 32, 40))
    assert len(maps) == 3, "in evaluation mode it is not asked"


@pytest.mark.parametrize("name", ["FCN-R18", "DLv3-R18"])
def test_gradients_reach_every_parameter(name: str) -> None:
    model = seeded(name)
    logits = model(torch.randn(2, 3, 64, 48))
    (logits["out"].square().sum() + logits["aux"].square().sum()).backward()
    assert not [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]


def test_one_image() -> None:
    one = torch.randn(1, 3, 32, 40)
    deep = seeded("DLv3-R18")
    with pytest.raises(ValueError, match=r"DeepLabv3 cannot be trained on a batch of one image.*use batches of two or"):
        deep(one)
    assert deep.eval()(one).shape == (1, 5, 32, 40)
    for module in layers(deep.train(), nn.BatchNorm2d):
        module.eval()  # as those do who fine-tune with frozen statistics
    assert deep(one)["out"].shape == (1, 5, 32, 40)
    assert seeded("FCN-R18")(one)["out"].shape == (1, 5, 32, 40)


def test_refusals() -> None:
    with torch.device("meta"):
        with pytest.raises(ValueError, match=r"images of 32x32 pixels or more, got \(2, 3, 31, 64\)"):
            Segmentation("FCN-R18", classes=5)(torch.empty(2, 3, 31, 64))
        with pytest.raises(ValueError, match="stages are 1 to 4, got 5"):
            Segmentation("FCN-R18", classes=5).stage(5)
        with pytest.raises(ValueError, match=r"expected one of FCN-R50, .*, got 'FCN-R34'"):
            Segmentation("FCN-R34", classes=5)


def test_initialization_is_kaiming_normal_by_fan_out_and_small_for_classifiers() -> None:
    model = seeded("DLv3-R18", classes=200)
    for module in model.modules():
        match module:
            case nn.Conv2d(bias=None):
                deviation = math.sqrt(2 / (module.out_channels * math.prod(module.kernel_size)))
                assert module.weight.std().item() == pytest.approx(deviation, rel=0.06)
                assert module.weight.abs().max() > 2.2 * deviation  # a uniform draw ends at 1.73
            case nn.Conv2d():
                assert module.weight.std().item() == pytest.approx(0.01, rel=0.05)
                assert (module.bias == 0).all()
            case nn.BatchNorm2d():
                assert (module.weight == 1).all()
                assert (module.bias == 0).all()


# --- the block -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["FCN-R18", "DLv3-R18", "FCN-R50"])
def test_stages_have_the_same_numbers_for_surgery(name: str) -> None:
    model = outlined(name, (64, 96))
    numbered = {stage.number: stage.name for stage in surgery.stages(model, (3, 64, 96)) if stage.number}
    assert numbered == {number: f"layer{number}" for number in range(1, 5)}


@pytest.mark.parametrize("hollow", [False, True])
def test_a_block_changes_nothing_at_first_and_learns_from_both_heads(hollow: bool) -> None:
    model, x = seeded("DLv3-R18"), torch.randn(2, 3, 40, 56)
    plain = copy.deepcopy(model)
    state = torch.get_rng_state()
    done = surgery.insert(model, after="layer3", input_size=(3, 40, 56), hollow=hollow, blocks=2, hidden=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert (done.name, done.channels, done.size) == ("layer3", 256, (5, 7))
    assert {value.device.type for value in done.block.parameters()} == {"cpu"}
    for training in (True, False):
        torch.manual_seed(1)
        before = plain.train(training)(x)
        torch.manual_seed(1)
        after = model.train(training)(x)
        assert type(after) is (dict if training else Tensor)
        for new, old in zip(after.values(), before.values(), strict=True) if training else [(after, before)]:
            assert torch.equal(new, old)
    logits = model.train()(x)
    memory = done.block.memory.values
    for key in ("out", "aux"):
        (gradient,) = torch.autograd.grad(logits[key].square().sum(), memory, retain_graph=True)
        assert gradient.any(), key
    untouched = model.eval()(x)
    with torch.no_grad():
        memory.normal_()
    assert not torch.equal(model(x), untouched)
    with surgery.bypassed(model):
        assert torch.equal(model(x), untouched)
    assert surgery.remove(model) == ["layer3"]
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_a_hollow_trial_sees_a_batch_norm_that_does_not_fit() -> None:
    def network(channels: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(channels), nn.ReLU()).to(
            memory_format=torch.channels_last
        )

    assert surgery.insert(network(4), after="1", input_size=8, hollow=True).size == (6, 6)
    with pytest.raises(ValueError, match="the model does not run on"):
        surgery.insert(network(5), after="1", input_size=8, hollow=True)


def test_a_hollow_trial_runs_on_the_meta_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[tuple[str, str]] = []
    forward = SqueezeRemember2d.forward

    def noted(block: SqueezeRemember2d, x: Tensor) -> Tensor:
        devices.append((x.device.type, block.memory.values.device.type))
        return forward(block, x)

    monkeypatch.setattr(SqueezeRemember2d, "forward", noted)
    surgery.insert(seeded(), after=3, input_size=(64, 64), hollow=True)
    assert set(devices) == {("meta", "meta")}


def test_a_block_tried_without_arithmetic_is_the_same_block() -> None:
    states = []
    for hollow in (False, True):
        model = seeded("FCN-R18")
        surgery.insert(model, after=3, input_size=(64, 64), hollow=hollow)
        states.append(model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("hollow", [False, True])
def test_no_block_stands_where_only_training_passes(hollow: bool) -> None:
    model = seeded("FCN-R18")
    with pytest.raises(
        ValueError, match=r"cannot insert a block after 'auxiliary.convs': it is not called in a forward"
    ):
        surgery.insert(model, after="auxiliary.convs", input_size=(64, 64), hollow=hollow)


# --- from the notation -----------------------------------------------------------------------------------------------


def test_images_need_not_be_square_nor_maps_come_out_whole() -> None:
    model = made("FCN-R18 + SR(M=3, P=2) + SR(M=4, P=2, resize=bilinear)", (33, 50))
    assert {name: block.size for name, block in surgery.blocks(model).items()} == {"layer3": (5, 7), "layer4": (5, 7)}
    assert model.training
    assert model(torch.randn(2, 3, 33, 50))["out"].shape == (2, 5, 33, 50)


def test_variants_share_their_weights_and_a_seed_decides_them() -> None:
    plain, other = made("FCN-R18").state_dict(), made("FCN-R18 + SR(M=3)").state_dict()
    assert all(torch.equal(value, other[key]) for key, value in plain.items())
    assert not torch.equal(
        made("FCN-R18", seed=1).state_dict()["layer3.0.conv1.weight"], plain["layer3.0.conv1.weight"]
    )


@pytest.mark.parametrize("text", list(DESIGNS))
def test_small_images_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text} shrinks its maps and needs images of 32x32 or more, got 31x64"):
        outlined(text, (31, 64))


def saved(folder: Path, state: dict[str, Tensor]) -> Path:
    path = folder / "weights.safetensors"
    save_file(state, path)
    return path


def test_torchvisions_weights_go_into_the_backbone(tmp_path: Path) -> None:
    trained = torchvision.models.resnet18()
    path, said = saved(tmp_path, trained.state_dict()), []
    model = made("FCN-R18 + SR(M=3)", weights=path, report=said.append)
    assert said == [f"{path} has a backbone alone; as they were built stay: head, auxiliary"]
    own = model.state_dict()
    for key, value in trained.state_dict().items():
        assert key.startswith("fc.") or torch.equal(own[key], value), key
    fresh = made("FCN-R18", stem="7x7").state_dict()
    heads = [key for key in fresh if key.startswith(("head.", "auxiliary."))]
    assert heads
    assert all(torch.equal(own[key], fresh[key]) for key in heads)


@pytest.mark.parametrize("channels", [3, 1])
def test_pretrained_has_torchvisions_stem(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    trained = torchvision.models.resnet18()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda url, **_: trained.state_dict())
    said: list[str] = []
    model = made("DLv3-R18", pretrained=True, channels=channels, report=said.append)
    assert said == ["torchvision's resnet18 has a backbone alone; as they were built stay: head, auxiliary"]
    stem = trained.conv1.weight if channels == 3 else trained.conv1.weight.sum(1, keepdim=True)
    torch.testing.assert_close(model.get_parameter("conv1.weight"), stem)
    assert torch.equal(model.get_parameter("layer4.1.conv2.weight"), trained.layer4[1].conv2.weight)
    assert model(torch.randn(2, channels, 40, 48))["out"].shape == (2, 5, 40, 48)


@pytest.mark.parametrize("stem", ["v1c", "7x7"])
def test_whole_weights_are_loaded_whole_and_their_stem_decides(tmp_path: Path, stem: str) -> None:
    trained = made("FCN-R18", seed=4, stem=stem)
    state = {f"module.{key}": value for key, value in trained.state_dict().items()}
    said: list[str] = []
    model = made("FCN-R18", weights=saved(tmp_path, state), report=said.append)
    x = torch.randn(1, 3, 40, 48)
    assert torch.equal(model.eval()(x), trained.eval()(x))
    assert not said


def test_classifiers_of_another_class_count_are_left_out(tmp_path: Path) -> None:
    path, said = saved(tmp_path, made("FCN-R18", classes=9).state_dict()), []
    made("FCN-R18", weights=path, report=said.append)
    keys = ", ".join(f"{head}.classifier.{kind}" for head in ("head", "auxiliary") for kind in ("weight", "bias"))
    assert said == [f"left out of {path}, which has another number of classes than 5: {keys}"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: torchvision.models.resnet34().state_dict(), "96 not in the network .layer1.2.bn1"),
        (
            lambda: {k: v for k, v in made("FCN-R18").state_dict().items() if not k.startswith("auxiliary")},
            "not in them .auxiliary.convs.0.0.weight",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, state: Any, message: str) -> None:
    said: list[str] = []
    with pytest.raises(ValueError, match=message):
        made("FCN-R18", weights=saved(tmp_path, state()), report=said.append)
    assert not said
