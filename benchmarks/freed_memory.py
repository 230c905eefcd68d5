"""Training speed and memory on a CPU with freed memory given back to the system, as glibc does it, and kept.

    python benchmarks/freed_memory.py --data cifar100:PATH [--rounds 7] [--images 4096]

Each round trains `--images` images with every network and batch size both ways, in turn, each in a process of its own,
as memory that was kept once is there for the other way too; figures are medians of the rounds' ratios. Writes a CSV
into benchmarks/results/, named by processor and torch version.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import machine
import torch

from srblock.data import load
from srblock.runs.study import Study, recipe_for
from srblock.training import runtime
from srblock.training.loop import train_epoch
from srblock.training.optimizer import make_optimizer
from srblock.training.step import Step
from srblock.variants.notation import parse

CASES = (("R8", 128), ("R18", 128), ("Airbench94", 256), ("Airbench94", 512), ("Airbench94", 1024))
CPU = torch.device("cpu")


def rate(source: str, network: str, batch: int, images: int, keep: bool) -> float:
    """Train in this process and return images per second; the first two batches warm up."""
    data = load(source)
    recipe = recipe_for(data, CPU, batch_size=batch)
    study = Study((parse(network),), (0,), data, source, recipe)
    model = runtime.place(study.build(study.variants[0], 0), recipe, CPU)
    step, loader = Step(model, make_optimizer(model, recipe, CPU), study.task, recipe, CPU), study.loaders(0, CPU).train
    if keep:
        runtime.keep_freed_memory(CPU)
    train_epoch(step, loader, 0, batches=2)
    start = runtime.now(CPU)
    return train_epoch(step, loader, 0, batches=max(2, images // batch)) / (runtime.now(CPU) - start)


def main() -> None:
    """Measure, print the medians, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="cifar100:PATH")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=4096, help="of each network, way and round; R18 a quarter")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # what a process of its own does
    args = parser.parse_args()
    if args.one:
        network, batch, images, way = args.one
        print(rate(args.data, network, int(batch), int(images), way == "kept"), runtime.peak_memory_mb())
        return
    rows = []
    for network, batch in CASES:
        images = args.images // (4 if network == "R18" else 1)
        for number in range(args.rounds):
            rates, peaks = {}, {}
            for way in ("given back", "kept") if number % 2 else ("kept", "given back"):
                words = [sys.executable, __file__, "--data", args.data, "--one", network, str(batch), str(images), way]
                done = subprocess.run(words, capture_output=True, text=True, check=True)
                rates[way], peaks[way] = map(float, done.stdout.split()[-2:])
            rows.append({
                "network": network, "batch_size": batch, "round": number + 1,
                "given_back_images_per_s": round(rates["given back"], 1),
                "kept_images_per_s": round(rates["kept"], 1), "ratio": round(rates["kept"] / rates["given back"], 4),
                "given_back_peak_mb": round(peaks["given back"]), "kept_peak_mb": round(peaks["kept"]),
                "peak_ratio": round(peaks["kept"] / peaks["given back"], 4), **machine.describe(CPU),
            })  # fmt: skip
        mine = [row for row in rows if (row["network"], row["batch_size"]) == (network, batch)]
        speed, peak = (statistics.median(row[key] for row in mine) for key in ("ratio", "peak_ratio"))
        print(f"{network}, batch {batch}: kept is {speed:.2f} times as fast with {peak:.2f} times the memory (medians, "
              f"n={args.rounds})", flush=True)  # fmt: skip
    machine.write(args.out, "freed_memory", rows)


if __name__ == "__main__":
    main()
