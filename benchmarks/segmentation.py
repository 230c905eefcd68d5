"""Segmentation: what the block costs a network, how fast whole scenes are tested, and whether the loader keeps up.

    python benchmarks/segmentation.py [--data camvid:PATH] [--device cpu] [--crop 256x512] [--batch 2] [--rounds 7]

(`make bench-scenes DATA=camvid:PATH`)

- A training step of FCN-R50 and DLv3-R50 with and without the block of Table IV on crops of random pixels, one step of
  each in turn, the order alternating from round to round; the figure is the median of the rounds' ratios. The paper's
  compute overheads are 1.90% and 3.81%.
- Inference of one 512x1024 image with and without the block, in the same way; and of a 1024x2048 scene by windows.
- With --data: scenes a second of the loader alone, with all augmentations and as many processes as in training, and of
  training FCN-R18 at half size, in turn.

Writes a CSV into benchmarks/results/, named by processor and torch version, a row a round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import machine
import torch
from torch import nn

from srblock.data import load_data
from srblock.data.sources.published import stand_in
from srblock.runs.study import Study, recipe_for
from srblock.training import epochs, runtime
from srblock.training.loop import train_epoch
from srblock.training.optimizer import make_optimizer
from srblock.training.step import Step
from srblock.variants.build import build
from srblock.variants.notation import parse

PAIRS = (("FCN-R50", "FCN-R50 + SR(M=3, P=3, U=32)"), ("DLv3-R50", "DLv3-R50 + SR(M=3, P=2, U=16)"))
WHOLE = (512, 1024)  # what inference is measured on
Row = dict[str, object]


def compare(
    what: str, pair: tuple[str, str], act: Callable[[str], None], rounds: int, device: torch.device
) -> list[Row]:
    """Time one action on the network without and with the block in turn, a row a round; the first round warms up."""
    rows: list[Row] = []
    for number in range(rounds + 1):
        seconds = {}
        for text in pair if number % 2 else pair[::-1]:
            start = runtime.now(device)
            act(text)
            seconds[text] = runtime.now(device) - start
        if number:
            plain, block = (seconds[text] for text in pair)
            rows.append(
                {
                    "what": what,
                    "variant": pair[1],
                    "round": number,
                    "unit": "ms, without and with the block",
                    "first": round(1e3 * plain, 2),
                    "second": round(1e3 * block, 2),
                    "ratio": round(block / plain, 5),
                    **machine.describe(device),
                }
            )
    ratios = [float(str(row["ratio"])) for row in rows]
    print(
        f"{what}, {pair[1]}: {statistics.median(ratios):.4f} times the network without (median of n = {rounds}, "
        f"{min(ratios):.3f} to {max(ratios):.3f}; {rows[-1]['first']} ms without)",
        flush=True,
    )
    return rows


def steps(pair: tuple[str, str], crop: tuple[int, int], batch: int, rounds: int, device: torch.device) -> list[Row]:
    """Time a training step."""
    data = stand_in("cityscapes")
    recipe = recipe_for(data, device, crop_size=crop, batch_size=batch)
    study = Study(tuple(map(parse, pair)), (0,), data, "cityscapes", recipe)
    stepping = {}
    for text, variant in zip(pair, study.variants, strict=True):
        model = runtime.place(study.build(variant, 0), recipe, device)
        stepping[text] = Step(model, make_optimizer(model, recipe, device, study.groups), study.task, recipe, device)
        stepping[text].start()
    images = torch.randn(batch, 3, *crop, device=device).to(memory_format=torch.channels_last)
    target = torch.randint(19, (batch, *crop), device=device)
    return compare("training step", pair, lambda text: stepping[text](images, target, 0.01), rounds, device)


def inference(pair: tuple[str, str], rounds: int, device: torch.device) -> list[Row]:
    """Time one image, and a scene of four times its size by windows."""
    recipe = recipe_for(stand_in("cityscapes"), device, crop_size=WHOLE)
    task = Study((), (0,), stand_in("cityscapes"), "cityscapes", recipe).task
    models: dict[str, nn.Module] = {
        text: runtime.place(build(parse(text), classes=19, image_size=WHOLE, seed=0), recipe, device).eval()
        for text in pair
    }
    rows = []
    for what, size, count in (
        ("inference", WHOLE, rounds),
        ("inference by windows", (1024, 2048), max(1, rounds // 3)),
    ):
        image = torch.randn(1, 3, *size, device=device).to(memory_format=torch.channels_last)

        def act(text: str, image: torch.Tensor = image) -> None:
            with torch.inference_mode(), runtime.autocast(recipe, device):
                task.predict(models[text], image)

        rows += compare(f"{what}, {size[0]}x{size[1]}", pair, act, count, device)
    return rows


def loading(source: str, rounds: int, device: torch.device) -> list[Row]:
    """Time the loader alone and training, in turn: scenes a second of each."""
    data = load_data(source)
    recipe = recipe_for(data, device, scene_scale=0.5)
    study = Study((parse("FCN-R18"),), (0,), data, source, recipe)
    loader = study.loaders(0, device).train
    model = runtime.place(study.build(study.variants[0], 0), recipe, device)
    step = Step(model, make_optimizer(model, recipe, device), study.task, recipe, device)
    train_epoch(step, loader, 0, batches=2)
    rows: list[Row] = []
    for number in range(1, rounds + 1):
        start = time.perf_counter()
        alone = sum(size for _, _, size in epochs.serve(recipe, loader, number)) / (time.perf_counter() - start)
        start = runtime.now(device)
        trained = train_epoch(step, loader, number, batches=8) / (runtime.now(device) - start)
        rows.append(
            {
                "what": "loader",
                "variant": "FCN-R18",
                "round": number,
                "unit": "images/s, training and loader",
                "first": round(trained, 2),
                "second": round(alone, 1),
                "ratio": round(alone / trained, 3),
                **machine.describe(device),
            }
        )
    ratio = statistics.median(float(str(row["ratio"])) for row in rows)
    print(
        f"the loader alone serves {ratio:.1f} times what FCN-R18 trains on at half size (median of n = {rounds}; "
        f"{rows[-1]['second']} against {rows[-1]['first']} images/s)"
    )
    return rows


def main() -> None:
    """Measure, print the medians, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="camvid:PATH, for the loader")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--crop", default="256x512")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--only", choices=("steps", "inference", "loader"), help="measure one of the three, into a CSV of its own"
    )
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    args = parser.parse_args()
    device = runtime.pick_device(args.device)
    runtime.keep_freed_memory(device)
    height, width = map(int, args.crop.split("x"))
    rows: list[Row] = []
    for pair in PAIRS:
        if args.only in (None, "steps"):
            rows += steps(pair, (height, width), args.batch, args.rounds, device)
        if args.only in (None, "inference"):
            rows += inference(pair, args.rounds, device)
    if args.data and args.only in (None, "loader"):
        rows += loading(args.data, max(1, args.rounds // 2), device)
    machine.write(args.out, f"segmentation-{args.only}" if args.only else "segmentation", rows)


if __name__ == "__main__":
    main()
