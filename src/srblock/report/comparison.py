"""Runs summarized by variant, each against the first: the figures, and what they show in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from srblock.runs.records import Run
from srblock.statistics.differences import Difference, Summary, difference, signed, summarize
from srblock.statistics.equivalence import MARGIN
from srblock.statistics.pairing import Pairing, pairing
from srblock.statistics.power import smallest_detectable
from srblock.statistics.verdicts import Verdict, verdicts
from srblock.training.recipe import Recipe


@dataclass(frozen=True)
class Row:
    """One variant in a comparison; accuracies are percent, of the epoch selected on validation unless named otherwise.

    Attributes:
        variant: as the notation prints it.
        baseline: the variant that the difference is against, the first of the comparison.
        seeds, values: every seed and its test top-1.
        test_top1, last_test_top1, validation_top1: over the seeds; `last_` is of the last epoch.
        difference: to the baseline; None for the baseline itself, and where no seed of it finished.
        pairing: the same seed by seed; None with fewer than two seeds in common.
        verdict: what the difference amounts to, judged together with all others of the comparison.
        overhead_percent: parameters of the SR blocks over those of the network without them.
        train_ms_per_image, eval_ms_per_image: medians over the seeds, None where no run recorded them.
    """

    variant: str
    baseline: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    test_top1: Summary
    last_test_top1: Summary
    validation_top1: Summary
    difference: Difference | None
    pairing: Pairing | None
    verdict: Verdict | None
    parameters: int
    overhead_percent: float
    flops_per_image: int | None
    train_ms_per_image: float | None
    eval_ms_per_image: float | None

    @property
    def n(self) -> int:
        """How many seeds finished."""
        return self.test_top1.n

    @property
    def mean(self) -> float:
        """Mean test top-1 over the seeds."""
        return self.test_top1.mean

    @property
    def std(self) -> float | None:
        """Standard deviation of the test top-1 over the seeds (ddof = 1); None for one seed."""
        return self.test_top1.std

    @property
    def p(self) -> float | None:
        """Welch's two-sided p-value, for this comparison alone; None without a test."""
        return None if self.verdict is None else self.verdict.p

    @property
    def holm_p(self) -> float | None:
        """The p-value after Holm's correction over the comparison; None without a test."""
        return None if self.verdict is None else self.verdict.holm_p

    @property
    def detectable(self) -> float | None:
        """Smallest true difference that these seeds find with power 0.8; None without a test.

        At 0.05 over the number of comparisons, as Holm's correction asks of the first finding.
        """
        found, verdict = self.difference, self.verdict
        if found is None or verdict is None or found.estimate is None:
            return None
        assert found.baseline.std is not None
        assert found.ours.std is not None
        alpha = verdict.alpha / verdict.comparisons
        return smallest_detectable(found.baseline.std, found.ours.std, found.n_baseline, found.n, alpha=alpha)


def comparison(runs: Sequence[Run], variants: Sequence[str] | None = None, *, margin: float = MARGIN) -> list[Row]:
    """Summarize runs by variant, each against the first.

    Args:
        variants: their order, the baseline first; in the order of the runs if not given. A variant without a finished
            run has no row; if it is the baseline, the others have no difference.
        margin: percentage points that count as no difference.

    Raises: ValueError if the runs differ in data or recipe, or one is there twice: they could not be compared; or if
        the margin is not above 0.
    """
    by_variant: dict[str, list[Run]] = {variant: [] for variant in variants or ()}
    for run in runs:
        by_variant.setdefault(str(run.variant), []).append(run)
    _check_comparable(runs)
    baseline = next(iter(by_variant), "")
    rows = [_row(variant, baseline, by_variant[baseline], found) for variant, found in by_variant.items() if found]
    judged = iter(verdicts([row.difference for row in rows if row.difference is not None], margin))
    return [row if row.difference is None else replace(row, verdict=next(judged)) for row in rows]


def findings(rows: Sequence[Row]) -> list[str]:
    """Say of each difference what it amounts to, and what was to be seen with these seeds."""
    lines = []
    for row in rows:
        if row.verdict is None:
            continue
        line = f"{row.variant} against {row.baseline}: {row.verdict.words}."
        if row.detectable is not None:
            line += f" Detectable with these seeds: {row.detectable:.2f}."
        lines.append(line)
    return lines


def pairings(rows: Sequence[Row]) -> list[str]:
    """Say of each comparison whether runs of the same seed go together, and what the paired test would give."""
    paired = [(row, row.pairing) for row in rows if row.pairing is not None and row.pairing.correlation is not None]
    lines = [f"{row.variant} and {row.baseline}, {_pairing(found)}" for row, found in paired]
    if paired and not any(found.helps for _, found in paired):
        lines.append("That runs of the same seed go together is not shown, so pairing gains nothing.")
    return lines


def _pairing(found: Pairing) -> str:
    """Print a pairing, without the names of its sides."""
    text = f"{found.n} shared seeds: correlation {signed(found.correlation or 0)}"
    if found.low is not None and found.high is not None:
        text += f" ({signed(found.low)} to {signed(found.high)})"
    if found.estimate is None:
        return f"{text}, every seed differs by the same."
    low, high = found.estimate.interval()
    text += f", paired interval of the difference {signed(low)} to {signed(high)}, {p_equals(found.estimate.p)}."
    return f"{text} Seeds go together: the paired test is the sharper one." if found.helps else text


def remarks(rows: Sequence[Row]) -> list[str]:
    """Say what a reader of a comparison must know and the figures do not show."""
    if not rows:
        return ["No run finished: there is nothing to compare."]
    lines = []
    if rows[0].variant != rows[0].baseline:
        lines.append(f"No seed of {rows[0].baseline} finished: there is nothing to compare with.")
    if len({row.n for row in rows}) > 1:
        counts = ", ".join(f"{row.variant} {row.n}" for row in rows)
        lines.append(f"Not all have the same number of finished seeds: {counts}.")
    if corrected(rows):
        lines.append(
            "Each interval stands for itself: among several comparisons a chance finding is likelier than 5%. "
            "Verdicts follow the p-values after Holm's correction, which counts them all."
        )
    return lines


def legend(rows: Sequence[Row]) -> list[str]:
    """Say what the columns of a comparison mean, those only that have something in them."""
    if not rows:
        return []
    lines = ["Test top-1 in percent" + (", mean ± standard deviation over n seeds." if rows[0].n > 1 else ".")]
    if any(row.difference is not None for row in rows):
        lines[0] += f" The difference is to {rows[0].baseline}, in percentage points."
    if any(interval(row) != "-" for row in rows):
        lines[0] += " Its interval and p are Welch's, for unequal variances."
    if any(p_greater(row) != "-" for row in rows):
        lines[0] += " P(A > B) is the share of seed pairs in which the variant beats it, ties count half."
    if any(row.detectable is not None for row in rows):
        lines[0] += " A true difference as large as the detectable one is found four times in five"
        lines[0] += ", after Holm's correction." if corrected(rows) else "."
    return lines


def corrected(rows: Sequence[Row]) -> bool:
    """Tell whether more than one comparison was tested, so that Holm's correction changes something."""
    return sum(row.p is not None for row in rows) > 1


def interval(row: Row) -> str:
    """Print a row's interval, or a dash where there is none."""
    if row.difference is None or row.difference.low is None or row.difference.high is None:
        return "-"
    return f"{signed(row.difference.low)} to {signed(row.difference.high)}"


def p_greater(row: Row) -> str:
    """Print a row's P(A > B); of one seed each it would be certainty from a single pair, so a dash."""
    found = row.difference
    if found is None or found.p_greater is None or found.n == found.n_baseline == 1:
        return "-"
    return f"{found.p_greater:.2f}"


def probability(p: float | None) -> str:
    """Print a p-value with the digits that count; a dash where there is none."""
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.4f}" if p < 0.1 else f"{p:.3f}"


def p_equals(p: float) -> str:
    """Print a p-value with its letter: p = 0.0123, p < 0.001."""
    return f"p = {probability(p)}".replace("= <", "< ")


def points(value: float | None) -> str:
    """Print percentage points without a sign; a dash where there are none."""
    return "-" if value is None else f"{value:.2f}"


def _check_comparable(runs: Sequence[Run]) -> None:
    for name, values in (
        ("data", {run.result["data"]["fingerprint"] for run in runs}),
        ("recipe", {Recipe.from_dict(run.result["recipe"]) for run in runs}),
    ):
        if len(values) > 1:
            raise ValueError(f"the runs differ in their {name} and cannot be compared; pass runs of one study only")
    seen = [(str(run.variant), run.seed) for run in runs]
    for variant, seed in seen:
        if seen.count((variant, seed)) > 1:
            raise ValueError(f"{variant} with seed {seed} is there twice; pass every run once")


def _row(variant: str, baseline: str, against: Sequence[Run], runs: Sequence[Run]) -> Row:
    def figures(name: str) -> list[float]:
        return [float(run.result[name]) for run in runs]

    def typical(name: str) -> float | None:
        times = [float(run.result[name]) for run in runs if run.result.get(name) is not None]
        return median(times) if times else None

    values = figures("test_top1")
    first = runs[0].result
    compared = variant != baseline and len(against) > 0
    return Row(
        variant=variant,
        baseline=baseline,
        seeds=tuple(run.seed for run in runs),
        values=tuple(values),
        test_top1=summarize(values),
        last_test_top1=summarize(figures("last_test_top1")),
        validation_top1=summarize(figures("validation_top1")),
        difference=difference([run.test_top1 for run in against], values) if compared else None,
        pairing=pairing(_by_seed(against), _by_seed(runs)) if compared else None,
        verdict=None,
        parameters=int(first["parameters"]),
        overhead_percent=float(first["overhead_percent"]),
        flops_per_image=first.get("flops_per_image"),
        train_ms_per_image=typical("train_ms_per_image"),
        eval_ms_per_image=typical("eval_ms_per_image"),
    )


def _by_seed(runs: Sequence[Run]) -> dict[int, float]:
    return {run.seed: run.test_top1 for run in runs}
