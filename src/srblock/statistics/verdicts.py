"""What differences amount to, in words: the one place where they come from, for terminal, page and tables.

    better, worse             the two-sided t-test finds a difference, after Holm's correction over the table
    no difference larger than the difference is shown to lie within the margin (TOST, after Holm's correction too)
    undecided                 neither; with how many more seeds would settle it

The first two and the third can both hold: "better, but by less than 0.2". Accuracies are percent, differences and
margins percentage points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from srblock.statistics.differences import Difference
from srblock.statistics.equivalence import MARGIN, tost_p
from srblock.statistics.multiple import holm
from srblock.statistics.pairing import Pairing
from srblock.statistics.power import ALPHA, POWER, detection_power, equivalence_power, smallest

Finding = Literal["better", "worse", "no difference", "undecided", "one seed", "no spread"]


@dataclass(frozen=True)
class Verdict:
    """What one difference amounts to.

    Attributes:
        finding: the verdict's kind. "one seed" (on one side or both) and "no spread" say that there can be none.
        p, holm_p: of the two-sided t-test, alone and corrected for all that were judged with it; None without a test.
        small: whether the difference is shown to lie within the margin.
        margin: percentage points that count as no difference.
        more_seeds: per variant, that would settle a difference of the margin; None unless undecided, 0 if these were
            as many as that takes.
        comparisons: how many were judged together.
        alpha: the level that corrected p-values were held against.
    """

    finding: Finding
    p: float | None
    holm_p: float | None
    small: bool
    margin: float
    more_seeds: int | None
    comparisons: int
    alpha: float

    @property
    def words(self) -> str:
        """The verdict as a phrase: "better", "undecided: 12 more seeds per variant would settle ±0.2"."""
        if self.finding == "one seed":
            return "one seed: nothing can be said about chance"
        if self.finding == "no spread":
            return "every seed of either gave the same value: there is no spread to measure the difference against"
        if self.finding == "no difference":
            return f"no difference larger than {self.margin:g}"
        if self.finding == "undecided":
            return f"undecided: {self._plan}{self._alone}"
        return f"{self.finding}, but by less than {self.margin:g}" if self.small else self.finding

    def headline(self, variant: str, baseline: str) -> str:
        """Say the verdict as a title that names both sides."""
        if self.finding == "one seed":
            return f"Nothing can be said yet about {variant} against {baseline}"
        if self.finding == "no spread":
            return f"No test is possible of {variant} against {baseline}"
        if self.finding == "no difference":
            return f"No difference larger than {self.margin:g} between {variant} and {baseline}"
        if self.finding == "undecided":
            return f"Undecided between {variant} and {baseline}"
        less = f", but by less than {self.margin:g}" if self.small else ""
        return f"{variant} does {self.finding} than {baseline}{less}"

    @property
    def advice(self) -> str:
        """What follows from the verdict, as a sentence; empty if it speaks for itself."""
        if self.finding == "one seed":
            return "Another seed may turn it around; run with --seeds 5 or more to learn how far seeds differ."
        if self.finding == "no spread":
            return "Every seed of either gave the same value, so there is no spread to measure the difference against."
        if self.finding == "undecided":
            text = f"{self._plan}{self._alone}."
            return text[0].upper() + text[1:]
        return ""

    @property
    def _plan(self) -> str:
        if self.more_seeds == 0:
            return f"enough seeds to settle ±{self.margin:g} four times in five, but not here"
        seeds = "1 more seed" if self.more_seeds == 1 else f"{self.more_seeds} more seeds"
        return f"{seeds} per variant would settle ±{self.margin:g}"

    @property
    def _alone(self) -> str:
        """Explain an interval without 0 beside the word "undecided"."""
        if self.p is None or self.holm_p is None or self.p >= self.alpha:
            return ""
        return f" (p = {self.p:.3g} counts alone, {self.holm_p:.3g} after Holm's correction does not)"


def verdicts(
    comparisons: Sequence[Difference | Pairing], margin: float = MARGIN, alpha: float = ALPHA
) -> list[Verdict]:
    """Judge the comparisons of one table together.

    Both families of p-values, of the differences and of their equivalence, are corrected by Holm over the comparisons
    that have a test. Seeds that would settle a difference are planned at alpha over their number: enough, at the
    spreads seen, to find a true difference as large as the margin with a power of 0.8, and to show none as such.

    Args:
        comparisons: Welch's differences, or pairings to be judged by the paired test.
        margin: percentage points that count as no difference.

    Raises: ValueError if the margin is not above 0, or alpha not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}; 0.05 is usual")
    estimates = [comparison.estimate for comparison in comparisons]
    tested = [estimate for estimate in estimates if estimate is not None]
    corrected = iter(zip(holm([e.p for e in tested]), holm([tost_p(e, margin) for e in tested]), strict=True))
    found = []
    for comparison, estimate in zip(comparisons, estimates, strict=True):
        if estimate is None:
            single = isinstance(comparison, Difference) and min(comparison.n, comparison.n_baseline) == 1
            kind: Finding = "one seed" if single else "no spread"
            found.append(Verdict(kind, None, None, False, margin, None, len(tested), alpha))
            continue
        holm_p, equivalence_p = (float(value) for value in next(corrected))
        small = equivalence_p < alpha
        if holm_p < alpha:
            kind = "better" if estimate.mean > 0 else "worse"
        else:
            kind = "no difference" if small else "undecided"
        more = more_seeds(comparison, margin, alpha / len(tested)) if kind == "undecided" else None
        found.append(Verdict(kind, float(estimate.p), holm_p, small, margin, more, len(tested), alpha))
    return found


def more_seeds(
    comparison: Difference | Pairing, margin: float = MARGIN, alpha: float = ALPHA, power: float = POWER
) -> int:
    """Return how many seeds more, on both sides, settle a difference of the margin, at the spreads seen.

    Settled means: a true difference of the margin is found with this power, and if there is none, TOST shows with this
    power that it is smaller. 0 if the seeds at hand suffice.

    Raises: ValueError if the comparison has no test.
    """

    def enough(seeds: int) -> bool:
        estimate = comparison.with_more(seeds)
        if estimate is None:
            raise ValueError("without spread on a side, or with one seed, nothing can be planned; add seeds first")
        error = estimate.standard_error, estimate.freedom
        return min(detection_power(margin, *error, alpha), equivalence_power(margin, *error, alpha)) >= power

    return smallest(enough, first=0)
