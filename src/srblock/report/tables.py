"""Tables on the terminal and as CSV: the comparison, and those of `stages` and `overhead`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from srblock.block import parameter_count
from srblock.report import units
from srblock.report.answers import answers, cautions
from srblock.report.comparison import balances, corrected, findings, interval, legend, p_greater, pairings, remarks
from srblock.report.formats import Sheet, csv_text, sheet, write_formats
from srblock.report.terminal import Column, print_fitting, print_lines, table_of
from srblock.report.times import Times, time_columns, time_sentences
from srblock.report.units import points, probability, signed
from srblock.report.verdicts import words
from srblock.runs.records import Run
from srblock.statistics.classes import Balance, balanced_figures
from srblock.statistics.comparison import Row
from srblock.statistics.differences import Estimate
from srblock.training.files import write_bytes

if TYPE_CHECKING:
    from srblock.paper.overheads import OverheadRow
    from srblock.surgery import Stage

CSV_FIGURES = (
    "parameters",
    "overhead_percent",
    "flops_per_image",
    "train_ms_per_image",
    "eval_ms_per_image",
    "wall_s",
)
CSV_ENVIRONMENT = ("device", "threads", "torch", "commit")


def print_table(
    rows: Sequence[Row],
    console: Console,
    runs: Sequence[Run] = (),
    command: str = "",
    times: Times | None = None,
) -> None:
    """Print a comparison: as one table where it fits, as two (accuracy, cost) with fewer columns on narrow screens.

    Below it first the answer in plain words, then the figures behind it.

    Args:
        runs, command: as `answers.answers` takes them.
        times: measured in turns; without, none are printed.
    """
    costs = (*COST, *time_columns(times or {}))
    if rows:
        whole, *parts = (
            table_of(rows, VARIANT, columns)
            for columns in ((*accuracy(rows), *costs), accuracy(rows, narrow=True), costs)
        )
        print_fitting(whole, parts, console)
    said = [f"{found.variant} against {found.baseline}: {found.text}" for found in answers(rows, runs, command)]
    if said:
        print_lines((*said, *(f"Caution: {line}" for line in cautions(runs)), ""), console)
    below = *findings(rows), *pairings(rows), *time_sentences(rows, times or {}), *balances(rows), *remarks(rows)
    print_lines((*legend(rows), *below), console)


def write_csv(path: Path, runs: Sequence[Run]) -> None:
    """Write one line for every run, with full precision; what a run did not record stays empty.

    Raises: OSError if the file cannot be written; an older one stays whole.
    """
    write_lines(path, run_lines(runs, path.parent))


def run_lines(runs: Sequence[Run], folder: Path) -> list[dict[str, object]]:
    """Return what `write_csv` writes of runs; their folders are named as seen from `folder`."""
    return [_line(run, folder) for run in runs]


def _line(run: Run, folder: Path) -> dict[str, object]:
    parts = ("validation", run.validation), ("last_test", run.last_test), ("last_validation", run.last_validation)
    return {
        "variant": str(run.variant),
        "seed": run.seed,
        **{f"test_{key}": value for key, value in run.test.items()},
        **{f"test_{key}": value for key, value in balanced_figures(run).items()},
        "test_loss": run.test_loss,
        "best_epoch": run.best_epoch,
        **{f"{part}_{key}": value for part, figures in parts for key, value in figures.items()},
        **{name: getattr(run, name) for name in CSV_FIGURES},
        "data": run.config.data["name"],
        "run": Path(os.path.relpath(run.directory, folder)).as_posix(),
        **{name: run.environment.get(name) for name in CSV_ENVIRONMENT},
    }


def write_lines(path: Path, lines: Sequence[dict[str, object]]) -> None:
    """Write dicts as CSV; what one of them lacks stays empty.

    Raises: OSError if the file cannot be written; an older one stays whole.
    """
    write_bytes(path, csv_text(lines).encode())


def write_comparison(folder: Path, rows: Sequence[Row], times: Times | None = None) -> None:
    """Write comparison.csv, one line for every variant with its differences, tests and verdict; what there is not stays
    empty. Beside it comparison.md and comparison.tex, the tables as they are printed.

    Raises: OSError if a file cannot be written; an older one stays whole.
    """
    write_lines(folder / "comparison.csv", variant_lines(rows))
    if rows:
        write_formats(
            folder / "comparison",
            comparison_sheets(rows, times or {}),
            (*legend(rows), *pairings(rows), *time_sentences(rows, times or {}), *balances(rows), *remarks(rows)),
        )


def comparison_sheets(rows: Sequence[Row], times: Times) -> list[Sheet]:
    """Return the tables of a comparison: what came out, what it amounts to, and what it costs."""
    judged = [row for row in rows if row.verdict is not None]
    return [
        sheet("Accuracy", rows, VARIANT, accuracy(rows), variant_lines(rows)),
        *([sheet("Verdicts", judged, VARIANT, (VERDICT,))] if judged else []),
        sheet("Cost", rows, VARIANT, (*COST, *time_columns(times))),
    ]


def variant_lines(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return the lines of comparison.csv."""
    return [_tests(row) for row in rows]


def _tests(row: Row) -> dict[str, object]:
    welch, paired = row.difference, row.pairing
    return {
        "variant": row.variant,
        "baseline": row.baseline,
        "n": row.n,
        "n_baseline": None if welch is None else welch.n_baseline,
        "mean": row.mean,
        "std": row.std,
        "analysis": None if row.analysis is None else "paired t" if row.paired else "Welch's t",
        "difference": None if row.analysis is None else row.analysis.mean,
        **_interval("", row.estimate),
        "holm_p": row.holm_p,
        "p_greater": None if welch is None else welch.p_greater,
        "detectable": row.detectable,
        **_interval("welch_", None if welch is None else welch.estimate),
        "shared_seeds": None if paired is None else paired.n,
        "correlation": None if paired is None else paired.correlation,
        **_interval("paired_", None if paired is None else paired.estimate),
        "verdict": None if row.verdict is None else words(row.verdict),
        **({} if row.balance is None else _balance(row.balance)),
    }


def _balance(found: Balance) -> dict[str, object]:
    return {
        "balanced_accuracy": found.accuracy.mean,
        "balanced_accuracy_std": found.accuracy.std,
        "macro_f1": found.macro_f1.mean,
        "macro_f1_std": found.macro_f1.std,
    }


def _interval(prefix: str, estimate: Estimate | None) -> dict[str, object]:
    low, high = (None, None) if estimate is None else estimate.interval()
    found = {"low": low, "high": high, "p": None if estimate is None else estimate.p}
    return {f"{prefix}{name}": None if value is None else float(value) for name, value in found.items()}  # not NumPy's


VARIANT: Column[Row] = ("variant", lambda row: row.variant)
VERDICT: Column[Row] = ("verdict", lambda row: "-" if row.verdict is None else words(row.verdict))
N: Column[Row] = ("n", lambda row: str(row.n))
DIFFERENCE: Column[Row] = ("difference", lambda row: "-" if row.analysis is None else signed(row.analysis.mean))
INTERVAL: Column[Row] = ("95% interval", interval)
P: Column[Row] = ("p", lambda row: probability(row.p))
HOLM_P: Column[Row] = ("Holm p", lambda row: probability(row.holm_p))
P_GREATER: Column[Row] = ("P(A > B)", p_greater)
DETECTABLE: Column[Row] = ("detectable", lambda row: points(row.detectable))
COST: tuple[Column[Row], ...] = (
    ("parameters", lambda row: f"{row.parameters:,}"),
    ("overhead", lambda row: f"{row.overhead_percent:.2f}%"),
    ("FLOPs\nper image", lambda row: units.operations(row.flops_per_image)),
)


def mean(rows: Sequence[Row]) -> Column[Row]:
    """Return the column of the figure that is compared."""
    return f"test {rows[0].figure.label}", lambda row: units.mean_and_std(row.mean, row.std)


def others(rows: Sequence[Row]) -> tuple[Column[Row], ...]:
    """Return a column for each other figure of the task."""

    def cell(number: int) -> Callable[[Row], str]:
        return lambda row: units.mean_and_std(row.others[number][1].mean, row.others[number][1].std)

    return tuple((f"test {figure.label}", cell(number)) for number, (figure, _) in enumerate(rows[0].others))


def accuracy(rows: Sequence[Row], *, narrow: bool = False) -> tuple[Column[Row], ...]:
    """Choose the columns of accuracy; p is corrected where there are several comparisons, shown both ways if wide."""
    means = mean(rows), *others(rows)
    if narrow:
        return N, mean(rows), ("diff.", DIFFERENCE[1]), INTERVAL, HOLM_P if corrected(rows) else P, P_GREATER
    both = (P, HOLM_P) if corrected(rows) else (P,)
    return N, *means, DIFFERENCE, INTERVAL, *both, P_GREATER, DETECTABLE


STAGE: tuple[Column[Stage], ...] = (
    ("after", lambda stage: stage.name),
    ("stage", lambda stage: "-" if stage.number is None else f"M={stage.number}"),
    ("channels", lambda stage: f"{stage.channels:,}"),
    ("map", lambda stage: f"{stage.size[0]}x{stage.size[1]}"),
    ("SR(P=10, U=8) adds", lambda stage: f"{_added(stage):,}"),
)


def print_stages(stages: Sequence[Stage], console: Console) -> None:
    """Print where a block can go, and what one with P = 10 and U = 8 would add there (Eq. 1)."""
    console.print(table_of(stages, STAGE[0], STAGE[1:]))


def stages_sheet(stages: Sequence[Stage]) -> Sheet:
    """Return the same table for other programs."""
    records = [
        {
            "after": stage.name,
            "stage": stage.number,
            "channels": stage.channels,
            "height": stage.size[0],
            "width": stage.size[1],
            "parameters_p10_u8": _added(stage),
        }
        for stage in stages
    ]
    return sheet("", stages, STAGE[0], STAGE[1:], records)


def _added(stage: Stage) -> int:
    return parameter_count(stage.channels, stage.size, blocks=10, hidden=8)


OVERHEAD: tuple[Column[OverheadRow], ...] = (
    ("row", lambda row: row.row),
    ("table", lambda row: row.table),
    ("paper", lambda row: f"{row.printed}%"),
    ("Eq. (1)", lambda row: f"{row.formula_percent:.4f}%"),
    ("built", lambda row: f"{row.built_percent:.4f}%"),
    ("match", lambda row: "yes" if row.matches else "no"),
)


def print_overhead(rows: Sequence[OverheadRow], console: Console) -> None:
    """Print the paper's overheads beside Eq. (1) and the built networks, and below what is known of the misfits."""
    console.print(table_of(rows, OVERHEAD[0], OVERHEAD[1:], lambda row: "" if row.matches else "bold"))
    matching, *notes = overhead_notes(rows)
    print_lines([matching, *(f"  {note}" for note in notes)], console)


def overhead_notes(rows: Sequence[OverheadRow]) -> list[str]:
    """Say how many match, and what is known of each that does not."""
    matching = f"{sum(row.matches for row in rows)} of {len(rows)} match when rounded to the printed digits."
    return [matching, *(f"{row.table}, {row.row}: {row.note}" for row in rows if not row.matches and row.note)]


def overhead_sheet(rows: Sequence[OverheadRow]) -> Sheet:
    """Return the same table for other programs."""
    records = [
        {
            "table": row.table,
            "row": row.row,
            "printed_percent": row.printed,
            "formula_percent": row.formula_percent,
            "built_percent": row.built_percent,
            "matches": row.matches,
            "note": row.note,
        }
        for row in rows
    ]
    return sheet("", rows, OVERHEAD[0], OVERHEAD[1:], records)
