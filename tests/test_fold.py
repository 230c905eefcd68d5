"""Folding: closed forms, the same logits, and every way in which a network only looks as if it could be folded."""

from __future__ import annotations

import copy
import enum
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import srblock
from srblock import SqueezeRemember2d, fold
from srblock.folding import FoldedBlock
from srblock.models.airbench import Airbench94
from srblock.models.resnet import ResNet
from srblock.models.vgg import VGG
from srblock.tracing import leaves

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
SIZE = (1, 16, 16)


def trained(model: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Give every block a memory of unit size and weights far from 1/P, and batch norms statistics of their own."""
    generator = torch.Generator().manual_seed(0)
    for block in srblock.blocks(model).values():
        for name, value in block.named_parameters():
            draw = torch.randn(value.shape, generator=generator)
            value.data.copy_(draw if name.startswith("memory.") else 2 * draw / value[0].numel() ** 0.5)
        for name, value in block.named_buffers():
            value.copy_(torch.rand(value.shape, generator=generator) + (0.1 if name.endswith("variance") else 0))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) / 3)
    return model.to(dtype).eval()


def small(dtype: torch.dtype = torch.float64, after: str = "layer3", **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = ResNet("R8", classes=7, channels=1)
    srblock.insert(model, after=after, input_size=SIZE, **{"blocks": 3, "hidden": 4} | options)
    return trained(model, dtype)


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)


@torch.no_grad()
def check(model: nn.Module, size: Any = SIZE, count: int = 1) -> tuple[nn.Module, tuple[FoldedBlock, ...]]:
    """Fold, and compare the logits of images with the model's; the model must stay as it was."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded, report = fold(model, size)
    now = model.state_dict()
    assert list(now) == list(before)
    assert all(torch.equal(now[key], value) for key, value in before.items())
    assert not {id(value) for value in model.parameters()} & {id(value) for value in folded.parameters()}
    dtype = next(model.parameters()).dtype
    x = noise(9, *size, dtype=dtype)
    expected, found = model(x), folded(x)
    torch.testing.assert_close(
        found, expected, rtol=0, atol=TOLERANCE[dtype] * max(1.0, float(expected.abs().max())), check_stride=False
    )
    with srblock.bypassed(model):
        assert (model(x) - expected).abs().max() > 1e-3, "the block matters, so that equal logits say something"
    assert len(report.blocks) == count
    before_, after_ = (sum(value.numel() for value in net.parameters()) for net in (model, folded))
    assert before_ - after_ == sum(block.parameters_before - block.parameters_after for block in report.blocks)
    return folded, report.blocks


def every(*choices: dict[str, Any]) -> list[dict[str, Any]]:
    """Every option by itself, and all of them together."""
    return [*choices, {key: value for choice in choices for key, value in choice.items()}]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("after", ["layer2", "layer3"])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize(
    "options",
    every({"logits": "standardized"}, {"temperature": 0.5}, {"squeeze_channels": 2}, {"rank": 2}, {"gain": 0.5}),
    ids=str,
)
def test_every_kind_of_block_keeps_its_logits(
    options: dict[str, Any], activation: str | None, after: str, dtype: torch.dtype
) -> None:
    model = small(dtype, after, activation=activation, **options)
    folded, blocks = check(model)
    said, left = only(blocks)
    unchanged = after == "layer2" and activation is not None and not {"logits", "temperature"} & set(options)
    assert len(srblock.blocks(folded)) == unchanged, left
    assert ("temperature" in said) == ("temperature" in options)
    assert ("standardization" in said) == ("logits" in options)
    assert ("'fc' adds" in said) == (after == "layer3")
    inner = [name for name, _ in folded.named_buffers() if "standardize" in name]
    assert not inner, "the running figures went into the weights"


def only(blocks: tuple[FoldedBlock, ...]) -> tuple[str, str]:
    """What was folded of the only block, and what was left, as text."""
    (block,) = blocks
    return "\n".join(block.folded), "\n".join(block.left)


# --- into the classifier ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("options", [{}, {"activation": "relu"}, {"grid": (2, 1)}, {"grid": 1}, {"resize": "bilinear"}])
def test_before_global_pooling_the_memory_is_a_table(options: dict[str, Any], dtype: torch.dtype) -> None:
    model = small(dtype, **options)
    (block,) = srblock.blocks(model).values()
    folded, blocks = check(model)
    text, left = only(blocks)
    memory = " x ".join(map(str, block.memory.values.shape))
    assert f"the memory, {memory} numbers, into a table 3 x 7 that 'fc' adds" in text
    assert "memory" not in left
    table = folded.fc.weight[:, 64:]
    expected = torch.einsum("kc,pchw->kp", model.fc.weight.double(), block.memory.maps().double()) / 16
    torch.testing.assert_close(table.double(), expected, rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(
        folded.avgpool(noise(2, 64, 4, 4, dtype=dtype))[:, 64:].sum(1), torch.ones(2, 1, 1).to(dtype)
    )
    assert srblock.blocks(folded) == {}
    own = 64 + 3 * 7 + (16 * 4 + 4 * 3 if options.get("activation") else 3 * 16)
    assert blocks[0].parameters_after == own
    assert not any(value.requires_grad for value in (*folded.avgpool.parameters(), *folded.fc.parameters()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_in_any_memory_format(layout: Any) -> None:
    check(small().to(memory_format=layout))


def test_one_memory_block_is_a_bias() -> None:
    model = small(blocks=1)
    (block,) = srblock.blocks(model).values()
    folded, blocks = check(model)
    assert only(blocks) == (
        "the block, whose one weight is always 1, 1 x 64 x 4 x 4 numbers: into the bias of 'fc'", ""
    )  # fmt: skip
    assert blocks[0].parameters_after == 0
    assert folded.state_dict().keys() == ResNet("R8", classes=7, channels=1).state_dict().keys()
    moved = model.fc.weight @ block.memory.values[0].mean((1, 2))
    torch.testing.assert_close(folded.fc.bias, model.fc.bias + moved, rtol=0, atol=1e-12)
    model.fc = nn.Linear(64, 7, bias=False, dtype=torch.float64)
    folded, blocks = check(model)
    assert folded.fc.bias is not None
    assert blocks[0].parameters_after == 7


def test_a_table_larger_than_the_memory_is_not_made() -> None:
    torch.manual_seed(0)
    model = VGG("VGG16", classes=5, channels=1)  # its map is 1x1 after the last pool
    srblock.insert(model, after="stage5", input_size=(1, 32, 32), blocks=2)
    text, left = only(check(trained(model), (1, 32, 32))[1])
    assert "a table for the outputs of 'head.1' has 1,024 numbers, the memory 1,024" in left
    assert "into one 2 x 1 matrix" in text


# --- every way in which it only looks so -----------------------------------------------------------------------------


class Net(nn.Module):
    """A network with everything after the block in the hands of a test."""

    def __init__(self, after: Callable[[Net, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.stage = nn.Identity()
        self.drop, self.relu, self.maxpool = nn.Dropout(0.5), nn.ReLU(), nn.AdaptiveMaxPool2d(1)
        self.pool, self.head, self.other = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 4), nn.Linear(6, 4)
        self.norm, self.tanh = nn.LayerNorm(6), nn.Hardtanh(-30, 30)
        self.after = after

    def forward(self, x: Tensor) -> Any:
        return self.after(self, self.stage(self.conv(x)))


def tied(net: Net, x: Tensor) -> Tensor:
    net.other.weight = net.head.weight
    return net.head(net.pool(x).flatten(1))


def gate(x: Tensor) -> Tensor:
    """Saturated, 1.0 exactly, for the large noise of a probe, and not for maps of unit size."""
    return x.abs().amax((1, 2, 3))[:, None].sigmoid()


class Kind(enum.Enum):
    """Of what an output may say that it is."""

    IMAGE = 1


class Slots:
    """An output of a class of one's own, without a __dict__."""

    __slots__ = ("logits", "maps")

    def __init__(self, logits: Tensor, maps: Tensor) -> None:
        self.logits, self.maps = logits, maps


HOLDS = {
    "plain": lambda net, x: net.head(net.pool(x).flatten(1)),
    "dropout in evaluation mode": lambda net, x: net.head(net.drop(net.pool(F.dropout(x, training=False)).flatten(1))),
    "copies": lambda net, x: net.head(net.pool(x.clone().contiguous()).squeeze(3).squeeze(2)),
    "anything after the linear layer": lambda net, x: net.head(net.pool(x).flatten(1)).relu() / 9,
    "two outputs": lambda net, x: (lambda y: {"logits": y, "more": [y.exp()]})(net.head(net.pool(x).flatten(1))),
    "what is no number": lambda net, x: {
        "logits": net.head(net.pool(x).flatten(1)), "size": x.shape[2:], "task": "classify", "kind": Kind.IMAGE,
        "keys": {"a", "b"}, "norm": torch.softmax, "module": torch, "type": Net, "flag": True,
    },
    "a distribution": lambda net, x: torch.distributions.Categorical(logits=net.head(net.pool(x).flatten(1))),
    "an object": lambda net, x: SimpleNamespace(logits=net.head(net.pool(x).flatten(1)), name=None),
    "others beside it": lambda net, x: net.head(net.pool(x).flatten(1)) + net.other.bias,
}  # fmt: skip


@pytest.mark.parametrize("after", HOLDS.values(), ids=HOLDS)
def test_what_holds(after: Callable[[Net, Tensor], Any]) -> None:
    model = Net(after)
    srblock.insert(model, after="stage", input_size=(1, 6, 5), blocks=3)
    trained(model)
    folded, report = fold(model, (1, 6, 5))
    assert "into a table 3 x 4 that 'head' adds" in "\n".join(report.blocks[0].folded)
    x = noise(4, 1, 6, 5)
    tensors = ([leaf for leaf in leaves(net(x)) if isinstance(leaf, Tensor)] for net in (folded, model))
    torch.testing.assert_close(*tensors, rtol=0, atol=1e-12)


MISLEADS = {
    "a ReLU module before": (lambda net, x: net.head(net.pool(net.relu(x)).flatten(1)), "goes into 'relu' .ReLU."),
    "a ReLU before": (lambda net, x: net.head(net.pool(x.relu()).flatten(1)), "its map goes into code"),
    "a ReLU in place": (lambda net, x: net.head(net.pool(x.relu_()).flatten(1)), "its map goes into code"),
    "a ReLU between": (lambda net, x: net.head(net.relu(net.pool(x).flatten(1))), "'pool' pools goes into 'relu'"),
    "a clip far away": (lambda net, x: net.head(net.pool(net.tanh(x)).flatten(1)), "goes into 'tanh' .Hardtanh."),
    "a factor": (lambda net, x: net.head(net.pool(x * (1 + 1e-9)).flatten(1)), "its map goes into code"),
    "max-pooling": (lambda net, x: net.head(net.maxpool(x).flatten(1)), "goes into 'maxpool' .AdaptiveMaxPool2d., not"),
    "pooling in code": (lambda net, x: net.head(x.mean((2, 3))), "its map goes into code"),
    "another path": (lambda net, x: net.head(net.pool(x).flatten(1)) + 1e-6 * x.amax((1, 2, 3))[:, None],
                     "its map goes into 'pool' and elsewhere too"),
    "a path that saturates": (lambda net, x: net.head(net.pool(x).flatten(1)) * gate(x),
                              "its map goes into 'pool' and elsewhere too"),
    "another output": (lambda net, x: (net.head(net.pool(x).flatten(1)), x), "its map goes into 'pool' and elsewhere"),
    "features too": (lambda net, x: (net.head(net.pool(x).flatten(1)), net.pool.forward(x)), "elsewhere too"),
    "pooled elsewhere": (lambda net, x: (lambda y: net.head(y) + net.other(y).sin())(net.pool(x).flatten(1)),
                         "what 'pool' pools goes into 'head' and elsewhere too"),
    "a norm between": (lambda net, x: net.head(net.norm(net.pool(x).flatten(1))), "goes into 'norm' .LayerNorm., not"),
    "code between": (lambda net, x: net.head(net.pool(x).flatten(1).square()), "what 'pool' pools goes into code"),
    "pooled twice": (lambda net, x: net.head(net.pool(net.pool(x)).flatten(1)), "'pool' .AdaptiveAvgPool2d. is used"),
    "the linear layer twice": (lambda net, x: net.head(net.pool(x).flatten(1)) + net.head(net.conv.bias[None]),
                               "'head' .Linear. is used more than once"),
    "tied weights": (tied, "the weights of the linear layer 'head' are used elsewhere too .'other.weight'."),
    "a fixed width": (lambda net, x: net.head(net.pool(x).view(-1, 6)), "the folded network"),
    "a path to an object": (lambda net, x: SimpleNamespace(y=net.head(net.pool(x).flatten(1)), x=x), "elsewhere too"),
    "a path to slots": (lambda net, x: Slots(net.head(net.pool(x).flatten(1)), x), "elsewhere too"),
    "a path to an array": (lambda net, x: (net.head(net.pool(x).flatten(1)), x.detach().numpy()), "elsewhere too"),
    "a path to a number": (lambda net, x: (net.head(net.pool(x).flatten(1)), x.amax().item()), "elsewhere too"),
    "labels": (lambda net, x: (net.head(net.pool(x).flatten(1)) + 0.3 * net.other(x.relu().amax((2, 3)))).argmax(1),
               "the network returns labels"),
    "not finite": (lambda net, x: net.head(net.pool(x).flatten(1)).log(), "the network's output is not finite"),
}  # fmt: skip


@pytest.mark.parametrize(("after", "message"), MISLEADS.values(), ids=MISLEADS)
def test_what_misleads(after: Callable[[Net, Tensor], Any], message: str) -> None:
    """The memory stays, for the reason, and the outputs are the model's; with the linear layers folded all the same."""
    model = Net(after)
    srblock.insert(model, after="stage", input_size=(1, 6, 5), blocks=3)
    trained(model)
    folded, report = fold(model, (1, 6, 5))
    (block,) = report.blocks
    assert re.search(f"the memory, into the classifier: .*{message}", "\n".join(block.left))
    x = noise(4, 1, 6, 5)
    torch.testing.assert_close([*leaves(folded(x))], [*leaves(model(x))], rtol=0, atol=1e-12, equal_nan=True)


def test_an_output_that_cannot_be_compared_is_refused() -> None:
    model = Net(lambda net, x: (net.head(net.pool(x).flatten(1)), iter([x])))
    srblock.insert(model, after="stage", input_size=(1, 6, 5), blocks=3)
    with pytest.raises(ValueError, match="output holds a list_iterator, which cannot be compared; fold the part of"):
        fold(trained(model), (1, 6, 5))


def cached(net: Net, x: Tensor) -> Tensor:
    net.seen = x
    return net.head(net.pool(x).flatten(1))


def held_weight(wrap: Callable[[nn.Module], object]) -> nn.Module:
    model = Net(HOLDS["plain"])
    wrap(model.conv)
    return model


HELD = {
    "a map": lambda: Net(cached),
    "a spectral norm": lambda: held_weight(nn.utils.spectral_norm),
    "a pruned weight": lambda: held_weight(lambda conv: prune.l1_unstructured(conv, "weight", 3)),
}


@pytest.mark.parametrize("make", HELD.values(), ids=HELD)
def test_networks_that_hold_what_they_computed(make: Callable[[], nn.Module]) -> None:
    """`copy.deepcopy` refuses them."""
    model = make()
    srblock.insert(model, after="stage", input_size=(1, 6, 5), blocks=3)
    trained(model)
    x = noise(4, 1, 6, 5)
    expected = model(x)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    folded, _ = fold(model, (1, 6, 5))
    torch.testing.assert_close(folded(x), expected, rtol=0, atol=1e-12)
    assert srblock.init_memory(model, [(x, torch.arange(4))], by="class_means")


def test_a_hook_on_the_linear_layer_keeps_it() -> None:
    model = Net(HOLDS["plain"])
    srblock.insert(model, after="stage", input_size=(1, 6, 5), blocks=3)
    trained(model).head.register_forward_hook(lambda module, args, output: output * module.in_features)
    assert "'head' has hooks" in only(check(model, (1, 6, 5))[1])[1]


def test_a_network_that_says_something_else_every_time_is_left() -> None:
    """Not by random numbers, which are the same in each pass."""
    passes = [0]

    def counted(net: Net, x: Tensor) -> Tensor:
        passes[0] += 1
        return net.head(net.pool(x).flatten(1)) + passes[0]

    model = Net(counted)
    model.stage = nn.Sequential(SqueezeRemember2d(6, (6, 5), blocks=3))  # `insert` would not have it
    _, report = fold(trained(model), (1, 6, 5))
    assert not report.folded
    assert "all of it: the folded network has other outputs" in report.blocks[0].left[-1]


# --- elsewhere in a network ------------------------------------------------------------------------------------------


def test_without_activation_the_linear_layers_are_one_matrix_where_it_is_smaller() -> None:
    model = small(after="layer2", blocks=3, hidden=4)  # 3 x 64 = 192 of 4 (64 + 3) = 268
    (block,) = srblock.blocks(model).values()
    folded, blocks = check(model)
    text, left = only(blocks)
    assert text == "the linear layers, 268 numbers, into one 3 x 64 matrix, 192"
    assert left == (
        "the memory, into the classifier: its map goes into 'layer3.0.conv1' (Conv2d) and 'layer3.0.downsample' "
        "(PaddedShortcut), not straight into a module that averages it over positions"
    )
    torch.testing.assert_close(folded.layer2.sr.address.last, block.address.fc2 @ block.address.fc1)
    assert (blocks[0].parameters_before, blocks[0].parameters_after) == (32 + 268 + 3 * 2048, 32 + 192 + 3 * 2048)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"blocks": 10, "hidden": 8}, "one 10 x 64 matrix has 640 numbers, they have 592"),
        ({"blocks": 8, "hidden": 9}, "one 8 x 64 matrix has 512 numbers, they have 648"),
        ({"activation": "relu"}, "activation='relu' stands between them"),
    ],
)
def test_else_they_are_left(options: dict[str, Any], reason: str) -> None:
    folded, blocks = check(small(after="layer2", **options))
    text, left = only(blocks)
    if options.get("blocks") == 8:
        assert text == "the linear layers, 648 numbers, into one 8 x 64 matrix, 512"
        return
    assert f"the linear layers: {reason}" in left
    assert text == ""
    assert isinstance(folded.layer2.sr, SqueezeRemember2d), "a block that nothing was folded of is a block still"


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("options", [{}, {"grid": (2, 4)}, {"resize": "bilinear"}, {"resize": "bilinear", "grid": 2}])
def test_one_memory_block_is_an_addition(options: dict[str, Any], dtype: torch.dtype) -> None:
    model = small(dtype, after="layer1", blocks=1, **options)
    (block,) = srblock.blocks(model).values()
    folded, blocks = check(model)
    text, left = only(blocks)
    assert text == "the block, whose one weight is always 1: it adds its map"
    assert "its map goes into" in left or "resizes" in left
    assert torch.equal(folded.layer1.sr.map, block.memory.values)
    assert blocks[0].parameters_after == block.memory.values.numel()


def test_what_resizes_goes_on_resizing_unless_it_went_into_the_classifier() -> None:
    x = noise(3, 1, 20, 28)
    for options in ({"after": "layer1", "blocks": 1}, {"after": "layer2"}, {"blocks": 1}):
        model = small(resize="bilinear", **options)
        folded, _ = check(model)
        torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-12)
    folded, blocks = check(small(resize="bilinear"))
    assert "maps of other sizes than 4x4 are refused now" in only(blocks)[0]
    with pytest.raises(ValueError, match=r"expected a 4x4 map, got 5x7: .*size that the network was folded for"):
        folded(x)
    for options in ({"after": "layer1", "blocks": 1}, {"after": "layer2"}):
        folded, _ = check(small(**options))
        with pytest.raises(ValueError, match="of the size that the network was folded for"):
            folded(x)


def test_several_blocks_each_as_far_as_it_goes() -> None:
    model = small(grid=2)
    for after, blocks in (("layer1", 1), ("layer3.0", 4), ("layer2", 10)):
        srblock.insert(model, after=after, input_size=SIZE, blocks=blocks)
    folded, blocks = check(trained(model), count=4)
    assert [block.name for block in blocks] == ["layer1", "layer2", "layer3.0", "layer3"]
    assert [bool(block.folded) for block in blocks] == [True, False, True, True]
    assert "'layer3.sr" in "\n".join(blocks[2].left), "another block stands between it and the pooling"
    assert "table 3 x 7" in "\n".join(blocks[3].folded)
    assert list(srblock.blocks(folded)) == ["layer2"]
    assert srblock.remove(folded) == ["layer2"], "what was folded is no inserted block any more"


def test_a_block_written_into_a_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), SqueezeRemember2d(6, (6, 5), blocks=3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(), nn.Linear(6, 4), nn.Softmax(1),
    )  # fmt: skip
    folded, _ = check(trained(model), (1, 6, 5))
    assert isinstance(folded[1], nn.Identity)
    assert folded[5].weight.shape == (4, 9)


# --- networks of others ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["torchvision/resnet18", "timm/test_resnet", "timm/test_efficientnet"])
def test_networks_of_libraries(network: str) -> None:
    library, _, name = network.partition("/")
    torch.manual_seed(0)
    if library == "timm":
        model = pytest.importorskip("timm").create_model(name, num_classes=5)
    else:
        model = getattr(pytest.importorskip("torchvision").models, name)(num_classes=5)
    after = {"test_efficientnet": "bn2"}.get(name, "layer4")
    done = srblock.insert(model, after=after, input_size=64, blocks=3)
    _, blocks = check(trained(model, torch.float32), (3, 64, 64))
    text, _ = only(blocks)
    assert f"the memory, 3 x {done.channels} x {done.size[0]} x {done.size[1]} numbers, into a table 3 x 5" in text
    assert blocks[0].parameters_after < 0.2 * blocks[0].parameters_before


def test_airbench_ends_in_a_max_pool_and_keeps_its_memory() -> None:
    torch.manual_seed(0)
    model = Airbench94(classes=10)
    srblock.insert(model, after="layer3", input_size=32)
    text, left = only(check(trained(model, torch.float32), (3, 32, 32))[1])
    assert "the memory, into the classifier: its map goes into 'maxpool' (AdaptiveMaxPool2d), not straight" in left
    assert "into one 10 x 9 matrix" in text


def test_more_than_one_input() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = ResNet("R8", classes=7, channels=1)

        def forward(self, image: Tensor, scale: Tensor) -> Tensor:
            return self.net(image * scale)

    model, x = Two(), torch.randn(3, 1, 16, 16)
    given = {"image": x, "scale": torch.tensor(3.0)}
    srblock.insert(model, after="net.layer3", example_inputs=given, blocks=3)
    trained(model, torch.float32)
    folded, report = fold(model, example_inputs=given)
    assert "table 3 x 7" in str(report)
    torch.testing.assert_close(folded(**given), model(**given), rtol=0, atol=1e-4)
    assert torch.equal(given["image"], x)
    assert given["image"].dtype == torch.float32


# --- what a folded network must survive ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"blocks": 1}, {"after": "layer2"}, {"after": "layer2", "blocks": 1}])
def test_copies_pickles_state_dicts_graphs_and_exports(options: dict[str, Any]) -> None:
    folded, _ = check(small(torch.float32, **options))
    x = noise(5, *SIZE, dtype=torch.float32)
    with torch.no_grad():
        expected = folded(x)
        assert torch.equal(copy.deepcopy(folded)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(folded))(x), expected)
        other, _ = fold(small(torch.float32, **options), SIZE)
        for value in other.parameters():
            value.zero_()
        assert not torch.allclose(other(x), expected)
        other.load_state_dict(folded.state_dict())
        assert torch.equal(other(x), expected)
        assert srblock.load_state(other, folded.state_dict()).complete
        assert torch.equal(torch.fx.symbolic_trace(folded)(x), expected)
        program = torch.export.export(folded, (x[:2],), dynamic_shapes=({0: torch.export.Dim("n")},))
        torch.testing.assert_close(program.module()(x), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert not folded.training


def test_bfloat16_is_folded_in_float64() -> None:
    model = small(torch.bfloat16)
    folded, _ = fold(model, SIZE)
    assert {value.dtype for value in folded.parameters()} == {torch.bfloat16}
    x = noise(5, *SIZE, dtype=torch.bfloat16)
    expected = model(x).detach()
    torch.testing.assert_close(folded(x).detach(), expected, rtol=0, atol=0.05 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "within", [torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)], ids=["mode", "cast"]
)
def test_within_inference_mode_and_autocast(within: Any) -> None:
    model = small(torch.float32)
    with within:
        folded, report = fold(model, SIZE)
    assert "table 3 x 7" in str(report)
    assert not any(value.is_inference() for value in folded.parameters())
    x = noise(3, *SIZE, dtype=torch.float32)
    torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-4)


def test_folding_leaves_the_random_state_alone() -> None:
    model = small()
    before = torch.get_rng_state()
    fold(model, SIZE)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_page_on_folding() -> None:
    page = (Path(__file__).parents[1] / "docs" / "folding.md").read_text(encoding="utf-8")
    session: dict[str, Any] = {}
    for snippet in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(snippet, session)
    assert "".join(f"# {line}\n" for line in str(session["report"]).splitlines()) in page


def test_the_report_in_words() -> None:
    _, report = fold(small(after="layer2", blocks=3, hidden=4), SIZE)
    assert str(report).splitlines() == [
        "'layer2': 6,444 parameters, now 6,368",
        "  folded: the linear layers, 268 numbers, into one 3 x 64 matrix, 192",
        "  left: the memory, into the classifier: its map goes into 'layer3.0.conv1' (Conv2d) and "
        "'layer3.0.downsample' (PaddedShortcut), not straight into a module that averages it over positions",
    ]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no block to fold"):
        fold(ResNet("R8", classes=7), 32)
    model = small()
    with srblock.bypassed(model), pytest.raises(ValueError, match="bypassed; fold it outside"):
        fold(model, SIZE)
    with pytest.raises(
        ValueError, match=r"does not run in float64 on images of shape .2, 1, 24, 24.* expected a 4x4 map"
    ):
        fold(model, (1, 24, 24))
    with pytest.raises(ValueError, match="belongs to maps of 4x4 and resizes its memory to the 6x6 of these images"):
        fold(small(resize="bilinear"), (1, 24, 24))
    with pytest.raises(TypeError, match="give the size of images as input_size"):
        fold(model)
    with pytest.raises(ValueError, match="compiled"):
        fold(torch.compile(model), SIZE)
    folded, _ = fold(model, SIZE)
    with pytest.raises(ValueError, match="no block to fold"):
        fold(folded, SIZE)


@pytest.mark.parametrize("after", ["layer2", "layer3"])
def test_a_single_block_with_a_gain_becomes_its_map(after: str) -> None:
    folded, blocks = check(small(after=after, blocks=1, gain=3.0, rank=2))
    assert blocks[0].folded
    assert not srblock.blocks(folded)
