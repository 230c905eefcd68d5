"""Timing in turns: what is compared is timed round by round, so that whatever slows the machine meets all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

import torch

from srblock.training import runtime

Name = TypeVar("Name")


def in_turns(
    contenders: Mapping[Name, Callable[[], int]], device: torch.device, go_on: Callable[[int], bool]
) -> dict[Name, list[float]]:
    """Let each contender do its work once a round, every other round in reverse order; return ms per image by round.

    Args:
        contenders: each does its work and returns on how many images.
        go_on: asked before each round after the first, with the number of rounds done.
    """
    found: dict[Name, list[float]] = {name: [] for name in contenders}
    order, done = list(contenders), 0
    while done == 0 or go_on(done):
        for name in order:
            start = runtime.now(device)
            images = contenders[name]()
            found[name].append(1e3 * (runtime.now(device) - start) / images)
        order.reverse()
        done += 1
    return found


def relative_to_first(rounds: Mapping[Name, Sequence[float]]) -> dict[Name, float]:
    """Estimate each contender's time: the first one's median, times the median of the other's ratios to it by round.

    So a busy minute that meets a whole round does not change how the contenders compare.
    """
    base = next(iter(rounds.values()))
    return {
        name: median(base) * median(mine / first for mine, first in zip(times, base, strict=True))
        for name, times in rounds.items()
    }
