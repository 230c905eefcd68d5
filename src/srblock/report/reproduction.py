"""A table of the paper beside our own runs: both figures, both gains, and what ours amount to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from srblock.paper.select import AS_IT_IS, Unsaid, variant_of
from srblock.paper.tables import PaperRow, base_of
from srblock.report import units
from srblock.report.tables import empty_table
from srblock.runs.records import Run
from srblock.statistics.audit import printed
from srblock.statistics.differences import (
    Difference,
    Summary,
    difference,
    difference_of_summaries,
    signed,
    summarize,
)
from srblock.statistics.equivalence import MARGIN
from srblock.statistics.verdicts import Verdict, verdicts
from srblock.training.files import write_bytes
from srblock.training.recipe import RECIPES, Recipe


@dataclass(frozen=True)
class Line:
    """One row of the paper and what became of it here; accuracies are percent, differences percentage points.

    Attributes:
        paper: the row.
        printed: the gain that the paper's figures show over their own baseline; None for a baseline.
        ours: over our finished seeds, None without any.
        difference, verdict: ours to our own baseline; None for a baseline and where either has no run.
    """

    paper: PaperRow
    printed: Difference | None
    ours: Summary | None
    difference: Difference | None
    verdict: Verdict | None


def reproduction(
    rows: Sequence[PaperRow], runs: Sequence[Run], *, unsaid: Unsaid = AS_IT_IS, margin: float = MARGIN
) -> list[Line]:
    """Set the paper's rows beside runs; all differences are judged together.

    Args:
        rows: of one table, baselines among them (`paper.select`).
        runs: of one study.
        unsaid: what was chosen for the runs of what the paper leaves unsaid.
        margin: percentage points that count as no difference.
    """
    found = {row: _values(row, runs, unsaid) for row in rows}
    bases = {row: base_of(row) for row in rows}
    differences = {
        row: difference(found[base], found[row])
        for row, base in bases.items()
        if base is not None and found.get(base) and found[row]
    }
    judged = dict(zip(differences, verdicts(list(differences.values()), margin), strict=True))
    return [
        Line(
            paper=row,
            printed=None if base is None else difference_of_summaries(printed(base), printed(row)),
            ours=summarize(found[row]) if found[row] else None,
            difference=differences.get(row),
            verdict=judged.get(row),
        )
        for row, base in bases.items()
    ]


def findings(lines: Sequence[Line]) -> list[str]:
    """Say of each row with the block what our runs amount to, and how the paper's gain lies to them."""
    return [
        f"{line.paper.label}: {line.verdict.words}.{_agreement(line)}" for line in lines if line.verdict is not None
    ]


def size_control(lines: Sequence[Line]) -> str | None:
    """Compare R50 with R34, both plain: more parameters, not more accuracy, as the paper's own control has it.

    None where the table lacks one of them.
    """
    plain = {line.paper.model: line for line in lines if line.paper.model in ("R34", "R50")}
    if len(plain) < 2:
        return None
    small, large = plain["R34"], plain["R50"]
    text = f"Size control, R50 against R34 without block: paper {signed(large.paper.mean - small.paper.mean)}"
    if small.ours is None or large.ours is None:
        return f"{text}; ours not run."
    ours = difference_of_summaries(small.ours, large.ours)
    reach = "" if ours.low is None or ours.high is None else f" ({signed(ours.low)} to {signed(ours.high)})"
    return f"{text}, ours {signed(ours.mean)}{reach}."


def remarks(lines: Sequence[Line], recipe: Recipe, data: str) -> list[str]:
    """Say in what our runs are not the paper's."""
    said = []
    row = lines[0].paper
    if data != row.data:
        said.append(f"The paper's table is of {row.data}; these runs are of {data}: only the kind of answer compares.")
    full = RECIPES.get(row.data)
    if full is not None and recipe.epochs != full.epochs:
        said.append(f"Epochs: {recipe.epochs} here, {full.epochs} in the paper's recipe.")
    few = [line.ours.n for line in lines if line.ours is not None]
    if few and min(few) < row.seeds:
        said.append(f"The paper has {row.seeds} seeds a row, these runs have {min(few)} or more.")
    missing = [line.paper.label for line in lines if line.ours is None]
    if missing:
        said.append(f"No run finished of: {', '.join(missing)}.")
    return said


def print_reproduction(lines: Sequence[Line], recipe: Recipe, data: str, console: Console) -> None:
    """Print the table, in two on narrow screens, then what it amounts to."""
    one = _table(lines, (*FIGURES, *GAINS))
    wide = console.measure(one, options=console.options.update(max_width=1000)).maximum <= console.width
    for table in [one] if wide else [_table(lines, FIGURES), _table(lines, GAINS)]:
        console.print(table)
    for text in _sentences(lines, recipe, data):
        console.print(text, markup=False, highlight=False)


def write_markdown(path: Path, lines: Sequence[Line], recipe: Recipe, data: str) -> None:
    """Write the table as Markdown.

    Raises: OSError if the file cannot be written; an older one stays whole.
    """
    columns = (*FIGURES, *GAINS, *VERDICT)
    text = [
        "| row | " + " | ".join(name.replace("\n", " ") for name, _ in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        *(f"| {line.paper.label} | " + " | ".join(cell(line) for _, cell in columns) + " |" for line in lines),
        "",
        *(f"- {sentence}" for sentence in _sentences(lines, recipe, data)),
    ]
    write_bytes(path, ("\n".join(text) + "\n").encode())


def _sentences(lines: Sequence[Line], recipe: Recipe, data: str) -> list[str]:
    control = size_control(lines)
    legend = (
        "Test top-1 in percent, mean ± standard deviation over seeds (the paper's: over "
        f"{lines[0].paper.seeds}); gain and difference to the row without the block, in percentage points, "
        "intervals by Welch; verdicts with Holm's correction over the rows here."
    )
    return [legend, *findings(lines), *([control] if control else []), *remarks(lines, recipe, data)]


def _agreement(line: Line) -> str:
    """Say whether the paper's gain is one of those that our interval allows."""
    ours, printed = line.difference, line.printed
    if ours is None or printed is None or ours.low is None or ours.high is None:
        return ""
    within = ours.low <= printed.mean <= ours.high
    where = "within" if within else "outside of"
    return f" The paper's {signed(printed.mean)} lies {where} our interval, {signed(ours.low)} to {signed(ours.high)}."


def _values(row: PaperRow, runs: Sequence[Run], unsaid: Unsaid) -> list[float]:
    variant = variant_of(row, unsaid)
    return [run.test_top1 for run in runs if run.variant == variant]


def _ours(line: Line) -> str:
    return "-" if line.ours is None else units.mean_and_std(line.ours.mean, line.ours.std)


def _reach(found: Difference | None) -> str:
    if found is None or found.low is None or found.high is None:
        return "-"
    return f"{signed(found.low)} to {signed(found.high)}"


def _holm_p(line: Line) -> str:
    return "-" if line.verdict is None or line.verdict.holm_p is None else f"{line.verdict.holm_p:.3f}"


Column = tuple[str, Callable[[Line], str]]
FIGURES: tuple[Column, ...] = (
    ("paper", lambda line: units.mean_and_std(line.paper.mean, line.paper.std)),
    ("ours", _ours),
    ("n", lambda line: "-" if line.ours is None else str(line.ours.n)),
)
GAINS: tuple[Column, ...] = (
    ("paper's\ngain", lambda line: "-" if line.printed is None else signed(line.printed.mean)),
    ("its 95%\ninterval", lambda line: _reach(line.printed)),
    ("our\ndifference", lambda line: "-" if line.difference is None else signed(line.difference.mean)),
    ("our 95%\ninterval", lambda line: _reach(line.difference)),
)
VERDICT: tuple[Column, ...] = (
    ("Holm p", _holm_p),
    ("verdict", lambda line: "-" if line.verdict is None else line.verdict.words),
)


def _table(lines: Sequence[Line], columns: Sequence[Column]) -> Table:
    table = empty_table("row", *(name for name, _ in columns))
    for line in lines:
        table.add_row(Text(line.paper.label), *(cell(line) for _, cell in columns))
    return table
