"""A memory on a coarser grid: a whole memory that repeats its values, wherever a block goes, and what it trains to."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import srblock
from srblock import SqueezeRemember2d, parameter_count
from srblock.block import Options
from srblock.inspection.cost import count_parameters
from srblock.inspection.recall import memory_probe
from srblock.models.resnet import ResNet
from srblock.runs.placement import places, put_back
from srblock.variants.build import build, outline
from srblock.variants.notation import parse

FORMATS = (torch.contiguous_format, torch.channels_last)
SIZE = (6, 4)


def pair(grid: tuple[int, int], **options: Any) -> tuple[SqueezeRemember2d, SqueezeRemember2d]:
    """A block with a coarse memory, and one with the whole memory that it stands for; the rest is the same."""
    generator = torch.Generator().manual_seed(0)
    given: dict[str, Any] = {"blocks": 3, "hidden": 4, "dtype": torch.float64} | options
    coarse, whole = SqueezeRemember2d(5, SIZE, grid=grid, **given), SqueezeRemember2d(5, SIZE, **given)
    with torch.no_grad():
        for value in coarse.parameters():
            value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64))
        rows, columns = SIZE[0] // grid[0], SIZE[1] // grid[1]
        state = dict(coarse.state_dict())
        state["memory.values"] = torch.kron(state["memory.values"], torch.ones(1, 1, rows, columns).to(given["dtype"]))
        whole.load_state_dict(state)
    return coarse, whole


def images(*shape: int, seed: int = 1, layout: Any = torch.contiguous_format) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.contiguous(memory_format=layout)


# --- the block -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 1), (1, 4), (6, 2), SIZE])
def test_it_is_the_whole_memory_that_repeats_its_values(grid: tuple[int, int], layout: Any) -> None:
    coarse, whole = pair(grid)
    x, upstream = images(7, 5, *SIZE, layout=layout).requires_grad_(), images(7, 5, *SIZE, seed=2)
    y = coarse(x)
    torch.testing.assert_close(y, whole(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(coarse.recall(x), whole.recall(x), rtol=0, atol=1e-12)
    assert torch.equal(coarse.memory.maps(), whole.memory.values)
    assert coarse.memory.values.shape == (3, 5, *grid)
    assert y.stride() == x.stride()
    found = torch.autograd.grad(y, [x, *coarse.parameters()], upstream)
    expected = list(torch.autograd.grad(whole(x), [x, *whole.parameters()], upstream))
    # The gradient of a position is the sum over the rectangle that it stands for.
    area = SIZE[0] * SIZE[1] // math.prod(grid)
    expected[-1] = F.avg_pool2d(expected[-1], (SIZE[0] // grid[0], SIZE[1] // grid[1])) * area
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_against_the_reference_by_hand() -> None:
    """Independent of `pair`: the memory is repeated position by position, in NumPy."""
    coarse, _ = pair((3, 2))
    values = coarse.memory.values.detach().numpy()
    whole = values[:, :, [[i // 2] * 4 for i in range(6)], [[j // 2 for j in range(4)]] * 6]
    x = images(2, 5, *SIZE)
    parts = [value.detach().numpy() for value in coarse.address.parameters()]
    run = reference.forward(x.numpy(), *parts, whole)
    torch.testing.assert_close(coarse(x), torch.from_numpy(run.output), rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [(3, 4), (12, 8), (7, 5), SIZE])
def test_with_resizing_the_repeated_maps_are_resized(size: tuple[int, int]) -> None:
    coarse, whole = pair((2, 2), resize="bilinear")
    x = images(3, 5, *size)
    torch.testing.assert_close(coarse(x), whole(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(coarse.recall(x), whole.recall(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
def test_a_fresh_one_is_the_identity(dtype: torch.dtype, layout: Any, autocast: bool) -> None:
    block = SqueezeRemember2d(5, SIZE, grid=(3, 2), dtype=None if autocast else dtype)
    x = images(4, 5, *SIZE, layout=layout).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = block(x)
    assert torch.equal(y, x)
    assert (y.dtype, y.stride()) == (dtype, x.stride())


def test_an_empty_batch_and_the_meta_device() -> None:
    assert SqueezeRemember2d(5, SIZE, grid=1)(torch.empty(0, 5, *SIZE)).shape == (0, 5, *SIZE)
    hollow = SqueezeRemember2d(5, SIZE, grid=2, device="meta")
    assert hollow(torch.empty(3, 5, *SIZE, device="meta")).shape == (3, 5, *SIZE)


def test_compiled_and_exported_it_is_the_same() -> None:
    coarse, _ = pair((2, 1), dtype=torch.float32)
    x = images(4, 5, *SIZE).float()
    program = torch.export.export(coarse, (x[:2],), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.testing.assert_close(program.module()(x), coarse(x), rtol=0, atol=1e-5)
    resizing, _ = pair((2, 1), dtype=torch.float32, resize="bilinear")
    free = {0: torch.export.Dim("n"), 2: torch.export.Dim("h", min=2, max=99), 3: torch.export.Dim("w", min=2, max=99)}
    program = torch.export.export(resizing, (torch.zeros(2, 5, 13, 11),), dynamic_shapes=(free,))
    for size in (SIZE, (9, 15)):
        x = images(4, 5, *size).float()
        torch.testing.assert_close(program.module()(x), resizing(x), rtol=0, atol=1e-5)


def test_it_counts_its_own_positions() -> None:
    for grid in (1, (3, 2), None):
        block = SqueezeRemember2d(5, SIZE, grid=grid, blocks=3, hidden=4)
        counted = parameter_count(5, SIZE, grid=grid, blocks=3, hidden=4)
        assert counted == sum(value.numel() for value in block.parameters())
    assert parameter_count(512, 4, blocks=12, grid=1) == 512 + 16 * 8 + 8 * 12 + 12 * 512


def test_printing_builds_it_again() -> None:
    block = SqueezeRemember2d(5, SIZE, grid=2)
    assert block.options == Options(grid=[2, 2])  # as JSON has it
    again = eval(repr(block))
    assert again.memory.values.shape == (10, 5, 2, 2)


def test_grids_that_do_not_fit_are_refused() -> None:
    for grid in ((4, 2), (3, 3), 8):
        with pytest.raises(ValueError, match=r"map is 6x4 and .* grid .*rows can be 1, 2, 3, 6, columns 1, 2, 4"):
            SqueezeRemember2d(5, SIZE, grid=grid)
        with pytest.raises(ValueError, match="map is 6x4"):
            parameter_count(5, SIZE, grid=grid)
    for grid in (0, (1, 0), -1):
        with pytest.raises(ValueError, match="grid must be at least 1"):
            SqueezeRemember2d(5, SIZE, grid=grid)
    for wrong in ("2", 2.0, (1, 2, 3), True):
        with pytest.raises(TypeError, match=r"grid must be an integer or a pair of integers \(H, W\).*grid=2"):
            SqueezeRemember2d(5, SIZE, grid=wrong)


# --- in a network ----------------------------------------------------------------------------------------------------


def network(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = ResNet("R8", classes=7, channels=1)
    srblock.insert(model, after="layer3", input_size=(1, 16, 16), blocks=3, **options)
    return model


def test_surgery_notation_and_counts_take_it() -> None:
    model = network(grid=(2, 1))
    (block,) = srblock.blocks(model).values()
    assert block.memory.values.shape == (3, 64, 2, 1)
    added = parameter_count(64, 4, blocks=3, grid=(2, 1))
    assert count_parameters(model)[1] == pytest.approx(
        100 * added / (sum(value.numel() for value in model.parameters()) - added)
    )
    with pytest.raises(ValueError, match="map is 4x4 and the memory's grid 3x1"):
        network(grid=(3, 1))
    variant = parse("R8 + SR(M=3, P=3, grid=2x1)")
    built = build(variant, classes=7, channels=1, image_size=16, seed=0)
    assert next(iter(srblock.blocks(built).values())).options == Options(blocks=3, grid=(2, 1))
    with pytest.raises(ValueError, match="map is 8x8 and the memory's grid 3x3"):
        outline(parse("R8 + SR(M=2, grid=3x3)"), classes=7, channels=1, image_size=16)


def test_looking_inside_shows_whole_maps() -> None:
    model = network(grid=(2, 2))
    (block,) = srblock.blocks(model).values()
    with torch.no_grad():
        block.memory.values.normal_(generator=torch.Generator().manual_seed(0))
    assert block.memory.maps().shape == (3, 64, 4, 4)
    whole = network()
    with torch.no_grad():
        next(iter(srblock.blocks(whole).values())).memory.values.copy_(block.memory.maps())
    assert memory_probe(model) == pytest.approx(memory_probe(whole))


def test_checkpoints_of_another_grid_or_size_are_refused(tmp_path: Path) -> None:
    coarse, other, whole = network(grid=1), network(grid=2), network()
    with torch.no_grad():
        next(iter(srblock.blocks(coarse).values())).memory.values.fill_(3)
    assert srblock.load_state(network(grid=1), coarse.state_dict()).complete
    for one, state in ((other, coarse), (whole, coarse), (coarse, whole), (coarse, other)):
        for resize in (False, True):
            with pytest.raises(ValueError, match="the checkpoint's grid and for the input_size"):
                srblock.load_state(one, state.state_dict(), resize=resize)
    larger = ResNet("R8", classes=7, channels=1)
    srblock.insert(larger, after="layer3", input_size=(1, 32, 32), blocks=3, grid=1)
    with pytest.raises(ValueError, match=r"1x1 for maps of 16 positions, the model's is 1x1 for 8x8"):
        srblock.load_state(larger, coarse.state_dict(), resize=True)


def test_what_json_holds_of_it_puts_it_back() -> None:
    model = network(grid=(2, 1))
    listed = json.loads(json.dumps(places(model)))
    assert put_back(model, listed) == [], "it stands there already"
    srblock.remove(model)
    put_back(model, listed)
    assert next(iter(srblock.blocks(model).values())).memory.values.shape == (3, 64, 2, 1)
    del listed[0]["options"]["grid"]  # as it was saved before the option was there
    with pytest.raises(ValueError, match="has a block already"):
        put_back(model, listed)
    plain = network()
    assert put_back(plain, listed) == []


# --- before global pooling -------------------------------------------------------------------------------------------


def test_one_position_follows_the_trajectory_of_the_whole_memory() -> None:
    """At stage 4, from zero: rate / HW and decay * HW for the memory. SGD with momentum and Nesterov's step."""
    torch.manual_seed(0)
    plain = ResNet("R8", classes=5, channels=1).double()
    models, optimizers = [], []
    for grid, scale in ((None, 1), ((1, 1), 16)):
        model = copy.deepcopy(plain)
        torch.manual_seed(1)
        srblock.insert(model, after="layer3", input_size=(1, 16, 16), blocks=4, grid=grid)
        groups = srblock.param_groups(model, memory_lr=2 / scale, memory_weight_decay=5e-3 * scale)
        models.append(model)
        optimizers.append(torch.optim.SGD(groups, lr=0.2, momentum=0.9, weight_decay=5e-3, nesterov=True))
    labels = torch.arange(15) % 5
    before = [value.clone() for value in models[0].parameters()]
    for step in range(6):
        x = images(15, 1, 16, 16, seed=step)
        losses = []
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], abs=1e-9)
    whole, coarse = (dict(model.named_parameters()) for model in models)
    maps = whole.pop("layer3.sr.memory.values")
    values = coarse.pop("layer3.sr.memory.values")
    assert maps.numel() == 16 * values.numel()
    assert maps.abs().max() > 0.01
    assert (maps - maps.mean((2, 3), keepdim=True)).abs().max() < 1e-12, "constant over positions for ever"
    torch.testing.assert_close(values.expand_as(maps), maps, rtol=0, atol=1e-9)
    for name, value in coarse.items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=1e-9)
    assert max((new - old).abs().max() for new, old in zip(models[0].parameters(), before, strict=True)) > 0.01
