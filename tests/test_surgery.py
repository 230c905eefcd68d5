"""Surgery on small networks made for it: every promise and every refusal of insert, remove, bypassed, load_state."""

from __future__ import annotations

import copy
import io
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from srblock.block import Options, SqueezeRemember2d, parameter_count
from srblock.checkpoints import load_state
from srblock.runs.placement import places, put_back
from srblock.surgery import blocks, bypassed, insert, param_groups, remove, stages

PARTS = ("address.squeeze", "address.fc1", "address.fc2", "memory.values")


class Residual(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.skip = nn.Conv2d(inner, outer, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2(self.relu(self.bn1(self.conv1(x)))) + self.skip(x))


class Net(nn.Module):
    """A ResNet in small: stem, layer1..3, pooling, classifier."""

    def __init__(self, channels: int = 3, dilated: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.layer1 = nn.Sequential(Residual(4, 4, 1), Residual(4, 4, 1))
        self.layer2 = nn.Sequential(Residual(4, 6, 2), Residual(6, 6, 1))
        self.layer3 = nn.Sequential(Residual(6, 8, 1 if dilated else 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.pool(self.layer3(self.layer2(self.layer1(self.stem(x))))).flatten(1)))


class Around(nn.Module):
    """Run a function of one's own between two convolutions, with `inner` at hand."""

    def __init__(self, inner: nn.Module, forward: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(3, 4, 3, 1, 1), inner, nn.Conv2d(4, 2, 3, 1, 1)
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.run(self.inner, self.first(x))).mean((2, 3))


def images(size: tuple[int, ...] = (2, 3, 16, 16), seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def net(**options: Any) -> Net:
    torch.manual_seed(0)
    model = Net(**options)
    with torch.no_grad():  # statistics that matter, and that a stray training step would move
        model(images((4, options.get("channels", 3), 16, 16)))
    return model.eval()


def contents(model: nn.Module) -> list[tuple[str, bytes]]:
    return [(key, value.numpy().tobytes()) for key, value in model.state_dict().items()]


def anatomy(model: nn.Module) -> list[Any]:
    """All that surgery could leave behind, for comparison."""
    return [
        (name, type(module), set(vars(module)), list(module._modules), list(module._forward_hooks.values()), mode)
        for name, module in model.named_modules()
        for mode in [module.training]
    ]


# --- stages


def test_stages_of_a_resnet() -> None:
    found = {stage.name: stage for stage in stages(net(), 16)}
    numbered = {stage.number: (name, stage.channels, stage.size) for name, stage in found.items() if stage.number}
    assert numbered == {1: ("layer1", 4, (16, 16)), 2: ("layer2", 6, (8, 8)), 3: ("layer3", 8, (4, 4))}
    assert [*found][:4] == ["stem.0", "stem.1", "stem.2", "stem"]  # in the order of the forward pass
    assert "layer1.0.relu" not in found  # called twice
    assert "fc" not in found
    assert found["pool"].size == (1, 1)


def test_stages_of_equal_resolution_are_told_apart_by_their_names() -> None:
    numbered = [stage.name for stage in stages(net(dilated=True), 16) if stage.number]
    assert numbered == ["layer1", "layer2", "layer3"]


def test_stages_of_a_row_of_layers_end_with_the_max_pool() -> None:
    def group(inner: int, outer: int) -> list[nn.Module]:
        return [nn.Conv2d(inner, outer, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)]

    model = nn.Sequential(*group(3, 4), *group(4, 6), nn.Flatten(), nn.Linear(96, 2))
    found = stages(model, 16)
    assert [(stage.number, stage.name) for stage in found if stage.number] == [(1, "2"), (2, "5")]
    assert insert(model, after=2, input_size=16).name == "5"


@pytest.mark.parametrize(
    ("input_size", "size"), [(16, (8, 8)), ((16, 24), (8, 12)), ((3, 24, 16), (12, 8)), ([3, 16, 16], (8, 8))]
)
def test_input_size(input_size: Any, size: tuple[int, int]) -> None:
    assert insert(net(), after="layer2", input_size=input_size).size == size


def test_channels_default_to_those_of_the_first_convolution() -> None:
    assert insert(net(channels=1), after="layer2", input_size=16).size == (8, 8)


def test_nothing_of_the_model_is_disturbed() -> None:
    model = net().train()
    model.layer2.eval()  # a part frozen by hand
    model.layer1[0].conv1.weight.requires_grad_(False)
    before, parts = contents(model), anatomy(model)
    state = torch.get_rng_state()
    stages(model, 16)
    assert contents(model) == before
    assert anatomy(model) == parts
    assert torch.equal(torch.get_rng_state(), state)
    done = insert(model, after="layer2", input_size=16)
    assert torch.equal(torch.get_rng_state(), state)
    assert done.block.training is False  # as its target
    assert contents(model)[: len(before)] != before  # the block's keys stand among the old ones
    assert [entry for entry in contents(model) if ".sr." not in entry[0]] == before
    assert all(value.grad is None for value in model.parameters())
    remove(model)
    assert contents(model) == before
    assert anatomy(model) == parts


# --- insert, remove, bypassed, blocks


@pytest.mark.parametrize("after", ["layer2", 2, "layer2.1", "layer2.1.conv2", "stem.2", "pool", "layer3.0.skip"])
def test_insertion_keeps_everything_and_removal_restores_it(after: str | int) -> None:
    model, x = net(), images()
    before, parts, logits = contents(model), anatomy(model), model(x)
    pointers = [value.data_ptr() for value in model.state_dict().values()]
    done = insert(model, after=after, input_size=16, blocks=3, hidden=5)

    assert list(blocks(model)) == [done.name]
    assert done.block is model.get_submodule(done.name).sr
    assert done.block.options == Options(blocks=3, hidden=5)
    keys = [key for key in model.state_dict() if ".sr." in key]
    assert keys == [f"{done.name}.sr.{part}" for part in PARTS]
    assert done.parameters_added == parameter_count(done.channels, done.size, blocks=3, hidden=5)
    assert done.overhead_percent == pytest.approx(
        100 * done.parameters_added / sum(p.numel() for p in net().parameters())
    )
    assert torch.equal(model(x), logits)

    new = model(x)
    new.square().sum().backward()
    assert done.block.memory.values.grad is not None
    assert done.block.memory.values.grad.abs().sum() > 0
    with torch.no_grad():
        done.block.memory.values.normal_()
    assert not torch.equal(model(x), logits)

    assert remove(model) == [done.name]
    assert contents(model) == before
    assert [value.data_ptr() for value in model.state_dict().values()] == pointers
    assert anatomy(model) == parts
    assert torch.equal(model(x), logits)


def test_overhead_is_of_the_model_before_the_insertion() -> None:
    model = net()
    first = insert(model, after="layer3", input_size=16)
    before = sum(value.numel() for value in model.parameters())
    second = insert(model, after="layer2", input_size=16)
    assert second.overhead_percent == 100 * second.parameters_added / before
    assert list(blocks(model)) == ["layer2", "layer3"]
    assert re.fullmatch(r"SR block after 'layer3' \(8x4x4\): [\d,]+ parameters, [\d.]+% more", str(first))
    assert remove(model) == ["layer2", "layer3"]


@pytest.mark.parametrize("after", ["layer2", "layer2.1", "stem.0"])
def test_copies_and_pickles_use_their_own_block(after: str) -> None:
    model, x = net(), images()
    insert(model, after=after, input_size=16, blocks=2)
    with torch.no_grad():
        model.get_submodule(after).sr.memory.values.normal_()
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)]
    expected = model(x)
    with torch.no_grad():
        model.get_submodule(after).sr.memory.values.zero_()
    for other in copies:
        assert torch.equal(other(x), expected)
        assert not torch.equal(model(x), expected)
        assert remove(other) == [after]
        assert anatomy(other) == anatomy(net())


def test_compiles_and_exports_with_a_block() -> None:
    model, x = net(), images()
    insert(model, after="layer2.1", input_size=16)
    with torch.no_grad():
        model.layer2[1].sr.memory.values.normal_()
    expected = model(x)
    assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(x), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        assert torch.allclose(torch.export.export(model, (x,)).module()(x), expected)


@pytest.mark.parametrize("after", ["layer2", "layer2.1", "stem.2"])
def test_block_follows_dtype_and_memory_format(after: str) -> None:
    model = net().to(torch.bfloat16, memory_format=torch.channels_last)
    block = insert(model, after=after, input_size=16).block
    assert {value.dtype for value in block.parameters()} == {torch.bfloat16}
    assert block.memory.values.is_contiguous(memory_format=torch.channels_last)
    assert not block.memory.values.is_contiguous()
    assert insert(net(), after=after, input_size=16).block.memory.values.is_contiguous()


def test_autocast_around_the_insertion_does_not_matter() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        block = insert(net(), after="stem.2", input_size=16).block  # no parameters of its own
    assert block.memory.values.dtype == torch.float32
    assert block.memory.values.requires_grad


def test_meta_models_can_be_planned() -> None:
    with torch.device("meta"):
        model = Net()
    done = insert(model, after=3, input_size=16)
    assert done.block.memory.values.device.type == "meta"
    assert done.size == (4, 4)


def test_a_frozen_model_and_one_whose_output_is_nested_are_fine() -> None:
    model = Around(nn.Identity(), lambda inner, x: inner(x)).requires_grad_(False)
    insert(model, after="inner", input_size=8)

    @dataclass
    class Output:
        logits: Tensor
        side: int

    class Nested(Net):
        def forward(self, x: Tensor) -> Any:
            return {"out": [(super().forward(x),)], "whole": Output(x.mean(), 3)}

    assert insert(Nested(), after="layer2", input_size=16).name == "layer2"


def test_module_registered_twice_gets_one_block() -> None:
    model = net()
    model.alias = model.layer2  # type: ignore[assignment]
    assert insert(model, after="alias", input_size=16).name == "layer2"


def test_modules_that_loop_over_their_children_run_the_block_themselves() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            for child in self.children():
                x = child(x)
            return x

    model = Around(Loop(), lambda inner, x: inner(x)).eval()
    done = insert(model, after="inner", input_size=8)
    assert not model.inner._forward_hooks
    calls = []
    done.block.register_forward_hook(lambda *_: calls.append(1))
    model(images((2, 3, 8, 8)))
    assert calls == [1]
    assert remove(model) == ["inner"]


def test_blocks_keep_plain_names_in_wrapped_models() -> None:
    model = net()
    insert(model, after="layer2", input_size=16)
    assert list(blocks(nn.DataParallel(model))) == ["layer2"]
    assert list(blocks(torch.compile(model, backend="eager"))) == ["layer2"]  # type: ignore[arg-type]
    assert blocks(net()) == {}


def test_bypassed() -> None:
    model, x = net(), images()
    logits = model(x)
    first = insert(model, after="layer2", input_size=16).block
    second = insert(model, after="layer3.0", input_size=16).block
    with torch.no_grad():
        first.memory.values.normal_()
        second.memory.values.normal_()
    second.bypassed = True
    changed = model(x)
    with bypassed(model):
        assert torch.equal(model(x), logits)
        with pytest.raises(RuntimeError, match="boom"), bypassed(model):
            raise RuntimeError("boom")
        assert torch.equal(model(x), logits)
    assert (first.bypassed, second.bypassed) == (False, True)
    assert torch.equal(model(x), changed)
    with pytest.raises(ValueError, match="no block to bypass"), bypassed(net()):
        pass


# --- refusals


def refused(model: nn.Module, after: Any, match: str, input_size: Any = 16, error: type[Exception] = ValueError) -> str:
    """Insert, expect a refusal, and expect the model to be as before."""
    before, parts = list(model.state_dict()), anatomy(model)
    with pytest.raises(error, match=match) as caught:
        insert(model, after=after, input_size=input_size)
    assert list(model.state_dict()) == before
    assert anatomy(model) == parts
    return str(caught.value)


def test_refuses_wrapped_models() -> None:
    refused(nn.DataParallel(net()), 1, r"the model is wrapped in DataParallel.*plain model.*\.module")
    refused(torch.compile(net(), backend="eager"), 1, "the model is compiled.*torch.compile afterwards")  # type: ignore[arg-type]
    inner = net()
    inner.layer1 = torch.compile(inner.layer1, backend="eager")  # type: ignore[assignment]
    refused(inner, "layer2", "'layer1' in the model is compiled")
    in_place = net()
    in_place.layer2.compile(backend="eager")
    refused(in_place, "layer1", "'layer2' in the model is compiled")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(net(), images())
    with pytest.raises(ValueError, match=r"TorchScript.*Python model"):
        insert(scripted, after=1, input_size=16)
    refused(nn.Sequential(nn.LazyConv2d(4, 3)), "0", "lazy parameters.*run it once")
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got str"):
        insert("resnet18", after=1, input_size=16)  # type: ignore[arg-type]


def test_refuses_a_distributed_model(tmp_path: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(net())
        with pytest.raises(ValueError, match="wrapped in DistributedDataParallel"):
            insert(model, after=1, input_size=16)
        with pytest.raises(ValueError, match="wrapped in DistributedDataParallel"):
            remove(model)
        sharded = torch.distributed.fsdp.fully_shard(net(), mesh=torch.distributed.init_device_mesh("cpu", (1,)))
        with pytest.raises(ValueError, match=r"wrapped in FSDPNet, which .*insert into the plain model and wrap it"):
            insert(sharded, after=1, input_size=16)
    finally:
        torch.distributed.destroy_process_group()


def test_refuses_unknown_places() -> None:
    refused(net(), "layr2", "no module 'layr2'.*nearest names are 'layer2'")
    refused(net(), "nothing.like.it", "its stages are 1: 'layer1', 2: 'layer2', 3: 'layer3'")
    refused(net(), "", "no module ''")
    for number in (0, 4, -1):
        refused(net(), number, rf"no stage {number}; the model's stages are 1: 'layer1', 2: 'layer2', 3: 'layer3'")
    refused(nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), 1, "cannot be numbered: pass a name")
    for after in (True, None, 1.5):
        refused(net(), after, "after must be a module's name or a stage number", error=TypeError)


def test_refuses_places_without_a_map() -> None:
    refused(net(), "fc", r"'fc': it returns a 2-D tensor of shape \(2, 5\).*nearest usable point is 'pool'")
    refused(net(), "layer1.0.relu", "called 2 times in one forward pass.*nearest usable point is 'layer1.0'")
    pair = Around(nn.Identity(), lambda inner, x: inner((x, x))[0])
    refused(pair, "inner", r"returns a tuple, not one \(N, C, H, W\) map")
    spare = Around(nn.Conv2d(4, 4, 1), lambda inner, x: x)
    refused(spare, "inner", "is not called in a forward pass .in eval mode.*nearest usable point is 'first'")
    windows = Around(nn.Identity(), lambda inner, x: inner(x.reshape(-1, 4, 8, 8)).reshape(x.shape))
    refused(windows, "inner", r"returns shape \(8, 4, 8, 8\) for 2 images, not one map an image")
    integers = Around(nn.Identity(), lambda inner, x: x + inner(x.long()))
    refused(integers, "inner", "returns torch.int64, not a floating-point map")


def test_refuses_a_map_that_nobody_uses() -> None:
    # Works in place, and its result is dropped: the block's would be as well.
    model = Around(nn.ReLU(inplace=True), lambda inner, x: (inner(x), x)[1])
    refused(model, "inner", "output does not depend on the block")


def test_refuses_an_occupied_place() -> None:
    model = net()
    insert(model, after="layer2", input_size=16)
    refused(model, "layer2", "has a block already; remove it first")
    refused(model, 2, "has a block already")
    refused(model, "layer2.sr", "'layer2.sr': it is a block itself")
    other = net()
    other.layer2[1].sr = nn.Identity()
    refused(other, "layer2.1", "has an attribute 'sr' of its own")


def test_rolls_back_where_a_module_takes_the_block_for_a_child() -> None:
    class Dense(nn.ModuleDict):
        def forward(self, x: Tensor) -> Tensor:
            maps = [x]
            for layer in self.values():
                maps.append(layer(torch.cat(maps, 1)))
            return torch.cat(maps, 1)

    dense = Dense({"a": nn.Conv2d(4, 2, 3, 1, 1), "b": nn.Conv2d(6, 2, 3, 1, 1)})
    model = Around(
        nn.Sequential(OrderedDict(dense=dense, norm=nn.BatchNorm2d(8), out=nn.Conv2d(8, 4, 1))), lambda f, x: f(x)
    )
    message = refused(model, "inner.dense", "a forward pass fails with ValueError: .*; the model is unchanged")
    assert message.endswith("the nearest usable point is 'inner.norm', 8x16x16")
    assert "inner.dense" not in [stage.name for stage in stages(model, 16)]

    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return sum((child(x) for child in self.children()), torch.zeros(()))

    refused(Around(Summed(), lambda inner, x: inner(x)), "inner", "cannot insert a block after 'inner'")


def test_refuses_a_module_that_goes_on_after_its_children_or_counts_them() -> None:
    class Looped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            start = x
            for child in self.children():
                x = child(x)
            return x + start

    class Counted(Looped):
        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) * len(self._modules)

    # The loop alone runs the block once, but not after the module.
    refused(Around(Looped(), lambda inner, x: inner(x)), "inner", "cannot insert a block after 'inner'")
    refused(Around(Counted(), lambda inner, x: inner(x)), "inner", "the model's output changes")


def test_what_surrounds_the_insertion_does_not_matter() -> None:
    def noisy(inner: nn.Module, x: Tensor) -> Tensor:
        return inner(F.dropout(x, 0.5, training=True))

    def two_faced(inner: nn.Module, x: Tensor) -> Tensor:
        return inner(x) if not inner.training else inner(inner(x))

    model = Around(nn.Identity(), noisy)
    state = torch.get_rng_state()
    with torch.inference_mode():
        block = insert(model, after="inner", input_size=8).block
    assert torch.equal(torch.get_rng_state(), state)
    assert not block.memory.values.is_inference()
    assert insert(Around(nn.Identity(), two_faced).train(), after="inner", input_size=8).block.training


def test_a_forward_that_refers_to_the_model_itself_changes_no_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)).train()
    norm = model[1]
    old = norm.forward
    norm.forward = lambda x: old(x)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    insert(model, after="2", input_size=8, blocks=2)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("use", [blocks, remove, param_groups])
def test_refuses_a_block_whose_module_was_converted(use: Callable[[nn.Module], object]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    insert(model, after="1", input_size=8, blocks=2)
    assert list(blocks(copy.deepcopy(model))) == ["1"]
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    with pytest.raises(ValueError, match=r"nothing runs the block '1.sr': .* convert or fuse first and insert then"):
        use(model)


def test_a_traced_graph_runs_its_blocks() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)).eval()
    block = insert(model, after="1", input_size=8, blocks=2).block
    nn.init.normal_(block.memory.values)
    graph = torch.fx.symbolic_trace(model)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(graph(x), model(x))
    assert list(blocks(graph).values()) == [block]
    holder = nn.Module()
    holder.sr = block
    assert list(blocks(holder)) == ["sr"]


def test_autocast_within_the_model_does_not_matter() -> None:
    def autocast(inner: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return inner(x).float()

    model = Around(nn.Conv2d(4, 4, 1), autocast)
    assert insert(model, after="inner", input_size=8).block.memory.values.dtype == torch.float32


@pytest.mark.parametrize("half", [False, True])
def test_after_a_module_without_parameters_the_block_has_the_dtype_of_the_model(half: bool) -> None:
    """Not that of a map under an autocast of the model's own, nor that of a first layer that was left in float32."""

    class Cast(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().forward(x)  # type: ignore[no-any-return]

    class ToHalf(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.to(torch.bfloat16)

    layers = nn.Conv2d(3, 4, 3, padding=1), ToHalf() if half else nn.Identity(), nn.Conv2d(4, 4, 1), nn.ReLU()
    model = nn.Sequential(*layers) if half else Cast(*layers)
    if half:
        model[2].to(torch.bfloat16)
    block = insert(model, after="3", input_size=8).block
    expected = torch.bfloat16 if half else torch.float32
    assert {value.dtype for value in block.parameters()} == {expected}
    assert model(torch.randn(2, 3, 8, 8)).dtype == torch.bfloat16


def test_refuses_channels_last_dimensions() -> None:
    def nhwc(inner: nn.Module, x: Tensor) -> Tensor:
        return inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    refused(Around(nn.LayerNorm(4), nhwc), "inner", r"returns its map as \(N, H, W, C\), here \(2, 16, 16, 4\)")
    # The shape alone cannot tell: as many channels as rows and columns.
    refused(Around(nn.LayerNorm(4), nhwc), "inner", r"returns its map as \(N, H, W, C\)", input_size=4)
    assert insert(Around(nn.Conv2d(4, 4, 1), lambda inner, x: inner(x)), after="inner", input_size=4)


def test_refuses_attention_weights() -> None:
    def attend(inner: nn.Module, x: Tensor) -> Tensor:
        queries = x.flatten(2).transpose(1, 2).unflatten(2, (2, 2)).transpose(1, 2)
        weights = inner((queries @ queries.transpose(-1, -2)).softmax(-1))
        return (weights @ queries).transpose(1, 2).flatten(2).transpose(1, 2).reshape(x.shape)

    refused(Around(nn.Dropout(), attend), "inner", "do not follow the image's height and width", input_size=8)


class FixedSize(nn.Module):
    """Refuses all images but those of 8x8 at once, as transformers with learned positions do."""

    def __init__(self, inner: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.first, self.inner, self.run = nn.Conv2d(3, channels, 1), inner, forward

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (8, 8):
            raise ValueError("8x8 only")
        return self.run(self.inner, self.first(x)).mean((2, 3))


@pytest.mark.parametrize(
    ("channels", "inner", "permuted", "match"),
    [
        (4, nn.Conv2d(4, 4, 1), False, None),
        (4, nn.LayerNorm(4), True, r"returns its map as \(N, H, W, C\)"),
        (8, nn.LayerNorm(8), True, "cannot be told to be"),
        (8, nn.Conv2d(8, 8, 1), False, "cannot be told to be"),
        (4, nn.ReLU(), False, "cannot be told to be"),
    ],
)
def test_models_of_one_size_are_judged_by_their_shapes(
    channels: int, inner: nn.Module, permuted: bool, match: str | None
) -> None:
    def run(inner: nn.Module, x: Tensor) -> Tensor:
        return inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if permuted else inner(x)

    model = FixedSize(inner, run, channels)
    if match is None:
        assert insert(model, after="inner", input_size=8).size == (8, 8)
    else:
        refused(model, "inner", match, input_size=8)


def test_refuses_impossible_images() -> None:
    refused(net(), 1, r"does not run on images of shape \(2, 4, 16, 16\).*check input_size", (4, 16, 16))
    for size in (1.5, "16", (16,), (1, 2, 3, 4), None, (True, 16)):
        with pytest.raises(TypeError):
            insert(net(), after=1, input_size=size)  # type: ignore[arg-type]
    refused(net(), 1, "at least 1 in every direction", (0, 16))
    refused(net(), 1, "at least 1 in every direction", -3)


def test_refuses_options_that_the_block_refuses() -> None:
    model = net()
    parts = anatomy(model)
    with pytest.raises(ValueError, match="blocks must be at least 1"):
        insert(model, after=1, input_size=16, blocks=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'block'"):
        insert(model, after=1, input_size=16, block=3)
    assert anatomy(model) == parts


def test_remove_refuses_a_model_without_blocks() -> None:
    with pytest.raises(ValueError, match="no inserted block"):
        remove(net())


# --- load_state


def trained(size: int = 16, after: str = "layer2", **block: Any) -> Net:
    model = net()
    inserted = insert(model, after=after, input_size=size, **block).block
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in inserted.parameters():
            value.copy_(torch.randn(value.shape, generator=generator))
    return model


WRAPPINGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "plain": lambda state: state,
    "ddp": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "compiled in ddp": lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
    "ddp compiled": lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
    "part compiled": lambda state: {key.replace("layer2.", "layer2._orig_mod."): value for key, value in state.items()},
    "state_dict": lambda state: {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}},
    "model": lambda state: {"model": state, "optimizer": {}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_load_state_understands_wrappings(wrapping: str) -> None:
    source, model = trained(), net()
    insert(model, after="layer2", input_size=16)
    report = load_state(model, WRAPPINGS[wrapping](source.state_dict()))
    assert report.complete
    assert not report.resized
    assert report.loaded == list(source.state_dict())
    assert contents(model) == contents(source)


def test_load_state_into_wrapped_models() -> None:
    source, model = trained(), net()
    insert(model, after="layer2", input_size=16)
    load_state(nn.DataParallel(torch.compile(model, backend="eager")), source.state_dict())  # type: ignore[arg-type]
    assert contents(model) == contents(source)


@pytest.mark.parametrize("size", [32, 8])
def test_load_state_resizes_memory_and_first_linear_layer(size: int) -> None:
    source, model = trained(hidden=3, blocks=2), net()
    target = insert(model, after="layer2", input_size=size, hidden=3, blocks=2).block
    block = source.layer2.sr
    before = contents(model)
    with pytest.raises(
        ValueError, match=rf"'layer2.sr' belongs to maps of 8x8, the model's to {size // 2}x{size // 2}"
    ):
        load_state(model, source.state_dict())
    with pytest.raises(ValueError, match="resize=True"):
        load_state(model, source.state_dict(), strict=False)
    assert contents(model) == before

    report = load_state(model, source.state_dict(), resize=True)
    side = size // 2
    assert report.resized == {
        "layer2.sr.address.fc1": ((3, 64), (3, side * side)),
        "layer2.sr.memory.values": ((2, 6, 8, 8), (2, 6, side, side)),
    }
    assert report.complete
    memory = F.interpolate(block.memory.values, (side, side), mode="bilinear", align_corners=False)
    assert torch.allclose(target.memory.values, memory)
    assert torch.equal(target.address.fc2, block.address.fc2)
    assert torch.allclose(target.address.fc1.sum(1), block.address.fc1.sum(1), atol=1e-4), "of a constant map"


@pytest.mark.parametrize(("old", "new"), [(28, 7), (12, 7), (8, 5), (7, 14), (6, 6), (5, 12)])
def test_resized_units_answer_as_to_maps_of_their_old_size(old: int, new: int) -> None:
    """On smaller maps as a block does that resizes them, on larger ones by all positions."""
    source = SqueezeRemember2d(4, (old, old + 1), blocks=3, hidden=6, squeeze_channels=2, resize="bilinear").eval()
    with torch.no_grad():
        source.memory.values.normal_()
    block = SqueezeRemember2d(4, (new, new + 1), blocks=3, hidden=6, squeeze_channels=2).eval()
    with torch.inference_mode():
        load_state(block, source.state_dict(), resize=True)
        x = torch.randn(5, 4, new, new + 1)
        squeezed = F.conv2d(x, source.address.squeeze)
        maps = F.interpolate(squeezed, (old, old + 1), mode="bilinear", antialias=True)
        expected = maps.flatten(1) @ source.address.fc1.T
        torch.testing.assert_close(squeezed.flatten(1) @ block.address.fc1.T, expected, rtol=1e-4, atol=1e-5)
        if new <= old:
            torch.testing.assert_close(block(x), source(x), rtol=1e-4, atol=1e-4)


def older(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name keys as they were when blocks had no parts."""
    return {key.replace(".sr.address.", ".sr.").replace(".sr.memory.values", ".sr.memory"): state[key] for key in state}


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("wrapping", ["plain", "compiled in ddp"])
def test_load_state_knows_older_keys(size: int, wrapping: str) -> None:
    source = trained().state_dict()
    model, expected = net(), net()
    for other in (model, expected):
        insert(other, after="layer2", input_size=size)
    state = older(source)
    assert {key for key in state if ".sr." in key} == {
        f"layer2.sr.{part}" for part in ("squeeze", "fc1", "fc2", "memory")
    }
    report = load_state(model, WRAPPINGS[wrapping](state), resize=True)
    assert report == load_state(expected, source, resize=True)
    assert report.complete
    assert len(report.resized) == (0 if size == 16 else 2)
    assert contents(model) == contents(expected)
    assert "layer2.sr.memory" in state  # the caller's
    with pytest.raises(ValueError, match="the checkpoint has a block where the model has none: insert it first"):
        load_state(net(), state)


def test_torch_loads_older_keys_through_every_wrapper() -> None:
    source, model = trained(), net()
    insert(model, after="layer2", input_size=16)
    wrapped = nn.DataParallel(model)
    wrapped.load_state_dict({f"module.{key}": value for key, value in older(source.state_dict()).items()})
    assert contents(model) == contents(source)
    copied = copy.deepcopy(pickle.loads(pickle.dumps(net_with_block())))  # the hook goes with them
    copied.load_state_dict(older(source.state_dict()))
    assert contents(copied) == contents(source)


def net_with_block() -> Net:
    model = net()
    insert(model, after="layer2", input_size=16)
    return model


@pytest.mark.parametrize(
    ("options", "after", "match"),
    [
        ({"blocks": 4}, "layer2", r"P=4 \(the model has 10\)"),
        ({"hidden": 4}, "layer2", r"U=4 \(the model has 8\)"),
    ],
)
def test_load_state_refuses_other_blocks(options: dict[str, int], after: str, match: str) -> None:
    model = net()
    insert(model, after=after, input_size=16)
    before = contents(model)
    for strict in (True, False):
        with pytest.raises(ValueError, match=match):
            load_state(model, trained(after=after, **options).state_dict(), resize=True, strict=strict)
    assert contents(model) == before


def test_load_state_refuses_damaged_blocks() -> None:
    def load(**changes: Tensor | None) -> None:
        state = dict(trained().state_dict())
        for part, value in changes.items():
            (key,) = (f"layer2.sr.{key}" for key in PARTS if part in key.split("."))
            state[key] = value
            if value is None:
                del state[key]
        load_state(trained(), state, strict=False)

    with pytest.raises(ValueError, match=r"C=7 \(the model has 6\)"):
        load(memory=torch.zeros(10, 7, 8, 8))
    with pytest.raises(ValueError, match="is incomplete, it lacks fc1, memory"):
        load(fc1=None, memory=None)
    with pytest.raises(ValueError, match="contradicts itself"):
        load(fc1=torch.zeros(8, 63))
    with pytest.raises(ValueError, match="is not a block of this package"):
        load(fc1=torch.zeros(8, 64, 1))


def test_load_state_reports_key_by_key() -> None:
    model, source = trained(), net()
    state = dict(source.state_dict())
    state["layer9.weight"] = torch.zeros(1)
    state["fc.weight"] = torch.zeros(7, 8)
    del state["stem.0.bias"]
    state["stem.0.weight"] = torch.ones(4, 3, 3, 3)
    before = contents(model)
    with pytest.raises(
        ValueError, match="nothing was loaded; the model has a block that the checkpoint lacks"
    ) as caught:
        load_state(model, state)
    assert contents(model) == before
    lines = (
        "missing    stem.0.bias",
        "missing    layer2.sr.memory.values",
        "unexpected layer9.weight",
        "mismatched fc.weight: (7, 8) in the checkpoint, (5, 8) in the model",
    )
    assert all(line in str(caught.value) for line in lines)
    with pytest.warns(UserWarning, match="missing    stem.0.bias"):
        report = load_state(model, state, strict=False)
    assert report.missing == ["stem.0.bias", *(f"layer2.sr.{part}" for part in PARTS)]
    assert report.unexpected == ["layer9.weight"]
    assert report.mismatched == {"fc.weight": ((7, 8), (5, 8))}
    assert not report.complete
    assert model.stem[0].weight.eq(1).all()
    kept = dict(before)
    assert dict(contents(model))["fc.weight"] == kept["fc.weight"]
    assert dict(contents(model))["layer2.sr.memory.values"] == kept["layer2.sr.memory.values"]


def test_load_state_hints_at_a_block_not_inserted() -> None:
    with pytest.raises(ValueError, match="the checkpoint has a block where the model has none: insert it first"):
        load_state(net(), trained().state_dict())


def test_load_state_takes_old_checkpoints_and_refuses_other_things() -> None:
    state = {key: value for key, value in net().state_dict().items() if "num_batches" not in key}
    assert load_state(net(), state).complete
    with pytest.raises(TypeError, match=r"expected a state_dict.*got Net"):
        load_state(net(), net())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"expected a tensor for 'fc.weight', got int"):
        load_state(net(), {**net().state_dict(), "fc.weight": 3})
    state = net().state_dict()
    with pytest.raises(ValueError, match="become the same"):
        load_state(net(), {**state, "module.fc.weight": state["fc.weight"]})


# --- param_groups


def test_param_groups_split_memories_from_the_rest() -> None:
    model = net()
    first = insert(model, after="layer2", input_size=16).block
    second = insert(model, after="layer3.0", input_size=16).block
    second.memory.values.requires_grad_(False)
    model.stem.requires_grad_(False)
    rest, memories = param_groups(model, memory_lr=0.5, memory_weight_decay=0.0)
    assert [*memories] == ["params", "lr", "weight_decay"]
    assert (memories["lr"], memories["weight_decay"]) == (0.5, 0.0)
    assert [id(value) for value in memories["params"]] == [id(first.memory.values)]
    expected = [value for value in model.parameters() if value.requires_grad and value is not first.memory.values]
    assert [id(value) for value in rest["params"]] == [id(value) for value in expected]
    assert [*rest] == ["params"]
    assert [*param_groups(model)[1]] == ["params"]


def test_param_groups_in_sgd() -> None:
    model = net()
    block = insert(model, after="layer2", input_size=16).block
    optimizer = torch.optim.SGD(param_groups(model, memory_lr=0.5), lr=0.1, weight_decay=0.01)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.1, 0.01), (0.5, 0.01)]
    model(images()).square().sum().backward()
    step = block.memory.values.grad
    optimizer.step()
    assert torch.allclose(block.memory.values, -0.5 * step)


def test_param_groups_in_timms_factory() -> None:
    optim = pytest.importorskip("timm.optim")
    model = net()
    insert(model, after="layer2", input_size=16)
    groups = param_groups(model, memory_lr=0.5, memory_weight_decay=0.0)
    optimizer = optim.create_optimizer_v2(groups, opt="sgd", lr=0.1, weight_decay=0.01, momentum=0.9)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.1, 0.01), (0.5, 0.0)]


def test_param_groups_refuse() -> None:
    with pytest.raises(ValueError, match="no block with a trainable memory"):
        param_groups(net(), memory_lr=0.1)
    model = trained()
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="memory_lr must be a finite number of at least 0"):
            param_groups(model, memory_lr=value)
        with pytest.raises(ValueError, match="memory_weight_decay must be"):
            param_groups(model, memory_weight_decay=value)


def test_blocks_written_into_a_network_are_found_under_their_own_name() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), SqueezeRemember2d(4, 8))
    assert list(blocks(model)) == ["1"]
    with pytest.raises(ValueError, match="no inserted block"):
        remove(model)


def test_a_block_that_the_user_wrote_is_not_removed() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.sr = nn.Conv2d(3, 8, 3, padding=1), SqueezeRemember2d(8, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.sr(self.conv(x))

    model = Own()
    assert list(blocks(model)) == ["sr"]
    with pytest.raises(ValueError, match="no inserted block"):
        remove(model)
    insert(model, after="conv", input_size=16)
    assert remove(model) == ["conv"]
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 8, 16, 16)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of sizes, which tracing fixes
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is deprecated:FutureWarning")
def test_a_network_with_a_block_can_be_traced() -> None:
    """The refusal of scripted models says to trace afterwards."""
    model, image = net().eval(), images()
    block = insert(model, after="layer3", input_size=16).block
    nn.init.normal_(block.memory.values)
    traced = torch.jit.trace(model, image)
    torch.testing.assert_close(traced(image), model(image))


# --- graphs and exports of networks with a block ---------------------------------------------------------------------


def resnet(after: str, resize: str | None) -> tuple[nn.Module, SqueezeRemember2d]:
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    model = models.resnet18().eval()
    block = insert(model, after=after, input_size=64, resize=resize, blocks=3).block
    nn.init.normal_(block.memory.values)
    return model, block


@pytest.mark.parametrize("resize", [None, "bilinear"])
@pytest.mark.parametrize("after", ["layer3", "layer3.1", "layer3.1.conv2"])
def test_fx_traces_around_a_block(after: str, resize: str | None) -> None:
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model, block = resnet(after, resize)
    graph = torch.fx.symbolic_trace(model)
    nodes = [node for node in graph.graph.nodes if f"{after}.sr" in str(node.target)]
    # After a layer of torch, which is one node itself, the block is a part of that.
    assert [(node.op, node.target) for node in nodes] == [("call_module", f"{after}.sr")] * (after != "layer3.1.conv2")
    assert graph.state_dict().keys() == model.state_dict().keys()
    features = extraction.create_feature_extractor(model, ["layer3", "fc"])
    seen: list[Tensor] = []
    model.layer3.register_forward_hook(lambda module, args, output: seen.append(output))
    for size in (64, 96)[: 2 if resize else 1]:
        for layout in (torch.contiguous_format, torch.channels_last):
            x = images((2, 3, size, size)).contiguous(memory_format=layout)
            expected = model(x)
            assert torch.equal(graph(x), expected)
            found = features(x)
            assert torch.equal(found["fc"], expected)
            assert torch.equal(found["layer3"], seen[-1])
    x = images((2, 3, 64, 64))
    (wanted,) = torch.autograd.grad(model(x).square().sum(), block.memory.values)
    (gradient,) = torch.autograd.grad(graph(x).square().sum(), graph.get_parameter(f"{after}.sr.memory.values"))
    assert torch.equal(gradient, wanted)
    assert wanted.abs().max() > 0
    with bypassed(model):
        assert torch.equal(graph(x), model(x))


@pytest.mark.parametrize("strict", [False, True])
def test_a_network_exported_for_any_size_is_right_for_every_size(strict: bool) -> None:
    model, _ = resnet("layer3", "bilinear")
    free = torch.export.Dim.DYNAMIC  # torch 2.8 takes no named ones here, with a block or without
    shapes = {"x": {0: free, 2: free, 3: free}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.export.export(model, (images((2, 3, 64, 64)),), dynamic_shapes=shapes, strict=strict).module()
    for size in ((2, 3, 64, 64), (3, 3, 96, 80), (1, 3, 40, 64)):
        torch.testing.assert_close(program(images(size)), model(images(size)), rtol=0, atol=1e-5)


def test_hooks_that_look_at_a_module_see_what_the_network_goes_on_with() -> None:
    """timm's features_only takes its features so, and so does Grad-CAM."""
    model, seen = net(), []
    residual = model.layer2[1]
    residual.register_forward_hook(lambda module, args, output: seen.append(output))
    block = insert(model, after="layer2.1", input_size=16, blocks=2).block
    block.memory.store(torch.ones(2, 6, 8, 8))
    passed: list[Tensor] = []
    model.layer3[0].register_forward_pre_hook(lambda module, args: passed.append(args[0]))
    model(images())
    assert torch.equal(seen[-1], passed[-1])
    copied = copy.deepcopy(model)
    assert torch.equal(copied(images()), model(images()))
    remove(model)
    model(images())
    assert torch.equal(seen[-1], passed[-1])


def test_features_that_are_taken_by_hooks_have_the_block() -> None:
    timm = pytest.importorskip("timm")
    features = timm.models._features
    model = timm.create_model("test_convnext", features_only=True, feature_cls=features.FeatureHookNet).eval()
    last = insert(model, after="stages_3", input_size=64, blocks=2)
    before = model(images((2, 3, 64, 64)))
    assert places(model)[0]["hooked"] == "first"
    last.block.memory.store(torch.ones(2, last.block.channels, *last.block.size))
    after = model(images((2, 3, 64, 64)))
    assert [torch.equal(one, other) for one, other in zip(before, after, strict=True)] == [True, True, True, False]


def test_a_block_follows_a_hook_that_makes_the_output() -> None:
    model = net()
    model.layer2[1].register_forward_hook(lambda module, args, output: output.tanh())
    block = insert(model, after="layer2.1", input_size=16, blocks=2).block
    block.memory.store(torch.ones(2, 6, 8, 8))
    passed: list[Tensor] = []
    model.layer3[0].register_forward_pre_hook(lambda module, args: passed.append(args[0]))
    model(images())
    assert passed[0].min() >= 0  # tanh and one more
    assert passed[0].max() > 1
    (entry,) = places(model)
    assert entry["hooked"] == "last"
    for hooked in ("last", True):  # as 0.2 wrote it
        again = net()
        again.layer2[1].register_forward_hook(lambda module, args, output: output.tanh())
        put_back(again, [entry | {"hooked": hooked}])
        again.load_state_dict(model.state_dict())
        assert torch.equal(again(images()), model(images()))


def net_of_labels(used: bool) -> nn.Module:
    """In evaluation it says labels, through which no gradient comes."""

    def forward(inner: nn.Module, x: Tensor) -> Tensor:
        return inner(x) if used else (inner(x), x)[1]

    model = Around(nn.Conv2d(4, 4, 1), forward).eval()
    model.register_forward_hook(lambda module, args, output: output.argmax(1))
    return model


def test_labels_must_depend_on_the_block_too() -> None:
    insert(net_of_labels(used=True), after="inner", input_size=16, blocks=2)
    with pytest.raises(ValueError, match="does not depend on the block, which could never learn"):
        insert(net_of_labels(used=False), after="inner", input_size=16, blocks=2)


def test_labels_depend_on_a_block_before_a_layer_that_starts_at_zero() -> None:
    """Or that refuses what no trained network would give it."""
    model = net_of_labels(used=True)
    nn.init.zeros_(model.last.weight)
    insert(model, after="inner", input_size=16, blocks=2)

    def careful(inner: nn.Module, x: Tensor) -> Tensor:
        if (found := inner(x)).abs().max() > 500:
            raise FloatingPointError("activations exploded")
        return found

    careful_net = Around(nn.Conv2d(4, 4, 1), careful).eval()
    careful_net.register_forward_hook(lambda module, args, output: output.argmax(1))
    insert(careful_net, after="inner", input_size=16, blocks=2)


@pytest.mark.parametrize("used", [True, False])
def test_a_reentrant_checkpoint_hides_the_graph_and_not_the_block(used: bool) -> None:
    def forward(inner: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(lambda x: inner(x) if used else (inner(x), x)[1], x, use_reentrant=True)

    model = Around(nn.Conv2d(4, 4, 1), forward)
    if not used:
        with pytest.raises(ValueError, match="does not depend on the block"):
            insert(model, after="inner", input_size=16, blocks=2)
        return
    block = insert(model, after="inner", input_size=16, blocks=2).block
    model(images()).square().sum().backward()
    assert block.memory.values.grad.abs().sum() > 0


@pytest.mark.parametrize("how", ["plain", "labels", "checkpoint"])
def test_a_branch_that_is_dropped_is_no_place_whatever_hides_the_graph(how: str) -> None:
    """As an auxiliary head that speaks in training only."""

    class Branched(Around):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(4, 4, 1), lambda inner, x: x)
            self.aside = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            self.aside(self.inner(x))
            x = checkpoint(self.last, x, use_reentrant=True) if how == "checkpoint" else self.last(x)
            return x.mean((2, 3)).argmax(1) if how == "labels" else x.mean((2, 3))

    with pytest.raises(ValueError, match="does not depend on the block"):
        insert(Branched(), after="inner", input_size=16, blocks=2)


def test_outputs_in_an_object_are_looked_at() -> None:
    model = Around(nn.Conv2d(4, 4, 1), lambda inner, x: (inner(x), x)[1]).eval()
    model.register_forward_hook(lambda module, args, output: SimpleNamespace(logits=output))
    with pytest.raises(ValueError, match="does not depend on the block"):
        insert(model, after="inner", input_size=16, blocks=2)


def test_an_input_size_that_is_no_integer() -> None:
    with pytest.raises(TypeError, match="input_size must be an integer"):
        stages(net(), 16.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="give the size of images as input_size, such as 224"):
        stages(net(), None)
    with pytest.raises(
        TypeError, match=r"got a tensor \(2, 3, 16, 16\); images themselves.* are example_inputs=\(images"
    ):
        stages(net(), images())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda value: value.to_sparse(), r"sparse \(sparse_coo\)"),
        (lambda value: value.to(torch.complex64), "complex64"),
        (lambda value: value.to(torch.int64), "int64"),
        (lambda value: value.to("meta"), "meta, without values"),
    ],
)
def test_load_state_refuses_what_is_no_weight(change: Callable[[Tensor], Tensor], kind: str) -> None:
    """torch would drop the imaginary part, and round silently."""
    model = nn.Sequential(nn.Linear(3, 2))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=rf"nothing was loaded: 0\.weight is {kind}; expected dense floating-point"):
        load_state(model, {"0.weight": change(torch.ones(2, 3)), "0.bias": torch.ones(2)})
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
