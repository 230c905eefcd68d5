"""What looking into a network costs against testing it: `analyze` without controls, and what the controls take.

    python benchmarks/analyze_speed.py --data cifar100:PATH [--networks R8 R20] [--rounds 5]

Each round tests 10,000 images and looks into the block over them, in turn, the order alternating; the figure is the
median of the rounds' ratios (goal: 1.3). The controls, six of them and the attribution, are timed once. The weights are
random: time does not depend on them. Writes a CSV into benchmarks/results/, named by processor and torch version.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import machine
import torch

from srblock.data import ImageData, load
from srblock.inspection.analyze import analyze
from srblock.runs.study import Study, recipe_for
from srblock.training import runtime
from srblock.training.task import evaluate
from srblock.variants.notation import parse


def measure(network: str, data: ImageData, source: str, rounds: int, device: torch.device) -> list[dict[str, object]]:
    """Time testing and looking in turn, a row a round, and print what comes out."""
    recipe = recipe_for(data, device)
    study = Study((parse(f"{network} + SR(M=3, P=8)"),), (0,), data, source, recipe)
    model = runtime.place(study.build(study.variants[0], 0), recipe, device)
    test = study.loaders(0, device).test

    def look(controls: bool = False) -> None:
        analyze(model, test, study.task, data.classes, {0: "the first"}, with_controls=controls)

    def testing() -> None:
        evaluate(model, test.epoch(0), study.task, recipe, device)

    def timed(act: Callable[[], None]) -> float:
        start = runtime.now(device)
        act()
        return runtime.now(device) - start

    testing()
    rows: list[dict[str, object]] = []
    ratios = []
    for number in range(1, rounds + 1):
        ways = {"test": testing, "look": look} if number % 2 else {"look": look, "test": testing}
        seconds = {name: timed(act) for name, act in ways.items()}
        ratios.append(seconds["look"] / seconds["test"])
        rows.append({
            "network": network, "round": number, "test_s": round(seconds["test"], 3),
            "look_s": round(seconds["look"], 3), "ratio": round(ratios[-1], 4), **machine.describe(device),
        })  # fmt: skip
    whole = timed(lambda: look(True))
    looking, testing_s = statistics.median(ratios), seconds["test"]
    print(f"{study.variants[0]}, {data.test_size:,} images: looking takes {looking:.2f} times as long as testing "
          f"({min(ratios):.2f} to {max(ratios):.2f}, n = {rounds}; {testing_s:.1f} s); with controls and attribution "
          f"{whole / testing_s:.1f} times (n = 1)", flush=True)  # fmt: skip
    return rows


def main() -> None:
    """Measure, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="cifar100:PATH")
    parser.add_argument("--networks", nargs="+", default=["R8", "R20"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    args = parser.parse_args()
    device, data = runtime.pick_device(args.device), load(args.data)
    runtime.keep_freed_memory(device)
    rows = [row for network in args.networks for row in measure(network, data, args.data, args.rounds, device)]
    machine.write(args.out, "analyze_speed", rows)


if __name__ == "__main__":
    main()
