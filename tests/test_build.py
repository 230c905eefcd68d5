"""From notation to networks: seeds, forms, libraries, trained weights, refusals."""

from __future__ import annotations

import json
import re
import time
import traceback
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from test_compatibility import OLD_RUN
from torch import nn

from srblock import surgery
from srblock.block import Options
from srblock.block.block import PARTS
from srblock.checkpoints import load_state
from srblock.models.regularizers import DropBlock
from srblock.models.resnet import ResNet
from srblock.variants.build import build, form, outline
from srblock.variants.notation import parse


def made(text: str, side: int = 16, seed: int = 0, **options: Any) -> nn.Module:
    return build(parse(text), **{"classes": 10, "image_size": (side, side), "seed": seed, **options})


def outlined(text: str, side: int, **options: Any) -> nn.Module:
    return outline(parse(text), **{"classes": 10, "image_size": side, **options})


# --- seeds -----------------------------------------------------------------------------------------------------------

VARIANTS = ["R8 + D", "R8 + SE", "R8 + CBAM", "R8 + SR(M=3, P=4)", "R8 + DB(M=2+3) + SE + SR(M=2) + SR(M=3, P=4)"]


@pytest.mark.parametrize("text", VARIANTS)
def test_parameters_that_variants_share_start_equal(text: str) -> None:
    plain, other = made("R8").state_dict(), made(text).state_dict()
    assert plain.keys() <= other.keys()
    for key, value in plain.items():
        assert torch.equal(value, other[key]), key


def test_extras_start_equal_too_whatever_stands_beside_them() -> None:
    alone, together = (made(text).state_dict() for text in ("R8 + SR(M=3, P=4)", VARIANTS[-1]))
    assert torch.equal(alone["layer3.sr.address.squeeze"], together["layer3.sr.address.squeeze"])
    attention = made("R8 + SE").state_dict()
    extras = [key for key in attention if "attention" in key]
    assert extras
    assert all(torch.equal(attention[key], together[key]) for key in extras)
    assert not torch.equal(together["layer2.sr.address.fc2"][:4], together["layer3.sr.address.fc2"])


@pytest.mark.parametrize("text", ["R8 + CBAM + SR(M=3)", "VGG16 + D + SR(M=5)", "timm/test_resnet + SR(M=2)"])
def test_a_seed_decides_every_weight_and_building_leaves_the_random_state_alone(text: str) -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = made(text, side=32, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    again, other = (made(text, side=32, seed=seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = [key for key in first if first[key].dim() > 1 and not key.endswith("memory.values")]
    assert drawn
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


def test_library_networks_share_their_weights_too() -> None:
    plain, other = (
        made("timm/test_resnet", side=32).state_dict(),
        made("timm/test_resnet + SR(M=3)", side=32).state_dict(),
    )
    assert all(torch.equal(value, other[key]) for key, value in plain.items())


# --- what is built ---------------------------------------------------------------------------------------------------


def test_a_network_comes_in_training_mode_on_the_cpu_in_float32() -> None:
    for text in ("R8 + SR(M=3)", "torchvision/squeezenet1_1"):
        model = made(text, side=64)
        assert all(module.training for module in model.modules())
        assert {(p.device.type, p.dtype) for p in model.parameters()} == {("cpu", torch.float32)}


@pytest.mark.parametrize(("side", "expected"), [(32, "cifar"), (95, "cifar"), (96, "imagenet"), (224, "imagenet")])
def test_form_follows_the_image_size(side: int, expected: str) -> None:
    assert form((side, side)) == form((side, 500)) == form((500, side)) == expected
    model = outlined("R18", side)
    assert model.get_parameter("conv1.weight").shape[-1] == {"cifar": 3, "imagenet": 7}[expected]
    assert outlined("R8", side).get_parameter("conv1.weight").shape[-1] == 3


@pytest.mark.parametrize(
    ("text", "side", "keys"),
    [
        ("R8 + SR(M=3, P=4)", 8, {"layer3.sr": (4, 64, 2, 2)}),
        ("R20 + SR(M=2) + SR(M=3, P=2)", 32, {"layer2.sr": (10, 32, 16, 16), "layer3.sr": (2, 64, 8, 8)}),
        ("R18 + SR(after=layer3.0, P=2)", 32, {"layer3.0.sr": (2, 256, 8, 8)}),
        ("R50 + SR(M=3, P=2)", 32, {"layer3.sr": (2, 1024, 8, 8)}),
        ("R50 + SR(M=3, P=2, placement=inner)", 32, {"layer3.5.relu2.sr": (2, 256, 8, 8)}),
        ("R50 + SR(M=4, P=2, placement=inner)", 224, {"layer4.2.relu2.sr": (2, 512, 7, 7)}),
        ("VGG19 + SR(M=2, P=12)", 32, {"stage2.sr": (12, 128, 8, 8)}),
        ("VGG16 + SR(M=5, P=1)", 32, {"stage5.sr": (1, 512, 1, 1)}),
    ],
)
def test_the_block_stands_where_the_notation_says(text: str, side: int, keys: dict[str, tuple[int, ...]]) -> None:
    state = outlined(text, side).state_dict()
    end = ".memory.values"
    memories = {key.removesuffix(end): tuple(value.shape) for key, value in state.items() if key.endswith(end)}
    assert memories == keys


def test_block_options_arrive() -> None:
    model = made("R8 + SR(M=2, P=3, U=5, act=relu, init=channels, resize=bilinear)")
    (block,) = surgery.blocks(model).values()
    assert block.options == Options(blocks=3, hidden=5, activation="relu", init="channels", resize="bilinear")


def test_a_run_of_when_blocks_had_no_parts_loads() -> None:
    """A real one: its block's keys are layer2.sr.squeeze, .fc1, .fc2 and .memory."""
    weights = load_file(OLD_RUN / "checkpoint.safetensors")
    config = json.loads((OLD_RUN / "config.json").read_text())
    plain, reported = (build(parse(config["variant"]), classes=10, channels=1, image_size=16, seed=5) for _ in range(2))
    plain.load_state_dict(weights)
    assert load_state(reported, weights).complete
    for model in (plain, reported):
        (block,) = surgery.blocks(model).values()
        for name, key in PARTS.items():
            assert torch.equal(block.get_parameter(key), weights[f"layer2.sr.{name}"])
        assert block.memory.maps().abs().max() > 0
        assert set(model.state_dict()) == {key for key in weights if ".sr." not in key} | {
            f"layer2.sr.{key}" for key in PARTS.values()
        }


def test_inner_and_stage_place_train() -> None:
    model = made("R50 + SR(M=4, placement=inner, P=2) + SR(M=4, P=2)", side=8)
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert all(block.memory.values.grad.any() for block in surgery.blocks(model).values())
    assert len(surgery.blocks(model)) == 2


@pytest.mark.parametrize(
    ("text", "side", "size"),
    [("R18 + DB", 32, 3), ("R18 + DB", 96, 7), ("R18 + DB(size=5)", 96, 5), ("R8 + DB", 96, 3)],
)
def test_dropblocks_size_follows_the_form_unless_given(text: str, side: int, size: int) -> None:
    layers = {name: m for name, m in outlined(text, side).named_modules() if isinstance(m, DropBlock)}
    assert {(layer.p, layer.size) for layer in layers.values()} == {(0.1, size)}
    assert {name.split(".")[0] for name in layers} == {"layer3" if text.startswith("R8") else "layer4"}


def test_vggs_dropout_is_in_the_head() -> None:
    rates = [
        [m.p for m in outlined(text, 32).modules() if isinstance(m, nn.Dropout)] for text in ("VGG16 + D", "VGG16")
    ]
    assert rates == [[0.5, 0.5], [0.0, 0.0]]


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(
    "text", ["R8 + SR(M=3)", "timm/test_resnet + SR(M=2)", "torchvision/squeezenet1_1 + SR(after=features.5)"]
)
def test_images_of_any_number_of_channels(text: str, channels: int) -> None:
    model = made(text, side=64, channels=channels, classes=7)
    assert model(torch.randn(2, channels, 64, 64)).shape == (2, 7)


def test_another_number_of_channels_keeps_the_sum_of_a_torchvision_stem() -> None:
    three, one = (made("torchvision/resnet18", side=64, channels=channels) for channels in (3, 1))
    gray = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(one.eval()(gray), three.eval()(gray.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_extra_heads_return_logits_in_training(name: str) -> None:
    model = outlined(f"torchvision/{name}", 128).train()
    assert model(torch.empty(2, 3, 128, 128, device="meta")).shape == (2, 10)


# --- trained weights -------------------------------------------------------------------------------------------------


def saved(folder: Path, state: dict[str, Any], name: str = "trained.safetensors") -> Path:
    path = folder / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("wrap", ["{}.safetensors", "{}.pth", "{}.pt", "state_dict", "model", "module.", "_orig_mod."])
def test_weights_are_loaded_before_the_block(tmp_path: Path, wrap: str) -> None:
    trained = made("R8", seed=5)
    state: dict[str, Any] = dict(trained.state_dict())
    if wrap.endswith("."):
        state = {wrap + key: value for key, value in state.items()}
    elif not wrap.startswith("{}"):
        state = {wrap: state, "epoch": 3}
    path = saved(tmp_path, state, wrap.format("trained") if wrap.startswith("{}") else "trained.pth")
    said: list[str] = []
    model = made("R8 + D + SR(M=3, P=4)", weights=path, report=said.append)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.eval()(x), trained.eval()(x))
    assert not said


def test_a_head_of_another_class_count_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained = made("R8", seed=5, classes=12)
    path = saved(tmp_path, trained.state_dict())
    said: list[str] = []
    model, fresh = made("R8 + SR(M=3)", weights=path, report=said.append), made("R8")
    assert said == [f"left out of {path}, which has another number of classes than 10: fc.weight, fc.bias"]
    assert torch.equal(model.get_parameter("fc.weight"), fresh.get_parameter("fc.weight"))
    assert torch.equal(model.get_parameter("layer3.0.conv2.weight"), trained.get_parameter("layer3.0.conv2.weight"))
    made("R8", weights=path)
    assert caplog.messages == said


FOREIGN: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "another network": (
        lambda: made("R20").state_dict(),
        r"72 not in the network \(layer1.1.conv1.weight, .*, \.\.\.\)",
    ),
    "a smaller network": (
        lambda: {"conv1.weight": torch.zeros(16, 3, 3, 3)},
        r"are not this network's: \d+ not in them \(bn1.weight, ",
    ),
    "another width": (
        lambda: made("R8").state_dict() | {"bn1.weight": torch.ones(20)},
        r"1 of another shape \(bn1.weight 20 for 16\)",
    ),
    "a head of another width": (
        lambda: made("R8", classes=12).state_dict() | {"fc.weight": torch.zeros(12, 128)},
        r"1 of another shape \(fc.weight 12x128 for 10x64\)",
    ),
    "other channels": (
        lambda: made("R8", channels=1).state_dict(),
        r"of another shape \(conv1.weight 16x1x3x3 for 16x3x3x3\)",
    ),
    "a network with a block": (
        lambda: made("R8 + SR(M=3)").state_dict(),
        r"4 not in the network \(layer3.sr.address.squeeze, .*give weights of the plain network, without SR block",
    ),
    "no tensors": (
        lambda: {"epoch": 3},
        "holds no state dict, at the top or under state_dict, model_state_dict, model",
    ),
    "nothing": (dict, "holds no state dict"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    state, message = FOREIGN[kind]
    with pytest.raises(ValueError, match=message):
        made("R8", weights=saved(tmp_path, state(), "foreign.pth"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.pth", None, "there is no weights file .*gone.pth; check the path"),
        ("odd.onnx", b"x", "read from .safetensors, .pth or .pt files, got odd.onnx"),
        ("cut.safetensors", b"\x10\x00\x00", "cut.safetensors is no whole safetensors file"),
        ("text.pth", b"hello", "text.pth cannot be read as weights"),
        ("empty.pt", b"", "empty.pt cannot be read as weights"),
    ],
)
def test_broken_weights_files_are_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        made("R8", weights=tmp_path / name)


def test_weights_cut_short_are_refused(tmp_path: Path) -> None:
    for name in ("cut.pth", "cut.safetensors"):
        path = saved(tmp_path, made("R8").state_dict(), name)
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(ValueError, match=f"{name} (cannot be read as weights|is no whole safetensors file)"):
            made("R8", weights=path)


class Trap:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_what_hides_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    path = saved(tmp_path, {"trap": Trap(tmp_path / "sprung")}, "evil.pth")
    with pytest.raises(ValueError, match=r"evil.pth cannot be read as weights .*: broken, or more than tensors"):
        made("R8", weights=path)
    assert not (tmp_path / "sprung").exists()


def test_torchs_advice_to_run_a_pickle_is_not_passed_on(tmp_path: Path) -> None:
    path = saved(tmp_path, {"trap": Trap(tmp_path / "sprung")}, "evil.pth")
    with pytest.raises(ValueError, match="which is no tensor and is not run") as refusal:
        made("R8", weights=path)
    shown = "".join(traceback.format_exception(refusal.value))
    assert "`False`" not in shown
    assert "trusted source" not in shown


UNUSABLE = {
    "sparse (sparse_coo)": lambda value: value.to_sparse(),
    "meta, without values": lambda value: value.to("meta"),
    "int32": lambda value: value.int(),
    "bool": lambda value: value > 0,
    "complex64": lambda value: value.to(torch.complex64),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_tensors_that_are_no_weights_are_refused_by_key(tmp_path: Path, kind: str) -> None:
    state = made("R8").state_dict()
    path = saved(tmp_path, state | {"fc.weight": UNUSABLE[kind](state["fc.weight"])}, "odd.pth")
    with pytest.raises(ValueError, match=re.escape(f"fc.weight is {kind}; expected dense floating-point tensors")):
        made("R8", weights=path)


def test_keys_of_weights_are_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"odd.pth has 3 for a key, and keys are names"):
        made("R8", weights=saved(tmp_path, {3: torch.zeros(1)}, "odd.pth"))


def test_weights_of_less_precision_and_counters_of_another_kind_load(tmp_path: Path) -> None:
    state = made("R8").state_dict()
    other = {key: value.half() if value.is_floating_point() else value.float() for key, value in state.items()}
    found = made("R8", weights=saved(tmp_path, other, "half.pth")).state_dict()
    assert torch.equal(found["conv1.weight"], state["conv1.weight"].half().float())


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Give torchvision's ResNet-18 instead of a download."""
    torch.manual_seed(9)
    trained = torchvision.models.resnet18()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda url, **_: trained.state_dict())
    return trained


@pytest.mark.parametrize("text", ["R18 + D2D + SR(M=4)", "torchvision/resnet18 + SR(M=4)"])
def test_pretrained_starts_from_torchvisions_weights(downloads: nn.Module, text: str) -> None:
    x = torch.randn(1, 3, 96, 96)
    said: list[str] = []
    model = made(text, side=96, classes=1000, pretrained=True, report=said.append).eval()
    assert torch.equal(model(x), downloads.eval()(x))
    assert not said
    other = made(text, side=96, channels=1, pretrained=True, report=said.append)
    name = text.split(" ")[0].replace("R18", "resnet18").removeprefix("torchvision/")
    assert said == [
        f"left out of torchvision's {name}, which has another number of classes than 10: fc.weight, fc.bias"
    ]
    stem = downloads.get_parameter("conv1.weight")
    torch.testing.assert_close(other.get_parameter("conv1.weight"), stem.sum(1, keepdim=True))


def test_pretrained_of_timm_is_timms_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    factory = timm.create_model

    def create(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
        asked.append(pretrained)
        return factory(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", create)
    said: list[str] = []
    monkeypatch.setattr("srblock.variants.download._unreachable", lambda address: None)
    made("timm/test_resnet", side=32, pretrained=True, report=said.append)
    assert asked == [True]
    assert said == ["left out of timm's test_resnet, which has another number of classes than 10: the classifier"]


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "VGG16",
            {"side": 28},
            "VGG16 halves its maps five times and needs images of 32x32 or more, got 28x28; enlarge",
        ),
        ("VGG16", {"side": 32, "pretrained": True}, "no pretrained weights of VGG16; use torchvision/vgg16_bn"),
        ("R18", {"side": 32, "pretrained": True}, "R18 for 32x32 images has none: use images of 96 pixels or more"),
        ("R8", {"side": 224, "pretrained": True}, "torchvision's weights fit R18, R34 and R50 in the ImageNet form"),
        ("R18 + SE", {"side": 224, "pretrained": True}, "in the ImageNet form without attention"),
        ("R8", {"pretrained": True, "weights": Path("x.pth")}, "give one of them"),
        ("R8", {"classes": 0}, "classes must be at least 1, got 0"),
        ("R8", {"channels": 0}, "channels must be at least 1, got 0"),
        ("timm/resnet81", {}, "timm has no network 'resnet81'; did you mean timm/resnet"),
        ("torchvision/resnet19", {}, "torchvision has no network 'resnet19'; did you mean torchvision/resnet"),
        ("torchvision/raft_large", {}, "torchvision has no network 'raft_large'"),
        (
            "torchvision/squeezenet1_1",
            {"side": 8},
            r"does not run on images of shape \(3, 8, 8\): .*made for larger images, try --image",
        ),
        ("timm/test_resnet + SR(M=9)", {"side": 32}, "there is no stage 9"),
        ("R8 + SR(after=layer3.7)", {}, "no module 'layer3.7'"),
    ],
)
def test_refusals(text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(text, **options)


def test_a_network_that_returns_no_logits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: ResNet("R8", classes=3))
    with pytest.raises(ValueError, match=r"does not return logits of shape \(1, 10\) but \(1, 3\)"):
        made("timm/test_resnet", side=32)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_that_transform_their_input_do_so_always(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the weights of a pretrained run would be evaluated in another network."""
    monkeypatch.setattr("srblock.variants.build._load_torchvision", lambda *_: None)
    variant = parse(f"torchvision/{name}")
    for pretrained in (False, True):
        with torch.device("meta"):
            model = build(variant, classes=3, image_size=96, seed=0, pretrained=pretrained)
        assert model.transform_input is True


def test_without_a_network_trained_weights_are_refused_in_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(
        ValueError, match=r"timm/test_resnet cannot be downloaded \(http://127.0.0.1:9 does not answer: .*--weights"
    ):
        made("timm/test_resnet", 64, pretrained=True)

    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    for network in ("torchvision/resnet18", "R18", "FCN-R18"):
        with pytest.raises(ValueError, match=r"torchvision/resnet18 cannot be downloaded .*no network.*--weights FILE"):
            made(network, 96, pretrained=True)
    assert time.monotonic() - start < 10
    assert not constants.HF_HUB_OFFLINE
