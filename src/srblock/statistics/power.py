"""What a number of seeds can find: power, the smallest difference that would be seen, the seeds that are needed.

Power is that of the t-test under its noncentral distribution. For unequal spreads the degrees of freedom are Welch's at
the given standard deviations, as if these were the true ones: a plan from a few seeds' spread is a plan, not a promise.
"""

from __future__ import annotations

from collections.abc import Callable

from scipy.special import nctdtr, stdtrit

from srblock.statistics.differences import welch

ALPHA, POWER = 0.05, 0.8


def detection_power(difference: float, standard_error: float, freedom: float, alpha: float = ALPHA) -> float:
    """Return the probability that a two-sided t-test finds a true difference.

    Raises: ValueError if alpha is not between 0 and 1.
    """
    critical, shift = _critical(1 - alpha / 2, freedom), abs(difference) / standard_error
    return 1 - _below(critical, shift, freedom) + _below(-critical, shift, freedom)


def equivalence_power(margin: float, standard_error: float, freedom: float, alpha: float = ALPHA) -> float:
    """Return the probability that TOST shows a difference within the margin if there is truly none.

    Each of its two tests rejects with the power of a one-sided t-test; that both do is at least the sum less one, and
    equal to it but for noise so great that neither rejects.

    Raises: ValueError if alpha is not between 0 and 1.
    """
    missed = _below(_critical(1 - alpha, freedom), margin / standard_error, freedom)
    return max(0.0, 1 - 2 * missed)


def seeds_needed(difference: float, std_baseline: float, std: float, alpha: float = ALPHA) -> int:
    """Return the seeds per variant, two or more, at which Welch's test finds a true difference with power 0.8.

    Raises: ValueError if there is no difference, no spread, or alpha is not between 0 and 1.
    """
    if min(std_baseline, std) < 0 or std_baseline == std == 0:
        raise ValueError(f"standard deviations must be 0 or more and not both 0, got {std_baseline} and {std}")
    if difference == 0:
        raise ValueError("no number of seeds finds a difference of 0; give the smallest one that matters")
    return smallest(
        lambda n: detection_power(difference, *welch(std_baseline, n, std, n), alpha) >= POWER,
        first=2,
    )


def smallest_detectable(standard_error: float, freedom: float, alpha: float = ALPHA) -> float:
    """Return the smallest true difference that a two-sided t-test finds with power 0.8.

    Raises: ValueError if there is no spread, or alpha is not between 0 and 1.
    """
    if not standard_error > 0:
        raise ValueError(f"the standard error must be above 0, got {standard_error}; add seeds first")
    low, high = 0.0, standard_error
    while detection_power(high, standard_error, freedom, alpha) < POWER:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        found = detection_power(middle, standard_error, freedom, alpha) >= POWER
        low, high = (low, middle) if found else (middle, high)
    return high


def smallest(enough: Callable[[int], bool], first: int) -> int:
    """Return the smallest number, from the first on, that is enough, if all greater ones are."""
    low, step = first - 1, 1
    while not enough(low + step):
        low, step = low + step, 2 * step
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _critical(level: float, freedom: float) -> float:
    if not 0 < level < 1:
        raise ValueError("alpha must be between 0 and 1; 0.05 is usual")
    return float(stdtrit(freedom, level))


def _below(t: float, shift: float, freedom: float) -> float:
    """Return the probability that a noncentral t falls below a value; 0 where scipy loses it to underflow."""
    found = float(nctdtr(freedom, shift, t))
    return 0.0 if found != found else found
