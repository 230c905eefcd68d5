"""One network tested in two ways on the same images: what a change of its accuracy amounts to, from two counts.

Only images count that are right in one way and wrong in the other: `lost` (right before, wrong now) and `gained`. The
chance covered here is that of the test images; what another training run would give, they do not know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LEVEL = NormalDist().inv_cdf(0.975)  # of two-sided 95% intervals
POWER = NormalDist().inv_cdf(0.8)
FEWEST = 7.906
"""Images expected to change, all of one kind, of which six or more do four times in five (Poisson): p(6, 0) = 0.031."""


@dataclass(frozen=True)
class PairedChange:
    """A change of accuracy over the same images, percentage points.

    Attributes:
        points: accuracy now less that before.
        interval: 95% (`difference_interval`).
        p: exact McNemar (`mcnemar_p`).
        detectable: what a test set like this shows four times in five (`detectable_change`).
    """

    points: float
    interval: tuple[float, float]
    p: float
    detectable: float


def paired_change(lost: int, gained: int, images: int) -> PairedChange:
    """Judge a change of accuracy.

    Raises: ValueError for counts below 0, or more of them than images.
    """
    interval = difference_interval(lost, gained, images)
    return PairedChange(
        100 * (gained - lost) / images,
        interval,
        mcnemar_p(lost, gained),
        detectable_change(lost, gained, images),
    )


def mcnemar_p(lost: int, gained: int) -> float:
    """Return the exact two-sided p-value of McNemar's test: the binomial tail of the rarer kind, doubled, at most 1.

    Q. McNemar (1947). In integers, so that it is right for any counts.

    Raises: ValueError for counts below 0.
    """
    if min(lost, gained) < 0:
        raise ValueError(f"counts of images must be 0 or more, got {lost} lost and {gained} gained")
    count, ways, tail = lost + gained, 1, 0
    for number in range(min(lost, gained) + 1):
        tail += ways
        ways = ways * (count - number) // (number + 1)
    p: float = 2 * tail / (1 << count)
    return min(1.0, p)


def wilson_interval(percent: float, images: int) -> tuple[float, float]:
    """Return the 95% interval of an accuracy over images, in percent: E. Wilson (1927), which stays within 0 to 100.

    Raises: ValueError for an accuracy outside 0 to 100, or no images.
    """
    if not 0 <= percent <= 100 or images < 1:
        raise ValueError(f"need an accuracy of 0 to 100 and at least 1 image, got {percent} and {images}")
    share, square = percent / 100, LEVEL**2 / images
    middle = (share + square / 2) / (1 + square)
    half = LEVEL / (1 + square) * math.sqrt(share * (1 - share) / images + square / (4 * images))
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def difference_interval(lost: int, gained: int, images: int) -> tuple[float, float]:
    """Return the 95% interval of the difference of two paired proportions, in percentage points.

    D. Bonett and R. Price (2012): Wald's, with one image added to both kinds that changed.

    Raises: ValueError for counts below 0, or more of them than images.
    """
    middle, error = _adjusted(lost, gained, images)
    return 100 * max(-1.0, middle - LEVEL * error), 100 * min(1.0, middle + LEVEL * error)


def mean_difference_interval(before: Sequence[Array], now: Sequence[Array]) -> tuple[float, float]:
    """Return the 95% interval of a difference of mean accuracies over the images, in percentage points.

    Of several networks each, where every image differs by the share of networks that have it right; adjusted as
    `difference_interval`, which it is for one network each.

    Args: before, now: of each network which images are right (N,), booleans.

    Raises: ValueError without a network on a side.
    """
    if not before or not now:
        raise ValueError(f"need a network or more on both sides, got {len(before)} and {len(now)}")
    apart = np.mean(now, axis=0) - np.mean(before, axis=0)
    adjusted = np.concatenate([apart, [1.0, -1.0]])
    middle, half = float(adjusted.mean()), LEVEL * float(adjusted.std()) / math.sqrt(len(adjusted))
    return 100 * max(-1.0, middle - half), 100 * min(1.0, middle + half)


def detectable_change(lost: int, gained: int, images: int) -> float:
    """Return the change that a test at the 5% level finds four times in five, in percentage points.

    From the standard error of `difference_interval`: if as many images change as did here, and the two kinds differ
    little in number. But never fewer images than a test can show that needs six of one kind against none.

    Raises: ValueError for counts below 0, or more of them than images.
    """
    by_error = (LEVEL + POWER) * _adjusted(lost, gained, images)[1]
    return 100 * min(1.0, max(by_error, FEWEST / images))


def _adjusted(lost: int, gained: int, images: int) -> tuple[float, float]:
    """Return the difference and its standard error as Bonett and Price adjust them."""
    if min(lost, gained) < 0 or lost + gained > images or images < 1:
        raise ValueError(
            f"of {images} images {lost} were lost and {gained} gained; counts must be 0 or more and no more than images"
        )
    before, now = (lost + 1) / (images + 2), (gained + 1) / (images + 2)
    return now - before, math.sqrt((before + now - (now - before) ** 2) / (images + 2))
