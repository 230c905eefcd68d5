"""The audit of the paper's tables on the terminal: every gain with its test, and what they support in sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from rich.console import Console

from srblock.paper.tables import METRICS
from srblock.report.formats import Sheet, sheet
from srblock.report.terminal import Column, print_lines, table_of
from srblock.report.units import p_equals, points, probability, reach, signed
from srblock.statistics.audit import CIFAR, AuditRow, against_best, audit, pool, selection
from srblock.statistics.power import ALPHA

TITLES = {
    "I": "Table I, CIFAR-100",
    "II": "Table II, CIFAR-100 with attention",
    "III": "Table III, ImageNet",
    "IV": "Table IV, Cityscapes",
    "V": "Table V, CIFAR-10",
}
HOLM_ALL: Column[AuditRow] = ("Holm\nall", lambda row: probability(row.holm_p))  # left out where the screen is narrow
COLUMNS: tuple[Column[AuditRow], ...] = (
    ("gain", lambda row: signed(row.gain.mean)),
    ("95% interval", lambda row: reach(row.gain.interval)),
    ("p", lambda row: probability(row.p)),
    ("Holm\ntable", lambda row: probability(row.holm_table_p)),
    HOLM_ALL,
    ("seeds\nneeded", lambda row: str(row.seeds_needed)),
    ("detec-\ntable", lambda row: points(row.detectable)),
)


FIRST: Column[AuditRow] = ("row + SR, M/P", lambda row: _label(row))


def print_audit(rows: Sequence[AuditRow], console: Console) -> None:
    """Print the paper's gains table by table, what the columns mean, and what the figures support.

    Args:
        rows: of `statistics.audit.audit`.
    """
    columns = COLUMNS if console.width >= 90 else tuple(column for column in COLUMNS if column is not HOLM_ALL)
    for table in dict.fromkeys(row.paper.table for row in rows):
        print_lines([f"\n{TITLES[table]}"], console)
        some = [row for row in rows if row.paper.table == table]
        console.print(table_of(some, FIRST, columns, lambda row: "bold" if row.p < ALPHA else ""))
    print_lines((*legend(rows), *findings(rows)), console)


def audit_sheets(rows: Sequence[AuditRow]) -> list[Sheet]:
    """Return the same tables for other programs."""
    by_table: dict[str, list[AuditRow]] = {}
    for row in rows:
        by_table.setdefault(row.paper.table, []).append(row)
    return [sheet(TITLES[name], some, FIRST, COLUMNS, list(map(_record, some))) for name, some in by_table.items()]


def _record(row: AuditRow) -> dict[str, Any]:
    low, high = row.gain.interval or (None, None)
    return {
        "table": row.paper.table,
        "row": row.paper.label,
        "baseline": row.baseline.label,
        "metric": row.paper.metric,
        "stage": row.paper.stage,
        "blocks": row.paper.blocks,
        "mean": row.paper.mean,
        "std": row.paper.std,
        "baseline_mean": row.baseline.mean,
        "baseline_std": row.baseline.std,
        "n": row.gain.n,
        "gain": row.gain.mean,
        "low": None if low is None else float(low),
        "high": None if high is None else float(high),
        "p": float(row.p),
        "holm_table_p": float(row.holm_table_p),
        "holm_p": float(row.holm_p),
        "seeds_needed": row.seeds_needed,
        "detectable": row.detectable,
    }


def legend(rows: Sequence[AuditRow]) -> list[str]:
    """Say what the columns mean and how the printed deviations were read."""
    reading = "n - 1" if rows[0].gain.ours.ddof else "n"
    return [
        f"Gain of the block over the same row without it, percentage points; Welch's test, n = 5 (ImageNet 4), printed "
        f"deviations read as divided by {reading}. Holm: p corrected over the table, and over all {len(rows)} rows. "
        "Seeds needed: per variant, to find a true gain of that size four times in five. Detectable: the smallest true "
        "gain that the paper's seeds find four times in five.",
        "",
    ]


def findings(rows: Sequence[AuditRow]) -> list[str]:
    """Say in sentences what the paper's figures support.

    Args:
        rows: of `statistics.audit.audit`, all of them.
    """
    ddof = rows[0].gain.ours.ddof
    cifar = [row for row in rows if row.paper.table in CIFAR]
    pooled = pool(cifar)
    chances = [selection(cifar, settings) for settings in (1, 6, 12)]
    best, base, apart = against_best([row for row in rows if row.paper.table == "III"])
    assert apart.p is not None
    return [
        f"Of {len(rows)} gains, {sum(row.gain.mean > 0 for row in rows)} are positive and {_significant(rows)} "
        f"significant at {ALPHA:g} each for itself ({_by_table(rows)}). Were the deviations divided by "
        f"{'n' if ddof else 'n - 1'}, it would be {_significant(audit(1 - ddof))}.",
        f"After Holm's correction: over each table {_names(rows, lambda row: row.holm_table_p)}; "
        f"over all rows {_names(rows, lambda row: row.holm_p)}.",
        f"Together the CIFAR gains are not zero: {pooled.positive} of {pooled.rows} are positive, and their mean is "
        f"{signed(pooled.mean)} ± {pooled.standard_error:.2f} weighted by inverse variance (plain "
        f"{signed(pooled.plain_mean)}). No row differs from the others beyond noise (Q = {pooled.q:.1f} with "
        f"{pooled.rows - 1} degrees of freedom, {p_equals(pooled.q_p)}).",
        "But each row has an M and P of its own, and how they were chosen is not said. If a block does nothing and the "
        "best setting is taken by its mean test accuracy, chance alone gives on CIFAR: "
        + ", ".join(f"{signed(chance.expected)} on average for the best of {chance.settings}" for chance in chances[1:])
        + f". The reported {signed(pooled.plain_mean)} or more would come by chance with "
        + ", ".join(f"{p_equals(chance.p)} (best of {chance.settings})" for chance in chances[1:])
        + f", {p_equals(chances[0].p)} (no choice).",
        f"ImageNet's best row, {best.paper.label}, has {signed(best.gain.mean)} over its own baseline; over the best "
        f"row without the block, {base.baseline.label}, it has {signed(apart.mean)} ({p_equals(apart.p)}; both are the "
        "best of several).",
        f"Resolution: half of the CIFAR rows could find only {median(row.detectable for row in cifar):.2f} or more; "
        f"their median gain is {median(row.gain.mean for row in cifar):.2f}.",
    ]


def _label(row: AuditRow) -> str:
    """Name a row in 16 characters: without "+ SR", which all have, and networks as elsewhere in Table II too."""
    return (
        f"{row.baseline.model.replace('ResNet', 'R')}{METRICS[row.paper.metric]}, {row.paper.stage}/{row.paper.blocks}"
    )


def _significant(rows: Sequence[AuditRow]) -> int:
    return sum(row.p < ALPHA for row in rows)


def _by_table(rows: Sequence[AuditRow]) -> str:
    tables: dict[str, list[AuditRow]] = {}
    for row in rows:
        tables.setdefault(row.paper.table, []).append(row)
    return ", ".join(f"{name} {_significant(some)} of {len(some)}" for name, some in tables.items())


def _names(rows: Sequence[AuditRow], p: Callable[[AuditRow], float]) -> str:
    """List the rows that stay significant, by the p-value given."""
    found = [f"{row.paper.table} {row.paper.label}" for row in rows if p(row) < ALPHA]
    return f"{len(found)} ({', '.join(found)})" if found else "none"
