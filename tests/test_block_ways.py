"""The forms in which a CPU computes the block: the plain ones' values and gradients, and nothing large kept."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srblock import SqueezeRemember2d
from srblock.block import compute
from srblock.block.compute import ROWS

FORMATS = (torch.contiguous_format, torch.channels_last)
COUNTS = (1, 5, ROWS, 2 * ROWS, 3 * ROWS)


def block(dtype: torch.dtype = torch.float32, size: tuple[int, int] = (3, 5), **options: Any) -> SqueezeRemember2d:
    torch.manual_seed(0)
    made = SqueezeRemember2d(6, size, blocks=4, hidden=3, dtype=dtype, **options)
    torch.nn.init.normal_(made.memory.values)
    return made


def images(count: int, dtype: torch.dtype = torch.float32, layout: Any = torch.contiguous_format) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 6, 3, 5, generator=generator, dtype=torch.float64).to(dtype, memory_format=layout)


def plainly(made: SqueezeRemember2d, x: Tensor) -> Tensor:
    """Write the equations as they read."""
    address = made.address
    squeezed = F.conv2d(x, address.squeeze).flatten(1)
    weights = F.linear(F.linear(squeezed, address.fc1), address.fc2).softmax(1)
    return x + torch.einsum("np,pchw->nchw", weights, made.memory.values)


def gradients(run: Any, made: SqueezeRemember2d, x: Tensor, wanted: str = "all") -> list[Tensor]:
    x = x.detach().requires_grad_(wanted != "parameters")
    sources = [x] if x.requires_grad else []
    sources += [p for p in made.parameters() if p.requires_grad]
    incoming = torch.linspace(-1, 1, x.numel()).bfloat16().to(x.dtype)  # the same numbers in every dtype
    return list(torch.autograd.grad(run(x), sources, incoming.view_as(x)))


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("count", COUNTS)
def test_values_and_gradients_are_the_plain_ones(count: int, layout: Any) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        made, x = block(dtype), images(count, dtype, layout)
        for no_grad in (True, False):
            with torch.set_grad_enabled(not no_grad):
                y = made(x)
            torch.testing.assert_close(y, plainly(made, x), rtol=tolerance, atol=tolerance)
            assert y.is_contiguous(memory_format=layout)
        ours, theirs = gradients(made, made, x), gradients(lambda x, made=made: plainly(made, x), made, x)
        for one, other in zip(ours, theirs, strict=True):
            assert (one - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("size", [(3, 5), (1, 1), (4, 4)])  # of 90, 6 and 96 numbers: in 2, 2 and 16 pieces
def test_a_single_long_map_is_summed_in_pieces(
    size: tuple[int, int], layout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "LONG", 1)
    made, x = block(size=size), torch.randn(1, 6, *size).to(memory_format=layout)
    with torch.no_grad():
        torch.testing.assert_close(made(x), plainly(made, x), rtol=1e-5, atol=1e-5)
    ours, theirs = gradients(made, made, x), gradients(lambda x: plainly(made, x), made, x)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("count", COUNTS)
def test_half_precision_agrees_to_a_hundredth_or_as_well_as_the_plain_forms(count: int, layout: Any) -> None:
    made, x = block(torch.bfloat16), images(count, torch.bfloat16, layout)
    exact = copy.deepcopy(made).double()
    ours = [made(x), *gradients(made, made, x)]
    theirs = [plainly(made, x), *gradients(lambda x: plainly(made, x), made, x)]
    truth = [plainly(exact, x.double()), *gradients(lambda x: plainly(exact, x), exact, x.double())]
    for one, other, true in zip(ours, theirs, truth, strict=True):
        assert (one - true).norm() <= max(1e-2 * true.norm(), 1.1 * (other - true).norm())


@pytest.mark.parametrize("frozen", ["squeeze", "fc1", "memory", "everything", "x"])
def test_what_is_frozen_needs_no_gradient(frozen: str) -> None:
    made, x = block(torch.float64), images(2 * ROWS, torch.float64)
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(frozen != "everything" and frozen not in name)
    wanted = "parameters" if frozen == "x" else "all"
    for one, other in zip(
        gradients(made, made, x, wanted), gradients(lambda x: plainly(made, x), made, x, wanted), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")  # which torch's forward derivatives use
@pytest.mark.parametrize("layout", FORMATS)
def test_second_derivatives_and_those_of_torch_func(layout: Any) -> None:
    made, x = block(torch.float64), images(2 * ROWS, torch.float64, layout)
    values = [p.detach().clone().requires_grad_() for p in made.parameters()]
    names = [name for name, _ in made.named_parameters()]

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(made, dict(zip(names, values, strict=True)), (x,))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(run, (x.clone().requires_grad_(), *values), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x.clone().requires_grad_(), *values), fast_mode=True)
    along = torch.randn_like(x)
    by = torch.func.jvp(made, (x,), (along,))[1]
    torch.testing.assert_close(by, torch.func.jvp(lambda x: plainly(made, x), (x,), (along,))[1])
    ours = torch.func.grad(lambda x: made(x).square().sum())(x)
    torch.testing.assert_close(ours, torch.func.grad(lambda x: plainly(made, x).square().sum())(x))


@pytest.mark.parametrize("layout", FORMATS)
def test_nothing_of_the_maps_size_is_kept_but_the_map(layout: Any) -> None:
    """Of size (N, C, H, W) backward needs X alone, and of the memory's no copy."""
    made, x = block(), images(2 * ROWS, layout=layout).requires_grad_()
    made.to(memory_format=layout)
    kept: dict[int, Tensor] = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        made(x)
    squeezed = x[:, :1].numel()
    large = [t for t in kept.values() if t.numel() >= made.memory.values.numel() and t.numel() != squeezed]
    assert {t.data_ptr() for t in large} <= {x.data_ptr(), made.memory.values.data_ptr()}


def test_autocast_and_export_agree() -> None:
    made, x = block(), images(2 * ROWS)
    with torch.autocast("cpu", torch.bfloat16):
        y = made(x.requires_grad_())
        y.sum().backward()
    torch.testing.assert_close(y, plainly(made, x), rtol=0, atol=0.15)
    program = torch.export.export(made, (x.detach(),), dynamic_shapes=({0: torch.export.Dim("images")},))
    for count in (3, ROWS, 3 * ROWS):
        torch.testing.assert_close(program.module()(images(count)), made(images(count)))


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compiled_it_computes_in_these_forms_too(layout: Any, dynamic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One program for learning and one for inference, for one size and for any, with the gradients of eager ones."""
    torch._dynamo.reset()
    if torch.compile(lambda x: x + torch.compiler.is_exporting(), backend="eager")(torch.zeros(())):
        pytest.skip(f"torch {torch.__version__} takes what it compiles for an export, which has the plain form")
    monkeypatch.setattr(torch, "addmm", lambda *_: pytest.fail("the plain form"))
    made = block().to(memory_format=layout)
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for count in (2 * ROWS, 3 * ROWS):
        x = images(count, layout=layout).requires_grad_()
        parts = [x, *made.parameters()]
        expected, found = made(x), compiled(x)
        torch.testing.assert_close(found, expected)
        into = torch.randn_like(expected)
        gradients = torch.autograd.grad(found, parts, into)
        torch.testing.assert_close(gradients, torch.autograd.grad(expected, parts, into))
        assert gradients[0].stride() == x.stride(), "the next layer would copy it"
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), expected)
    torch._dynamo.reset()


@pytest.mark.parametrize("options", [{}, {"rank": 2}], ids=["dense", "rank 2"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
def test_evaluation_between_steps_sees_the_memory_of_now(layout: Any, precision: Any, options: dict[str, Any]) -> None:
    """Fused optimizers and `.data` change parameters without a trace that a copy made for inference could follow."""
    torch.manual_seed(0)
    made, x = SqueezeRemember2d(6, (3, 5), blocks=4, **options), images(2 * ROWS, layout=layout)
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.1, fused=True)

    def evaluated(block: SqueezeRemember2d) -> Tensor:
        with torch.inference_mode():
            y: Tensor = block.eval()(x)
        return y

    seen = []
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        for _ in range(3):
            seen.append(evaluated(made))
            assert torch.equal(seen[-1], evaluated(copy.deepcopy(made)))
            loss = (made.train()(x) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        last = evaluated(made) - x
        for value in made.memory.parameters():
            value.data.mul_(2)
        twice = 2 ** len(list(made.memory.parameters()))
        torch.testing.assert_close(evaluated(made) - x, twice * last, rtol=1e-2, atol=1e-4)
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")
@pytest.mark.parametrize("options", [{}, {"rank": 2}], ids=["dense", "rank 2"])
@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
def test_forward_derivatives_and_ensembles_of_parameters(layout: Any, options: dict[str, Any]) -> None:
    blocks = [SqueezeRemember2d(6, (3, 5), blocks=4, dtype=torch.float64, start="normal", **options) for _ in range(3)]
    x = images(2 * ROWS, torch.float64, layout)
    values = {name: value.detach() for name, value in blocks[0].named_parameters()}
    along = {name: torch.randn_like(value) for name, value in values.items()}

    def run(values: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(blocks[0], values, (x,))  # type: ignore[no-any-return]

    step = 1e-5
    ahead, behind = ({name: values[name] + sign * along[name] for name in values} for sign in (step, -step))
    _, derivative = torch.func.jvp(run, (values,), (along,))
    torch.testing.assert_close(derivative, (run(ahead) - run(behind)) / (2 * step), rtol=1e-4, atol=1e-7)
    stacked, buffers = torch.func.stack_module_state(blocks)  # type: ignore[arg-type]
    together = torch.func.vmap(lambda p, b: torch.func.functional_call(blocks[0], (p, b), (x,)))(stacked, buffers)
    torch.testing.assert_close(together, torch.stack([one(x) for one in blocks]))


@pytest.mark.parametrize("options", [{}, {"rank": 2}, {"grid": 1}, {"squeeze_channels": 2}])
@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
def test_gradients_of_every_image_by_vmap(layout: Any, options: dict[str, Any]) -> None:
    made = SqueezeRemember2d(6, (3, 5), blocks=4, dtype=torch.float64, start="normal", **options)
    convolution = torch.nn.Conv2d(6, 6, 3, padding=1, dtype=torch.float64).to(memory_format=layout)
    model = torch.nn.Sequential(convolution, made)
    x = images(ROWS, torch.float64, layout)
    values = {name: value.detach() for name, value in model.named_parameters()}

    def loss(values: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(model, values, (image[None],)).square().sum()  # type: ignore[no-any-return]

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(values, x)
    for number, image in enumerate(x[:3]):
        for name, one in torch.func.grad(loss)(values, image).items():
            torch.testing.assert_close(each[name][number], one)


def test_a_block_pickles_and_copies() -> None:
    made, x = block().eval(), images(1, layout=torch.channels_last)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        torch.testing.assert_close(other(x), made(x))
    assert list(made.state_dict()) == ["address.squeeze", "address.fc1", "address.fc2", "memory.values"]


def test_what_was_used_in_inference_mode_is_trained_on_later() -> None:
    made, x = block(), images(2 * ROWS, layout=torch.channels_last)
    with torch.inference_mode():
        made(x)
    made(x).sum().backward()
    assert made.memory.values.grad is not None
