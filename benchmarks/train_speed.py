"""Training speed of srblock against a bare hand-written loop, in one run on one machine.

    python benchmarks/train_speed.py --data cifar100:PATH [--network R8] [--steps 60] [--rounds 9]

Each round trains `--steps` batches of 128 with the plain network and with the block, each through srblock's loop and
through the bare loop below (same network, same images, same crops, flips and optimizer; no checkpoint, no records, no
metrics but the loss). Order alternates from round to round; the figure is the median of the rounds' ratios. Then
`srblock compare` runs as a user would, the quickstart's command and one on CIFAR-100, for wall time, images/s and peak
memory. Writes two CSVs into benchmarks/results/, named by processor and torch version.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from srblock.data import ImageData, load
from srblock.experiments.notation import Variant, parse
from srblock.experiments.study import Study, recipe_for
from srblock.training import runtime
from srblock.training.loop import sgd, train_epoch
from srblock.training.step import Step

RESULTS = Path(__file__).parent / "results"


class BareLoop:
    """What one would write by hand in an afternoon, and nothing else."""

    def __init__(self, model: nn.Module, data: ImageData, device: torch.device) -> None:
        self.model, self.device = model, device
        self.images = F.pad(data.train_images, (4, 4, 4, 4)).to(device)
        self.labels = data.train_labels.to(device)
        self.mean = torch.tensor([0.507, 0.487, 0.441], device=device).view(1, 3, 1, 1) * 255
        self.std = torch.tensor([0.267, 0.256, 0.276], device=device).view(1, 3, 1, 1) * 255
        self.optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, fused=True)
        self.windows = self.images.unfold(2, 32, 1).unfold(3, 32, 1)

    def train(self, steps: int) -> int:
        """Train on `steps` batches of 128 and return the number of images."""
        self.model.train()
        order = torch.randperm(len(self.labels))[:45_000]
        for step in range(steps):
            rows = order[128 * step : 128 * (step + 1)]
            y, x = torch.randint(9, (2, len(rows)))
            batch = self.windows[rows, :, y, x]
            batch = torch.where(torch.rand(len(rows), 1, 1, 1, device=self.device) < 0.5, batch, batch.flip(3))
            batch = ((batch - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(self.model(batch), self.labels[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return 128 * steps


def measure(study: Study, variant: Variant, steps: int, rounds: int, device: torch.device) -> list[dict[str, float]]:
    """Time both loops alternately; images/s of each and their ratio, a row a round."""
    loader = study.loaders(0, device).train

    def fresh() -> nn.Module:
        return runtime.place(study.build(variant, 0), study.recipe, device)

    ours, bare = fresh(), BareLoop(fresh(), study.data, device)
    step = Step(ours, sgd(ours, study.recipe, device), study.recipe, device)
    runs = {
        "srblock": lambda n: train_epoch(step, loader, 0, batches=n).images,
        "bare": bare.train,
    }
    for run in runs.values():
        run(5)
    rows = []
    for round_ in range(rounds):
        rates = {}
        for name in sorted(runs, reverse=bool(round_ % 2)):
            start = runtime.now(device)
            images = runs[name](steps)
            rates[name] = images / (runtime.now(device) - start)
        rows.append({"srblock_images_per_s": rates["srblock"], "bare_images_per_s": rates["bare"],
                     "ratio": rates["srblock"] / rates["bare"]})  # fmt: skip
    return rows


def compare_once(variants: list[str], source: str, *options: str) -> dict[str, object]:
    """Run `srblock compare` as a user would, in a process of its own, and measure it from outside."""
    with tempfile.TemporaryDirectory() as out:
        words = ["compare", *variants, "--data", source, *options]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "srblock", *words, "--out", out], check=True)
        wall = time.perf_counter() - start
        results = [json.loads(path.read_text()) for path in Path(out).glob("runs/*/result.json")]
        with next(Path(out).glob("compare-*/results.csv")).open() as file:
            rows = list(csv.DictReader(file))
    per_variant = {
        variant: statistics.median(float(row["train_ms_per_image"]) for row in rows if row["variant"] == variant)
        for variant in dict.fromkeys(row["variant"] for row in rows)
    }
    plain, with_block = per_variant.values()
    return {
        "command": shlex.join(["srblock", *words]).replace(source, "cifar100:PATH" if ":" in source else source),
        "wall_s": round(wall, 1),
        "peak_memory_mb": round(max(result["environment"]["peak_memory_mb"] for result in results)),
        "plain_images_per_s": round(1e3 / plain),
        "block_images_per_s": round(1e3 / with_block),
    }


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}")


def main() -> None:
    """Measure, print the medians, write the CSVs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="cifar100:PATH")
    parser.add_argument("--network", default="R8")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=2, help="of the srblock compare run")
    args = parser.parse_args()
    device = runtime.pick_device()
    data = load(args.data)
    study = Study((), (0,), data, args.data, recipe_for(data, device, batch_size=128, precision="float32"))
    here = runtime.environment(device)
    machine = {"device": here["device"], "threads": here["threads"], "cores": os.cpu_count(), "torch": here["torch"],
               "date": date.today().isoformat(), "commit": here["commit"]}  # fmt: skip
    rows = []
    for variant in (parse(args.network), parse(f"{args.network} + SR(M=3, P=8)")):
        measured = measure(study, variant, args.steps, args.rounds, device)
        medians = {key: statistics.median(row[key] for row in measured) for key in measured[0]}
        print(f"{variant}: {medians['srblock_images_per_s']:.0f} images/s, bare loop "
              f"{medians['bare_images_per_s']:.0f}, median ratio {medians['ratio']:.3f} (n={args.rounds})")  # fmt: skip
        for index, row in enumerate(measured):
            rounded = {key: round(value, 4) for key, value in row.items()}
            rows.append({"variant": str(variant), "round": index + 1, "steps": args.steps, **rounded, **machine})
    label = (
        re.sub(r"[^A-Za-z0-9]+", "-", f"{here['device']}-{os.cpu_count()}-cores-torch-{here['torch']}")
        .strip("-")
        .lower()
    )
    write(RESULTS / f"train_speed-{label}.csv", rows)
    network = args.network
    whole = [
        compare_once(["R8", "R8 + SR(M=2, P=8)"], "digits", "--image-size", "16", "--seeds", "3"),  # make quickstart
        compare_once([network, f"{network} + SR(M=3, P=8)"], args.data, "--epochs", str(args.epochs), "--seeds", "1"),
    ]
    for row in whole:
        print(row)
    write(RESULTS / f"compare-{label}.csv", [{**row, **machine} for row in whole])


if __name__ == "__main__":
    main()
