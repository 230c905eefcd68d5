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
from srblock.training.average import average_of
from srblock.training.optimizer import make_optimizer
from srblock.training.step import WARM_UP, Step
from srblock.training.task import measure
from srblock.variants.notation import Variant

LEAST, MOST = 3, 25  # rounds
SECONDS, SHARE, LONGEST = 5.0, 0.02, 60.0  # time for it: so long, or a share of what training took, but not longer
PATIENCE = 3.0  # times as long may it take for the fewest rounds
TURN_S = 0.04  # a turn takes about so long at least, in as many steps as that needs: some slices of a busy processor
STEPS = 50  # at most in a turn
FOREVER = 10**9  # steps of a run that never ends, for averages of weights


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

    A step is one of the last epoch, without loading its batch, at a learning rate of 0, so that no weight runs away. Up
    to 25 rounds of each kind, as many as fit into 5 s or 2% of what training took (at most a minute), but not into more
    than it took; at least 3 if these fit into three times that. Random state is left as it was.

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
        rounds = [  # one after the other, as a turn after another kind of turn is not like one after its own kind
            in_turns(contenders, device, _limit(seconds / 2, until))
            for contenders in _contenders(study, variants, device, until)
        ]
    if min(len(times) for part in rounds for times in part.values()) < LEAST:
        raise ValueError(f"{LEAST} rounds of a step of each take longer than that is worth here")
    train, test = rounds
    times = {str(variant): Times(tuple(train[variant]), tuple(test[variant])) for variant in variants}
    return SideBySide(times, conditions(study, device))


def _contenders(
    study: Study, variants: Sequence[Variant], device: torch.device, until: float | None
) -> tuple[dict[Variant, Callable[[], int]], dict[Variant, Callable[[], int]]]:
    """Build and warm up all variants; return their turns of training and of inference."""
    runtime.keep_freed_memory(device)
    loaders = study.loaders(study.seeds[0], device)
    images, target = next(iter(loaders.train.epoch(0, slice(0, 1))))
    tested, truth = next(iter(loaders.test.epoch(0, slice(0, 1))))
    tested, truth = tested[: len(images)], truth[: len(images)]
    training: dict[Variant, Callable[[int], int]] = {}
    testing: dict[Variant, Callable[[int], int]] = {}
    warm_up = WARM_UP + 2 if "graph" in study.recipe.engine else 1
    for variant in variants:
        if until is not None and time.monotonic() > until:
            raise ValueError("the time is up")
        step = _step(study, variant, device)
        training[variant] = partial(_train, step, count(1), images, target)
        testing[variant] = partial(_test, study, step, tested, truth)
        training[variant](warm_up)
        testing[variant](1)
    return _long_enough(training, device), _long_enough(testing, device)


def _long_enough(turns: dict[Variant, Callable[[int], int]], device: torch.device) -> dict[Variant, Callable[[], int]]:
    """Let each turn have as many steps as the fastest variant needs to fill the time of one."""
    fastest = math.inf
    for turn in turns.values():
        start = runtime.now(device)
        turn(1)
        fastest = min(fastest, runtime.now(device) - start)
    steps = max(1, min(STEPS, math.ceil(TURN_S / max(fastest, 1e-9))))
    return {variant: partial(turn, steps) for variant, turn in turns.items()}


def _step(study: Study, variant: Variant, device: torch.device) -> Step:
    recipe = study.recipe
    model = runtime.place(study.build(variant, study.seeds[0]), recipe, device)
    optimizer = make_optimizer(model, recipe, device, study.groups)
    step = Step(model, optimizer, study.task, recipe, device, average_of(model, recipe))
    step.start(1.0)  # once: layers with a schedule would have a graph captured anew
    return step


def _train(step: Step, numbers: Iterator[int], images: Tensor, target: Tensor, steps: int) -> int:
    step.model.train()  # in the last epoch nothing is frozen
    for number in islice(numbers, steps):
        step(images, target, 0.0)
        if step.average is not None:
            step.average.follow(number, FOREVER)
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
