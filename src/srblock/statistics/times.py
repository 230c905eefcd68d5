"""What a variant costs in time against the baseline, from times that were measured in turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from srblock.runs.in_turns import relative_to_first
from srblock.runs.side_by_side import SideBySide

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """How many times as long as the baseline something takes.

    Attributes:
        median: over the rounds, of the ratio of two times of the same round.
        interval: of that median, see `median_interval`; None for fewer than six rounds, which have none.
        n: rounds.
    """

    median: float
    interval: tuple[float, float] | None
    n: int

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 1; without an interval nothing can be said."""
        return self.interval is not None and not self.interval[0] <= 1 <= self.interval[1]


@dataclass(frozen=True)
class VariantTimes:
    """One variant's times.

    Attributes:
        train_ms, test_ms: per image, of a training step and an inference pass: the baseline's medians times the ratios,
            so that they compare as those do.
        train, test: against the baseline; None for the baseline itself.
    """

    train_ms: float
    test_ms: float
    train: Ratio | None
    test: Ratio | None


def variant_times(found: SideBySide) -> dict[str, VariantTimes]:
    """Compare each variant's times to those of the first."""
    baseline = next(iter(found.times))
    train_ms = relative_to_first({name: times.train for name, times in found.times.items()})
    test_ms = relative_to_first({name: times.test for name, times in found.times.items()})
    base = found.times[baseline]
    return {
        name: VariantTimes(
            train_ms[name],
            test_ms[name],
            None if name == baseline else ratio(times.train, base.train),
            None if name == baseline else ratio(times.test, base.test),
        )
        for name, times in found.times.items()
    }


def ratio(times: Sequence[float], base: Sequence[float]) -> Ratio:
    """Compare times to those of the same rounds."""
    values = [mine / other for mine, other in zip(times, base, strict=True)]
    return Ratio(median(values), median_interval(values), len(values))


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return an interval that covers the median with a probability of at least 95%, whatever the distribution.

    Between two order statistics, those that the sign test leaves: a value lies below the true median with probability
    1/2, so the k-th smallest and the k-th largest of n miss it with 2 P(Binomial(n, 1/2) < k). (W. R. Thompson, 1936.)
    None where even the extremes cover it less often, that is for fewer than six values.
    """
    n = len(values)
    k, missed = 0, 2 * 0.5**n
    while missed <= 1 - CONFIDENCE:
        k += 1
        missed += 2 * math.comb(n, k) * 0.5**n
    if k == 0:
        return None
    ordered = sorted(values)
    return ordered[k - 1], ordered[n - k]
