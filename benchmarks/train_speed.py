"""Training speed of srblock against a bare hand-written loop, in one run on one machine.

    python benchmarks/train_speed.py --data cifar100:PATH [--network R8] [--block "SR(M=3, P=8)"] [--recipe auto]
                                     [--batch-size 128] [--steps 60] [--rounds 9] [--workers 5]
                                     [--engines eager,graph,compile,compile+graph] [--profile] [--skip-compare]

1. The engines must agree: from equal weights, on the same batches, their losses are compared with eager's.
2. Each round trains `--steps` batches with the plain network and with the block, through srblock's loop with each
   engine and through the bare loop below (same network, images, crops, flips, optimizer, precision; no checkpoint, no
   records, no metrics but the loss). Order alternates from round to round; figures are medians of the rounds' ratios:
   srblock over bare, and the block over the plain network. The fraction of peak is that of a large matrix product in
   the same precision, measured in the same run; a training image costs three forward passes.
3. On a GPU a 200-epoch run is estimated from whole epochs with validation and checkpoint.
4. `srblock compare` as a user would run it: the quickstart, one on the data, and one of `--workers` seeds one after
   another and side by side.

Writes CSVs into benchmarks/results/, named by processor and torch version. `--profile` prints where a step's time goes.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import machine
import torch
from torch import nn
from torch.nn import functional as F

from srblock.data import ImageData, load
from srblock.inspection.cost import flops_per_image
from srblock.runs.study import Study, recipe_for
from srblock.training import runtime
from srblock.training.average import Lookahead
from srblock.training.loop import train, train_epoch
from srblock.training.optimizer import make_optimizer
from srblock.training.recipe import Recipe
from srblock.training.step import Step
from srblock.variants.notation import Variant, parse

TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}  # of the mean loss over a few batches, relative


class BareLoop:
    """What one would write by hand in an afternoon, and nothing else."""

    def __init__(self, model: nn.Module, data: ImageData, recipe: Recipe, device: torch.device) -> None:
        self.model, self.recipe, self.device = model, recipe, device
        mode = "reflect" if recipe.padding_mode == "reflect" else "constant"
        self.images = F.pad(data.train_images.float(), (recipe.padding,) * 4, mode).to(device, torch.uint8)
        self.labels = data.train_labels.to(device)
        self.mean = torch.tensor([0.507, 0.487, 0.441], device=device).view(1, 3, 1, 1) * 255
        self.std = torch.tensor([0.267, 0.256, 0.276], device=device).view(1, 3, 1, 1) * 255
        biases = [m.bias for m in model.modules() if isinstance(m, nn.BatchNorm2d) and recipe.bias_lr_scale != 1]
        others = [p for p in model.parameters() if p.requires_grad and all(p is not bias for bias in biases)]
        groups = [{"params": others}, *([{"params": biases, "lr": 1e-3 * recipe.bias_lr_scale}] if biases else [])]
        self.optimizer = torch.optim.SGD(groups, 1e-3, momentum=0.9, nesterov=recipe.nesterov, weight_decay=5e-4,
                                         fused=True)  # fmt: skip
        self.fast = [value for value in model.state_dict().values() if value.is_floating_point()]
        self.slow, self.steps = [value.clone() for value in self.fast], 0
        self.windows = self.images.unfold(2, 32, 1).unfold(3, 32, 1)

    def train(self, steps: int) -> int:
        """Train on `steps` batches and return the number of images."""
        self.model.train()
        size = self.recipe.batch_size
        order = torch.randperm(len(self.labels), device=self.device)
        for step in range(steps):
            rows = order[size * step : size * (step + 1)]
            y, x = torch.randint(2 * self.recipe.padding + 1, (2, len(rows)), device=self.device)
            batch = self.windows[rows, :, y, x]
            batch = torch.where(torch.rand(len(rows), 1, 1, 1, device=self.device) < 0.5, batch, batch.flip(3))
            batch = ((batch - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
            with runtime.autocast(self.recipe, self.device):
                logits = self.model(batch)
            loss = F.cross_entropy(logits.float(), self.labels[rows], label_smoothing=self.recipe.label_smoothing)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.steps += 1
            if self.recipe.lookahead and self.steps % 5 == 0:
                torch._foreach_lerp_(self.slow, self.fast, 0.5)
                torch._foreach_copy_(self.fast, self.slow)
        return size * steps


def fresh(study: Study, variant: Variant, device: torch.device) -> nn.Module:
    """Build a variant with the weights of seed 0, in its place."""
    return runtime.place(study.build(variant, 0), study.recipe, device)


def stepper(study: Study, variant: Variant, engine: str, device: torch.device) -> Step:
    """Return a step of srblock's loop."""
    model, recipe = fresh(study, variant, device), replace(study.recipe, engine=engine)
    lookahead = Lookahead(model) if recipe.lookahead else None
    return Step(model, make_optimizer(model, recipe, device, study.groups), study.task, recipe, device, lookahead)


def check_engines(study: Study, variants: list[Variant], engines: list[str], device: torch.device) -> None:
    """Stop if an engine does not train as the eager one does: 12 batches at a low rate, losses compared."""
    low = replace(study.recipe, learning_rate=0.1 * study.recipe.learning_rate, milestones=(), lookahead=False)
    study = replace(study, recipe=low)
    loader = study.loaders(0, device).train

    def loss_of(step: Step) -> float:
        train_epoch(step, loader, 0, batches=12)
        return step.meter.read()["loss"]

    for variant in variants:
        expected = loss_of(stepper(study, variant, "eager", device))
        for engine in (engine for engine in engines if engine != "eager"):
            loss = loss_of(stepper(study, variant, engine, device))
            print(f"{variant}, {engine}: loss {loss:.5f}, eager {expected:.5f}")
            if abs(loss / expected - 1) > TOLERANCE[study.recipe.precision]:
                raise SystemExit(f"{engine} does not train as eager does; its speed is worth nothing")


def measure(
    study: Study, variants: list[Variant], engines: list[str], steps: int, rounds: int, device: torch.device
) -> list[dict[str, float | str]]:
    """Time every loop of every variant, alternately; images/s and the two ratios, a row a round."""
    loader = study.loaders(0, device).train

    def ours(step: Step) -> Callable[[int], int]:
        return lambda batches: train_epoch(step, loader, 0, batches=batches)

    contenders: dict[tuple[str, str], Callable[[int], int]] = {}
    for variant in variants:
        contenders[str(variant), "bare"] = BareLoop(
            fresh(study, variant, device), study.data, study.recipe, device
        ).train
        for engine in engines:
            contenders[str(variant), engine] = ours(stepper(study, variant, engine, device))
    for run in contenders.values():
        run(8)
    rows: list[dict[str, float | str]] = []
    for round_ in range(rounds):
        rates = {}
        for key in sorted(contenders, reverse=bool(round_ % 2)):
            start = runtime.now(device)
            images = contenders[key](steps)
            rates[key] = images / (runtime.now(device) - start)
        plain = str(variants[0])
        rows += [
            {"variant": name, "engine": engine, "round": round_ + 1, "steps": steps, "images_per_s": round(rate, 1),
             "over_bare": round(rate / rates[name, "bare"], 4), "over_plain": round(rate / rates[plain, engine], 4)}
            for (name, engine), rate in rates.items()
        ]  # fmt: skip
    return rows


def matmul_peak(recipe: Recipe, device: torch.device) -> float:
    """Measure the rate of a large matrix product in the recipe's precision, operations per second: the best of ten."""
    side = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(12):
        start = runtime.now(device)
        a @ b
        times.append(runtime.now(device) - start)
    return 2 * side**3 / min(times[2:])


def whole_run(study: Study, variant: Variant, engine: str, device: torch.device) -> dict[str, object]:
    """Train three epochs as a run does, with validation and checkpoint, and estimate 200 from them."""
    recipe = replace(study.recipe.with_epochs(3), engine=engine)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = train(study.build(variant, 0), study.loaders(0, device), study.task, recipe, directory=Path(folder),
                       run="speed", seed=0, device=device, groups=study.groups)  # fmt: skip
        wall = time.perf_counter() - start
        seconds = [json.loads(line)["seconds"] for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    later = statistics.mean(seconds[1:])
    return {"variant": str(variant), "engine": engine, "first_epoch_s": round(seconds[0], 2),
            "later_epoch_s": round(later, 3), "wall_of_three_s": round(wall, 2),
            "estimated_200_epochs_s": round(wall + 197 * later, 1),
            "train_ms_per_image": round(result["train_ms_per_image"], 5)}  # fmt: skip


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


def profile(study: Study, variant: Variant, engine: str, device: torch.device) -> None:
    """Print where the time of 20 steps goes."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    step, loader = stepper(study, variant, engine, device), study.loaders(0, device).train
    train_epoch(step, loader, 0, batches=8)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profiled(activities=activities) as seen:
        train_epoch(step, loader, 0, batches=20)
        runtime.synchronize(device)
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(f"{variant}, {engine}\n{seen.key_averages().table(sort_by=key, row_limit=20, max_name_column_width=60)}")


def main() -> None:
    """Measure, print the medians, write the CSVs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="cifar100:PATH")
    parser.add_argument("--network", default="R8")
    parser.add_argument("--block", default="SR(M=3, P=8)")
    parser.add_argument("--recipe", default="auto")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--engines", default="eager", help="of eager, compile, graph, compile+graph")
    parser.add_argument("--precision", help="default: what the device gains from")
    parser.add_argument("--epochs", type=int, default=2, help="of the srblock compare run")
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, and seeds of that comparison")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--skip-compare", action="store_true")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    args = parser.parse_args()
    device, engines = runtime.pick_device(), args.engines.split(",")
    data = load(args.data)
    recipe = recipe_for(data, device, args.recipe, batch_size=args.batch_size, precision=args.precision)
    study = Study((), (0,), data, args.data, recipe)
    runtime.keep_freed_memory(device)  # for the bare loop as well
    here = {
        "recipe": args.recipe,
        "batch_size": recipe.batch_size,
        "precision": recipe.precision,
        **machine.describe(device),
    }
    variants = [parse(args.network), parse(f"{args.network} + {args.block}")]
    check_engines(study, variants, engines, device)
    rows = measure(study, variants, engines, args.steps, args.rounds, device)
    peak = matmul_peak(recipe, device)
    operations = {
        str(variant): 3 * flops_per_image(study.build(variant, 0), (data.channels, *data.size)) for variant in variants
    }
    for row in rows:
        row["fraction_of_peak"] = round(float(row["images_per_s"]) * operations[str(row["variant"])] / peak, 4)
    print(f"a matrix product runs at {peak / 1e12:.3f} TFLOP/s in {recipe.precision}")
    for name, engine in dict.fromkeys((row["variant"], row["engine"]) for row in rows):
        mine = [row for row in rows if (row["variant"], row["engine"]) == (name, engine)]
        middle = {key: statistics.median(float(row[key]) for row in mine)
                  for key in ("images_per_s", "over_bare", "over_plain", "fraction_of_peak")}  # fmt: skip
        print(f"{name}, {engine}: {middle['images_per_s']:.0f} images/s, {100 * middle['fraction_of_peak']:.1f}% of "
              f"peak, over bare {middle['over_bare']:.3f}, over the plain network {middle['over_plain']:.3f} "
              f"(medians, n={args.rounds})")  # fmt: skip
    name = "train_speed" if args.network == "R8" else f"train_speed-{args.network.lower()}"
    machine.write(args.out, name, [{**row, **here} for row in rows])
    if device.type == "cuda":  # on a CPU three epochs take minutes and tell nothing new
        runs = [whole_run(study, variant, engine, device) for variant in variants for engine in engines]
        for run in runs:
            print(run)
        machine.write(args.out, "whole_run", [{**run, **here} for run in runs])
    if args.profile:
        for variant in variants:
            for engine in engines:
                profile(study, variant, engine, device)
    if args.skip_compare:
        return
    pair = [str(variant) for variant in variants]
    seeds = ["--epochs", str(args.epochs), "--seeds", str(args.workers)]
    whole = [
        compare_once(["R8", "R8 + SR(M=2, P=8)"], "digits", "--image-size", "16", "--seeds", "3"),  # make quickstart
        compare_once(pair, args.data, "--epochs", str(args.epochs), "--seeds", "1"),
        compare_once(pair, args.data, *seeds),
        compare_once(pair, args.data, *seeds, "--workers", str(args.workers)),
    ]
    for row in whole:
        print(row)
    machine.write(args.out, "compare", [{**row, **here} for row in whole])


if __name__ == "__main__":
    main()
