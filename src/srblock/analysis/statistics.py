"""What a handful of seeds can say: means, differences with their intervals, and the words for them.

Seeds are few, so intervals are Student's and Welch's, not normal. They cover the chance of training (initial weights,
order of images, split); the test set is one and the same for all seeds, and its own chance is not in them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit


@dataclass(frozen=True)
class Summary:
    """The figures of one variant over its seeds.

    Attributes:
        n: how many values.
        mean: their mean.
        std: their standard deviation (ddof = 1), None for a single value.
    """

    n: int
    mean: float
    std: float | None


@dataclass(frozen=True)
class Difference:
    """How far one variant lies from another.

    Attributes:
        mean: the difference of the means, variant minus baseline.
        low, high: its interval by Welch, None where the seeds do not allow one (see `difference`).
        p_greater: P(A > B), the share of all pairs of seeds in which the variant beats the baseline, ties half.
        n_baseline, n: how many values each side has.
        confidence: of the interval, between 0 and 1.
    """

    mean: float
    low: float | None
    high: float | None
    p_greater: float
    n_baseline: int
    n: int
    confidence: float = 0.95


def summarize(values: Sequence[float]) -> Summary:
    """Return n, mean and standard deviation (ddof = 1).

    Raises: ValueError if there is no value, or one is not finite.
    """
    _check(values)
    std = statistics.stdev(values) if len(values) > 1 else None
    return Summary(len(values), statistics.fmean(values), std)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return Student's interval of the mean, None with fewer than two values.

    Raises: ValueError as `summarize`, or if the confidence is not between 0 and 1.
    """
    summary = summarize(values)
    if summary.std is None:
        return None
    half = _quantile(confidence, summary.n - 1) * summary.std / math.sqrt(summary.n)
    return summary.mean - half, summary.mean + half


def difference(baseline: Sequence[float], values: Sequence[float], confidence: float = 0.95) -> Difference:
    """Compare two variants by the mean of their values, with Welch's t interval (unequal variances).

    There is no interval where either side has one value only, and none where all values of both sides are equal:
    without any spread there is nothing to measure the difference against.

    Raises: ValueError as `summarize`, or if the confidence is not between 0 and 1.
    """
    ours, theirs = summarize(values), summarize(baseline)
    mean = ours.mean - theirs.mean
    wins = [(a > b) + 0.5 * (a == b) for a in values for b in baseline]
    interval = _welch(theirs, ours, confidence)
    low, high = (mean - interval, mean + interval) if interval is not None else (None, None)
    return Difference(mean, low, high, statistics.fmean(wins), theirs.n, ours.n, confidence)


def verdict(difference: Difference) -> str:
    """Say in words what a difference of accuracies in percent amounts to."""
    if difference.low is None or difference.high is None:
        if difference.n == difference.n_baseline == 1:
            return "one seed each: nothing can be said about chance"
        if min(difference.n, difference.n_baseline) == 1:
            return "one seed on one side: nothing can be said about chance"
        return "every seed gave the same value: there is no spread to measure the difference against"
    reach = f"the interval reaches from {signed(difference.low)} to {signed(difference.high)}"
    if difference.low > 0:
        return f"better: {reach}"
    if difference.high < 0:
        return f"worse: {reach}"
    return f"no difference found: {reach}"


def signed(value: float, digits: int = 2) -> str:
    """Print a number with its sign; what rounds to zero has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def _welch(a: Summary, b: Summary, confidence: float) -> float | None:
    """Return half the width of Welch's interval, with the Welch-Satterthwaite degrees of freedom."""
    _quantile(confidence, 1)
    if a.std is None or b.std is None or (a.std == 0 and b.std == 0):
        return None
    scale = max(a.std, b.std)  # so that the fourth powers of tiny spreads do not vanish
    errors = [(a.std / scale) ** 2 / a.n, (b.std / scale) ** 2 / b.n]
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / (a.n - 1) + errors[1] ** 2 / (b.n - 1))
    return _quantile(confidence, freedom) * scale * math.sqrt(sum(errors))


def _quantile(confidence: float, freedom: float) -> float:
    """Return how many standard errors Student's two-sided interval reaches."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}; 0.95 is usual")
    return float(stdtrit(freedom, 0.5 + confidence / 2))


def _check(values: Sequence[float]) -> None:
    if len(values) == 0:
        raise ValueError("no values to summarize: give at least one")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"every value must be a finite number, got {list(values)}")
