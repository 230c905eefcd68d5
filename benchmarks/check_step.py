"""Does every engine train as the eager one does, on this device? No images, no pytest.

    python benchmarks/check_step.py [--device cuda] [--engines graph,compile,compile+graph]

A small ResNet with a block trains from equal weights on equal batches of noise, a short one among them, with each
engine and eagerly, in several settings: SGD in float32, bfloat16, AdamW with clipped gradients, lookahead, a moving
average. Weights, the norms' figures and the average are compared after the last step with those of the eager engine.
Status 1 if any is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from srblock.data.sources.published import stand_in
from srblock.runs.study import Study, recipe_for
from srblock.training import runtime
from srblock.training.average import Average, average_of
from srblock.training.optimizer import make_optimizer
from srblock.training.step import WARM_UP, Step
from srblock.variants.notation import parse

SETTINGS: dict[str, dict[str, Any]] = {
    "SGD": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
    "AdamW, clipped": {"precision": "float32", "optimizer": "adamw", "learning_rate": 1e-3, "clip_norm": 1.0},
    "lookahead": {"precision": "float32", "lookahead": True},
    "moving average": {"precision": "float32", "ema": 0.9},
}
SIZES = (16,) * (WARM_UP + 4) + (6,) + (16,) * 3
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}  # of what the eager engine has changed, as a norm


def trained(engine: str, setting: dict[str, Any], device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """Train, and return by kind all numbers of the network, and of its average, before and after."""
    data, variant = stand_in("cifar100"), parse("R8 + SR(M=2, P=3, logits=standardized)")
    recipe = replace(recipe_for(data, device, batch_size=16), epochs=1, **setting)
    study = Study((variant,), (0,), data, "cifar100", runtime.resolve(recipe, device, recipe.precision))
    model = runtime.place(study.build(variant, 0), study.recipe, device)
    optimizer = make_optimizer(model, study.recipe, device)
    average = average_of(model, study.recipe)
    step = Step(model, optimizer, study.task, replace(study.recipe, engine=engine), device, average)
    before = numbers(model, average)
    step.start()
    draws = torch.Generator().manual_seed(0)
    for number, size in enumerate(SIZES):
        images = torch.randn(size, 3, 32, 32, generator=draws).to(device, memory_format=torch.channels_last)
        step(images, torch.randint(100, (size,), generator=draws).to(device), study.recipe.learning_rate / 10)
        if average is not None:
            average.follow(number, len(SIZES))
    after = numbers(model, average)
    return {kind: (before[kind], after[kind]) for kind in after}


def numbers(model: nn.Module, average: Average | None) -> dict[str, Tensor]:
    """Return all floating-point numbers by kind, float64 on the CPU: figures of norms would outweigh the weights."""
    kinds = {"weights": [*model.parameters()], "figures": [*model.buffers()]}
    if average is not None:
        kinds["average"] = [*average.slow.values()]
    return {
        kind: torch.cat([value.detach().double().flatten().cpu() for value in values if value.is_floating_point()])
        for kind, values in kinds.items()
    }


def apart(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> float:
    """Return how far two results are apart, in what the second has learned."""
    return float((ours[1] - theirs[1]).norm() / (theirs[1] - theirs[0]).norm())


def main(given: Sequence[str] | None = None) -> int:
    """Check all, print, return the status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--engines", default="graph,compile,compile+graph")
    args = parser.parse_args(given)
    device, failed = runtime.pick_device(args.device), 0
    for setting, options in SETTINGS.items():
        eager = trained("eager", options, device)
        for engine in args.engines.split(","):
            found = trained(engine, options, device)
            distances = {kind: apart(found[kind], eager[kind]) for kind in eager}
            right = all(distance <= TOLERANCE[options["precision"]] for distance in distances.values())  # no NaN is
            failed += not right
            said = ", ".join(f"{kind} {distance:.1e}" for kind, distance in distances.items())
            print(f"{engine}, {setting}: {said} of what was learned apart {'' if right else 'WRONG'}", flush=True)
    print(f"{failed} wrong")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
