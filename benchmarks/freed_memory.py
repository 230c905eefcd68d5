"""Training speed on a CPU with freed memory given back to the system, as glibc does it, and kept.

    python benchmarks/freed_memory.py --data cifar100:PATH [--rounds 7] [--images 4096]

Each round trains `--images` images with every network and batch size both ways, in turn, in this one process; figures
are medians of the rounds' ratios. Writes a CSV into benchmarks/results/, named by processor and torch version.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
from pathlib import Path

import machine
import torch

from srblock.data import load
from srblock.runs.study import Study, recipe_for
from srblock.training import runtime
from srblock.training.loop import train_epoch
from srblock.training.optimizer import sgd
from srblock.training.step import Step
from srblock.variants.notation import parse

CASES = (("R8", 128), ("R20", 128), ("R18", 128), ("Airbench94", 256), ("Airbench94", 512), ("Airbench94", 1024))
CPU = torch.device("cpu")


def give_back() -> None:
    """Set glibc's malloc to its own defaults again."""
    libc = ctypes.CDLL(None)
    libc.mallopt(runtime.M_MMAP_MAX, 65536)
    libc.mallopt(runtime.M_TRIM_THRESHOLD, 128 * 1024)


def main() -> None:
    """Measure, print the medians, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="cifar100:PATH")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=4096, help="of each network, way and round; R18 a quarter")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    args = parser.parse_args()
    data, rows = load(args.data), []
    for network, batch in CASES:
        recipe = recipe_for(data, CPU, batch_size=batch)
        study = Study((parse(network),), (0,), data, args.data, recipe)
        model = runtime.place(study.build(study.variants[0], 0), recipe, CPU)
        step, loader = Step(model, sgd(model, recipe, CPU), study.task, recipe, CPU), study.loaders(0, CPU).train
        batches = max(1, args.images // batch // (4 if network == "R18" else 1))
        for number in range(args.rounds + 1):
            rates = {}
            for way in ("given back", "kept") if number % 2 else ("kept", "given back"):
                give_back() if way == "given back" else runtime.keep_freed_memory(CPU)
                train_epoch(step, loader, 0, batches=1)
                start = runtime.now(CPU)
                rates[way] = train_epoch(step, loader, 0, batches=batches) / (runtime.now(CPU) - start)
            if number:  # the first one warms up
                rows.append({
                    "network": network, "batch_size": batch, "round": number, "given_back_images_per_s":
                    round(rates["given back"], 1), "kept_images_per_s": round(rates["kept"], 1),
                    "ratio": round(rates["kept"] / rates["given back"], 4), **machine.describe(CPU),
                })  # fmt: skip
        mine = [row for row in rows if (row["network"], row["batch_size"]) == (network, batch)]
        middle = {key: statistics.median(row[key] for row in mine) for key in ("kept_images_per_s", "ratio")}
        print(f"{network}, batch {batch}: {middle['kept_images_per_s']:.0f} images/s kept, {middle['ratio']:.2f} times "
              f"given back (medians, n={args.rounds})")  # fmt: skip
    machine.write(args.out, "freed_memory", rows)


if __name__ == "__main__":
    main()
