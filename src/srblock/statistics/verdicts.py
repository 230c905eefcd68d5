"""What differences amount to: the one place where verdicts come from, for terminal, page and tables.

    better, worse     the two-sided t-test finds a difference, after Holm's correction over the table
    no difference     the difference is shown to lie within the margin, or within what the test images can show if that
                      is more (TOST, after Holm's correction too)
    undecided         neither; with how many more seeds would settle it

The first two and the third can both hold: "better, but by less than 0.2". Percentages throughout: differences, margins
and resolutions are percentage points. The words are `report.verdicts`'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from srblock.statistics.equivalence import MARGIN, tost_p
from srblock.statistics.multiple import holm
from srblock.statistics.pairing import PAIRED_FROM, Comparison
from srblock.statistics.power import ALPHA, POWER, detection_power, equivalence_power, smallest

Finding = Literal["better", "worse", "no difference", "undecided", "one seed", "no spread"]


@dataclass(frozen=True)
class Limits:
    """What a plan for more seeds depends on besides their spread.

    Attributes:
        test_images: how many the test set has.
        resolution: the smallest difference that these can show, `resolution()`; 0 where the figure is no share of them.
        seconds_per_seed: of training one more seed of both variants; None where unknown.
    """

    test_images: int
    resolution: float
    seconds_per_seed: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What one difference amounts to.

    Attributes:
        finding: the verdict's kind. "one seed" (on one side or both) and "no spread" say that there can be none.
        p, holm_p: of the two-sided t-test, alone and corrected for all that were judged with it; None without a test.
        within: what the difference is shown to be smaller than: the margin, or else `target`; None if neither is shown.
        margin: percentage points that count as no difference.
        more_seeds: per variant, that would settle a difference of `target`; None unless undecided, 0 if these were as
            many as that takes.
        comparisons: how many were judged together.
        alpha: the level that corrected p-values were held against.
        limits: of the plan; None where nothing is known of them.
    """

    finding: Finding
    p: float | None
    holm_p: float | None
    within: float | None
    margin: float
    more_seeds: int | None
    comparisons: int
    alpha: float
    limits: Limits | None = None

    @property
    def beyond(self) -> bool:
        """Whether the margin asks for more than the test images can show."""
        return self.limits is not None and self.margin < self.limits.resolution

    @property
    def target(self) -> float:
        """What `more_seeds` would settle: the margin, or what the test images can show if that is more."""
        return self.margin if self.limits is None else max(self.margin, self.limits.resolution)

    @property
    def seconds(self) -> float | None:
        """Training time of the seeds that would settle it, both variants; None where there is no such plan."""
        if not self.more_seeds or self.limits is None or self.limits.seconds_per_seed is None:
            return None
        return self.more_seeds * self.limits.seconds_per_seed


def resolution(accuracy: float, test_images: int) -> float:
    """Return sqrt(a (1 - a) / T): the standard error of one network's accuracy over T test images, percentage points.

    That of a difference of two is about as much where they have one seed each, and less over many seeds, whose mistakes
    are partly the same: as a bound it is a cautious one.

    Args: accuracy in percent.

    Raises: ValueError for an accuracy outside 0 to 100, or no images.
    """
    if not 0 <= accuracy <= 100 or test_images < 1:
        raise ValueError(f"need an accuracy of 0 to 100 and at least 1 image, got {accuracy} and {test_images}")
    return math.sqrt(accuracy * (100 - accuracy) / test_images)


def verdicts(
    comparisons: Sequence[Comparison],
    margin: float = MARGIN,
    alpha: float = ALPHA,
    limits: Sequence[Limits | None] | None = None,
) -> list[Verdict]:
    """Judge the comparisons of one table together.

    Both families of p-values, of the differences and of their equivalence, are corrected by Holm over the comparisons
    that have a test. Seeds that would settle a difference are planned at alpha over their number: enough, at the
    spreads seen, to find a true difference as large as the margin with a power of 0.8, and to show none as such. A
    margin that the test images cannot show is not planned for: the plan is for what they can, and a difference shown to
    be smaller than that is called so. (Both bounds of one comparison are tested at the full level: the wider follows
    from the narrower.)

    Args:
        margin: percentage points that count as no difference.
        limits: of each comparison.

    Raises: ValueError if the margin is not above 0, or alpha not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}; 0.05 is usual")
    limits = [None] * len(comparisons) if limits is None else limits
    estimates = [comparison.estimate for comparison in comparisons]
    tested = [estimate for estimate in estimates if estimate is not None]
    targets = [margin if limit is None else max(margin, limit.resolution) for limit in limits]
    wide = [target for target, estimate in zip(targets, estimates, strict=True) if estimate is not None]
    corrected = iter(
        zip(
            holm([estimate.p for estimate in tested]),
            holm([tost_p(estimate, margin) for estimate in tested]),
            holm([tost_p(estimate, target) for estimate, target in zip(tested, wide, strict=True)]),
            strict=True,
        )
    )
    found = []
    for comparison, estimate, limit, target in zip(comparisons, estimates, limits, targets, strict=True):
        if estimate is None:
            kind: Finding = "one seed" if comparison.single else "no spread"
            found.append(Verdict(kind, None, None, None, margin, None, len(tested), alpha, limit))
            continue
        holm_p, *equivalence = (float(value) for value in next(corrected))
        shown = [bound for bound, p in zip((margin, target), equivalence, strict=True) if p < alpha]
        if holm_p < alpha:
            kind = "better" if estimate.mean > 0 else "worse"
        else:
            kind = "no difference" if shown else "undecided"
        more = more_seeds(comparison, target, alpha / len(tested)) if kind == "undecided" else None
        within = min(shown, default=None)
        found.append(Verdict(kind, float(estimate.p), holm_p, within, margin, more, len(tested), alpha, limit))
    return found


def more_seeds(comparison: Comparison, margin: float = MARGIN, alpha: float = ALPHA) -> int:
    """Return how many seeds more, on both sides, settle a difference of the margin, at the spreads seen.

    Settled means: a true difference of the margin is found with power 0.8, and if there is none, TOST shows with that
    power that it is smaller. By the test that counts with so many seeds. 0 if the seeds at hand suffice.

    Raises: ValueError if the comparison has no test.
    """

    def enough(seeds: int) -> bool:
        estimate = comparison.with_more(seeds)
        if estimate is None:
            raise ValueError("without spread on a side, or with one seed, nothing can be planned; add seeds first")
        error = estimate.standard_error, estimate.freedom
        return min(detection_power(margin, *error, alpha), equivalence_power(margin, *error, alpha)) >= POWER

    for seeds in range(PAIRED_FROM):  # where Welch's test may still be the one that counts, which may find more or less
        if enough(seeds):
            return seeds
    return smallest(enough, first=PAIRED_FROM)
