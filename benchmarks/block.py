"""The block by itself against SE and CBAM of timm, the sum written naively, and two floors.

    python benchmarks/block.py [--device cpu] [--rounds 25] [--engines eager,compile] [--shapes 0,1,2,3,4]

Every shape, dtype and memory format: forward in inference mode, and forward + backward with gradients of the input and
of all parameters, one after another in each round, the order turned round from round to round. "copy" is X.clone(),
"constant" X plus a learned map: what no block that adds something can go below. On a GPU each is captured as a CUDA
graph and replayed. Figures are medians over the rounds, ratios medians of the rounds' ratios. Writes a CSV into
benchmarks/results/, named by processor and torch version.

P = 10; U = 8 for the CIFAR shapes, 16 otherwise.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import machine
import timm
import torch
from timm.layers import SEModule
from timm.layers.cbam import CbamModule
from torch import Tensor, nn

from srblock import SqueezeRemember2d
from srblock.training import runtime

SHAPES = ((128, 512, 4, 4), (128, 256, 8, 8), (32, 1024, 14, 14), (1, 1024, 14, 14), (2, 1024, 64, 128))
BLOCKS = 10
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
AT_LEAST_S = 0.02  # a timing repeats until it has taken so long
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


def modules(shape: Sequence[int]) -> dict[str, nn.Module]:
    """Build what is compared for a shape."""
    _, channels, height, width = shape
    block = SqueezeRemember2d(channels, (height, width), blocks=BLOCKS, hidden=8 if height <= 8 else 16)
    nn.init.normal_(block.memory.values, std=0.01)  # as trained
    return {
        "sr": block,
        "naive": Naive(block),
        "se": SEModule(channels),
        "cbam": CbamModule(channels),
        "copy": Copy(),
        "constant": Constant(channels, height, width),
    }


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


def captured(action: Action) -> Action:
    """Capture an action as a CUDA graph and return its replay."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            action()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        action()
    return graph.replay


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


def measure(ways: dict[str, Action], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Time all in turn; what is quick is repeated within a round."""
    counts = {name: max(1, round(1e6 * AT_LEAST_S / timed(action, 2, device))) for name, action in ways.items()}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in ways if number % 2 else reversed(ways):
            found[name].append(timed(ways[name], counts[name], device))
    return found


def main() -> None:
    """Measure, print, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--engines", default="eager")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--shapes", default=",".join(map(str, range(len(SHAPES)))))
    parser.add_argument("--without", default="", help="what is not compared, such as naive,cbam")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    args = parser.parse_args()
    device = torch.device(args.device)
    runtime.keep_freed_memory(device)  # as training does
    rows: list[dict[str, object]] = []
    for shape in (SHAPES[int(number)] for number in args.shapes.split(",")):
        for dtype in args.dtypes.split(","):
            for layout, memory_format in FORMATS.items():
                x = torch.randn(*shape, device=device, dtype=DTYPES[dtype]).to(memory_format=memory_format)
                built = {k: v for k, v in modules(shape).items() if k not in args.without.split(",")}
                for module in built.values():
                    module.to(device, DTYPES[dtype]).to(memory_format=memory_format)
                for engine in args.engines.split(","):
                    rows += case(built, x, engine, args.rounds, {"shape": "x".join(map(str, shape)), "dtype": dtype,
                                                                 "format": layout, "engine": engine})  # fmt: skip
    machine.write(args.out, "block", rows, "timm", timm.__version__)


def case(
    built: dict[str, nn.Module], x: Tensor, engine: str, rounds: int, columns: dict[str, object]
) -> list[dict[str, object]]:
    """Measure one shape, dtype, format and engine: a row for each module and each of forward, forward + backward."""
    rows: list[dict[str, object]] = []
    for what in ("forward", "forward + backward"):
        ways = {}
        for name, module in built.items():
            called = torch.compile(module, dynamic=False) if engine == "compile" else module
            ways[name] = actions(called, x, what != "forward")
            ways[name]()
            if x.device.type == "cuda":
                ways[name] = captured(ways[name])
        found = measure(ways, rounds, x.device)
        floors = {f"to_{other}": found[other] for other in ("se", "copy", "constant") if other in found}
        for name, times in found.items():
            ratios = {
                column: f"{statistics.median(a / b for a, b in zip(times, other, strict=True)):.3f}"
                for column, other in floors.items()
            }
            rows.append(columns | {"what": what, "module": name, "us": f"{statistics.median(times):.1f}"} | ratios
                        | {"rounds": rounds} | machine.describe(x.device))  # fmt: skip
        print(*columns.values(), what, {row["module"]: (row["us"], row.get("to_se"), row["to_constant"]) for row in rows
                                        if row["what"] == what}, flush=True)  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
