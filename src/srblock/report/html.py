"""A study as one page: self-contained HTML without scripts, for laptop and phone, light and dark."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srblock.data import ImageData, SceneData
from srblock.data.offenders import counted
from srblock.report import block_figures, figures
from srblock.report.answers import answers, cautions
from srblock.report.blocks import block_views, draw_both
from srblock.report.classes import balance_lines, class_views
from srblock.report.comparison import interval, legend, of_shared_seeds, pairings, remarks
from srblock.report.control_lines import control_lines
from srblock.report.difference_figure import differences, seed_differences
from srblock.report.page import plain, render
from srblock.report.recipes import applying, start
from srblock.report.scenes import class_bars, scene_views
from srblock.report.svg import SERIES
from srblock.report.tables import COST, accuracy
from srblock.report.terminal import Column
from srblock.report.times import Times, in_turns, time_columns, time_sentences
from srblock.report.units import p_equals, points, signed
from srblock.report.verdicts import advice, headline
from srblock.runs.records import Run
from srblock.statistics.comparison import Row
from srblock.statistics.differences import Difference
from srblock.training.files import write_bytes

BOXES = 3  # at most so many variants have a box of their own
LINES = {"-": "solid", "--": "dashed", ":": "dotted"}


@dataclass(frozen=True)
class Figures:
    """The figures behind an answer.

    Attributes:
        difference: with its interval where there is one, for lists.
        evidence: what was measured, the verdict and its test.
        cost: what the variant costs against the baseline.
    """

    difference: str
    evidence: str
    cost: str


def write_report(
    path: Path,
    runs: Sequence[Run],
    rows: Sequence[Row],
    command: str,
    data: ImageData | SceneData | None = None,
    times: Times | None = None,
) -> None:
    """Write the page of a comparison.

    Args:
        rows: of `comparison(runs)`.
        command: that repeats the study.
        data: whose test images are shown, if it is at hand.
        times: measured in turns; without, the page has none.

    Raises: ValueError if there is no run; OSError if the file cannot be written, an older one stays whole.
    """
    if not rows:
        raise ValueError("no run finished, so there is nothing to report; each failed run has its reason above")
    write_bytes(path, render("template.html", _context(runs, rows, command, data, times or {})).encode())


def behind(row: Row, baseline: Row, times: Times | None = None) -> Figures:
    """Give the figures behind what a variant came to against the baseline."""
    found, verdict, sides = row.analysis, row.verdict, row.difference
    assert found is not None
    assert verdict is not None
    assert sides is not None
    figure = row.figure
    reached = (
        f"{row.mean:.2f}% of the test images right" if figure.per_image else f"{row.mean:.2f}% test {figure.label}"
    )
    evidence = f"{reached} against {baseline.mean:.2f}%{_shared(row)}: {signed(found.mean)} percentage points"
    if found.estimate is None:
        evidence += ", from one seed each." if sides.n == sides.n_baseline == 1 else f" ({_seeds(sides)})."
    else:
        holm = ", after Holm's correction" if verdict.comparisons > 1 else ""
        assert verdict.holm_p is not None
        evidence += f", 95% interval {interval(row)}, {p_equals(verdict.holm_p)}{holm} ({_seeds(sides)})."
    evidence = f"{headline(verdict, row.variant, baseline.variant)}. {evidence} {advice(verdict)}".rstrip()
    if row.detectable is not None:
        evidence += f" These seeds find a true difference of {points(row.detectable)} four times in five."
    short = f"{signed(found.mean)}, {interval(row)}" if found.estimate is not None else signed(found.mean)
    return Figures(short, evidence, _cost(row, baseline, times or {}))


def _cost(row: Row, baseline: Row, times: Times) -> str:
    parameters = 100 * (row.parameters / baseline.parameters - 1)
    text = f"It has {abs(parameters):.2f}% {'fewer' if parameters < 0 else 'more'} parameters"
    if parameters == 0:
        text = "It has as many parameters"
    if row.variant in times:
        text += f"; {in_turns(times[row.variant], baseline.variant)}"
    return f"{text}."


def _shared(row: Row) -> str:
    """Give the means that the difference is of, where seeds of one side have no partner."""
    found = of_shared_seeds(row)
    if found is None:
        return ""
    before, now = found.means
    return f", over the {found.n} seeds that both have {now:.2f}% against {before:.2f}%"


def _seeds(found: Difference) -> str:
    if found.n == found.n_baseline:
        return f"{found.n} seeds each"
    return f"{counted(found.n, 'seed')} against {found.n_baseline}"


def _context(
    runs: Sequence[Run], rows: Sequence[Row], command: str, data: ImageData | SceneData | None, times: Times
) -> dict[str, Any]:
    """Collect everything that the template shows."""
    config = runs[0].config
    by_variant: dict[str, list[Run]] = {row.variant: [] for row in rows}
    for run in runs:
        by_variant[str(run.variant)].append(run)
    groups = list(by_variant.items())
    segmented = all(run.confusion is not None for run in runs)
    return {
        "title": _title(rows),
        "data": config.data,
        "recipe": {name.replace("_", " "): plain(value) for name, value in applying(config.recipe).items()},
        "start": start(config.weights),
        "held_out": rows[0].held_out,
        "seeds_each": sorted({row.n for row in rows}),
        "boxes": BOXES,
        "answers": list(
            zip(
                answers(rows, runs, command),
                (behind(row, rows[0], times) for row in rows if row.difference is not None),
                strict=True,
            )
        ),
        "cautions": cautions(runs),
        "rows": rows,
        "tables": [_cells(rows, columns) for columns in (accuracy(rows), (*COST, *time_columns(times)))],
        "legend": legend(rows),
        "time_notes": time_sentences(rows, times)[-1 if len(rows) <= 1 + BOXES else 0 :],  # boxes have the others
        "remarks": remarks(rows),
        "pairings": pairings(rows),
        "series": [(LINES[figures.dashes(i)], i % len(SERIES), row.variant) for i, row in enumerate(rows)],
        "difference_figure": draw_both(lambda name, width: differences(rows, name, width), "differences")
        if any(row.verdict is not None for row in rows)
        else None,
        "paired_dots": any(seed_differences(row, rows) for row in rows if row.verdict is not None),
        "seeds_figure": draw_both(lambda name, width: figures.seeds(rows, name, width), "seeds"),
        "curves_figure": draw_both(lambda name, width: figures.learning_curves(groups, name, width), "curves"),
        "barred": any(figures.bar(row) for row in rows),
        "bars_from": figures.BARS_FROM,
        "bars_cut": _bars_cut(rows),
        "banded": any(row.n > figures.SEEDS_AS_LINES for row in rows),
        "zoomed": any(len(run.metrics) >= figures.ZOOMED_FROM for run in runs),
        "by_class": class_views(rows, runs, data),
        "balances": balance_lines(rows),
        "class_sizes": next((row.balance.images for row in rows if row.balance is not None), None),
        "scenes": scene_views(groups, config.data["colors"]) if segmented else [],
        "chips": list(zip(config.data["classes"], config.data.get("colors", ()), strict=False)),
        "class_bars": draw_both(lambda name, width: class_bars(groups, config.data["classes"], name, width), "classes")
        if segmented
        else None,
        "blocks": block_views(groups, config.data["classes"]),
        "controls": control_lines(groups),
        "with_sr": any(run.variant.sr_blocks for run in runs),
        "memories_shown": block_figures.MEMORIES_SHOWN,
        "runs": runs,
        "environments": _environments(runs),
        "command": command,
    }


def _cells(rows: Sequence[Row], columns: Sequence[Column[Row]]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    names = [name.replace("\n", " ") for name, _ in columns]
    return names, [(row.variant, [cell(row) for _, cell in columns]) for row in rows]


def _bars_cut(rows: Sequence[Row]) -> bool:
    """Tell whether the interval of some mean is longer than the seeds' figure shows."""
    low, high = figures.frame(rows)
    ends = [end for row in rows for end in figures.bar(row) or ()]
    return any(not low <= end <= high for end in ends)


def _title(rows: Sequence[Row]) -> str:
    if rows[0].variant != rows[0].baseline:  # of which no run finished
        return ", ".join(row.variant for row in rows)
    if len(rows) == 1:
        return rows[0].variant
    if len(rows) == 2:
        return f"{rows[1].variant} against {rows[0].variant}"
    return f"{len(rows) - 1} variants against {rows[0].variant}"


def _environments(runs: Sequence[Run]) -> list[tuple[int, dict[str, str]]]:
    """List the different environments that runs were made in, with how many were made in each."""
    # Peak memory is a measurement, not a condition.
    found = Counter(json.dumps({k: v for k, v in run.environment.items() if k != "peak_memory_mb"}) for run in runs)
    return [
        (count, {k: plain(v) for k, v in json.loads(text).items() if v is not None}) for text, count in found.items()
    ]
