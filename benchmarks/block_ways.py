"""The ways in which a CPU can compute the parts of the block, in turns: on what the choices of `block/compute.py` rest.

    python benchmarks/block_ways.py [--rounds 15] [--threads 0]

- squeeze: a 1x1 convolution, or a product of matrices.
- sum: the product of recall weights and memory, added to the map, for all images at once (`torch.addmm`), for 2 to 32
  images a product (`torch.baddbmm`), or for pieces of a single map.
- gradient of the weights: the incoming gradient times the memory, or the other way round and transposed, at once or as
  the sum over 2 to 64 pieces of the map.
- block: forward, and forward + backward, with the plain forms and with those chosen.

P = 10; U = 8 for the CIFAR shapes, 16 otherwise. The first way of each part is the plain one; figures are medians over
the rounds of milliseconds, and of the rounds' ratios to the plain one. Writes a CSV into benchmarks/results/, named by
processor and torch version.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import machine
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock import SqueezeRemember2d
from srblock.block import address, block, compute
from srblock.training import runtime

SHAPES = ((128, 512, 4, 4), (128, 256, 8, 8), (32, 1024, 14, 14), (1, 1024, 14, 14))
BLOCKS, ROWS, PIECES = 10, (2, 4, 8, 16, 32), (2, 4, 16, 64)
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
CPU = torch.device("cpu")
Ways = dict[str, Callable[[], object]]


def in_rows(onto: Tensor, weights: Tensor, rows: Tensor, count: int) -> Tensor:
    """Add a product for so many images at a time."""
    parts, own = (value.view(-1, count, value.shape[1]) for value in (onto, weights))
    return torch.baddbmm(parts, own, rows.expand(len(parts), *rows.shape)).flatten(0, 1)


def in_pieces(onto: Tensor, weights: Tensor, rows: Tensor, count: int) -> Tensor:
    """Add a product to so many pieces of one map."""
    parts, own = onto.view(count, 1, -1), weights.expand(count, 1, weights.shape[1])
    return torch.baddbmm(parts, own, rows.view(len(rows), count, -1).transpose(0, 1)).view(1, -1)


def gradient_in_pieces(gradient: Tensor, rows: Tensor, count: int) -> Tensor:
    """Multiply the gradient and the memory in so many pieces."""
    ours, theirs = (value.view(len(value), count, -1).transpose(0, 1) for value in (rows, gradient))
    return torch.bmm(ours, theirs.transpose(1, 2)).sum(0).t()


def parts(shape: Sequence[int], x: Tensor) -> dict[str, Ways]:
    """Return the parts of the block and the ways to compute each."""
    images, channels = shape[:2]
    weight = torch.randn(1, channels, 1, 1).to(memory_format=torch.channels_last)
    flat = x.permute(0, 2, 3, 1).flatten(1) if compute.lies_channels_last(x) else x.flatten(1)
    weights, rows, gradient = torch.rand(images, BLOCKS), torch.randn(BLOCKS, flat.shape[1]), torch.randn_like(flat)
    sums: Ways = {"addmm": partial(torch.addmm, flat, weights, rows)}
    sums |= {f"{n} images": partial(in_rows, flat, weights, rows, n) for n in ROWS if images % n == 0 and images > n}
    if images == 1:
        sums |= {f"{n} pieces": partial(in_pieces, flat, weights, rows, n) for n in PIECES}
    gradients: Ways = {"g @ m.t()": lambda: gradient @ rows.t(), "(m @ g.t()).t()": lambda: (rows @ gradient.t()).t()}
    gradients |= {f"{n} pieces": partial(gradient_in_pieces, gradient, rows, n) for n in PIECES}
    return {
        "squeeze": {"convolution": partial(F.conv2d, x, weight), "product": partial(compute.squeeze, x, weight)},
        "sum": sums,
        "gradient of the weights": gradients,
    }


def whole(made: SqueezeRemember2d, x: Tensor, backward: bool, plain: bool) -> None:
    """Run the block, with the plain forms if asked."""
    if not plain:
        _run(made, x, backward)
        return
    with (
        mock.patch.object(compute, "_add_product", torch.addmm),
        mock.patch.object(address, "squeeze", F.conv2d),
        mock.patch.object(block, "tap", lambda x, weight: (x, F.conv2d(x, weight))),
    ):
        _run(made, x, backward)


def _run(made: SqueezeRemember2d, x: Tensor, backward: bool) -> None:
    if backward:
        torch.autograd.grad(made(x), [x, *made.parameters()], torch.ones_like(x))
    else:
        with torch.inference_mode():
            made(x)


def timed(ways: Ways, rounds: int) -> dict[str, list[float]]:
    """Time all in turn, in ms; what is quick is repeated within a round."""
    counts = {}
    for name, way in ways.items():
        way()
        start = time.perf_counter()
        way()
        counts[name] = max(1, round(0.005 / max(time.perf_counter() - start, 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in ways if number % 2 else reversed(ways):
            start = time.perf_counter()
            for _ in range(counts[name]):
                ways[name]()
            found[name].append(1e3 * (time.perf_counter() - start) / counts[name])
    return found


def main() -> None:
    """Measure, print, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    runtime.keep_freed_memory(CPU)
    rows: list[dict[str, object]] = []
    for shape in SHAPES:
        for layout, memory_format in FORMATS.items():
            x = torch.randn(*shape).to(memory_format=memory_format)
            made = SqueezeRemember2d(shape[1], shape[2:], blocks=BLOCKS, hidden=8 if shape[2] <= 8 else 16)
            made.to(memory_format=memory_format)
            nn.init.normal_(made.memory.values, std=0.01)
            with torch.inference_mode():
                found = {part: timed(ways, args.rounds) for part, ways in parts(shape, x).items()}
            for what, backward in (("block, forward", False), ("block, forward + backward", True)):
                given = x.clone(memory_format=torch.preserve_format).requires_grad_(backward)
                ways: Ways = {
                    name: partial(whole, made, given, backward, plain)
                    for name, plain in (("plain", True), ("chosen", False))
                }
                found[what] = timed(ways, args.rounds)
            for part, times in found.items():
                base = next(iter(times.values()))
                for way, ms in times.items():
                    ratio = statistics.median(a / b for a, b in zip(ms, base, strict=True))
                    rows.append(
                        {"shape": "x".join(map(str, shape)), "format": layout, "part": part, "way": way}
                        | {"ms": f"{statistics.median(ms):.4f}", "to_plain": f"{ratio:.3f}", "rounds": args.rounds}
                        | machine.describe(CPU)
                    )
                print(
                    shape, layout, part, {r["way"]: r["to_plain"] for r in rows if r["part"] == part and
                    r["shape"] == "x".join(map(str, shape)) and r["format"] == layout}, flush=True,
                )  # fmt: skip
    machine.write(args.out, "block_ways", rows)


if __name__ == "__main__":
    main()
