"""What folding saves: parameters of a block and of its network, and the time of a batch in inference.

    python benchmarks/fold.py [--device cpu] [--rounds 15] [--batch 64]

For every case the network without the block, with it, and folded, a batch of each in turn, the order rotating from
round to round; figures are medians of the rounds' ratios. "tail" is the block with the pooling and classifier behind it
alone, on a map: what is left when convolutions, which take most of the time, are not looked at. Weights and memory are
random: what a fold saves does not depend on them. Writes a CSV into benchmarks/results/, a row a round.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import machine
import torch
from torch import Tensor, nn

import srblock
from srblock.training import runtime
from srblock.variants.build import build
from srblock.variants.notation import parse

# Variant, classes, side of the images.
NETWORKS = (
    ("R18 + SR(M=4, P=12)", 100, 32),
    ("R18 + SR(M=4, P=1)", 100, 32),
    ("R18 + SR(M=3, P=8)", 100, 32),
    ("R50 + SR(M=4, P=10)", 100, 32),
    ("R50 + SR(M=4, P=10, U=16)", 1000, 224),
    ("Airbench94 + SR(M=3)", 100, 32),
)
# Channels, side of the map, P, classes.
TAILS = ((512, 4, 12, 100), (2048, 4, 10, 100), (2048, 7, 10, 1000))
WAYS = ("without", "with", "folded")


def network(text: str, classes: int, side: int) -> tuple[dict[str, nn.Module], srblock.Folding]:
    """Build the three ways of a variant."""
    model = build(parse(text), classes=classes, image_size=side, seed=0).eval()
    plain = build(parse(text).without_sr(), classes=classes, image_size=side, seed=0).eval()
    return ways(model, plain, (3, side, side))


def tail(channels: int, side: int, blocks: int, classes: int) -> tuple[dict[str, nn.Module], srblock.Folding]:
    """Build what stands behind stage 4."""
    block = srblock.SqueezeRemember2d(channels, side, blocks=blocks)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    return ways(nn.Sequential(block, *head), nn.Sequential(*head), (channels, side, side))


def ways(
    model: nn.Module, plain: nn.Module, shape: tuple[int, int, int]
) -> tuple[dict[str, nn.Module], srblock.Folding]:
    """Fill the memory and fold."""
    generator = torch.Generator().manual_seed(0)
    for block in srblock.blocks(model).values():
        block.memory.values.data.copy_(torch.randn(block.memory.values.shape, generator=generator))
    folded, report = srblock.fold(model, shape)
    return dict(zip(WAYS, (plain, model, folded), strict=True)), report


def measure(
    what: str, made: tuple[dict[str, nn.Module], srblock.Folding], images: Tensor, rounds: int, calls: int
) -> list[dict[str, object]]:
    """Time a batch of every way in turn; the first round warms up."""
    models, report = made
    device = images.device
    for model in models.values():
        model.to(device).to(memory_format=torch.channels_last).eval()
    images = images.to(memory_format=torch.channels_last)
    rows: list[dict[str, object]] = []
    with torch.inference_mode():
        expected = models["with"](images)
        difference = float((models["folded"](images) - expected).abs().max() / expected.abs().max())
        for number in range(rounds + 1):
            seconds = {}
            for way in WAYS[number % 3 :] + WAYS[: number % 3]:
                start = runtime.now(device)
                for _ in range(calls):
                    models[way](images)
                seconds[way] = (runtime.now(device) - start) / calls
            if number:
                rows.append({
                    "what": what, "batch_size": len(images), "round": number,
                    **{f"{way}_ms": round(1e3 * seconds[way], 4) for way in WAYS},
                    "folded_over_with": round(seconds["folded"] / seconds["with"], 5),
                    "block_ms_saved": round(1e3 * (seconds["with"] - seconds["folded"]), 4),
                    "network_parameters": sum(value.numel() for value in models["with"].parameters()),
                    "block_parameters": sum(block.parameters_before for block in report.blocks),
                    "folded_parameters": sum(block.parameters_after for block in report.blocks),
                    "largest_difference": f"{difference:.1e}", **machine.describe(device),
                })  # fmt: skip
    last = rows[-1]

    def median(key: str) -> float:
        return statistics.median(float(str(row[key])) for row in rows)

    times = ", ".join(f"{way} {median(f'{way}_ms'):.3f} ms" for way in WAYS)
    print(
        f"{what}: block of {last['block_parameters']:,} parameters, folded {last['folded_parameters']:,}; {times}; "
        f"folded takes {median('folded_over_with'):.3f} times the time (medians, n = {rounds}); largest difference "
        f"{difference:.1e} of the largest logit",
        flush=True,
    )
    print("\n".join(f"  {line}" for line in str(report).splitlines()), flush=True)
    return rows


def main() -> None:
    """Measure, print the medians, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    args = parser.parse_args()
    device = runtime.pick_device(args.device)
    cases: list[tuple[str, Callable[[], tuple[dict[str, nn.Module], srblock.Folding]], tuple[int, ...], int]] = [
        (f"tail {c}x{side}x{side}, P={p}, {k} classes", lambda c=c, side=side, p=p, k=k: tail(c, side, p, k),
         (c, side, side), 20)
        for c, side, p, k in TAILS
    ]  # fmt: skip
    cases += [
        (f"{text}, {side}x{side}, {k} classes", lambda text=text, k=k, side=side: network(text, k, side),
         (3, side, side), 1)
        for text, k, side in NETWORKS
    ]  # fmt: skip
    rows = []
    for what, make, shape, calls in cases:
        batch = max(1, args.batch // (8 if shape[-1] > 100 else 1))  # of large images an eighth
        images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
        rows += measure(what, make(), images, args.rounds, calls)
        machine.write(args.out, "fold", rows, done=False)
    machine.write(args.out, "fold", rows)


if __name__ == "__main__":
    main()
