"""Runs summarized by variant, each against its baseline, all judged together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from srblock.runs.records import Run, check_of_one_make
from srblock.statistics.classes import Balance, balance
from srblock.statistics.differences import Difference, Estimate, Summary, difference, summarize
from srblock.statistics.equivalence import MARGIN
from srblock.statistics.paired_images import mean_difference_interval
from srblock.statistics.pairing import Comparison, Pairing, pairing
from srblock.statistics.power import smallest_detectable
from srblock.statistics.segmentation import commonest
from srblock.statistics.verdicts import Limits, Verdict, resolution, verdicts
from srblock.training.task import Figure


@dataclass(frozen=True)
class Row:
    """One variant in a comparison; figures are percent, of the epoch selected on validation unless named otherwise.

    Attributes:
        variant: as the notation prints it.
        baseline: the variant that the difference is against.
        figure: what is compared.
        seeds, values: every seed and its figure on the test set.
        held_out: whether images were held out to select the epoch; if not, the last counts.
        test, last_test: the figure over the seeds; `last_test` is of the last epoch.
        comparison: with the baseline; None for the baseline itself, and where no seed of it finished.
        verdict: what the difference amounts to, judged together with all others of the comparison.
        overhead_percent: parameters of the SR blocks over those of the network without them.
        train_ms_per_image, eval_ms_per_image, wall_s: medians over the seeds, None where no run recorded them.
        others: the task's other figures on the test set, which decide nothing.
        commonest: of a segmentation, see `segmentation.commonest`.
        balance: of test classes of very different sizes, see `classes.balance`.
        missing: seeds that were asked for, or that other variants have, without a finished run of this one.
        absent: variants that were to be compared and of which no run finished; the same in every row.
        over_images: 95% interval of the difference over the test images, see `paired_images.mean_difference_interval`;
            None without a comparison and where no answers were recorded.
    """

    variant: str
    baseline: str
    figure: Figure
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    held_out: bool
    test: Summary
    last_test: Summary
    comparison: Comparison | None
    verdict: Verdict | None
    parameters: int
    overhead_percent: float
    flops_per_image: int | None
    train_ms_per_image: float | None
    eval_ms_per_image: float | None
    wall_s: float | None
    others: tuple[tuple[Figure, Summary], ...] = ()
    commonest: tuple[str, float] | None = None
    balance: Balance | None = None
    missing: tuple[int, ...] = ()
    absent: tuple[str, ...] = ()
    over_images: tuple[float, float] | None = None

    @property
    def n(self) -> int:
        """How many seeds finished."""
        return self.test.n

    @property
    def mean(self) -> float:
        """Mean over the seeds, on the test set."""
        return self.test.mean

    @property
    def std(self) -> float | None:
        """Standard deviation over the seeds, on the test set (ddof = 1); None for one seed."""
        return self.test.std

    @property
    def difference(self) -> Difference | None:
        """The difference to the baseline by Welch's test."""
        return None if self.comparison is None else self.comparison.difference

    @property
    def pairing(self) -> Pairing | None:
        """The same seed by seed; None with fewer than two seeds in common."""
        return None if self.comparison is None else self.comparison.pairing

    @property
    def analysis(self) -> Difference | Pairing | None:
        """The difference by the test that counts; None without a comparison."""
        return None if self.comparison is None else self.comparison.counts

    @property
    def paired(self) -> bool:
        """Whether the analysis that counts is the paired one."""
        return isinstance(self.analysis, Pairing)

    @property
    def estimate(self) -> Estimate | None:
        """The difference that counts, with its error; None without a test."""
        return None if self.analysis is None else self.analysis.estimate

    @property
    def p(self) -> float | None:
        """The two-sided p-value that counts, for this comparison alone; None without a test."""
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
        return self.detectable_with(0)

    def detectable_with(self, seeds: int) -> float | None:
        """Return the same if both sides had so many seeds more, at the spreads seen; None without a test."""
        if self.comparison is None or self.estimate is None or self.verdict is None:
            return None
        estimate = self.comparison.with_more(seeds) if seeds else self.estimate
        if estimate is None:
            return None
        alpha = self.verdict.alpha / self.verdict.comparisons
        return smallest_detectable(estimate.standard_error, estimate.freedom, alpha=alpha)


def comparison(
    runs: Sequence[Run],
    variants: Sequence[str] | None = None,
    *,
    seeds: Sequence[int] = (),
    margin: float = MARGIN,
) -> list[Row]:
    """Summarize runs by variant, each against the first.

    Args:
        variants: their order, the baseline first; in the order of the runs if not given. A variant without a finished
            run has no row, but every row names it (`absent`); if it is the baseline, the others have no difference.
        seeds: that were asked for; those that have no run are `missing`.
        margin: percentage points that count as no difference.

    Raises: ValueError as `comparisons`.
    """
    order = list(dict.fromkeys([*(variants or ()), *(str(run.variant) for run in runs)]))
    return comparisons(runs, [(variant, order[0]) for variant in order], seeds=seeds, margin=margin)


def comparisons(
    runs: Sequence[Run],
    pairs: Sequence[tuple[str, str]],
    *,
    seeds: Sequence[int] = (),
    margin: float = MARGIN,
    keys: Sequence[str] | None = None,
) -> list[Row]:
    """Summarize runs by variant, each against a baseline of its own, all judged together.

    Args:
        pairs: variants in their order, each with its baseline, which may be itself. Variants
            without a run have no row (see `Row.absent`), and runs of other variants no part.
        seeds: that were asked for; those that have no run are `missing`.
        margin: percentage points that count as no difference.
        keys: of the figures, such as "miou" and "macc": all pairs by the first, then all by the next; the task's first
            alone if not given.

    Raises: ValueError if the runs differ in data, recipe, figure, starting weights, numerics or the code of a variant,
        or one is there twice: they could not be compared; if they have no figure of such a key; or if the margin is
        not above 0.
    """
    _check_comparable(runs)
    by_variant: dict[str, list[Run]] = {variant: [] for pair in pairs for variant in pair}
    for run in runs:
        if str(run.variant) in by_variant:
            by_variant[str(run.variant)].append(run)
    asked = {*seeds, *(run.seed for some in by_variant.values() for run in some)}
    absent = tuple(variant for variant, some in by_variant.items() if not some)
    rows = [
        replace(_row(variant, baseline, figure, by_variant[baseline], by_variant[variant], asked), absent=absent)
        for figure in _figures(runs, keys)
        for variant, baseline in pairs
        if by_variant[variant]
    ]
    limits = [_limits(row, by_variant[row.baseline]) for row in rows if row.comparison is not None]
    judged = iter(verdicts([row.comparison for row in rows if row.comparison is not None], margin, limits=limits))
    return [row if row.comparison is None else replace(row, verdict=next(judged)) for row in rows]


def _check_comparable(runs: Sequence[Run]) -> None:
    for name, values in (
        ("data", {run.config.data["fingerprint"] for run in runs}),
        ("recipe", {run.config.recipe for run in runs}),
        ("figure", {run.figure for run in runs}),
        ("starting weights", {run.config.start for run in runs}),
        ("numerics", {run.config.numerics for run in runs}),
    ):
        if len(values) > 1:
            raise ValueError(f"the runs differ in their {name} and cannot be compared; pass runs of one study only")
    check_of_one_make([run.config for run in runs])
    seen = [(str(run.variant), run.seed) for run in runs]
    for variant, seed in seen:
        if seen.count((variant, seed)) > 1:
            raise ValueError(f"{variant} with seed {seed} is there twice; pass every run once")


def _figures(runs: Sequence[Run], keys: Sequence[str] | None) -> list[Figure]:
    if not runs:
        return []
    known = {figure.key: figure for figure in runs[0].config.figures}
    if missing := [key for key in keys or () if key not in known]:
        raise ValueError(f"these runs have the figures {', '.join(known)}, not {', '.join(missing)}")
    return [runs[0].figure] if keys is None else [known[key] for key in keys]


def _row(
    variant: str, baseline: str, figure: Figure, against: Sequence[Run], runs: Sequence[Run], asked: set[int]
) -> Row:
    first, seeds = runs[0], _by_seed(runs, figure)
    values, others = list(seeds.values()), _by_seed(against, figure)
    compared = variant != baseline and len(against) > 0
    compares = Comparison(difference(list(others.values()), values), pairing(others, seeds)) if compared else None
    return Row(
        variant=variant,
        baseline=baseline,
        figure=figure,
        seeds=tuple(seeds),
        values=tuple(values),
        held_out=first.validation_score is not None,
        test=summarize(values),
        last_test=summarize([run.last_test[figure.key] for run in runs]),
        comparison=compares,
        verdict=None,
        parameters=first.parameters,
        overhead_percent=first.overhead_percent,
        flops_per_image=first.flops_per_image,
        train_ms_per_image=_median([run.train_ms_per_image for run in runs]),
        eval_ms_per_image=_median([run.eval_ms_per_image for run in runs]),
        wall_s=_median([run.wall_s for run in runs]),
        others=tuple(
            (figure, summarize([run.test[figure.key] for run in runs])) for figure in first.config.figures[1:]
        ),
        commonest=commonest(first),
        balance=balance(runs),
        missing=tuple(sorted(asked - seeds.keys())),
        over_images=None if compares is None else _over_images(compares, against, runs),
    )


def _over_images(found: Comparison, against: Sequence[Run], runs: Sequence[Run]) -> tuple[float, float] | None:
    """Return the interval over the test images, of the seeds that count."""
    if isinstance(found.counts, Pairing):
        shared = {run.seed for run in against} & {run.seed for run in runs}
        against, runs = ([run for run in side if run.seed in shared] for side in (against, runs))
    right = [
        [run.answers.said == run.answers.true for run in side if run.answers is not None] for side in (against, runs)
    ]
    if [len(side) for side in right] != [len(against), len(runs)]:
        return None
    return mean_difference_interval(*right)


def _limits(row: Row, against: Sequence[Run]) -> Limits:
    """Say what the test images can show of this comparison, and what a seed more of both variants costs."""
    test_images = int(against[0].config.data["test"])
    times = row.wall_s, _median([run.wall_s for run in against])
    return Limits(
        test_images,
        resolution((row.mean + summarize(list(_by_seed(against, row.figure).values())).mean) / 2, test_images)
        if row.figure.per_image
        else 0.0,
        None if times[0] is None or times[1] is None else times[0] + times[1],
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _by_seed(runs: Sequence[Run], figure: Figure) -> dict[int, float]:
    return {run.seed: run.test[figure.key] for run in runs}
