"""Augmentation policies: ours on a whole batch against torchvision's, called for each image.

    python benchmarks/policies.py [--rounds 15] [--batch 128]

Both distort the same images on one thread, in turn; figures are medians over the rounds in microseconds an image, and
of the rounds' ratios. Writes a CSV into benchmarks/results/, named by processor and torch version.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import machine
import numpy as np
import torch
import torchvision
from torchvision.transforms import v2

from srblock.data.loading.policies import Policy, sort

THEIRS = {"trivialaugment": v2.TrivialAugmentWide, "randaugment": v2.RandAugment}
SIDES = (32, 224)


def timed(action: Callable[[], object], images: int) -> float:
    """Return microseconds an image."""
    start = time.perf_counter()
    action()
    return 1e6 * (time.perf_counter() - start) / images


def main() -> None:
    """Measure, print the medians, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for side in SIDES:
        images = torch.randint(0, 256, (args.batch, 3, side, side), dtype=torch.uint8)
        for name, theirs in THEIRS.items():
            policy, other = Policy(name), theirs()
            drawn = policy.draw(0, 0, np.arange(args.batch))

            def ours(policy: Policy = policy, drawn: np.ndarray = drawn, images: torch.Tensor = images) -> None:
                places, counts = sort(drawn, [args.batch])
                policy(images, torch.from_numpy(places), counts[0])

            def one_by_one(other: torch.nn.Module = other, images: torch.Tensor = images) -> None:
                for image in images:
                    other(image)

            ours(), one_by_one()
            times = [(timed(ours, args.batch), timed(one_by_one, args.batch)) for _ in range(args.rounds)]
            rows.append(
                machine.describe(torch.device("cpu"))
                | {
                    "policy": name,
                    "size": f"{side}x{side}",
                    "batch": args.batch,
                    "rounds": args.rounds,
                    "ours_us": f"{statistics.median(mine for mine, _ in times):.1f}",
                    "torchvision_us": f"{statistics.median(yours for _, yours in times):.1f}",
                    "ratio": f"{statistics.median(mine / yours for mine, yours in times):.3f}",
                }
            )
            print(rows[-1], flush=True)
    machine.write(args.out, "policies", rows, "torchvision", torchvision.__version__)


if __name__ == "__main__":
    main()
