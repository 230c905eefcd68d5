"""A table of the paper beside our own runs: both figures, both gains, and what ours amount to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from srblock.paper.tables import IMAGE_SIZES, METRICS
from srblock.report import units
from srblock.report.comparison import ANALYSES, interval, over_shared_seeds, pairings, unfinished
from srblock.report.control_lines import control_lines
from srblock.report.formats import Sheet, formatted, markdown_table, sheet
from srblock.report.recipes import departures, selection, start
from srblock.report.tables import DETECTABLE, DIFFERENCE, HOLM_P, P_GREATER, N, P
from srblock.report.terminal import Column, print_fitting, print_lines, table_of
from srblock.report.units import reach, signed
from srblock.report.verdicts import words
from srblock.runs.records import Run, RunConfig
from srblock.statistics.comparison import Row
from srblock.statistics.differences import difference
from srblock.statistics.pairing import Comparison, pairing
from srblock.statistics.reproduction import Line
from srblock.training.files import write_bytes
from srblock.training.recipe import RECIPES


def label(line: Line) -> str:
    """Name a line: the paper's row, and the metric where a row has several."""
    return _name(line) + METRICS[line.paper.metric]


def _name(line: Line) -> str:
    """Name the paper's row with its M and P, and the U that was trained, which the paper does not give."""
    if not line.variant.sr_blocks:
        return line.paper.model
    (block,) = line.variant.sr_blocks
    return f"{line.paper.model} ({line.paper.place}, P={line.paper.blocks}, U={block.options.hidden})"


def findings(lines: Sequence[Line]) -> list[str]:
    """Say of each row with the block what our runs amount to, and how the paper's gain lies to them."""
    return [
        f"{label(line)}: {words(line.ours.verdict)}.{_agreement(line)}"
        for line in lines
        if line.ours is not None and line.ours.verdict is not None
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
    before, now = (dict(zip(row.seeds, row.values, strict=True)) for row in (small.ours, large.ours))
    ours = Comparison(difference(list(before.values()), list(now.values())), pairing(before, now)).counts
    known = "" if ours.estimate is None else f" ({reach(ours.estimate.interval())})"
    return f"{text}, ours {signed(ours.mean)}{known}."


def remarks(lines: Sequence[Line], config: RunConfig) -> list[str]:
    """Say in what our runs are not the paper's; `config` is that of any of them."""
    said = []
    row, data, full = lines[0].paper, config.data, RECIPES.get(lines[0].paper.data)
    if data["name"] != row.data:
        said.append(
            f"The paper's table is of {row.data}; these runs are of {data['name']}: only the kind of answer compares."
        )
    _, height, width = data["size"]
    if (height, width) != IMAGE_SIZES[row.data]:
        said.append("Images of {}x{}; the paper's have {}x{}.".format(height, width, *IMAGE_SIZES[row.data]))
    if full is not None and (other := departures(config.recipe, full, "paper")):
        said.append(f"Not the paper's recipe: {', '.join(other)}.")
    if row.data == "cityscapes":
        said.append(
            f"Where its backbones start the paper does not say; MMSegmentation's start from ImageNet's weights. These "
            f"runs start {start(config.weights)}."
        )
    elif config.weights is not None:
        said.append(f"These runs start {start(config.weights)}, the paper's from random weights.")
    chosen = dict.fromkeys(f"{_name(line)} as {line.variant}" for line in lines if line.variant != line.paper.variant)
    if chosen:
        said.append(f"Trained with other choices of what the paper leaves unsaid: {'; '.join(chosen)}.")
    few = [line.ours.n for line in lines if line.ours is not None]
    if few and min(few) < row.seeds:
        said.append(f"The paper has {row.seeds} seeds a row, these runs have {min(few)} or more.")
    missing = dict.fromkeys(_name(line) for line in lines if line.ours is None)
    if missing:
        said.append(f"No run finished of: {', '.join(missing)}.")
    return said


def print_reproduction(lines: Sequence[Line], config: RunConfig, console: Console) -> None:
    """Print the table, in three on narrow screens, then what it amounts to."""
    whole, *parts = (
        table_of(lines, ("row", label), columns) for columns in ((*FIGURES, *GAINS, *TESTS), FIGURES, GAINS, TESTS)
    )
    print_fitting(whole, parts, console)
    print_lines(_sentences(lines, config), console)


def write_markdown(path: Path, lines: Sequence[Line], config: RunConfig, runs: Sequence[Run] = ()) -> None:
    """Write the table as Markdown, and below what our networks lose under controls, of the runs that recorded it.

    Raises: OSError if the file cannot be written; an older one stays whole.
    """
    said = "\n".join(f"- {sentence}" for sentence in _sentences(lines, config))
    table = line_sheet(lines)
    parts = [markdown_table(table.header, table.lines), said, *_controls(runs)]
    write_bytes(path, ("\n\n".join(parts) + "\n").encode())


def write_latex(path: Path, lines: Sequence[Line]) -> None:
    """Write the table as LaTeX.

    Raises: OSError if the file cannot be written; an older one stays whole.
    """
    write_bytes(path, formatted([line_sheet(lines)], "latex").encode())


def line_sheet(lines: Sequence[Line]) -> Sheet:
    """Return the table for other programs."""
    return sheet("", lines, ("row", label), (*FIGURES, *GAINS, *TESTS, VERDICT))


def _controls(runs: Sequence[Run]) -> list[str]:
    """Say whether what our blocks recall matters."""
    variants = dict.fromkeys(str(run.variant) for run in runs)
    found = control_lines([(text, [run for run in runs if str(run.variant) == text]) for text in variants])
    if not found:
        return []
    return [
        f"Our networks tested again under controls: change of test {runs[0].figure.label} in percentage points, mean "
        "over the seeds (`srblock analyze` looks into a run).",
        markdown_table(("variant", "control", "n", "change", "95% interval"), found, ("control",)),
    ]


def _sentences(lines: Sequence[Line], config: RunConfig) -> list[str]:
    rows = [line.ours for line in lines if line.ours is not None]
    figures = list(dict.fromkeys(row.figure.label for row in rows))
    legend = (
        f"Test {' and '.join(figures) or 'accuracy'} in percent, mean ± standard deviation over seeds "
        f"(the paper's: over {lines[0].paper.seeds}); "
        "gain and difference to the row without the block, in percentage points; intervals of the paper's gains by "
        f"Welch's t, {ANALYSES}; verdicts with Holm's correction over the rows here."
    )
    if len(figures) > 1:
        by = f" by {config.figures[0].label}" if rows[0].held_out else ""
        legend += f" All figures of a seed are of one run, of {selection(rows[0].held_out)}{by}."
    if any(line.paper.counts_from_zero and line.paper.stage is not None for line in lines):
        legend += " The paper's M counts from zero here: M=2 stands after stage 3, the notation's M=3."
    control = size_control(lines)
    said = [*findings(lines), *pairings(rows), *([control] if control else []), *remarks(lines, config)]
    said += [*unfinished(rows), *over_shared_seeds(rows)]
    return [legend, *said]


def _agreement(line: Line) -> str:
    """Say whether the paper's gain is one of those that our interval allows."""
    ours = None if line.ours is None else line.ours.estimate
    if ours is None or line.printed is None:
        return ""
    low, high = ours.interval()
    where = "within" if low <= line.printed.mean <= high else "outside of"
    return f" The paper's {signed(line.printed.mean)} lies {where} our interval, {reach((low, high))}."


def _ours(name: str, cell: Callable[[Row], str]) -> Column[Line]:
    return name, lambda line: "-" if line.ours is None else cell(line.ours)


FIGURES: tuple[Column[Line], ...] = (
    ("paper", lambda line: units.mean_and_std(line.paper.mean, line.paper.std)),
    _ours("ours", lambda row: units.mean_and_std(row.mean, row.std)),
    _ours(*N),
)
GAINS: tuple[Column[Line], ...] = (
    ("paper's\ngain", lambda line: "-" if line.printed is None else signed(line.printed.mean)),
    ("its 95%\ninterval", lambda line: "-" if line.printed is None else reach(line.printed.interval)),
    _ours("our\ndifference", DIFFERENCE[1]),
    _ours("our 95%\ninterval", interval),
)
TESTS: tuple[Column[Line], ...] = (
    *(_ours(*column) for column in (P, HOLM_P, P_GREATER, DETECTABLE)),
    _ours("correlation\nby seed", lambda row: "-" if row.pairing is None else signed(row.pairing.correlation)),
)
VERDICT: Column[Line] = _ours("verdict", lambda row: "-" if row.verdict is None else words(row.verdict))
