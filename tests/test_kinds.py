"""Every kind of block beyond the paper's: closed forms, the same promises as the paper's block, refusals."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import srblock
from srblock import SqueezeRemember2d, parameter_count
from srblock.block import Options
from srblock.block.address import Standardize
from srblock.block.memory import STD, LowRank
from srblock.block.options import SETTINGS
from srblock.data import ImageData, load
from srblock.features import class_by_class
from srblock.models.resnet import ResNet
from srblock.runs import study as studies
from srblock.runs.loaders import parts
from srblock.runs.study import Study, recipe_for
from srblock.variants.notation import parse

SIZE = (6, 4)
KINDS: dict[str, dict[str, Any]] = {
    "standardized": {"logits": "standardized"},
    "temperature": {"temperature": 0.25},
    "squeezed to 3": {"squeeze_channels": 3},
    "rank 2": {"rank": 2},
    "rank 1 on a grid": {"rank": 1, "grid": (3, 2)},
    "channels only": {"grid": 1},
    "normal": {"start": "normal"},
    "gain": {"gain": 8.0},
    "all": {
        "logits": "standardized", "temperature": 2.0, "squeeze_channels": 2, "rank": 2, "grid": (3, 4),
        "start": "normal", "activation": "relu", "resize": "bilinear", "gain": 0.5,
    },
}  # fmt: skip


def block(filled: bool = True, dtype: torch.dtype = torch.float64, **options: Any) -> SqueezeRemember2d:
    torch.manual_seed(1)
    made = SqueezeRemember2d(5, SIZE, **{"blocks": 3, "hidden": 4} | options, dtype=dtype)
    if filled:
        for value in made.memory.parameters():
            nn.init.normal_(value)
    return made


def images(count: int = 7, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, 5, *SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)


def written_out(made: SqueezeRemember2d, x: Tensor) -> Tensor:
    """Compute what the block is to compute, as its equations read."""
    address, options = made.address, made.options
    q = torch.einsum("kc,nchw->nkhw", address.squeeze[:, :, 0, 0], x).flatten(1)
    units = q @ address.fc1.T
    logits = (units.relu() if options.activation == "relu" else units) @ address.fc2.T
    if address.standardize is not None and made.training:
        logits = (logits - logits.mean(0)) / (logits.var(0, correction=0) + Standardize.EPS).sqrt()
    elif address.standardize is not None:
        logits = (logits - address.standardize.mean) / (address.standardize.variance + Standardize.EPS).sqrt()
    weights = (logits / options.temperature).softmax(1)
    if options.rank is None:
        maps = made.memory.values
    else:
        maps = torch.einsum("prc,prhw->pchw", made.memory.channels, made.memory.positions)
    maps = options.gain * maps
    rows, columns = SIZE[0] // maps.shape[2], SIZE[1] // maps.shape[3]
    return x + torch.einsum("np,pchw->nchw", weights, maps.repeat_interleave(rows, 2).repeat_interleave(columns, 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_computes_its_equations_and_their_gradients(kind: str, training: bool, layout: torch.memory_format) -> None:
    made = block(**KINDS[kind]).train(training)
    for name, value in made.named_buffers():
        value.copy_(torch.rand_like(value) + (0.1 if name.endswith("variance") else 0))
    other = copy.deepcopy(made)
    x = images().to(memory_format=layout).requires_grad_()
    y, expected = made(x), written_out(other, x)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    assert y.is_contiguous(memory_format=layout)
    along = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    ours = torch.autograd.grad(y, [x, *made.parameters()], along)
    theirs = torch.autograd.grad(expected, [x, *other.parameters()], along)
    for one, same in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, same, rtol=1e-8, atol=1e-10)
    assert made(images(0)).shape == (0, 5, *SIZE) or training


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_the_identity_learns_and_is_counted(kind: str) -> None:
    options = KINDS[kind]
    made, x = block(False, **options), images()
    if options.get("start") == "normal":
        assert not torch.equal(made(x), x)
        made.memory.clear()
    assert torch.equal(made(x), x)
    taken = {key: options[key] for key in ("grid", "rank", "squeeze_channels") if key in options}
    assert sum(p.numel() for p in made.parameters()) == parameter_count(5, SIZE, blocks=3, hidden=4, **taken)
    optimizer = torch.optim.Adam(made.parameters(), 0.05)
    goal = x + torch.randn(5, *SIZE, generator=torch.Generator().manual_seed(4), dtype=x.dtype).mean((1, 2), True)
    losses = []
    for _ in range(30):
        loss = (made(x) - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0], "a memory of low rank would stay at zero if both its factors started there"


@pytest.mark.parametrize("kind", KINDS)
def test_precision_copies_compilation_export_and_channels_last(kind: str, tmp_path: Path) -> None:
    made, x = block(dtype=torch.float32, **KINDS[kind]), images(dtype=torch.float32)
    for _ in range(3):
        made(x)
    made.eval()
    with torch.no_grad():
        expected = made(x)
        for same in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), torch.compile(made, backend="aot_eager")):
            torch.testing.assert_close(same(x), expected)
        assert eval(repr(made), {"SqueezeRemember2d": SqueezeRemember2d}).options == made.options
        lying = copy.deepcopy(made).to(memory_format=torch.channels_last)
        torch.testing.assert_close(lying(x.to(memory_format=torch.channels_last)), expected)
        half = copy.deepcopy(made).bfloat16()(x.bfloat16())
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)
        with torch.autocast("cpu", torch.bfloat16):
            assert made(x).dtype == torch.float32
        program = torch.export.export(made, (x,), dynamic_shapes=({0: torch.export.Dim("images")},))
        torch.testing.assert_close(program.module()(images(4, torch.float32)), made(images(4, torch.float32)))
    fresh = block(False, dtype=torch.float32, **KINDS[kind]).eval()
    fresh.load_state_dict(made.state_dict())
    torch.testing.assert_close(fresh(x), expected)


def test_a_draw_more_at_the_end_leaves_the_others_as_they_were() -> None:
    plain = block(False)
    for options in ({"rank": 2}, {"start": "normal"}, {"logits": "standardized"}, {"temperature": 3.0}):
        made = block(False, **options)
        for name in ("squeeze", "fc1", "fc2"):
            assert torch.equal(getattr(made.address, name), getattr(plain.address, name)), options
    assert abs(block(False, blocks=50, start="normal").memory.maps().std().item() / STD - 1) < 0.05
    assert abs(block(False, blocks=50, start="normal", rank=3).memory.maps().std().item() / STD - 1) < 0.1


def test_a_temperature_sharpens_or_levels_the_weights() -> None:
    x = images()
    spread = [block(temperature=t).recall_weights(x).std(0).mean().item() for t in (0.1, 1.0, 10.0)]
    assert spread[0] > 2 * spread[1] > 4 * spread[2]


@pytest.mark.parametrize("rank", [None, 2])
def test_a_gain_is_a_rate_of_the_memory(rank: int | None) -> None:
    """Of its square under SGD with momentum and decay, from the same maps on."""
    made, other = block(gain=4.0, rank=rank), block(rank=rank)
    first = "values" if rank is None else "channels"
    other.memory.load_state_dict(made.memory.state_dict())
    getattr(other.memory, first).data.mul_(4)
    x = images()
    for one, scale in ((made, 1), (other, 16)):
        memory = getattr(one.memory, first)
        optimizer = torch.optim.SGD([memory], 1e-3 * scale, momentum=0.9, weight_decay=0.1 / scale)
        for _ in range(5):
            optimizer.zero_grad()
            (one(x) - x.flip(0)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(made(x), other(x))
    torch.testing.assert_close(made.memory.maps(), other.memory.maps())
    assert (made.memory.maps() - block(gain=4.0, rank=rank).memory.maps()).abs().max() > 1e-3


# --- standardized logits ----------------------------------------------------------------------------------------------


def test_standardized_logits_vary_whatever_the_scale_of_the_squeeze() -> None:
    """The paper's own weights hardly vary while squeezed maps are small: what the option is for."""
    x = images(64)
    for scale in (1e-3, 1.0):
        plain, made = block(), block(logits="standardized")
        for one in (plain, made):
            one.address.squeeze.data.mul_(scale)
        assert made.recall_weights(x).std(0).mean() > 0.1
        assert plain.recall_weights(x).std(0).mean() < (2e-3 if scale < 1 else 1)
    assert torch.allclose(block(logits="standardized").recall_weights(images(1)), torch.full((1, 3), 1 / 3).double())


def test_running_figures_are_those_of_a_batch_norm() -> None:
    ours, theirs = Standardize(3), nn.BatchNorm1d(3, affine=False, eps=Standardize.EPS)
    ours.reset_parameters()
    for seed in range(5):
        logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(seed)) * 3 + 1
        torch.testing.assert_close(ours(logits), theirs(logits))
    torch.testing.assert_close(ours.mean, theirs.running_mean)
    torch.testing.assert_close(ours.variance, theirs.running_var)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(logits), theirs(logits))
    before = ours.mean.clone()
    ours(logits + 100)
    assert torch.equal(ours.mean, before)


# --- low rank ---------------------------------------------------------------------------------------------------------


def test_the_first_step_of_a_low_rank_memory_is_the_dense_one_projected() -> None:
    """On random directions: d maps = (gradient B) B^T, where the rows of B have about length 1."""
    made = block(False, rank=1)
    made(images()).square().sum().backward()
    step = made.memory.channels.grad
    assert step is not None
    assert step.abs().max() > 0
    assert made.memory.positions.grad is not None
    assert made.memory.positions.grad.abs().max() == 0, "it waits until the vectors are not zero any more"
    lengths = block(False, rank=200).memory.positions.flatten(2).norm(dim=2)
    assert abs(lengths.mean().item() - 1) < 0.05


@pytest.mark.parametrize(
    "options", [{}, {"grid": (3, 2)}, {"rank": 3}, {"rank": 30}, {"rank": 2, "grid": (2, 2), "gain": 3}]
)
def test_a_memory_stores_what_it_can_hold(options: dict[str, Any]) -> None:
    memory = block(**options).memory
    given = torch.randn(3, 5, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    memory.store(given)
    pooled = given if memory.grid == SIZE else nn.functional.adaptive_avg_pool2d(given, memory.grid)
    left, sizes, right = torch.linalg.svd(pooled.flatten(2), full_matrices=False)
    rank = options.get("rank", 30)
    nearest = (left[:, :, :rank] * sizes[:, None, :rank]) @ right[:, :rank]
    torch.testing.assert_close(memory.gain * memory.basis().flatten(2), nearest)
    if rank >= 5:
        torch.testing.assert_close(memory.gain * memory.basis(), pooled)
    assert memory.maps().shape == given.shape


def test_a_low_rank_basis_is_composed_in_full_precision() -> None:
    memory = block(dtype=torch.float32, rank=2).memory
    assert isinstance(memory, LowRank)
    exact = memory.basis()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(memory.basis(), exact)


def test_single_images_leave_the_running_variance_as_it_is() -> None:
    """Of one image there is no variance; as 0 it would make every image recall one block alone in evaluation."""
    made = block(dtype=torch.float32, logits="standardized")
    standardize = made.address.standardize
    assert standardize is not None
    for _ in range(50):
        torch.testing.assert_close(made.recall_weights(images(1, torch.float32)), torch.full((1, 3), 1 / 3))
    assert torch.equal(standardize.variance, torch.ones(3))
    made(images(8, torch.float32))
    before = standardize.variance.clone()
    assert not torch.equal(before, torch.ones(3))
    made(images(1, torch.float32))
    assert torch.equal(standardize.variance, before)
    assert standardize.variance.isfinite().all()


def test_an_empty_batch_leaves_the_running_figures_as_they_are() -> None:
    made = block(dtype=torch.float32, logits="standardized")
    made(images(8, torch.float32))
    before = {name: value.clone() for name, value in made.named_buffers()}
    assert made(images(0, torch.float32)).shape == (0, 5, *SIZE)
    assert len(before) == 2
    for name, value in made.named_buffers():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("options", [{}, {"start": "normal"}, {"rank": 2}, {"logits": "standardized"}])
def test_a_networks_layers_are_started_anew_one_by_one(options: dict[str, Any]) -> None:
    """By the usual `apply`, children first: nothing else that the seed decides moves, and no two parts draw alike."""
    made = block(**options)
    made(images(8))

    def anew(module: nn.Module) -> None:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

    torch.manual_seed(7)
    state = torch.get_rng_state()
    made.apply(anew)
    assert torch.equal(torch.get_rng_state(), state)
    expected = block(**options)
    torch.manual_seed(7)
    expected.reset_parameters()
    for name, value in made.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name
    made.address.reset_parameters()
    made.memory.reset_parameters()
    assert not torch.equal(made.address.fc1, expected.address.fc1)


# --- in a network -----------------------------------------------------------------------------------------------------


def network(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = ResNet("R8", classes=7, channels=1)
    srblock.insert(model, after="layer2", input_size=(1, 16, 16), **{"blocks": 3, "hidden": 4} | options)
    return model


@pytest.mark.parametrize("kind", ["standardized", "rank 2", "normal", "all", "squeezed to 3"])
def test_insertion_removal_and_loading(kind: str) -> None:
    options = KINDS[kind] | ({"grid": None} if kind == "all" else {})
    model, x = network(**options).eval(), torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        for block_ in srblock.blocks(model).values():
            for value in block_.memory.parameters():
                nn.init.normal_(value)
        expected = model(x)
        again = network(**options).eval()
        assert srblock.load_state(again, model.state_dict()).complete
        assert torch.equal(again(x), expected)
        with pytest.raises(ValueError, match="belongs to maps of 8x8, the model's to 16x16"):
            srblock.load_state(larger(**options), model.state_dict())
        twice = larger(**options).eval()
        assert len(srblock.load_state(twice, model.state_dict(), resize=True).resized) == 2
        (ours,), (theirs,) = srblock.blocks(model).values(), srblock.blocks(twice).values()
        wide = nn.functional.interpolate(ours.memory.maps(), (16, 16), mode="bilinear")
        torch.testing.assert_close(theirs.memory.maps(), wide, rtol=1e-4, atol=1e-5)
        srblock.remove(model)
        torch.manual_seed(0)
        plain = ResNet("R8", classes=7, channels=1).eval()
        assert torch.equal(model(x), plain(x))


def larger(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = ResNet("R8", classes=7, channels=1)
    srblock.insert(model, after="layer2", input_size=(1, 32, 32), **{"blocks": 3, "hidden": 4} | options)
    return model


@pytest.mark.parametrize(
    ("ours", "theirs", "match"),
    [
        ({}, {"rank": 2}, "has layer2.sr.memory.channels, layer2.sr.memory.positions, and the model's has not"),
        ({"rank": 2}, {}, "has layer2.sr.memory.values, and the model's has not: it has other options"),
        ({"rank": 2}, {"rank": 1}, r"has rank=1 \(the model has 2\)"),
        ({"squeeze_channels": 2}, {"squeeze_channels": 4}, r"has K=4 \(the model has 2\)"),
        ({}, {"logits": "standardized"}, "has layer2.sr.address.standardize.mean, .*and the model's has not"),
        (
            {"logits": "standardized"},
            {},
            "lacks address.standardize.mean, .*which the model's has: it has other options",
        ),
    ],
)
def test_other_kinds_are_not_loaded(ours: dict[str, Any], theirs: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        srblock.load_state(network(**ours), network(**theirs).state_dict())


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"temperature": 0}, ValueError, "temperature must be a finite number above 0, got 0"),
        ({"temperature": float("inf")}, ValueError, "temperature must be a finite number above 0, got inf"),
        ({"temperature": "1"}, TypeError, "temperature must be a number, got '1'"),
        ({"rank": 0}, ValueError, "rank must be at least 1"),
        ({"squeeze_channels": None}, TypeError, "squeeze_channels must be an integer, got None"),
        ({"logits": "normal"}, ValueError, "logits must be one of 'plain', 'standardized', got 'normal'"),
        ({"start": "ones"}, ValueError, "start must be one of 'zeros', 'normal', 'kmeans', 'class_means'"),
    ],
)
def test_options_that_no_block_has(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Options(**options)


# --- memories from features -------------------------------------------------------------------------------------------


def batches(count: int = 60, classes: int = 4) -> list[tuple[Tensor, Tensor]]:
    """Images whose class is a bright corner."""
    generator = torch.Generator().manual_seed(6)
    labels = torch.arange(count) % classes
    found = 0.1 * torch.randn(count, 1, 16, 16, generator=generator)
    for label in range(classes):
        rows, columns = (slice(8 * (label // 2), 8 * (label // 2) + 8), slice(8 * (label % 2), 8 * (label % 2) + 8))
        found[labels == label, :, rows, columns] += 2
    return list(zip(found.split(20), labels.split(20), strict=True))


def seasoned(**options: Any) -> nn.Module:
    """A network whose batch norms have seen something."""
    model = network(**options)
    model(torch.randn(30, 1, 16, 16))
    return model.eval()


def features(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    (only,) = srblock.blocks(model).values()
    seen: list[Tensor] = []
    handle = only.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    labels = []
    with torch.no_grad():
        for batch, label in loader:
            model(batch)
            labels.append(label)
    handle.remove()
    return torch.cat(seen), torch.cat(labels)


@pytest.mark.parametrize("by", ["kmeans", "class_means"])
@pytest.mark.parametrize("rank", [None, 64])
def test_init_memory_stores_the_centers_of_features(by: str, rank: int | None) -> None:
    model = seasoned(blocks=4, rank=rank)
    state = {key: value.clone() for key, value in model.state_dict().items() if ".memory." not in key}
    report = srblock.init_memory(model, batches(), by)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert not model.training
    (only,) = srblock.blocks(model).values()
    seen, labels = features(model, batches())
    means = torch.stack([seen[labels == label].mean(0) for label in range(4)])
    means -= means.mean(0)
    means *= 0.1 * seen.square().mean().sqrt() / means.square().mean().sqrt()
    maps = only.memory.maps().detach()
    nearest = torch.cdist(maps.flatten(1), means.flatten(1)).argmin(1)
    assert sorted(nearest.tolist()) == [0, 1, 2, 3], "these clusters are the classes"
    torch.testing.assert_close(maps, means[nearest], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(maps.sum(0), torch.zeros_like(maps[0]), rtol=0, atol=1e-4)
    assert report == {"layer2": pytest.approx(0.1 * float(seen.square().mean().sqrt()), rel=1e-3)}
    again = network(blocks=4, rank=rank)
    again.load_state_dict(state, strict=False)
    srblock.init_memory(again.eval(), batches(), by)
    assert torch.equal(again.layer2.sr.memory.maps(), model.layer2.sr.memory.maps())


@pytest.mark.parametrize(
    "options", [{"rank": 1}, {"rank": 2}, {"grid": 4}, {"grid": 1}, {"grid": 4, "rank": 1}, {"gain": 8}]
)
def test_started_memories_have_the_size_that_was_asked_for(options: dict[str, Any]) -> None:
    """Also where a memory holds only a part of the features' means."""
    model = seasoned(blocks=4, **options)
    seen, _ = features(model, batches())
    wanted = 0.1 * float(seen.square().mean().sqrt())
    assert srblock.init_memory(model, batches(), "class_means") == {"layer2": pytest.approx(wanted, rel=1e-2)}
    (only,) = srblock.blocks(model).values()
    maps = only.memory.maps().detach()
    assert float(maps.square().mean().sqrt()) == pytest.approx(wanted, rel=1e-2)
    if "rank" not in options:
        assert float(maps.mean(0).square().mean().sqrt()) < 1e-4 * wanted


@pytest.mark.parametrize("side", [16, 24, 32])
def test_memories_start_from_images_of_other_sizes_where_blocks_resize(side: int) -> None:
    """Their features are resized to the memory's size."""
    model = seasoned(blocks=4, resize="bilinear")
    loader = [(nn.functional.interpolate(images, (side, side)), labels) for images, labels in batches()]
    srblock.init_memory(model, loader, "class_means")
    (only,) = srblock.blocks(model).values()
    seen, labels = features(model, loader)
    seen = nn.functional.interpolate(seen, only.size, mode="bilinear")
    means = torch.stack([seen[labels == label].mean(0) for label in range(4)])
    means -= means.mean(0)
    means *= 0.1 * seen.square().mean().sqrt() / means.square().mean().sqrt()
    torch.testing.assert_close(only.memory.maps(), means, rtol=1e-3, atol=1e-5)


def test_statistics_without_a_counter_are_used_all_the_same() -> None:
    """Weights of before torch counted batches, as some libraries publish them."""
    model, other = (seasoned(blocks=4, start="class_means") for _ in range(2))
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_batches_tracked is not None
            module.num_batches_tracked.zero_()
    srblock.init_memory(model, batches())
    srblock.init_memory(other, batches())
    assert torch.equal(model.layer2.sr.memory.maps(), other.layer2.sr.memory.maps())


def test_init_memory_takes_what_the_blocks_were_built_for_and_clusters_class_means() -> None:
    model = network(blocks=3, start="class_means")
    srblock.insert(model, after="layer3", input_size=(1, 16, 16), blocks=3)
    assert list(srblock.init_memory(model, batches(), share=0.01)) == ["layer2"]
    assert not model.layer3.sr.memory.maps().any()
    assert model.layer2.sr.memory.maps().any()
    assert model.training
    assert not model.bn1.num_batches_tracked if hasattr(model, "bn1") else True


@pytest.mark.parametrize(
    ("options", "call", "match"),
    [
        ({}, {}, 'no block whose memory starts from features; pass by="kmeans"'),
        ({}, {"by": "means"}, 'by must be "kmeans" or "class_means", got \'means\''),
        ({"blocks": 1}, {"by": "kmeans"}, "has one memory block"),
        ({"blocks": 9}, {"by": "class_means"}, "has 9 memory blocks, and there are only 4 classes; take fewer"),
        ({"blocks": 61}, {"by": "kmeans"}, "has 61 memory blocks, and there are only 60 images"),
    ],
)
def test_init_memory_refuses(options: dict[str, Any], call: dict[str, Any], match: str) -> None:
    model = network(**options)
    with pytest.raises(ValueError, match=match):
        srblock.init_memory(model, batches(), **call)
    assert not model.layer2.sr.memory.maps().any()


def test_init_memory_refuses_what_is_no_class_and_features_without_differences() -> None:
    model = network(start="kmeans")
    with pytest.raises(ValueError, match=r"expected the class of each of 4 images.*got torch.int64 of shape \(4, 16"):
        srblock.init_memory(model, [(torch.randn(4, 1, 16, 16), torch.zeros(4, 16, 16, dtype=torch.int64))])
    with pytest.raises(ValueError, match="are the same for all images"):
        srblock.init_memory(model.eval(), [(torch.ones(6, 1, 16, 16), torch.arange(6))], "class_means")
    with pytest.raises(ValueError, match="has no block; insert one first"):
        srblock.init_memory(nn.Conv2d(1, 1, 1), batches())


# --- in a run ---------------------------------------------------------------------------------------------------------


def test_a_run_starts_from_features_of_its_seed_and_can_be_used(tmp_path: Path) -> None:
    """Trained, loaded, folded."""
    text = "R8 + SR(M=2, P=4, logits=standardized, K=2, rank=64, start=kmeans)"
    options: dict[str, Any] = {"epochs": 1, "out": tmp_path, "quiet": True}
    srblock.compare(["R8", text], "digits", seeds=1, image_size=16, **options)
    (folder,) = (tmp_path / "runs").glob("*kmeans*")
    loaded = srblock.load_run(folder)
    folded, said = srblock.fold(loaded.model, (1, 16, 16))
    x = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), loaded.model(x), rtol=1e-4, atol=1e-4)
    assert "standardization of the logits" in str(said)


@pytest.mark.parametrize("way", ["kmeans", "class_means"])
def test_images_that_lie_class_by_class_are_mixed(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a folder do: k-means looks at the first, and fresh batch norms take away what a batch shares."""
    digits = load("digits")
    order = digits.train_labels.argsort(stable=True)
    data = ImageData.build(
        "mine",
        train_images=digits.train_images[order],
        train_labels=digits.train_labels[order],
        test_images=digits.test_images,
        test_labels=digits.test_labels,
        classes=digits.classes,
        flip=False,
    )
    variant, seen = parse(f"R8 + SR(M=2, P=4, start={way})"), []
    real = studies.init_memory
    monkeypatch.setattr(studies, "init_memory", lambda model, loader, **more: real(model, noted(loader), **more))

    def noted(loader: Iterable[tuple[Tensor, Tensor]]) -> Iterable[tuple[Tensor, Tensor]]:
        for batch, labels in loader:
            seen.append(labels)
            yield batch, labels

    study = Study((variant,), (0,), data, "mine", recipe_for(data, torch.device("cpu")))
    study.start_memories(study.build(variant, 0), variant, 0, torch.device("cpu"))
    assert seen[0].unique().tolist() == list(range(10))
    mixed = torch.cat(seen)
    assert not class_by_class(mixed)
    seen.clear()
    study = Study((variant,), (0,), digits, "digits", recipe_for(digits, torch.device("cpu")))
    study.start_memories(study.build(variant, 0), variant, 0, torch.device("cpu"))
    kept = parts(digits, study.recipe, 0)[0]
    assert torch.equal(torch.cat(seen), digits.train_labels[kept]), "others keep their order"


def test_class_by_class() -> None:
    ordered, random = torch.arange(10).repeat_interleave(20), torch.randint(10, (200,))
    assert class_by_class(ordered)
    assert class_by_class(torch.cat([ordered, ordered]))
    assert class_by_class(torch.zeros(64))
    assert not class_by_class(random)
    assert not class_by_class(torch.arange(200) % 10)
    assert not class_by_class(ordered[:31])


def test_a_loader_that_comes_class_by_class_is_warned_about() -> None:
    images, labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    order = labels.argsort()
    loader = list(zip(images[order].split(8), labels[order].split(8), strict=True))
    assert len(labels) >= 32
    with pytest.warns(UserWarning, match="class by class.*let the loader shuffle"):
        srblock.init_memory(network(blocks=4), loader, "kmeans")
    with pytest.warns(UserWarning, match="class by class"):
        srblock.init_memory(network(blocks=4), loader, "class_means")
    srblock.init_memory(seasoned(blocks=4), loader, "class_means")


def test_memories_in_half_precision_have_their_size() -> None:
    """Squares of small numbers are no longer numbers there."""
    with torch.no_grad():
        model = seasoned(blocks=4, rank=1).half()
        loader = [(0.001 * images.half(), labels) for images, labels in batches()]
        said = srblock.init_memory(model, loader, "class_means")["layer2"]
        maps = model.layer2.sr.memory.maps().float()
    assert said == pytest.approx(float(maps.square().mean().sqrt()), rel=0.02)
    assert said > 0


def test_memories_of_a_study_start_alike_for_a_seed_and_otherwise_for_another() -> None:
    data = load("digits")
    variant = parse("R8 + SR(M=2, P=4, start=class_means)")
    study = Study((variant,), (0, 1), data, "digits", recipe_for(data, torch.device("cpu")))

    def started(seed: int) -> Tensor:
        model = study.build(variant, seed)
        study.start_memories(model, variant, seed, torch.device("cpu"))
        (only,) = srblock.blocks(model).values()
        return only.memory.maps().detach()

    first = started(0)
    assert first.any()
    assert torch.equal(first, started(0))
    assert not torch.allclose(first, started(1))
    plain = parse("R8 + SR(M=2, P=4)")
    model = study.build(plain, 0)
    study.start_memories(model, plain, 0, torch.device("cpu"))
    assert not model.layer2.sr.memory.maps().any()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("R8 + SR(P=12, start=class_means)", "has more memory blocks than digits has classes, 10; take fewer"),
        ("R8 + SR(P=1, start=kmeans)", "starts from means of features, and has one memory block"),
    ],
)
def test_starts_that_cannot_be_are_refused_before_training(text: str, match: str) -> None:
    data, variant = load("digits"), parse(text)
    study = Study((variant,), (0,), data, "digits", recipe_for(data, torch.device("cpu")))
    with pytest.raises(ValueError, match=match):
        study.build(variant, 0)


def test_the_page_on_memory_runs_as_it_stands() -> None:
    page = (Path(__file__).parents[1] / "docs" / "memory.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(compile(snippet, "docs/memory.md", "exec"), {})
    for setting in SETTINGS[5:]:
        assert f"`{setting.name}=" in page or f"`{setting.word}=" in page, setting.name


def test_the_shares_that_memory_md_states() -> None:
    page = (Path(__file__).parents[1] / "docs" / "memory.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `SR\(M=3, P=(\d+), U=(\d+)\)` \| `([\w-]+)`.* \| 1024 x (\d+) x (\d+) \| (.*) \|$", page, re.M
    )
    networks = {
        "R50": 25_557_032,
        "FCN-R50": 49_497_734,
        "DLv3-R50": 68_113_030,
    }  # held by test_resnet and test_segmentation
    assert [row[2] for row in rows] == list(networks)
    kinds: list[dict[str, int]] = [{}, {"rank": 4}, {"rank": 2}, {"grid": 1}]
    for blocks, hidden, network, height, width, shares in rows:
        shape = (int(height), int(width))
        counts = [parameter_count(1024, shape, blocks=int(blocks), hidden=int(hidden), **kind) for kind in kinds]
        assert [f"{count / networks[network]:.2%}" for count in counts] == shares.split(" | ")
