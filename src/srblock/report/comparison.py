"""Runs summarized by variant, each against the first: the figures, and what they show in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from srblock.analysis.statistics import Difference, Summary, difference, signed, summarize, verdict
from srblock.experiments.records import Run


@dataclass(frozen=True)
class Row:
    """One variant in a comparison; accuracies are percent, of the epoch selected on validation unless named otherwise.

    Attributes:
        variant: as the notation prints it.
        baseline: the variant that the difference is against, the first of the comparison.
        seeds, values: every seed and its test top-1.
        test_top1, last_test_top1, validation_top1: over the seeds; `last_` is of the last epoch.
        difference: to the baseline; None for the baseline itself, and where no seed of it finished.
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


def comparison(runs: Sequence[Run], variants: Sequence[str] | None = None) -> list[Row]:
    """Summarize runs by variant, each against the first.

    Args:
        variants: their order, the baseline first; in the order of the runs if not given. A variant without a finished
            run has no row; if it is the baseline, the others have no difference.

    Raises: ValueError if the runs differ in data or recipe, or one is there twice: they could not be compared.
    """
    by_variant: dict[str, list[Run]] = {variant: [] for variant in variants or ()}
    for run in runs:
        by_variant.setdefault(str(run.variant), []).append(run)
    _check_comparable(runs)
    baseline = next(iter(by_variant), "")
    against = [run.test_top1 for run in by_variant.get(baseline, ())]
    return [_row(variant, baseline, against, found) for variant, found in by_variant.items() if found]


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Say of each difference what it amounts to."""
    return [
        f"{row.variant} against {row.baseline}: {verdict(row.difference)}."
        for row in rows
        if row.difference is not None
    ]


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
    if sum(interval(row) != "-" for row in rows) > 1:
        lines.append("Each interval stands for itself: among several comparisons a chance finding is likelier than 5%.")
    return lines


def legend(rows: Sequence[Row]) -> list[str]:
    """Say what the columns of a comparison mean, those only that have something in them."""
    if not rows:
        return []
    lines = ["Test top-1 in percent" + (", mean ± standard deviation over n seeds." if rows[0].n > 1 else ".")]
    if any(row.difference is not None for row in rows):
        lines[0] += f" The difference is to {rows[0].baseline}, in percentage points."
    if any(interval(row) != "-" for row in rows):
        lines[0] += " Its interval is Welch's, for unequal variances."
    if any(p_greater(row) != "-" for row in rows):
        lines[0] += " P(A > B) is the share of seed pairs in which the variant beats it, ties count half."
    return lines


def interval(row: Row) -> str:
    """Print a row's interval, or a dash where there is none."""
    if row.difference is None or row.difference.low is None or row.difference.high is None:
        return "-"
    return f"{signed(row.difference.low)} to {signed(row.difference.high)}"


def p_greater(row: Row) -> str:
    """Print a row's P(A > B); of one seed each it would be certainty from a single pair, so a dash."""
    if row.difference is None or row.difference.n == row.difference.n_baseline == 1:
        return "-"
    return f"{row.difference.p_greater:.2f}"


def _check_comparable(runs: Sequence[Run]) -> None:
    for name, values in (
        ("data", {run.result["data"]["fingerprint"] for run in runs}),
        ("recipe", {repr(sorted(run.result["recipe"].items())) for run in runs}),
    ):
        if len(values) > 1:
            raise ValueError(f"the runs differ in their {name} and cannot be compared; pass runs of one study only")
    seen = [(str(run.variant), run.seed) for run in runs]
    for variant, seed in seen:
        if seen.count((variant, seed)) > 1:
            raise ValueError(f"{variant} with seed {seed} is there twice; pass every run once")


def _row(variant: str, baseline: str, against: Sequence[float], runs: Sequence[Run]) -> Row:
    def figures(name: str) -> list[float]:
        return [float(run.result[name]) for run in runs]

    def typical(name: str) -> float | None:
        times = [float(run.result[name]) for run in runs if run.result.get(name) is not None]
        return median(times) if times else None

    values = figures("test_top1")
    first = runs[0].result
    return Row(
        variant=variant,
        baseline=baseline,
        seeds=tuple(run.seed for run in runs),
        values=tuple(values),
        test_top1=summarize(values),
        last_test_top1=summarize(figures("last_test_top1")),
        validation_top1=summarize(figures("validation_top1")),
        difference=None if variant == baseline or not against else difference(against, values),
        parameters=int(first["parameters"]),
        overhead_percent=float(first["overhead_percent"]),
        flops_per_image=first.get("flops_per_image"),
        train_ms_per_image=typical("train_ms_per_image"),
        eval_ms_per_image=typical("eval_ms_per_image"),
    )
