"""The block by itself against SE and CBAM of timm, the sum written naively, and the floors.

    python benchmarks/block.py [--device cpu] [--engines eager,compile] [--rounds 25] [--seconds 20]

Every shape, dtype, memory format and engine is a case: forward in inference mode, and forward + backward with the
gradients of the input and all parameters, one after another in each round, the order turned round from round to round.
"copy" is X.clone(), "constant" X plus a learned map: what no block that adds something can go below. At N = 1 the block
must read its memory, P times the map: "memory" reads it once, by summing it, in either half of a case. On a GPU each is
captured ten times over as one CUDA graph and replayed. Figures are medians over the rounds, ratios medians of the
rounds' ratios. A half of a case ends after so many rounds, or so many seconds from the fifth round on.

Writes a CSV into benchmarks/results/, named by processor and versions (and by engine, without eager), anew after every
case: a run that is stopped leaves what it has measured. Without timm, SE and CBAM are left out. Compiling for a CPU
needs a C++ compiler.

P = 10; U = 8 for the CIFAR shapes, 16 otherwise.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import machine
import torch
from cuda_graph import captured
from torch import Tensor, nn

from srblock import SqueezeRemember2d
from srblock.training import runtime

try:
    import timm
    from timm.layers import SEModule
    from timm.layers.cbam import CbamModule
except ImportError:
    timm = None

SHAPES = ((128, 512, 4, 4), (128, 256, 8, 8), (32, 1024, 14, 14), (1, 1024, 14, 14), (2, 1024, 64, 128))
BLOCKS = 10
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
AT_LEAST_S = {"cpu": 0.02, "cuda": 0.005}  # a timing repeats until it has taken so long
LEAST_ROUNDS = 5
IN_A_GRAPH = 10  # times: launching a graph takes the CPU some microseconds
Action = Callable[[], object]


class Copy(nn.Module):
    """Copy the map."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the copy."""
        return x.clone()


class Constant(nn.Module):
    """Add a learned map."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.zeros(1, channels, height, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        return x + self.map


class Naive(nn.Module):
    """The block as its equations read: a product for every image, block, channel and place, and its sum."""

    def __init__(self, block: SqueezeRemember2d) -> None:
        super().__init__()
        self.block = copy.deepcopy(block)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        weights = self.block.recall_weights(x)
        return x + (weights[:, :, None, None, None] * self.block.memory.maps()).sum(1)


class Memory(nn.Module):
    """Read a memory once."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.ones(BLOCKS, channels, height, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of its numbers."""
        return self.values.sum()


def modules(shape: Sequence[int]) -> dict[str, nn.Module]:
    """Build what is compared for a shape."""
    images, channels, height, width = shape
    block = SqueezeRemember2d(channels, (height, width), blocks=BLOCKS, hidden=8 if height <= 8 else 16)
    nn.init.normal_(block.memory.values, std=0.01)  # as trained
    built: dict[str, nn.Module] = {"sr": block, "naive": Naive(block)}
    if timm is not None:
        built |= {"se": SEModule(channels), "cbam": CbamModule(channels)}
    built |= {"copy": Copy(), "constant": Constant(channels, height, width)}
    return built | ({"memory": Memory(channels, height, width)} if images == 1 else {})


def actions(module: nn.Module, x: Tensor, backward: bool) -> Action:
    """Return what is timed."""
    if not backward:

        def look() -> None:
            with torch.inference_mode():
                module(x)

        return look
    x = x.detach().requires_grad_()
    gradient = torch.randn_like(x)
    parameters = list(module.parameters())

    def learn() -> None:
        torch.autograd.grad(module(x), [x, *parameters], gradient)

    return learn


def timed(action: Action, times: int, device: torch.device) -> float:
    """Return microseconds a time."""
    if device.type == "cuda":
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()  # type: ignore[no-untyped-call]
        for _ in range(times):
            action()
        last.record()  # type: ignore[no-untyped-call]
        last.synchronize()  # type: ignore[no-untyped-call]
        return float(1e3 * first.elapsed_time(last) / times)  # type: ignore[no-untyped-call]
    start = time.perf_counter()
    for _ in range(times):
        action()
    return 1e6 * (time.perf_counter() - start) / times


def measure(ways: dict[str, Action], rounds: int, seconds: float, device: torch.device) -> dict[str, list[float]]:
    """Time all in turn; what is quick is repeated within a round."""
    least = 1e6 * AT_LEAST_S[device.type]
    counts = {name: max(1, round(least / timed(action, 2, device))) for name, action in ways.items()}
    found: dict[str, list[float]] = {name: [] for name in ways}
    start = time.perf_counter()
    for number in range(rounds):
        for name in ways if number % 2 else reversed(ways):
            found[name].append(timed(ways[name], counts[name], device))
        if number + 1 >= LEAST_ROUNDS and time.perf_counter() - start > seconds:
            break
    return found


def case(
    built: dict[str, nn.Module], x: Tensor, args: argparse.Namespace, columns: dict[str, object]
) -> list[dict[str, object]]:
    """Measure one shape, dtype, format and engine: a row for each module and each of forward, forward + backward."""
    rows: list[dict[str, object]] = []
    if columns["engine"] == "compile":
        torch._dynamo.reset()  # or one function would be compiled for every case, and from the ninth on not at all
    for what in ("forward", "forward + backward"):
        ways, times = {}, IN_A_GRAPH if x.device.type == "cuda" else 1
        for name, module in built.items():
            called = torch.compile(module, dynamic=False) if columns["engine"] == "compile" else module
            ways[name] = actions(called, x, what != "forward" and name != "memory")
            ways[name]()
            if x.device.type == "cuda":
                ways[name] = captured(ways[name], times)
        found = measure(ways, args.rounds, args.seconds, x.device)
        floors = {f"to_{other}": found[other] for other in ("se", "copy", "constant", "memory") if other in found}
        for name, us in found.items():
            ratios = {column: median(a / b for a, b in zip(us, floors[column], strict=True)) if column in floors else ""
                      for column in ("to_se", "to_copy", "to_constant", "to_memory")}  # fmt: skip
            rows.append(columns | {"what": what, "module": name, "us": f"{statistics.median(us) / times:.1f}"} | ratios
                        | {"rounds": len(us)} | machine.describe(x.device))  # fmt: skip
        print(*columns.values(), what, {row["module"]: (row["us"], row["to_se"], row["to_constant"]) for row in rows
                                        if row["what"] == what}, flush=True)  # fmt: skip
    return rows


def median(ratios: Iterable[float]) -> str:
    """Return the median as text."""
    return f"{statistics.median(ratios):.3f}"


def main() -> None:
    """Measure, print, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=20, help="no further round of half a case after so many")
    parser.add_argument("--engines", default="eager")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--shapes", default=",".join(map(str, range(len(SHAPES)))))
    parser.add_argument("--without", default="", help="what is not compared, such as naive,cbam")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    args = parser.parse_args()
    device = torch.device(args.device)
    runtime.keep_freed_memory(device)  # as training does
    cases = list(itertools.product(args.engines.split(","), (SHAPES[int(number)] for number in args.shapes.split(",")),
                                   args.dtypes.split(","), args.formats.split(",")))  # fmt: skip
    print(f"{len(cases)} cases, up to {2 * len(cases) * args.seconds / 60:.0f} minutes, and what compiling takes")
    versions = () if timm is None else ("timm", timm.__version__)
    record = "block" if "eager" in args.engines else f"block-{args.engines}"
    rows: list[dict[str, object]] = []
    for engine, shape, dtype, layout in cases:
        x = torch.randn(*shape, device=device, dtype=DTYPES[dtype]).to(memory_format=FORMATS[layout])
        built = {name: module for name, module in modules(shape).items() if name not in args.without.split(",")}
        for module in built.values():
            module.to(device, DTYPES[dtype]).to(memory_format=FORMATS[layout])
        columns: dict[str, object] = {"shape": "x".join(map(str, shape)), "dtype": dtype, "format": layout}
        rows += case(built, x, args, columns | {"engine": engine})
        machine.write(args.out, record, rows, *versions, done=False)
    machine.write(args.out, record, rows, *versions)


if __name__ == "__main__":
    main()
