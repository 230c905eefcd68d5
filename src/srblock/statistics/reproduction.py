"""A table of the paper beside our own runs: both figures and both gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from srblock.paper.tables import PaperRow, base_of
from srblock.runs.records import Run
from srblock.statistics.audit import printed
from srblock.statistics.comparison import Row, comparisons
from srblock.statistics.differences import Difference, difference_of_summaries
from srblock.statistics.equivalence import MARGIN
from srblock.variants.variant import Variant


@dataclass(frozen=True)
class Line:
    """One row of the paper and what became of it here; accuracies are percent, differences percentage points.

    Attributes:
        paper: the row.
        variant: what was trained for it.
        printed: the gain that the paper's figures show over their own baseline; None for a baseline.
        ours: the same figure over our finished seeds, against our own baseline; None without any.
    """

    paper: PaperRow
    variant: Variant
    printed: Difference | None
    ours: Row | None


def reproduction(rows: Mapping[PaperRow, Variant], runs: Sequence[Run], *, margin: float = MARGIN) -> list[Line]:
    """Set the paper's rows beside runs; all differences are judged together.

    Args:
        rows: of one table, baselines among them (`paper.select`), with what was trained for each.
        runs: of one study; a run stands in the rows of all its figures.
        margin: percentage points that count as no difference.

    Raises: ValueError if the runs have no such figure: they are of another task.
    """
    bases = {row: base_of(row) for row in rows}
    pairs = {str(rows[row]): str(rows[base or row]) for row, base in bases.items()}
    metrics = list(dict.fromkeys(row.metric for row in rows))
    compared = comparisons(runs, list(pairs.items()), margin=margin, keys=metrics)
    found = {(row.variant, row.figure.key): row for row in compared}
    return [
        Line(
            paper=row,
            variant=rows[row],
            printed=None if base is None else difference_of_summaries(printed(base), printed(row)),
            ours=found.get((str(rows[row]), row.metric)),
        )
        for row, base in bases.items()
    ]
