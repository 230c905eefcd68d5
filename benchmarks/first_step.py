"""Whether a memory that does not start at zero hurts a network's first steps, and from what size on.

    python benchmarks/first_step.py --data cifar100:PATH [--network Airbench94] [--stage 2] [--recipe airbench]
                                    [--batch-size 256] [--age 88] [--steps 10] [--seeds 2]

A block goes into a network that is as it was drawn, and into one that was trained for `--age` batches. Its memory
starts at zero, from normal numbers, or from features at several sizes (`share`: root mean square of the maps in that of
the features), and the network is trained on for `--steps` batches at half the recipe's rate, the same ones for all.
Figures are training losses less those of the same network whose memory started at zero: `first`, of the first batch,
which no step precedes, and `later`, the mean of the rest. Writes a CSV into benchmarks/results/, anew after each seed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import machine
import torch
from torch import nn

from srblock.data import load
from srblock.features import init_memory
from srblock.runs.loaders import WHITENED, training_part
from srblock.runs.study import Study, recipe_for
from srblock.training import runtime
from srblock.training.average import Lookahead
from srblock.training.optimizer import make_optimizer
from srblock.training.step import Step
from srblock.variants.notation import parse

STARTS = (("zeros", 0.0), ("normal", 0.0), ("kmeans", 0.1), ("kmeans", 0.3), ("kmeans", 1.0), ("class_means", 0.1))
LOGITS = ("plain", "standardized")


def trained(model: nn.Module, study: Study, seed: int, epoch: int, batches: int, device: torch.device) -> list[float]:
    """Train a model on so many batches of an epoch, and return the loss of each."""
    average = Lookahead(model) if study.recipe.lookahead else None
    step = Step(model, make_optimizer(model, study.recipe, device, study.groups), study.task, study.recipe, device)
    losses = []
    for number, (images, target, *_) in enumerate(islice(study.loaders(seed, device).train.epoch(epoch), batches)):
        step.start()
        step(images, target, study.recipe.learning_rate / 2)
        losses.append(step.meter.read()["loss"])
        if average is not None:
            average.follow(number + 1, batches)
    return losses


def started(plain: nn.Module, study: Study, block: str, start: str, share: float, seed: int) -> nn.Module:
    """Return the network with a block, whose memory is started, in the plain one's place and with its weights."""
    device = next(plain.parameters()).device
    model = study.build(parse(block), seed)
    model.load_state_dict(plain.state_dict(), strict=False)
    model = runtime.place(model, study.recipe, device)
    if share:
        images = training_part(study.data, study.recipe, seed, device, WHITENED).epoch(0)
        init_memory(model, images, start, share=share, seed=seed)
    return model


def measure(
    study: Study, network: str, stage: int, age: int, steps: int, device: torch.device
) -> Iterator[list[dict[str, object]]]:
    """Yield the rows so far after each seed, a row for each age, way to address and start."""
    rows: list[dict[str, object]] = []
    for seed in study.seeds:
        plain = runtime.place(study.build(parse(network), seed), study.recipe, device)
        for steps_before in (0, age):
            trained(plain, study, seed, 0, steps_before, device)
            for logits in LOGITS:
                zeros: list[float] = []
                for start, share in STARTS:
                    drawn = ", start=normal" if start == "normal" else ""
                    block = f"{network} + SR(M={stage}, P=8, logits={logits}{drawn})"
                    losses = trained(started(plain, study, block, start, share, seed), study, seed, 1, steps, device)
                    zeros = zeros or losses
                    first, later = losses[0] - zeros[0], statistics.mean(losses[1:]) - statistics.mean(zeros[1:])
                    rows.append(
                        {"network": network, "stage": stage, "seed": seed, "batches_before": steps_before,
                         "logits": logits, "start": start, "share": share, "steps": steps,
                         "loss": f"{losses[0]:.5f}", "first": f"{first:.5f}", "later": f"{later:.5f}"}
                    )  # fmt: skip
                    print(*rows[-1].values(), flush=True)
        yield rows


def main() -> None:
    """Measure, print each row, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="cifar100:PATH")
    parser.add_argument("--network", default="Airbench94")
    parser.add_argument("--stage", type=int, default=2)
    parser.add_argument("--recipe", default="airbench")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--age", type=int, default=88, help="batches that the second network was trained for")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    args = parser.parse_args()
    device = runtime.pick_device()
    data = load(args.data)
    recipe = recipe_for(data, device, args.recipe, batch_size=args.batch_size)
    study = Study((), range(args.seeds), data, args.data, recipe)
    for rows in measure(study, args.network, args.stage, args.age, args.steps, device):
        machine.write(args.out, "first_step", [{**row, **machine.describe(device)} for row in rows])


if __name__ == "__main__":
    main()
