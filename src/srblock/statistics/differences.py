"""What a handful of seeds can say: means, and differences with their interval and p-value.

Everything follows from n, mean and standard deviation, so that a printed table can be judged like our own runs. Seeds
are few, so intervals are Student's and Welch's, not normal. They cover the chance of training (initial weights, order
of images, split); the test set is one and the same for all seeds, and its own chance is not in them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.special import ndtr, stdtr, stdtrit


@dataclass(frozen=True)
class Summary:
    """The figures of one variant over its seeds.

    Attributes:
        n: how many values.
        mean: their mean.
        std: their standard deviation, None for a single value.
        ddof: n - ddof is what `std` was divided by. Ours have 1. The paper says neither n nor n - 1 (audit, section 3):
            its tables are read with 1 unless 0 is asked for, which makes every gain less certain.
    """

    n: int
    mean: float
    std: float | None
    ddof: int = 1

    @property
    def sample_std(self) -> float | None:
        """The standard deviation with n - 1, from which standard errors are computed; None for a single value."""
        if self.std is None or self.n < 2:
            return None
        return self.std * math.sqrt((self.n - self.ddof) / (self.n - 1))


@dataclass(frozen=True)
class Estimate:
    """A difference of means with what Student's t needs to judge it; arrays work as well.

    Attributes:
        mean: the difference.
        standard_error: of the mean, above 0.
        freedom: degrees of freedom.
    """

    mean: float
    standard_error: float
    freedom: float

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the two-sided interval.

        Raises: ValueError if the confidence is not between 0 and 1.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, got {confidence}; 0.95 is usual")
        half = stdtrit(self.freedom, 0.5 + confidence / 2) * self.standard_error
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """The two-sided p-value against no difference."""
        p: float = 2 * stdtr(self.freedom, -abs(self.mean / self.standard_error))
        return p

    def p_below(self, bound: float) -> float:
        """Return the one-sided p-value of the claim that the true difference is below a bound."""
        p: float = stdtr(self.freedom, (self.mean - bound) / self.standard_error)
        return p

    def p_above(self, bound: float) -> float:
        """Return the one-sided p-value of the claim that the true difference is above a bound."""
        p: float = stdtr(self.freedom, (bound - self.mean) / self.standard_error)
        return p


@dataclass(frozen=True)
class Difference:
    """How far one variant lies from another, by Welch's t (unequal variances).

    Attributes:
        baseline, ours: the two sides.
        p_greater: P(A > B), that a seed of the variant beats one of the baseline; None where it is unknown.
    """

    baseline: Summary
    ours: Summary
    p_greater: float | None

    @property
    def mean(self) -> float:
        """The difference of the means, variant minus baseline."""
        return self.ours.mean - self.baseline.mean

    @property
    def estimate(self) -> Estimate | None:
        """Welch's standard error and degrees of freedom; None where one side has one value, or neither has spread.

        Without any spread there is nothing to measure the difference against.
        """
        stds = self.baseline.sample_std, self.ours.sample_std
        if stds[0] is None or stds[1] is None or stds == (0, 0):
            return None
        return Estimate(self.mean, *welch(stds[0], self.baseline.n, stds[1], self.ours.n))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Welch's 95% interval, None where there is no estimate."""
        return None if self.estimate is None else self.estimate.interval()

    @property
    def p(self) -> float | None:
        """Welch's two-sided p-value, None where there is no interval."""
        return None if self.estimate is None else self.estimate.p

    @property
    def n(self) -> int:
        """How many values the variant has."""
        return self.ours.n

    @property
    def n_baseline(self) -> int:
        """How many values the baseline has."""
        return self.baseline.n

    def with_more(self, seeds: int) -> Estimate | None:
        """Return the estimate if both sides had more seeds, with the same means and spreads."""
        theirs, ours = (replace(s, n=s.n + seeds, std=s.sample_std, ddof=1) for s in (self.baseline, self.ours))
        return Difference(theirs, ours, self.p_greater).estimate


def summarize(values: Sequence[float], ddof: int = 1) -> Summary:
    """Return n, mean and standard deviation.

    Args:
        ddof: 1 for the sample's (n - 1), 0 for n; the paper does not say which it prints (see `Summary`).

    Raises: ValueError if there is no value, one is not finite, or ddof is neither 0 nor 1.
    """
    if len(values) == 0:
        raise ValueError("no values to summarize: give at least one")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"every value must be a finite number, got {list(values)}")
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 1 (divide by n - 1) or 0 (divide by n), got {ddof}")
    spread = statistics.stdev if ddof else statistics.pstdev
    return Summary(len(values), statistics.fmean(values), spread(values) if len(values) > 1 else None, ddof)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return Student's interval of the mean, None with fewer than two values.

    Raises: ValueError as `summarize`, or if the confidence is not between 0 and 1.
    """
    summary = summarize(values)
    if summary.std is None:
        return None
    return Estimate(summary.mean, summary.std / math.sqrt(summary.n), summary.n - 1).interval(confidence)


def difference(baseline: Sequence[float], values: Sequence[float]) -> Difference:
    """Compare two variants by their values; P(A > B) is the share of all pairs that the variant wins, ties half.

    Raises: ValueError as `summarize`.
    """
    theirs, ours = summarize(baseline), summarize(values)
    wins = [(a > b) + 0.5 * (a == b) for a in values for b in baseline]
    return Difference(theirs, ours, statistics.fmean(wins))


def difference_of_summaries(baseline: Summary, ours: Summary) -> Difference:
    """Compare two variants by what a table prints of them; P(A > B) is that of two normal distributions.

    Raises: ValueError if a figure cannot be one.
    """
    for side in (baseline, ours):
        figures = (side.mean, 0.0 if side.std is None else side.std)
        if side.n < 1 or side.ddof not in (0, 1) or figures[1] < 0 or not all(map(math.isfinite, figures)):
            raise ValueError(f"need n >= 1, a finite mean, a finite std >= 0 (or None) and ddof 0 or 1, got {side}")
    stds = baseline.sample_std, ours.sample_std
    spread = None if stds[0] is None or stds[1] is None else math.hypot(stds[0], stds[1])
    p_greater = float(ndtr((ours.mean - baseline.mean) / spread)) if spread else None
    return Difference(baseline, ours, p_greater)


def welch(std_baseline: float, n_baseline: int, std: float, n: int) -> tuple[float, float]:
    """Return the standard error of a difference of means, and its Welch-Satterthwaite degrees of freedom.

    Args:
        std_baseline, std: with n - 1, not both 0; arrays work as well.
    """
    first, second = std_baseline / n_baseline**0.5, std / n**0.5
    scale = first + second  # so that the squares of tiny spreads do not vanish
    error = ((first / scale) ** 2 + (second / scale) ** 2) ** 0.5
    shares = (first / scale / error) ** 2, (second / scale / error) ** 2  # of the squared error
    return error * scale, 1 / (shares[0] ** 2 / (n_baseline - 1) + shares[1] ** 2 / (n - 1))
