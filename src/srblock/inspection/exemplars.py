"""What recalls a memory block: the images with the highest weights, and the classes that are too many among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from srblock.inspection.analysis import Array, Exemplars

TOP = 100  # images that the classes are counted among; a tenth of the images if that is less
NAMED = 5


def exemplars(
    weights: Tensor, labels: Tensor | None, classes: Sequence[str], best: Tensor, images: Mapping[int, Array]
) -> tuple[Exemplars, ...]:
    """Collect what recalls each memory block.

    Shapes: weights (N, P); labels (N,), None of scenes; best (P, k), numbers of images, the one that recalls most
    first, whose pixels are in `images`.
    """
    top = max(1, min(TOP, len(weights) // 10))
    found = []
    for block, numbers in enumerate(best.tolist()):
        enriched: tuple[tuple[str, int, float, float], ...] = ()
        if labels is not None:
            sorted_, order = weights[:, block].sort(stable=True, descending=True)
            if len(order) == top or sorted_[top] < sorted_[top - 1]:  # else which are the first says nothing
                enriched = _enriched(labels[order[:top]], labels, classes)
        found.append(
            Exemplars(
                tuple(weights[numbers, block].tolist()),
                tuple(numbers),
                None if labels is None else tuple(labels[numbers].tolist()),
                tuple(images[number] for number in numbers),
                top,
                enriched,
            )
        )
    return tuple(found)


def _enriched(chosen: Tensor, labels: Tensor, classes: Sequence[str]) -> tuple[tuple[str, int, float, float], ...]:
    """List the classes that are over-represented among chosen images, the least likely first."""
    there = torch.bincount(chosen, minlength=len(classes)).tolist()
    whole = torch.bincount(labels, minlength=len(classes)).tolist()
    lines = []
    for name, count, size in zip(classes, there, whole, strict=True):
        expected = len(chosen) * size / len(labels)
        if count > expected:
            lines.append((name, count, expected, hypergeometric(count, len(chosen), size, len(labels))))
    return tuple(sorted(lines, key=lambda line: line[3])[:NAMED])


def hypergeometric(count: int, drawn: int, marked: int, all_: int) -> float:
    """Return the chance that so many or more of `drawn` out of `all_` are among the `marked`."""
    whole = _log_choose(all_, drawn)
    chance = (
        math.exp(_log_choose(marked, k) + _log_choose(all_ - marked, drawn - k) - whole)
        for k in range(max(count, drawn - (all_ - marked)), min(drawn, marked) + 1)
    )
    return min(1.0, sum(chance))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
