"""How long a training step and an inference pass of each variant take, measured in turns in one process.

The times that runs record are of other minutes, perhaps of a busier machine: they say how long a run took, not which
network is slower.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor, nn

from srblock.runs.in_turns import in_turns
from srblock.runs.records import Run
from srblock.runs.study import Study
from srblock.training import runtime
from srblock.training.lookahead import Lookahead
from srblock.training.optimizer import sgd
from srblock.training.step import WARM_UP, Step
from srblock.training.task import measure
from srblock.variants.notation import Variant

LEAST, MOST = 3, 25  # rounds
SECONDS, SHARE, LONGEST = 5.0, 0.02, 60.0  # time for it: so long, or a share of what training took, but not longer
PATIENCE = 3.0  # times as long may it take for the fewest rounds
TURN_S = 0.01  # a turn takes about so long at least, in as many steps as that needs
STEPS = 10  # at most in a turn
FOREVER = 10**9  # steps of a run that never ends, for Lookahead


@dataclass(frozen=True)
class Times:
    """ms per image of one variant, round by round: of a training step, and of an inference pass as a test makes it."""

    train: tuple[float, ...]
    test: tuple[float, ...]


@dataclass(frozen=True)
class SideBySide:
    """Times measured in turns.

    Attributes:
        times: of each variant, the baseline first.
        conditions: what they depend on besides the study, as `conditions` gives it.
    """

    times: dict[str, Times]
    conditions: dict[str, str]


def conditions(study: Study, device: torch.device) -> dict[str, str]:
    """Describe what times depend on besides variants, data and recipe: device, threads, versions, how steps are run."""
    recipe = study.recipe
    here: dict[str, Any] = runtime.environment(device)
    how = {"engine": recipe.engine, "precision": recipe.precision, "batch_size": recipe.batch_size}
    return {name: str(value) for name, value in (here | how).items()}


def time_side_by_side(
    study: Study, variants: Sequence[Variant], runs: Sequence[Run], device: torch.device, *, until: float | None = None
) -> SideBySide:
    """Time variants of a study in turns, with its batch size and recipe, on networks made for this and thrown away.

    A step is without loading its batch, at a learning rate of 0, so that no weight runs away. Up to 25 rounds, as
    many as fit into 5 s or 2% of what training took (at most a minute), but not into more than it took; at least 3 if
    these fit into three times that. Random state is left as it was.

    Args:
        runs: the finished ones; their recorded seconds are what training took.
        until: when to be done, by time.monotonic().

    Raises: ValueError, saying why, if it cannot be done in the time, or the runs were made by several processes each.
    """
    several = max((int(run.environment.get("processes", 1)) for run in runs), default=1)
    if several > 1:
        raise ValueError(f"the runs were made by {several} processes each, and a step here would be of one")
    took_s = sum(run.wall_s or 0.0 for run in runs) or SECONDS  # of records without it
    seconds = min(took_s, max(SECONDS, min(LONGEST, SHARE * took_s)))
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        contenders = _contenders(study, variants, device, until)
        go_on = _limit(seconds, until)
        rounds = in_turns(contenders, device, go_on)
    if len(next(iter(rounds.values()))) < LEAST:
        raise ValueError(f"{LEAST} rounds of a step of each take longer than that is worth here")
    return SideBySide(
        {
            str(variant): Times(tuple(rounds[f"train {variant}"]), tuple(rounds[f"test {variant}"]))
            for variant in variants
        },
        conditions(study, device),
    )


def _contenders(
    study: Study, variants: Sequence[Variant], device: torch.device, until: float | None
) -> dict[str, Callable[[], int]]:
    """Build and warm up all variants; their training turns, then their inference turns."""
    runtime.keep_freed_memory(device)
    loaders = study.loaders(study.seeds[0], device)
    images, target = next(iter(loaders.train.epoch(0, slice(0, 1))))
    tested, truth = next(iter(loaders.test.epoch(0, slice(0, 1))))
    tested, truth = tested[: len(images)], truth[: len(images)]
    training: dict[str, Callable[[int], int]] = {}
    testing: dict[str, Callable[[int], int]] = {}
    shortest = {"train": math.inf, "test": math.inf}  # seconds of the fastest variant
    for variant in variants:
        if until is not None and time.monotonic() > until:
            raise ValueError("the time is up")
        step = _step(study, variant, device)
        turns = {
            "train": partial(_train, step, count(1), images, target),
            "test": partial(_test, study, step, tested, truth),
        }
        for part, turn in turns.items():
            turn(WARM_UP + 2 if part == "train" and "graph" in study.recipe.engine else 1)
            start = runtime.now(device)
            turn(1)
            shortest[part] = min(shortest[part], runtime.now(device) - start)
        training[f"train {variant}"], testing[f"test {variant}"] = turns["train"], turns["test"]
    steps = {part: max(1, min(STEPS, math.ceil(TURN_S / max(seconds, 1e-9)))) for part, seconds in shortest.items()}
    return {
        **{name: partial(turn, steps["train"]) for name, turn in training.items()},
        **{name: partial(turn, steps["test"]) for name, turn in testing.items()},
    }


def _step(study: Study, variant: Variant, device: torch.device) -> Step:
    model = runtime.place(study.build(variant, study.seeds[0]), study.recipe, device)
    lookahead = Lookahead(model) if study.recipe.lookahead else None
    step = Step(model, sgd(model, study.recipe, device, study.groups), study.task, study.recipe, device, lookahead)
    step.start()  # once: layers with a schedule would have a graph captured anew
    return step


def _train(step: Step, numbers: Iterator[int], images: Tensor, target: Tensor, steps: int) -> int:
    step.model.train()
    for number in islice(numbers, steps):
        step(images, target, 0.0)
        if step.lookahead is not None:
            step.lookahead.follow(number, FOREVER)
    return steps * len(images)


def _test(study: Study, step: Step, images: Tensor, target: Tensor, passes: int) -> int:
    network: nn.Module = step.inference
    measure(network, [(images, target)] * passes, study.task, study.recipe, step.device)
    return passes * len(images)


def _limit(seconds: float, until: float | None) -> Callable[[int], bool]:
    """Return what says whether there is time for another round, from how long those before took."""
    start = time.monotonic()
    left = math.inf if until is None else until - start

    def go_on(done: int) -> bool:
        passed = time.monotonic() - start
        least, more = LEAST * passed / done, (done + 1) * passed / done
        if done < LEAST:
            return least <= min(PATIENCE * seconds, left)
        return done < MOST and more <= min(seconds, left)

    return go_on
