"""The block against its equations: `reference.py`, closed forms, the audit's algebra, and all a module goes through."""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from srblock import SqueezeRemember2d, parameter_count
from srblock.block import compute

NAMES = ("address.squeeze", "address.fc1", "address.fc2", "memory.values")
KEYS = dict(zip(("squeeze", "fc1", "fc2", "memory"), NAMES, strict=True))  # from the reference's names to ours
FORMATS = (torch.contiguous_format, torch.channels_last)
ACTIVATIONS = (None, "relu")


def trained(
    channels: int = 4, size: int | tuple[int, int] = (3, 5), *, seed: int = 0, **kwargs: Any
) -> SqueezeRemember2d:
    """Build a block in which every part has something to say: memory of unit size, recall weights far from 1/P."""
    generator = torch.Generator().manual_seed(seed)
    block = SqueezeRemember2d(channels, size, **{"dtype": torch.float64, "blocks": 3, "hidden": 4} | kwargs)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(draw if name == "memory.values" else draw * (2.0 / parameter[0].numel() ** 0.5))
    return block


def images(
    *shape: int, seed: int = 1, dtype: torch.dtype = torch.float64, layout: Any = torch.contiguous_format
) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype).contiguous(memory_format=layout)


def arrays(block: SqueezeRemember2d) -> list[Any]:
    return [block.get_parameter(name).detach().double().numpy() for name in NAMES]


def all_gradients(block: nn.Module, x: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    parameters = dict(block.named_parameters())
    x = x.detach().requires_grad_()
    found = torch.autograd.grad(block(x), [x, *parameters.values()], upstream)
    return dict(zip(["x", *parameters], found, strict=True))


def says(*words: object) -> str:
    """Match a message that holds all these words, in any order."""
    return "(?is)" + "".join(rf"(?=.*(?<!\d){re.escape(str(word))}(?!\d))" for word in words)


# --- parity with the reference ---------------------------------------------------------------------------------------


def check_parity(block: SqueezeRemember2d, x: Tensor, activation: str | None) -> None:
    upstream = images(*x.shape, seed=7)
    run = reference.forward(x.numpy(), *arrays(block), activation)
    np.testing.assert_allclose(block(x).detach().numpy(), run.output, rtol=0, atol=1e-10)
    np.testing.assert_allclose(block.recall(x).detach().numpy(), run.recalled, rtol=0, atol=1e-10)
    np.testing.assert_allclose(block.recall_weights(x).detach().numpy(), run.weights, rtol=0, atol=1e-10)
    expected = reference.gradients(x.numpy(), *arrays(block), upstream.numpy(), activation)
    expected = {KEYS.get(name, name): value for name, value in expected.items()}
    found = all_gradients(block, x, upstream)
    assert set(found) == set(expected)
    for name, gradient in found.items():
        assert gradient.shape == expected[name].shape, name
        np.testing.assert_allclose(gradient.numpy(), expected[name], rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("n", "c", "size", "p", "u"),
    [
        (3, 4, (3, 5), 3, 4),
        (2, 5, (7, 3), 4, 2),
        (1, 3, (3, 3), 2, 3),  # one image
        (4, 3, (2, 4), 1, 3),  # one memory block
        (4, 3, (4, 2), 3, 1),  # one hidden unit
        (2, 1, (3, 4), 2, 2),  # one channel
        (3, 6, (1, 1), 3, 2),  # one position
        (2, 3, (1, 5), 2, 2),  # one row
        (1, 1, (1, 1), 1, 1),  # one of everything
    ],
)
def test_output_and_all_gradients_agree_with_the_reference(
    n: int, c: int, size: tuple[int, int], p: int, u: int, layout: Any, activation: str | None
) -> None:
    block = trained(c, size, blocks=p, hidden=u, activation=activation)
    check_parity(block, images(n, c, *size, layout=layout), activation)


@settings(deadline=None, max_examples=25, derandomize=True, database=None)
@given(
    shape=st.tuples(*[st.integers(1, 4)] * 4),
    p=st.integers(1, 4),
    u=st.integers(1, 4),
    activation=st.sampled_from(ACTIVATIONS),
    layout=st.sampled_from(FORMATS),
    seed=st.integers(0, 1000),
)
def test_drawn_geometries_agree_with_the_reference(
    shape: tuple[int, ...], p: int, u: int, activation: str | None, layout: Any, seed: int
) -> None:
    n, c, h, w = shape
    block = trained(c, (h, w), blocks=p, hidden=u, activation=activation, seed=seed)
    check_parity(block, images(n, c, h, w, seed=seed + 1, layout=layout), activation)


def test_the_activations_differ_and_the_identity_is_the_default() -> None:
    x = images(5, 4, 3, 5)
    default, identity, relu = trained(), trained(activation=None), trained(activation="relu")
    assert torch.equal(default(x), identity(x))
    assert (default.recall_weights(x) - relu.recall_weights(x)).abs().max() > 0.01


def test_gradients_agree_with_finite_differences_twice() -> None:
    for activation in ACTIVATIONS:
        block = trained(2, (2, 3), blocks=3, hidden=2, activation=activation)
        values = [p.detach().clone().requires_grad_() for p in block.parameters()]
        names = [name for name, _ in block.named_parameters()]

        def run(x: Tensor, *parameters: Tensor, block: nn.Module = block, names: list[str] = names) -> Any:
            return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), (x,))

        x = images(2, 2, 2, 3).requires_grad_()
        assert torch.autograd.gradcheck(run, (x, *values))
        assert torch.autograd.gradgradcheck(run, (x, *values))


# --- a fresh block ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("resize", [None, "bilinear"])
def test_a_fresh_block_is_the_exact_identity(dtype: torch.dtype, layout: Any, resize: str | None) -> None:
    block = SqueezeRemember2d(6, (5, 7), dtype=dtype, resize=resize)
    x = 100 * images(3, 6, 5, 7, dtype=dtype, layout=layout)
    assert torch.equal(block(x), x)
    assert torch.equal(block.recall(x), torch.zeros_like(x))


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("resize", [None, "bilinear"])
def test_a_fresh_block_is_the_exact_identity_under_autocast(low: torch.dtype, layout: Any, resize: str | None) -> None:
    block = SqueezeRemember2d(6, (5, 7), resize=resize)
    for dtype in (torch.float32, low):
        x = images(3, 6, 5, 7, dtype=dtype, layout=layout)
        with torch.autocast("cpu", low):
            y = block(x)
        assert y.dtype == dtype
        assert torch.equal(y, x)


def test_a_fresh_resizing_block_is_the_identity_at_other_sizes() -> None:
    x = images(3, 6, 9, 4, dtype=torch.float32)
    assert torch.equal(SqueezeRemember2d(6, (5, 7), resize="bilinear")(x), x)


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_first_step_only_the_memory_learns(dtype: torch.dtype, activation: str | None, layout: Any) -> None:
    block = SqueezeRemember2d(6, (5, 7), blocks=4, hidden=3, activation=activation, dtype=dtype)
    x = images(8, 6, 5, 7, dtype=dtype, layout=layout).requires_grad_()
    g = images(8, 6, 5, 7, seed=9, dtype=dtype, layout=layout)
    block(x).backward(g)
    expected = torch.zeros_like(block.memory.values)
    with torch.no_grad():
        for weights, upstream in zip(block.recall_weights(x), g, strict=True):
            for p in range(4):
                expected[p] += weights[p] * upstream
    assert block.memory.values.grad is not None
    torch.testing.assert_close(
        block.memory.values.grad, expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12
    )
    for name in NAMES[:3]:
        gradient = block.get_parameter(name).grad
        assert gradient is not None, f"{name} needs a zero gradient, not none: DDP waits for it"
        assert torch.count_nonzero(gradient) == 0, name
    assert torch.equal(x.grad, g)


def test_from_the_second_step_on_every_part_learns() -> None:
    block = SqueezeRemember2d(6, (5, 7), dtype=torch.float64)
    optimizer = torch.optim.SGD(block.parameters(), lr=1.0)
    x, g = images(8, 6, 5, 7), images(8, 6, 5, 7, seed=9)
    for _ in range(2):
        optimizer.zero_grad()
        block(x).backward(g)
        optimizer.step()
    assert all(p.grad.abs().max() > 0 for p in block.parameters())


# --- cost: nothing of the size of N maps times P, no copy of X -------------------------------------------------------


class Allocations(TorchDispatchMode):
    """Record the bytes of each storage that an operator makes; views and in-place results make none."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for t in tree_leaves(result):
            if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in given:
                self.sizes.append(t.untyped_storage().nbytes())
        return result


def measured_peak(run: Callable[[], object], folder: Path) -> int:
    """Return the most bytes that `run` held at once, as torch's allocator saw it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        kept = run()  # what it returns stays alive until the end
    recorded.export_chrome_trace(str(folder / "trace.json"))
    events = [e for e in json.loads((folder / "trace.json").read_text())["traceEvents"] if e.get("name") == "[memory]"]
    assert events, "the profiler recorded no allocation"
    del kept
    held = peak = 0
    for event in sorted(events, key=lambda e: e["args"]["Ev Idx"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def naive(block: SqueezeRemember2d, x: Tensor) -> Tensor:
    return x + (block.recall_weights(x)[:, :, None, None, None] * block.memory.values).sum(1)


def careless(block: SqueezeRemember2d, x: Tensor) -> Tensor:
    flat = x.contiguous().flatten(1)
    y = torch.addmm(flat, block.recall_weights(x), block.memory.values.flatten(1)).view(x.shape)
    return y.contiguous(memory_format=torch.channels_last) if x.is_contiguous(memory_format=torch.channels_last) else y


@pytest.fixture
def large() -> SqueezeRemember2d:
    return trained(128, (8, 6), blocks=8, hidden=4, dtype=torch.float32)


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
def test_no_operator_makes_n_times_p_maps(large: SqueezeRemember2d, layout: Any, autocast: bool) -> None:
    x = images(16, 128, 8, 6, dtype=torch.float32, layout=layout).requires_grad_()

    def largest(function: Callable[[Tensor], Tensor]) -> int:
        with Allocations() as seen:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                y = function(x)
            y.backward(torch.ones_like(y))
        return max(seen.sizes)

    assert largest(large) == x.nbytes
    assert largest(lambda x: naive(large, x)) >= 8 * x.nbytes  # the measure sees what it is for


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "training"])
def test_the_forward_pass_allocates_one_map_per_image_the_output(
    large: SqueezeRemember2d, layout: Any, gradients: bool
) -> None:
    x = images(24, 128, 8, 6, dtype=torch.float32, layout=layout).requires_grad_(gradients)

    def full_sized(function: Callable[[Tensor], Tensor]) -> int:
        with Allocations() as seen, torch.set_grad_enabled(gradients):
            function(x)
        return sum(size >= x.nbytes for size in seen.sizes)

    assert full_sized(large) == 1
    assert full_sized(large.recall) == 1
    if layout == torch.channels_last:
        assert full_sized(lambda x: careless(large, x)) > 1  # the measure sees what it is for


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")  # torch 2.11
@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
def test_measured_peak_of_memory(large: SqueezeRemember2d, layout: Any, tmp_path: Path) -> None:
    x = images(32, 128, 8, 6, dtype=torch.float32, layout=layout).requires_grad_()
    upstream = torch.ones_like(x)

    @torch.no_grad()
    def infer(function: Callable[[Tensor], Tensor] = large) -> Tensor:
        return function(x)

    def step(function: Callable[[Tensor], Tensor] = large) -> object:
        return torch.autograd.grad(function(x), [x, *large.parameters()], upstream)

    infer(), step()  # one-time allocations of the libraries are not the block's
    memory = large.memory.values.nbytes
    # The convolution's library pads its one output channel to 16, an eighth of x here.
    assert x.nbytes <= measured_peak(infer, tmp_path) <= 1.15 * x.nbytes + memory
    assert measured_peak(step, tmp_path) <= 3.15 * x.nbytes + 3 * memory  # output, d x through q, their sum
    assert measured_peak(lambda: infer(lambda x: naive(large, x)), tmp_path) > 8 * x.nbytes
    assert measured_peak(lambda: step(lambda x: naive(large, x)), tmp_path) > 8 * x.nbytes


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")  # torch 2.11
@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("long", [1, 2**15], ids=["in pieces", "at once"])
def test_inference_on_one_image_needs_the_output_alone(
    large: SqueezeRemember2d, layout: Any, long: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No copy of the memory, which is P times the map."""
    monkeypatch.setattr(compute, "LONG", long)
    large.to(memory_format=layout)
    x = images(1, 128, 8, 6, dtype=torch.float32, layout=layout)
    with torch.inference_mode():
        large(x)
        assert x.nbytes <= measured_peak(lambda: large(x), tmp_path) <= 1.5 * x.nbytes
        assert measured_peak(lambda: naive(large, x), tmp_path) > 8 * x.nbytes


def test_resizing_makes_no_n_times_p_maps_either() -> None:
    block = trained(32, (8, 6), blocks=8, dtype=torch.float32, resize="bilinear")
    x = images(16, 32, 10, 9, dtype=torch.float32).requires_grad_()
    with Allocations() as seen:
        block(x).sum().backward()
    assert max(seen.sizes) == x.nbytes


# --- dtypes and layouts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 0.1)])
def test_the_output_has_the_inputs_dtype_and_layout(dtype: torch.dtype, atol: float, layout: Any) -> None:
    exact = trained(6, (5, 7))
    block = copy.deepcopy(exact).to(dtype)
    exact.load_state_dict(block.state_dict())  # the same rounded parameters
    x = images(3, 6, 5, 7, dtype=dtype, layout=layout).requires_grad_()
    y = block(x)
    assert y.dtype == block.recall(x).dtype == dtype
    assert y.stride() == block.recall(x).stride() == x.stride()
    torch.testing.assert_close(y.double(), exact(x.double()), rtol=0, atol=atol)
    y.sum().backward()
    assert all(p.grad.dtype == dtype for p in [x, *block.parameters()])


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("resize", [None, "bilinear"])
def test_autocast_keeps_dtype_layout_and_nearly_the_values(dtype: torch.dtype, layout: Any, resize: str | None) -> None:
    exact = trained(6, (5, 7), resize=resize)
    block = copy.deepcopy(exact).float()
    x = images(3, 6, 5, 7, dtype=dtype, layout=layout).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y, recalled = block(x), block.recall(x)
    assert y.dtype == recalled.dtype == dtype
    assert y.stride() == recalled.stride() == x.stride()
    torch.testing.assert_close(y.double(), exact(x.double()), rtol=0, atol=0.15)
    y.backward(torch.ones_like(y))
    expected = all_gradients(exact, x.double(), torch.ones(x.shape, dtype=torch.float64))
    for name, parameter in block.named_parameters():
        assert parameter.grad.dtype == torch.float32
        scale = expected[name].abs().max()
        torch.testing.assert_close(parameter.grad.double(), expected[name], rtol=0, atol=0.1 * float(scale), msg=name)


def test_autocast_does_not_round_a_float32_input() -> None:
    block = trained(6, (5, 7), dtype=torch.float32)
    x = images(3, 6, 5, 7, dtype=torch.float32)
    with torch.no_grad():
        block.memory.values.mul_(1e-3)
        with torch.autocast("cpu", torch.bfloat16):
            under = block(x)
        torch.testing.assert_close(under, block(x), rtol=0, atol=1e-4)  # bfloat16 keeps 1 in 128 of x: 1e-2


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
def test_a_block_whose_own_weights_are_channels_last(layout: Any) -> None:
    block = trained(6, (5, 7), dtype=torch.float32)
    x = images(24, 6, 5, 7, dtype=torch.float32, layout=layout)
    expected = block(x)
    state = copy.deepcopy(block.state_dict())
    block.to(memory_format=torch.channels_last)
    with Allocations() as seen:
        y = block(x)
    assert y.stride() == x.stride()
    torch.testing.assert_close(y, expected)
    assert sum(size >= x.nbytes for size in seen.sizes) == 1
    assert all(torch.equal(value, block.state_dict()[name]) for name, value in state.items())


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::2],
        lambda x: x[:, 1:],
        lambda x: x[:, ::2],
        lambda x: x[:, :, 1:, :-1],
        lambda x: x.transpose(2, 3),
        lambda x: x.permute(1, 0, 2, 3),
        lambda x: x[:1].expand(4, -1, -1, -1),
        lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        lambda x: x.contiguous(memory_format=torch.channels_last)[:, 1:],
        lambda x: x.contiguous(memory_format=torch.channels_last)[..., ::2],
    ],
)
def test_views_give_the_values_of_their_copies(view: Callable[[Tensor], Tensor]) -> None:
    x = view(images(4, 5, 6, 8))
    block = trained(x.shape[1], (x.shape[2], x.shape[3]))
    assert block(x).shape == x.shape
    torch.testing.assert_close(block(x), block(x.clone(memory_format=torch.contiguous_format)), rtol=0, atol=1e-12)
    found = all_gradients(block, x, x)
    for name, gradient in all_gradients(block, x.contiguous(), x.contiguous()).items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-11, msg=name)


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
def test_the_input_is_left_alone_and_the_output_may_be_overwritten(layout: Any) -> None:
    block = trained()
    x = images(3, 4, 3, 5, layout=layout)
    before = x.clone()
    expected = all_gradients(nn.Sequential(block, nn.ReLU()), x, before)
    found = all_gradients(nn.Sequential(block, nn.ReLU(inplace=True)), x, before)
    assert torch.equal(x, before)
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())
    for fresh in (SqueezeRemember2d(4, (3, 5), dtype=torch.float64), block):
        with torch.no_grad():
            fresh(x).zero_()
        assert torch.equal(x, before)


def test_parts_may_be_frozen() -> None:
    block = trained()
    block(images(3, 4, 3, 5)).sum().backward()  # nothing before the block learns
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())
    block.zero_grad()
    block.memory.values.requires_grad_(False)
    block(images(3, 4, 3, 5)).sum().backward()
    assert block.memory.values.grad is None
    assert block.address.fc1.grad.abs().max() > 0


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("resize", [None, "bilinear"])
def test_an_empty_batch(layout: Any, resize: str | None) -> None:
    block = trained(resize=resize)
    x = torch.empty(0, 4, 3, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    y = block(x)
    assert y.shape == block.recall(x).shape == (0, 4, 3, 5)
    assert block.recall_weights(x).shape == (0, 3)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert all(p.grad is not None and torch.count_nonzero(p.grad) == 0 for p in block.parameters())


# --- what the block recalls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", [None, "bilinear"])
def test_weights_sum_to_one_and_recall_is_what_is_added(resize: str | None) -> None:
    block = trained(blocks=5, resize=resize)
    x = images(9, 4, 3, 5)
    weights = block.recall_weights(x)
    assert weights.shape == (9, 5)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(9, dtype=torch.float64), rtol=0, atol=1e-12)
    assert weights.std(0).min() > 0.01  # it matters which image
    torch.testing.assert_close(block.recall(x), block(x) - x, rtol=0, atol=1e-12)


def test_images_of_a_batch_do_not_meet() -> None:
    block, x = trained(), images(6, 4, 3, 5)
    alone = torch.cat([block(image[None]) for image in x])
    torch.testing.assert_close(block(x), alone, rtol=0, atol=1e-12)


def test_static_and_dynamic_part() -> None:
    """Audit, section 4: sum a_p M_p = mean M + sum (a_p - 1/P)(M_p - mean M)."""
    block, x = trained(blocks=5), images(9, 4, 3, 5)
    mean = block.memory.values.mean(0)
    dynamic = torch.einsum("np,pchw->nchw", block.recall_weights(x) - 1 / 5, block.memory.values - mean)
    torch.testing.assert_close(block.recall(x), mean + dynamic, rtol=0, atol=1e-12)
    assert dynamic.abs().max() > 0.1


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_two_blocks_are_one_gate(activation: str | None) -> None:
    """Audit, section 4: for P = 2 the recall is mean M + tanh((z1 - z2) / 2) (M1 - M2) / 2."""
    block, x = trained(blocks=2, activation=activation), images(9, 4, 3, 5)
    squeezed = torch.einsum("c,nchw->nhw", block.address.squeeze.flatten(), x).flatten(1)
    between = squeezed @ block.address.fc1.T
    z = (between.relu() if activation else between) @ block.address.fc2.T
    gate = torch.tanh((z[:, 0] - z[:, 1]) / 2)[:, None, None, None]
    expected = block.memory.values.mean(0) + 0.5 * gate * (block.memory.values[0] - block.memory.values[1])
    torch.testing.assert_close(block.recall(x), expected, rtol=0, atol=1e-12)


def test_one_block_is_a_static_map() -> None:
    block, x = trained(blocks=1), images(9, 4, 3, 5)
    torch.testing.assert_close(block(x), x + block.memory.values, rtol=0, atol=1e-14)


def test_equal_memories_give_the_addressing_no_gradient() -> None:
    block = trained(blocks=4)
    with torch.no_grad():
        block.memory.values.copy_(block.memory.values[:1].expand(4, -1, -1, -1).clone())
    found = all_gradients(block, images(6, 4, 3, 5), images(6, 4, 3, 5, seed=5))
    for name in NAMES[:3]:
        assert found[name].abs().max() < 1e-12, name


def test_memories_with_equal_addresses_stay_equal_and_others_part() -> None:
    """Audit, section 4: two equal rows of fc2 keep their two memories identical under SGD."""
    torch.manual_seed(0)
    block = SqueezeRemember2d(4, (3, 5), blocks=4, hidden=4, dtype=torch.float64)
    with torch.no_grad():
        block.address.fc2[1] = block.address.fc2[0]
    head = nn.Linear(60, 3, dtype=torch.float64)
    optimizer = torch.optim.SGD([*block.parameters(), *head.parameters()], lr=0.3, momentum=0.9, weight_decay=1e-4)
    x, labels = images(12, 4, 3, 5), torch.arange(12) % 3
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(block(x).relu().flatten(1)), labels).backward()
        optimizer.step()
    torch.testing.assert_close(block.memory.values[0], block.memory.values[1], rtol=0, atol=1e-10)
    assert (block.memory.values[0] - block.memory.values[2]).abs().max() > 1e-4
    assert (block.memory.values[2] - block.memory.values[3]).abs().max() > 1e-4


def test_bypassed_returns_the_input_itself() -> None:
    block, x = trained(), images(3, 4, 3, 5)
    assert block.bypassed is False
    block.bypassed = True
    assert block(x) is x
    block.bypassed = False
    assert (block(x) - x).abs().max() > 0.1
    assert set(block.state_dict()) == set(NAMES)


# --- resizing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
def test_resizing_is_exact_at_the_native_size(layout: Any) -> None:
    x = images(3, 4, 3, 5, layout=layout)
    plain, resizing = trained(), trained(resize="bilinear")
    assert torch.equal(resizing(x), plain(x))
    found, expected = all_gradients(resizing, x, x), all_gradients(plain, x, x)
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("size", [(6, 10), (2, 3), (5, 4), (1, 1), (3, 9), (7, 5)])
def test_resized_output_and_all_gradients_agree_with_the_reference(size: tuple[int, int], layout: Any) -> None:
    for activation in ACTIVATIONS:
        block = trained(resize="bilinear", activation=activation)
        x = images(3, 4, *size, layout=layout)
        check_parity(block, x, activation)
        y = block(x)
        assert y.is_contiguous(memory_format=layout)
        torch.testing.assert_close(block.recall(x), y - x, rtol=0, atol=1e-12)
        assert all(gradient.abs().max() > 1e-6 for gradient in all_gradients(block, x, images(*x.shape)).values())


def test_resizing_by_hand() -> None:
    """A map [a, b] read at four positions is [a, (3a + b) / 4, (a + 3b) / 4, b]."""
    block = trained(1, (1, 2), blocks=1, resize="bilinear")
    with torch.no_grad():
        block.memory.values.copy_(torch.tensor([[[[4.0, 8.0]]]]))
    recalled = block.recall(images(2, 1, 1, 4))
    assert recalled[:, 0, 0].tolist() == [[4.0, 5.0, 7.0, 8.0]] * 2


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
def test_resizing_keeps_the_dtype(layout: Any, autocast: bool) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        block = trained(resize="bilinear", dtype=torch.float32 if autocast else dtype)
        x = images(2, 4, 6, 7, dtype=dtype, layout=layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = block(x)
        assert y.dtype == dtype
        assert y.stride() == x.stride()
        torch.testing.assert_close(y.double(), trained(resize="bilinear")(x.double()), rtol=0, atol=0.15)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["__call__", "recall", "recall_weights"])
@pytest.mark.parametrize("resize", [None, "bilinear"])
def test_inputs_that_do_not_fit_are_refused(method: str, resize: str | None) -> None:
    run = getattr(SqueezeRemember2d(4, (3, 5), resize=resize), method)
    with pytest.raises(ValueError, match=says("expected 4 channels", "got 6", "channels=6")):
        run(torch.zeros(2, 6, 3, 5))
    for shape in [(4, 3, 5), (4,), (), (0,), (3, 5)]:
        with pytest.raises(ValueError, match=says("(N, 4, 3, 5)", f"{len(shape)}-D", f"shape {shape}", "unsqueeze")):
            run(torch.zeros(shape))
    for dtype in (torch.int64, torch.uint8, torch.bool):
        with pytest.raises(TypeError, match=says(dtype, "floating-point", ".float()")):
            run(torch.zeros(2, 4, 3, 5, dtype=dtype))


def test_a_video_is_not_told_to_grow_further_dimensions() -> None:
    with pytest.raises(ValueError, match=says("5-D", "(2, 7, 4, 3, 5)", "(N, 4, 3, 5)")) as refusal:
        SqueezeRemember2d(4, (3, 5))(torch.zeros(2, 7, 4, 3, 5))
    assert "unsqueeze" not in str(refusal.value)


@pytest.mark.parametrize("method", ["__call__", "recall", "recall_weights"])
def test_another_size_is_refused_with_the_remedy(method: str) -> None:
    run = getattr(SqueezeRemember2d(4, (3, 5)), method)
    for size in [(5, 3), (6, 10), (15, 1), (3, 6), (4, 5)]:
        with pytest.raises(
            ValueError, match=says("expected a 3x5", f"got {size[0]}x{size[1]}", f"size={size}", 'resize="bilinear"')
        ):
            run(torch.zeros(2, 4, *size))


def test_channels_first_and_last_are_not_confused() -> None:
    with pytest.raises(ValueError, match=says(4, 5, "channels")):
        SqueezeRemember2d(4, (3, 5))(torch.zeros(2, 3, 5, 4).permute(0, 2, 1, 3))


def check_refusals(build: Callable[..., object], arguments: tuple[str, ...]) -> None:
    for argument in arguments:
        for value in (0, -1, -10):
            with pytest.raises(ValueError, match=says(argument, "at least 1", f"got {value}")):
                build(**{"channels": 4, "size": (3, 5), argument: value})
        for wrong in (2.0, 2.5, "2", None, True):
            with pytest.raises(TypeError, match=says(argument, "integer", f"got {wrong!r}")):
                build(**{"channels": 4, "size": (3, 5), argument: wrong})


def test_counts_of_zero_or_no_integers_are_refused() -> None:
    check_refusals(SqueezeRemember2d, ("channels", "blocks", "hidden"))


def test_sides_of_zero_or_no_integers_are_refused() -> None:
    check_refusals(SqueezeRemember2d, ("size",))
    for size in [(0, 5), (3, -1)]:
        with pytest.raises(ValueError, match=says("size", "at least 1", f"got {size}")):
            SqueezeRemember2d(4, size)
    for pair in [(3.0, 5), (3, None), (3, "5"), (True, 5), "35"]:
        with pytest.raises(TypeError, match=says("size", "integers (H, W)", f"got {pair!r}")):
            SqueezeRemember2d(4, pair)  # type: ignore[arg-type]


def test_counting_refuses_what_building_refuses() -> None:
    check_refusals(parameter_count, ("channels", "blocks", "hidden", "size"))


@pytest.mark.parametrize("size", [(), (3,), (3, 5, 7)])
def test_a_size_needs_two_numbers(size: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, TypeError), match="(?s)size.*" + re.escape(str(size))):
        SqueezeRemember2d(4, size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argument", "value", "choices"),
    [
        ("activation", "gelu", ["relu", "None"]),
        ("init", "zeros", ["fan_in", "channels"]),
        ("resize", "nearest", ["bilinear", "None"]),
    ],
)
def test_unknown_options_are_refused_with_the_known_ones(argument: str, value: str, choices: list[str]) -> None:
    with pytest.raises(ValueError, match=says(argument, value, *choices)):
        SqueezeRemember2d(4, (3, 5), **{argument: value})  # type: ignore[arg-type]


# --- counting, initialization, printing ------------------------------------------------------------------------------

BASE_R18, BASE_VGG19, BASE_R50_IMAGENET, BASE_FCN = 11_220_132, 20_612_004, 25_557_032, 49_497_734


@pytest.mark.parametrize(
    ("channels", "size", "hidden", "blocks", "count", "base", "overhead_percent"),
    [
        (256, (8, 8), 8, 10, 164_688, BASE_R18, 1.4678),
        (512, (4, 4), 8, 12, 99_040, BASE_R18, 0.8827),
        (512, (2, 2), 8, 10, 21_104, BASE_VGG19, 0.1024),
        (1024, (14, 14), 16, 10, 2_011_360, BASE_R50_IMAGENET, 7.8701),
        (1024, (32, 64), 32, 3, 6_358_112, BASE_FCN, 12.8453),
    ],
)
def test_eq_1_gives_the_audited_overheads(
    channels: int, size: tuple[int, int], hidden: int, blocks: int, count: int, base: int, overhead_percent: float
) -> None:
    assert parameter_count(channels, size, blocks=blocks, hidden=hidden) == count
    assert 100 * count / base == pytest.approx(overhead_percent, abs=5e-5)


@settings(deadline=None, max_examples=50, derandomize=True, database=None)
@given(
    c=st.integers(1, 2048),
    size=st.one_of(st.integers(1, 64), st.tuples(st.integers(1, 64), st.integers(1, 64))),
    p=st.integers(1, 20),
    u=st.integers(1, 64),
)
def test_eq_1_counts_what_is_built(c: int, size: int | tuple[int, int], p: int, u: int) -> None:
    block = SqueezeRemember2d(c, size, blocks=p, hidden=u, device="meta")
    counted = parameter_count(c, size, blocks=p, hidden=u)
    assert counted == sum(parameter.numel() for parameter in block.parameters())
    h, w = (size, size) if isinstance(size, int) else size
    assert counted == c + h * w * u + u * p + p * c * h * w
    assert type(counted) is int


def test_defaults_are_ten_blocks_and_eight_hidden_units() -> None:
    block = SqueezeRemember2d(6, (3, 5))
    assert {name: tuple(p.shape) for name, p in block.named_parameters()} == {
        "address.squeeze": (1, 6, 1, 1),
        "address.fc1": (8, 15),
        "address.fc2": (10, 8),
        "memory.values": (10, 6, 3, 5),
    }
    assert parameter_count(6, (3, 5)) == sum(p.numel() for p in block.parameters())
    assert not list(block.buffers())
    assert tuple(SqueezeRemember2d(6, 4).memory.maps().shape) == (10, 6, 4, 4)
    assert tuple(SqueezeRemember2d(6, torch.zeros(1, 6, 3, 5).shape[-2:]).memory.maps().shape) == (10, 6, 3, 5)


@pytest.mark.parametrize("init", ["fan_in", "channels"])
def test_draws_fill_their_bounds(init: str) -> None:
    torch.manual_seed(3)
    channels, size, hidden, blocks = 900, (10, 20), 60, 50
    block = SqueezeRemember2d(channels, size, hidden=hidden, blocks=blocks, init=init)
    fan_in = dict(zip(NAMES, (channels, 200, hidden), strict=False))
    for name, fan in fan_in.items():
        bound = (fan if init == "fan_in" else channels) ** -0.5
        draws = block.get_parameter(name).detach() / bound
        assert draws.abs().max() <= 1 + 1e-6, name
        assert draws.max() > 0.98, name
        assert draws.min() < -0.98, name
        assert draws.mean().abs() < 0.08, name
        assert draws.var().item() == pytest.approx(1 / 3, rel=0.1), name  # uniform, not normal or truncated
        assert draws.unique().numel() > 0.99 * draws.numel(), name
    assert torch.count_nonzero(block.memory.values) == 0


def test_fan_in_is_the_default_initialization() -> None:
    built = []
    for options in ({}, {"init": "fan_in"}, {"init": "channels"}):
        torch.manual_seed(3)
        built.append(SqueezeRemember2d(64, (3, 5), **options).address.fc1)
    assert torch.equal(built[0], built[1])
    assert not torch.equal(built[0], built[2])


def test_building_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(3)
    np_state = np.random.get_state()[1].copy()  # noqa: NPY002
    before = torch.get_rng_state()
    block = SqueezeRemember2d(6, (3, 5))
    assert torch.equal(torch.get_rng_state(), before)
    block.reset_parameters()
    block.reset_parameters(torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == np_state).all()  # noqa: NPY002


def test_the_seed_decides_the_block() -> None:
    def draw(seed: int) -> SqueezeRemember2d:
        torch.manual_seed(seed)
        return SqueezeRemember2d(6, (3, 5))

    first, again, other = draw(1), draw(1), draw(2)
    for name in NAMES[:3]:
        assert torch.equal(first.get_parameter(name), again.get_parameter(name)), name
        assert not torch.equal(first.get_parameter(name), other.get_parameter(name)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_block_does_not_draw_what_the_next_layer_draws(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    block = SqueezeRemember2d(16, (4, 4), hidden=16, blocks=16, dtype=dtype)  # every bound is a quarter
    later = torch.empty(1024, dtype=dtype).uniform_(-0.25, 0.25)
    for name in NAMES[:3]:
        own = block.get_parameter(name).detach().flatten()
        assert torch.isclose(own[:, None], later[None, :], rtol=0, atol=1e-7).sum() <= 2, name
    assert not torch.isclose(
        block.address.fc1, block.address.fc2, rtol=0, atol=1e-7
    ).any()  # nor one layer what another does


def test_reset_parameters_takes_a_generator() -> None:
    block, other = trained(), trained(seed=5)
    generator = torch.Generator().manual_seed(11)
    block.reset_parameters(generator)
    other.reset_parameters(torch.Generator().manual_seed(11))
    drawn = {name: block.get_parameter(name).detach().clone() for name in NAMES}
    assert torch.count_nonzero(drawn["memory.values"]) == 0
    assert all(torch.equal(value, other.get_parameter(name)) for name, value in drawn.items())
    block.reset_parameters(generator)  # it has moved on
    assert not any(torch.equal(drawn[name], block.get_parameter(name)) for name in NAMES[:3])
    assert all(p.requires_grad for p in block.parameters())


def test_the_default_dtype_is_followed() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        block = SqueezeRemember2d(6, (3, 5))
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in block.parameters()} == {torch.float64}
    assert block.address.fc1.abs().max() > 0


def test_building_without_storage() -> None:
    block = SqueezeRemember2d(6, (3, 5), device="meta")
    assert all(p.is_meta for p in block.parameters())
    assert block(torch.empty(2, 6, 3, 5, device="meta")).shape == (2, 6, 3, 5)
    block.to_empty(device="cpu")
    block.reset_parameters()
    x = images(2, 6, 3, 5, dtype=torch.float32)
    assert torch.equal(block(x), x)
    assert 0 < block.address.fc1.abs().max() <= 15**-0.5 + 1e-6


def test_building_inside_a_device_context() -> None:
    with torch.device("meta"):
        assert all(p.is_meta for p in SqueezeRemember2d(6, (3, 5)).parameters())
    torch.manual_seed(3)
    with torch.device("cpu"):
        inside = SqueezeRemember2d(6, (3, 5))
    assert torch.equal(inside.address.fc1, SqueezeRemember2d(6, (3, 5)).address.fc1)


def test_printing_names_every_argument() -> None:
    block = SqueezeRemember2d(6, (3, 5), blocks=7, hidden=9, activation="relu", init="channels", resize="bilinear")
    for text in ["6", "(3, 5)", "blocks=7", "hidden=9", "activation='relu'", "init='channels'", "resize='bilinear'"]:
        assert text in block.extra_repr(), text
        assert text in repr(block), text
    for again in (block, SqueezeRemember2d(6, 4)):
        copied = eval(repr(again))
        assert repr(copied) == repr(again)
        assert copied.memory.values.shape == again.memory.values.shape


# --- what a module must survive --------------------------------------------------------------------------------------


def same(first: nn.Module, second: nn.Module, *shape: int) -> bool:
    x = images(*(shape or (3, 4, 3, 5)))
    return torch.equal(first(x), second(x))


def test_deepcopy_and_pickle() -> None:
    block = trained(activation="relu", resize="bilinear")
    copied, pickled = copy.deepcopy(block), pickle.loads(pickle.dumps(block))
    for other in (copied, pickled):
        assert same(block, other)
        assert same(block, other, 2, 4, 6, 7)
        assert repr(other) == repr(block)
        with torch.no_grad():
            other.memory.values.zero_()
    assert block.memory.values.abs().max() > 0


def test_state_dict_round_trip_and_safe_loading() -> None:
    block, other = trained(), SqueezeRemember2d(4, (3, 5), blocks=3, hidden=4, dtype=torch.float64)
    assert list(block.state_dict()) == list(NAMES)  # the momentum of half-finished runs goes by this order
    file = io.BytesIO()
    torch.save(block.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same(block, other)
    with pytest.raises(RuntimeError, match="size mismatch for memory"):
        SqueezeRemember2d(4, (5, 3), blocks=3, hidden=4).load_state_dict(block.state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key.*fc2"):
        other.load_state_dict({name: value for name, value in block.state_dict().items() if name != "address.fc2"})


def test_state_dicts_of_when_blocks_had_no_parts_load() -> None:
    block, other = trained(), SqueezeRemember2d(4, (3, 5), blocks=3, hidden=4, dtype=torch.float64)
    older = {name: block.state_dict()[key] for name, key in KEYS.items()}
    other.load_state_dict(older)
    assert same(block, other)
    assert set(older) == set(KEYS)  # the caller's stays as it is
    with pytest.raises(RuntimeError, match=r"Missing key.*memory"):
        other.load_state_dict({name: value for name, value in older.items() if name != "memory"})


@pytest.fixture
def dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        # None with torch 2.15 on Python 3.11; a newer Python may deprecate what torch itself uses.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (3, 5)),
        ({"activation": "relu"}, (3, 5)),
        ({"resize": "bilinear"}, (3, 5)),
        ({"resize": "bilinear"}, (6, 4)),
    ],
)
def test_compiles_in_one_graph(options: dict[str, Any], size: tuple[int, int], layout: Any) -> None:
    block = trained(**options)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    for n in (2, 5):
        x = images(n, 4, *size, layout=layout).requires_grad_()
        expected = block(x)
        found = compiled(x)
        assert found.stride() == expected.stride()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        parts = [x, *block.parameters()]
        for a, b in zip(
            torch.autograd.grad(found, parts, expected.detach()),
            torch.autograd.grad(expected, parts, expected.detach()),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.usefixtures("dynamo")
def test_compiles_under_autocast_and_when_bypassed() -> None:
    block = SqueezeRemember2d(4, (3, 5))
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    x = images(2, 4, 3, 5, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = compiled(x)
    assert y.dtype == torch.float32
    assert torch.equal(y, x)
    with torch.no_grad():
        block.memory.values.fill_(1.0)
    assert (compiled(x) - x).mean().item() == pytest.approx(1.0, abs=1e-5)
    block.bypassed = True
    assert torch.equal(compiled(x), x)


@pytest.mark.usefixtures("dynamo")
def test_compiles_to_machine_code() -> None:
    block = trained(dtype=torch.float32)
    compiled = torch.compile(block, fullgraph=True)
    x = images(3, 4, 3, 5, dtype=torch.float32, layout=torch.channels_last).requires_grad_()
    found, expected = compiled(x), block(x)
    assert found.stride() == x.stride()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    parts = [x, *block.parameters()]
    for a, b in zip(torch.autograd.grad(found.sum(), parts), torch.autograd.grad(expected.sum(), parts), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("resize", [None, "bilinear"])
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11 of its own archive
def test_exports_with_any_batch_and_reloads(resize: str | None) -> None:
    block = trained(resize=resize)
    dynamic = {"x": {0: torch.export.Dim("n", min=1, max=4096)}}
    program = torch.export.export(block, (images(3, 4, 3, 5),), dynamic_shapes=dynamic)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for n in (1, 2, 3, 17):
        x = images(n, 4, 3, 5)
        torch.testing.assert_close(loaded(x), block(x), rtol=0, atol=1e-12)
    assert set(program.state_dict) == set(NAMES)
    assert "upsample" not in str(program.graph)  # the map's size is known: the exact path


ANY_SIZE = {0: torch.export.Dim("n", min=1, max=99), 2: torch.export.Dim("h", max=99), 3: torch.export.Dim("w", max=99)}
SHAPES = ((2, 4, 3, 5), (5, 4, 7, 6), (1, 4, 2, 3), (3, 4, 3, 8))  # the first is the block's own size


@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("example", SHAPES[:2])
@pytest.mark.parametrize("strict", [False, True])
def test_exports_for_any_size(strict: bool, example: tuple[int, ...], layout: Any) -> None:
    block = trained(resize="bilinear")
    x = images(*example, layout=layout)
    program = torch.export.export(block, (x,), dynamic_shapes={"x": ANY_SIZE}, strict=strict).module()
    for shape in SHAPES:
        x = images(*shape, layout=layout)
        torch.testing.assert_close(program(x), block(x), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("dynamo")
def test_an_export_for_any_size_needs_a_block_that_resizes() -> None:
    with pytest.raises(torch._dynamo.exc.UserError, match=r"marked [hw] as dynamic but your code specialized it"):
        torch.export.export(trained(), (images(2, 4, 3, 5),), dynamic_shapes={"x": ANY_SIZE})


@pytest.mark.usefixtures("dynamo")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the exporter about itself
def test_onnx_for_any_size(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    block = trained(resize="bilinear", dtype=torch.float32).eval()
    x = images(*SHAPES[0], dtype=torch.float32)
    torch.onnx.export(block, (x,), tmp_path / "block.onnx", dynamo=True, dynamic_shapes={"x": ANY_SIZE}, verbose=False)
    session = runtime.InferenceSession(tmp_path / "block.onnx", providers=["CPUExecutionProvider"])
    for shape in SHAPES:
        x = images(*shape, dtype=torch.float32)
        (found,) = session.run(None, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), block(x), rtol=0, atol=1e-5)


def test_a_block_alone_has_no_graph() -> None:
    with pytest.raises(ValueError, match="trace the network that it stands in"):
        torch.fx.symbolic_trace(trained())
    x = images(2, 4, 3, 5)
    assert torch.equal(torch.fx.symbolic_trace(nn.Sequential(block := trained()))(x), block(x))


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
def test_trains_under_ddp(layout: Any, tmp_path: Path) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        body = [nn.Conv2d(3, 4, 3, padding=1), SqueezeRemember2d(4, (3, 5), blocks=3), nn.Flatten(), nn.Linear(60, 3)]
        return nn.Sequential(*body).to(memory_format=layout)

    def losses(model: nn.Module) -> list[float]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        x, labels = images(12, 3, 3, 5, dtype=torch.float32, layout=layout), torch.arange(12) % 3
        seen = []
        for _ in range(8):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
        return seen

    alone = network()
    expected = losses(alone)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(network())
        found = losses(wrapped)
    finally:
        torch.distributed.destroy_process_group()
    assert found == pytest.approx(expected, abs=1e-5)
    assert found[-1] < 0.8 * found[0]
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(wrapped.module.state_dict()[name], value, rtol=0, atol=1e-5)
    assert wrapped.module[1].memory.values.abs().max() > 0
