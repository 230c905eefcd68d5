"""Runs of the same seed side by side: the paired test, and which of the two tests counts.

Runs of one seed share split, data order, augmentation and most initial weights, so comparisons of our own runs are
paired by design: from `PAIRED_FROM` shared seeds on the paired t is the primary analysis, chosen by their number alone,
before anyone looks. With fewer seeds its few degrees of freedom cost more than pairing can gain, and figures printed by
others have no seeds: there it is Welch's. Both are always reported.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from scipy.special import ndtri

from srblock.statistics.differences import Difference, Estimate

PAIRED_FROM = 8
ROUNDING = 1e-9  # relative; what differs by less differs by the rounding of subtraction only


@dataclass(frozen=True)
class Pairing:
    """Two variants over the seeds that both have.

    Attributes:
        n: how many seeds both have.
        mean, std: of the differences, seed by seed; std with n - 1.
        correlation: Pearson's, of the values; None with fewer than three seeds, or if one side has no spread.
        correlation_interval: 95%, by Fisher's z; None with fewer than four seeds or a perfect correlation.
        means: of the baseline and of the variant over these seeds.
    """

    n: int
    mean: float
    std: float
    correlation: float | None
    correlation_interval: tuple[float, float] | None
    means: tuple[float, float]

    @property
    def estimate(self) -> Estimate | None:
        """The paired t-test's; None if all seeds differ by the same."""
        return Estimate(self.mean, self.std / math.sqrt(self.n), self.n - 1) if self.std else None

    def with_more(self, seeds: int) -> Estimate | None:
        """Return the estimate from more seeds, with the same mean and spread of the differences."""
        return replace(self, n=self.n + seeds).estimate


def pairing(baseline: Mapping[int, float], ours: Mapping[int, float]) -> Pairing | None:
    """Compare two variants seed by seed; None if fewer than two seeds are shared.

    Args: baseline, ours: values by seed.

    Raises: ValueError if a value is not finite.
    """
    seeds = sorted(baseline.keys() & ours.keys())
    pairs = [(baseline[seed], ours[seed]) for seed in seeds]
    if not all(math.isfinite(value) for pair in pairs for value in pair):
        raise ValueError(f"every value must be a finite number, got {pairs}")
    if len(pairs) < 2:
        return None
    apart = [b - a for a, b in pairs]
    correlation, interval = _correlation([a for a, _ in pairs], [b for _, b in pairs]), None
    if correlation is not None and len(pairs) > 3 and 1 - abs(correlation) > ROUNDING:
        half = float(ndtri(0.975)) / math.sqrt(len(pairs) - 3)
        interval = math.tanh(math.atanh(correlation) - half), math.tanh(math.atanh(correlation) + half)
    spread = statistics.stdev(apart)
    if spread <= ROUNDING * max(map(abs, apart)):
        spread = 0.0
    means = statistics.fmean(a for a, _ in pairs), statistics.fmean(b for _, b in pairs)
    return Pairing(len(pairs), statistics.fmean(apart), spread, correlation, interval, means)


@dataclass(frozen=True)
class Comparison:
    """Two variants over their seeds, by both tests, one of which counts.

    Attributes:
        difference: Welch's.
        pairing: over the seeds that both have; None with fewer than two.
    """

    difference: Difference
    pairing: Pairing | None = None

    @property
    def counts(self) -> Difference | Pairing:
        """The analysis that counts: the paired one from `PAIRED_FROM` shared seeds on, else Welch's."""
        if self.pairing is not None and self.pairing.n >= PAIRED_FROM:
            return self.pairing
        return self.difference

    @property
    def single(self) -> bool:
        """Whether a side has one seed only."""
        return min(self.difference.n, self.difference.n_baseline) == 1

    @property
    def estimate(self) -> Estimate | None:
        """The difference by the test that counts; None without a test."""
        return self.counts.estimate

    def with_more(self, seeds: int) -> Estimate | None:
        """Return the estimate from more shared seeds, at the spreads seen, by the test that would count then."""
        paired = self.pairing
        if paired is not None and paired.estimate is not None and paired.n + seeds >= PAIRED_FROM:
            return paired.with_more(seeds)
        return self.difference.with_more(seeds)


def _correlation(a: list[float], b: list[float]) -> float | None:
    if len(a) < 3 or statistics.stdev(a) == 0 or statistics.stdev(b) == 0:
        return None
    return max(-1.0, min(1.0, statistics.correlation(a, b)))
