"""What the paper's own printed means and deviations support, row by row and together.

Every SR row of Tables I to V stands against the row of its table that lacks only the block. n is 5, on ImageNet 4. The
paper does not say whether its deviations were computed with n - 1 or n: both readings are an option (`ddof`), and n - 1
is the kinder one. Printed figures have no seeds, so the test is Welch's (see `pairing`). How M and P of each row were
chosen is not said either, so `selection` works out what choosing the best of several settings on the test set would
have given a block that does nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, ndtri

from srblock.paper.tables import ROWS, PaperRow, base_of
from srblock.statistics.differences import Difference, Summary, difference_of_summaries, welch
from srblock.statistics.multiple import holm
from srblock.statistics.power import seeds_needed, smallest_detectable

CIFAR = ("I", "II", "V")
SETTINGS = 12  # M in 3 and 4, P in 2, 4, ..., 12: what the paper's CIFAR rows draw from
REPEATS = 50_000  # of the simulation


@dataclass(frozen=True)
class AuditRow:
    """One SR row against its baseline; accuracies in percent, gains in percentage points.

    Attributes:
        paper, baseline: the two rows as printed.
        gain: their difference, by Welch.
        p: of the gain, alone.
        holm_table_p, holm_p: corrected over the row's own table, and over all rows of the audit.
        seeds_needed: per variant, to find a true gain of this size with power 0.8.
        detectable: the smallest true gain that these seeds find with power 0.8.
    """

    paper: PaperRow
    baseline: PaperRow
    gain: Difference
    p: float
    holm_table_p: float
    holm_p: float
    seeds_needed: int
    detectable: float


@dataclass(frozen=True)
class Pooled:
    """Several gains as one.

    Attributes:
        rows, positive: how many gains, how many above 0.
        mean, standard_error: weighted by inverse variance, as if one true gain were behind all.
        plain_mean: every row weighs the same.
        q: Cochran's: about rows - 1 if rows differ by no more than noise.
        q_p: the probability of that much or more if they do not.
    """

    rows: int
    positive: int
    mean: float
    standard_error: float
    plain_mean: float
    q: float
    q_p: float


@dataclass(frozen=True)
class Selection:
    """What choosing the best of several settings by its mean test accuracy gives if the block does nothing.

    Attributes:
        settings: how many independent settings each row was the best of.
        expected: mean gain over the rows.
        p: probability of the reported mean gain or more.
    """

    settings: int
    expected: float
    p: float


def audit(ddof: int = 1) -> list[AuditRow]:
    """Test every gain that the paper prints.

    Args:
        ddof: how the printed deviations are read: 1 for n - 1, 0 for n (see `Summary`).

    Raises: ValueError if ddof is neither.
    """
    pairs = [(row, base) for row in ROWS if (base := base_of(row)) is not None]
    gains = [difference_of_summaries(printed(base, ddof), printed(row, ddof)) for row, base in pairs]
    tables = [row.table for row, _ in pairs]
    ps = np.array([gain.p for gain in gains])
    over_table = np.empty_like(ps)
    for table in set(tables):
        members = np.array([name == table for name in tables])
        over_table[members] = holm(ps[members])
    found = []
    for (row, base), gain, p, table_p, all_p in zip(pairs, gains, ps, over_table, holm(ps), strict=True):
        std_baseline, std = gain.baseline.sample_std, gain.ours.sample_std
        assert std_baseline is not None
        assert std is not None
        seeds = seeds_needed(round(gain.mean, 2), std_baseline, std)
        detectable = smallest_detectable(*welch(std_baseline, gain.n_baseline, std, gain.n))
        found.append(AuditRow(row, base, gain, float(p), float(table_p), float(all_p), seeds, detectable))
    return found


def pool(rows: Sequence[AuditRow]) -> Pooled:
    """Pool the gains of rows that share no run, as those of CIFAR do not."""
    means = np.array([row.gain.mean for row in rows])
    weights = np.array([math.hypot(*_errors(row)) ** -2 for row in rows])
    mean = float((weights * means).sum() / weights.sum())
    q = float((weights * (means - mean) ** 2).sum())
    return Pooled(
        rows=len(rows),
        positive=int((means > 0).sum()),
        mean=mean,
        standard_error=float(weights.sum() ** -0.5),
        plain_mean=float(means.mean()),
        q=q,
        q_p=float(chdtrc(len(rows) - 1, q)),
    )


def selection(rows: Sequence[AuditRow], settings: int = SETTINGS) -> Selection:
    """Simulate the rows' mean gain if each is the best of several settings, and the block does nothing.

    Every setting's mean over the seeds is normal around the baseline's true mean with the row's deviation; the largest
    of k is drawn at once, as the normal quantile of a uniform number's k-th root. The draws are the same every time.

    Raises: ValueError for fewer than one setting.
    """
    if settings < 1:
        raise ValueError(f"a row is the best of one setting or more, got {settings}")
    random = np.random.default_rng(0)
    base_errors, errors = np.array([_errors(row) for row in rows]).T
    best = errors * ndtri(random.uniform(size=(REPEATS, len(rows))) ** (1 / settings))
    base = base_errors * random.normal(size=(REPEATS, len(rows)))
    reported = np.mean([row.gain.mean for row in rows])
    return Selection(settings, float(best.mean()), float(((best - base).mean(1) >= reported).mean()))


def against_best(rows: Sequence[AuditRow]) -> tuple[AuditRow, AuditRow, Difference]:
    """Set the best SR row against the best baseline of the same rows: the two, and their difference.

    Both are the best of several, so the p-value is for orientation only.
    """
    best = max(rows, key=lambda row: row.paper.mean)
    base = max(rows, key=lambda row: row.baseline.mean)
    return best, base, difference_of_summaries(base.gain.baseline, best.gain.ours)


def printed(row: PaperRow, ddof: int = 1) -> Summary:
    """Return what the paper prints of a row; ddof as in `audit`."""
    return Summary(row.seeds, row.mean, row.std, ddof)


def _errors(row: AuditRow) -> tuple[float, float]:
    """Return the standard errors of the two means, the baseline's first."""
    base, ours = row.gain.baseline, row.gain.ours
    assert base.sample_std is not None
    assert ours.sample_std is not None
    return base.sample_std / math.sqrt(base.n), ours.sample_std / math.sqrt(ours.n)
