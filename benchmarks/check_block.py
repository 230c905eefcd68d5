"""Whether the block is right on a device: against its equations in float64, values and every gradient.

    python benchmarks/check_block.py [--device cuda] [--engines eager,compile,graph]

Even and odd sizes, one image and many, both memory formats, float32 (to 1e-5, without TF32), bfloat16 and autocast (to
1e-2, or as well as the equations themselves in bfloat16): the norm of the difference against the norm of what it should
be. "graph" replays forward and backward as one CUDA graph, on other images than it was captured on. Then, once each:
double backward, an export, and what backward keeps. Needs torch alone. Prints a line a check; ends with 1 if any fails.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from collections.abc import Callable, Iterator

import torch
from cuda_graph import captured
from torch import Tensor, nn
from torch.nn import functional as F

from srblock import SqueezeRemember2d

SHAPES = ((1, 6, 3, 5), (5, 7, 1, 1), (33, 6, 5, 3), (128, 64, 4, 4), (32, 96, 14, 14), (1, 256, 14, 14))
PRECISIONS = {"float32": 1e-5, "bfloat16": 1e-2, "autocast": 1e-2}
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
Values = list[Tensor]


def plainly(block: SqueezeRemember2d, x: Tensor) -> Tensor:
    """Write the equations as they read."""
    address = block.address
    squeezed = F.conv2d(x, address.squeeze).flatten(1)
    weights = F.linear(F.linear(squeezed, address.fc1), address.fc2).softmax(1)
    return x + torch.einsum("np,pchw->nchw", weights, block.memory.values)


def values(run: Callable[[Tensor], Tensor], block: nn.Module, x: Tensor, incoming: Tensor) -> Values:
    """Return the output and the gradients of the input and of all parameters."""
    y = run(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *block.parameters()], incoming)]


def replayed(block: nn.Module, x: Tensor, incoming: Tensor) -> Values:
    """Return `values` by a CUDA graph that was captured on other numbers."""
    place = torch.zeros_like(x).requires_grad_()
    found: list[Values] = []
    replay = captured(lambda: found.append(values(block, block, place, incoming)))
    with torch.no_grad():
        place.copy_(x)
    replay()
    return found[-1]


def errors(shape: tuple[int, ...], precision: str, layout: str, engine: str, device: torch.device) -> Iterator[float]:
    """Yield the error of the output and of each gradient, in the tolerance's multiples."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    exact = SqueezeRemember2d(shape[1], shape[2:], blocks=10, hidden=8, dtype=torch.float64)
    exact.memory.values.data.normal_(generator=generator)
    x, incoming = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32

    def put(value: Tensor) -> Tensor:
        return value.to(device, dtype).to(memory_format=FORMATS[layout])

    block = copy.deepcopy(exact).to(device, dtype).to(memory_format=FORMATS[layout])
    x, incoming = put(x).requires_grad_(), put(incoming)
    exact.load_state_dict(block.state_dict())  # as it was rounded
    exact.to(device)
    run: nn.Module = torch.compile(block, dynamic=False) if engine == "compile" else block  # type: ignore[assignment]
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "autocast"):
        ours = replayed(block, x, incoming) if engine == "graph" else values(run, block, x, incoming)
        theirs = values(lambda x: plainly(block, x).to(x.dtype), block, x, incoming)
    if ours[0].dtype != x.dtype or not ours[0].is_contiguous(memory_format=FORMATS[layout]):
        raise AssertionError(f"{ours[0].dtype} as {ours[0].stride()} came back, of {x.dtype} as {x.stride()}")
    truth = values(lambda x: plainly(exact, x), exact, x.detach().double().requires_grad_(), incoming.double())
    for one, other, true in zip(ours, theirs, truth, strict=True):
        size, plain = true.norm(), (other - true).norm() if precision != "float32" else true.new_zeros(())
        yield float((one - true).norm() / torch.maximum(PRECISIONS[precision] * size, 2 * plain))


def once(device: torch.device) -> None:
    """Check double backward, an export, and that backward keeps nothing of the map's size but the map."""
    block = SqueezeRemember2d(4, (3, 5), blocks=3, device=device, dtype=torch.float64)
    block.memory.values.data.normal_()
    x = torch.randn(5, 4, 3, 5, device=device, dtype=torch.float64, requires_grad=True)
    if not torch.autograd.gradgradcheck(block, (x,), fast_mode=True, nondet_tol=1e-12):
        raise AssertionError("double backward")
    program = torch.export.export(block, (x.detach(),), dynamic_shapes=({0: torch.export.Dim("images")},))
    torch.testing.assert_close(program.module()(x[:3]), block(x[:3]))
    kept: list[Tensor] = []
    x = torch.randn(64, 4, 3, 5, device=device, dtype=torch.float64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        block(x)
    if any(t.numel() >= x.numel() and t.data_ptr() != x.data_ptr() for t in kept):
        raise AssertionError(f"kept for backward: {[tuple(t.shape) for t in kept]}")


def main(given: list[str] | None = None) -> int:
    """Check everything; return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--engines", default="eager,compile,graph")
    args = parser.parse_args(given)
    device, failed = torch.device(args.device), 0
    torch.backends.cudnn.allow_tf32 = False  # products have none by default, convolutions do
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False  # else sums over shares are bfloat16's
    for engine, precision in itertools.product(args.engines.split(","), PRECISIONS):
        shapes = SHAPES[1::2] if engine == "compile" else SHAPES  # compiling takes seconds
        for shape, layout in itertools.product(shapes, FORMATS):
            if engine == "compile":
                torch._dynamo.reset()
            found = list(errors(shape, precision, layout, engine, device))
            right = all(error <= 1 for error in found)  # which no NaN is
            failed += not right
            print("x".join(map(str, shape)), precision, layout, engine, f"{max(found):.2f} of the tolerance",
                  "" if right else "WRONG", flush=True)  # fmt: skip
    print(f"{failed} wrong", flush=True)
    once(device)
    print("double backward, export and what is kept are right")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
