"""What the block costs whole networks, beside SE and CBAM: training steps and inference, in turns.

    python benchmarks/network.py [--device cpu] [--cases r18,r50,imagenet] [--engine eager] [--rounds 15]

- r18, r50: 32x32, 100 classes: a training step at batch 128, inference at batch 1.
- imagenet: R50 at 224x224, 1,000 classes: a training step at batch 32, inference at batches 5 and 64.

(DeepLab v3 and FCN: `benchmarks/segmentation.py`.) The blocks are those of the paper's tables. One step, or as many
passes as fill a tenth of a second, of each network in each round, the order turned round from round to round; figures
are medians over the rounds, of ratios to the network without anything, with the sign test's 95% interval. With an
engine of CUDA graphs inference is replayed, too. Writes a CSV into benchmarks/results/, named by processor and torch
version and, but for eager, by engine, anew after each part: a run that is stopped leaves what it has measured.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import machine
import torch
from cuda_graph import captured
from torch import Tensor, nn

from srblock.data.sources.published import stand_in
from srblock.runs.in_turns import in_turns
from srblock.runs.study import Study, recipe_for
from srblock.statistics.times import ratio
from srblock.training import runtime
from srblock.training.optimizer import make_optimizer
from srblock.training.step import WARM_UP, Step
from srblock.variants.notation import parse

TURN_S = 0.1  # of a turn, at least; on a GPU, which times itself, 0.04
# The network, its blocks, the data it is for, batches of a training step and of inference.
CASES: dict[str, tuple[str, str, str, int, tuple[int, ...]]] = {
    "r18": ("R18", "SR(M=4, P=12)", "cifar100", 128, (1,)),
    "r50": ("R50", "SR(M=4, P=12)", "cifar100", 128, (1,)),
    "imagenet": ("R50", "SR(M=4, P=10, U=16)", "imagenet:x", 32, (5, 64)),
}
Turn = Callable[[int], int]


def step(task: Step, images: Tensor, target: Tensor, times: int) -> int:
    """Train on a batch so many times, at a rate of 0."""
    for _ in range(times):
        task(images, target, 0.0)
    return times * len(images)


def look(model: nn.Module, images: Tensor, study: Study) -> Callable[[], object]:
    """Return a look at a batch, as the study's engine has it."""
    engine = study.recipe.engine
    called = torch.compile(model, dynamic=False) if "compile" in engine else model

    def seen() -> None:
        with torch.inference_mode(), runtime.autocast(study.recipe, images.device):
            called(images)

    seen()
    return captured(seen) if "graph" in engine else seen


def looks(look: Callable[[], object], images: int, times: int) -> int:
    """Look at a batch of so many images so many times."""
    for _ in range(times):
        look()
    return times * images


def turns(case: str, engine: str, device: torch.device) -> dict[str, dict[str, Turn]]:
    """Build the networks of a case: what is timed, of each network."""
    network, block, source, trained, looked = CASES[case]
    texts = (network, f"{network} + {block}", f"{network} + SE", f"{network} + CBAM")
    data = stand_in(source)
    study = Study(tuple(map(parse, texts)), (0,), data, source, recipe_for(data, device, engine=engine))
    shape, layout = (data.channels, *study.size), runtime.FORMATS[study.recipe.memory_format]

    def batch(count: int) -> Tensor:
        return torch.randn(count, *shape, device=device).to(memory_format=layout)

    images, target = batch(trained), torch.randint(len(data.classes), (trained,), device=device)
    found: dict[str, dict[str, Turn]] = {f"training step, batch {trained}": {}}
    found |= {f"inference, batch {count}": {} for count in looked}
    for text, variant in zip(texts, study.variants, strict=True):
        model = runtime.place(study.build(variant, 0), study.recipe, device)
        stepping = Step(model, make_optimizer(model, study.recipe, device), study.task, study.recipe, device)
        stepping.start()
        found[f"training step, batch {trained}"][text] = partial(step, stepping, images, target)
    for text, variant in zip(texts, study.variants, strict=True):
        model = runtime.place(study.build(variant, 0), study.recipe, device).eval()
        for count in looked:
            found[f"inference, batch {count}"][text] = partial(looks, look(model, batch(count), study), count)
    return found


def main() -> None:
    """Measure, print, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--engine", default="eager")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    args = parser.parse_args()
    device = torch.device(args.device)
    turn_s = TURN_S * (0.4 if device.type == "cuda" else 1)
    runtime.keep_freed_memory(device)
    name = "network" if args.engine == "eager" else f"network-{args.engine.replace('+', '-')}"
    rows: list[dict[str, object]] = []
    for case in args.cases.split(","):
        for what, timed in turns(case, args.engine, device).items():
            seconds = []
            for turn in timed.values():
                turn(WARM_UP + 2 if "graph" in args.engine else 1)
                start = runtime.now(device)
                turn(1)
                seconds.append(runtime.now(device) - start)
            times = max(1, math.ceil(turn_s / min(seconds)))
            contenders = {text: partial(turn, times) for text, turn in timed.items()}
            rounds = in_turns(contenders, device, lambda done: done < args.rounds)
            base = next(iter(rounds.values()))
            for text, ms in rounds.items():
                found = ratio(ms, base)
                low, high = found.interval or (math.nan, math.nan)
                rows.append(
                    {"case": case, "what": what, "network": text, "engine": args.engine}
                    | {"ms_per_image": f"{sorted(ms)[len(ms) // 2]:.4g}", "ratio": f"{found.median:.4f}"}
                    | {"low": f"{low:.4f}", "high": f"{high:.4f}", "rounds": found.n}
                    | machine.describe(device)
                )
                print(*list(rows[-1].values())[:9], flush=True)
            machine.write(args.out, name, rows, done=False)
    machine.write(args.out, name, rows)


if __name__ == "__main__":
    main()
