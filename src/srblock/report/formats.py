"""Tables for other programs: Markdown, LaTeX and CSV.

Markdown is GitHub's. LaTeX is plain `tabular` with \\hline, so it needs no package; in a text with booktabs replace the
three rules. Both print what people read on the terminal; CSV has the same rows in full precision, units in the names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from srblock.report.terminal import Column
from srblock.training.csv_lines import lines_text
from srblock.training.files import write_bytes

T = TypeVar("T")
Format = Literal["text", "markdown", "latex", "csv"]
WORDS = ("verdict", "table", "stage", "match", "chosen")  # columns that are no numbers, besides the first
LATEX = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MINUS SIGN}": "$-$",
    "…": r"\ldots{}",
}


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        title: what it is of; "" if it needs none.
        header: a name for each column; the first column is text.
        lines: cells as people read them.
        records: the same rows for CSV.
        words: names of further columns that are text.
    """

    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    records: tuple[Mapping[str, Any], ...] = ()
    words: tuple[str, ...] = WORDS


def sheet(
    title: str,
    rows: Sequence[T],
    first: Column[T],
    columns: Sequence[Column[T]],
    records: Sequence[Mapping[str, Any]] = (),
) -> Sheet:
    """Return a table with a line for each row, from the columns that the terminal's has."""
    every = (first, *columns)
    return Sheet(
        title,
        tuple(name.replace("-\n", "").replace("\n", " ") for name, _ in every),
        tuple(tuple(cell(row) for _, cell in every) for row in rows),
        tuple(records),
    )


def formatted(sheets: Sequence[Sheet], form: Format, notes: Sequence[str] = ()) -> str:
    """Return tables in one of the formats, ending in a newline.

    Args:
        notes: sentences below; in LaTeX they are comments, and CSV has none.

    Raises: ValueError for "text", which is for the terminal.
    """
    notes = [note for note in notes if note.strip()]
    match form:
        case "markdown":
            parts = [f"**{_markdown(one.title)}**\n\n{_rows(one)}" if one.title else _rows(one) for one in sheets]
            return "\n\n".join([*parts, *map(_markdown, notes)]) + "\n"
        case "latex":
            parts = [latex_table(one) for one in sheets]
            return "\n\n".join([*parts, *(f"% {note}" for note in notes)]) + "\n"
        case "csv":
            return csv_text([record for one in sheets for record in one.records])
    raise ValueError(f"expected markdown, latex or csv, got {form!r}")


def write_formats(stem: Path, sheets: Sequence[Sheet], notes: Sequence[str] = ()) -> None:
    """Write tables as stem.md and stem.tex.

    Raises: OSError if a file cannot be written; an older one stays whole.
    """
    write_bytes(stem.with_suffix(".md"), formatted(sheets, "markdown", notes).encode())
    write_bytes(stem.with_suffix(".tex"), formatted(sheets, "latex", notes).encode())


def markdown_table(
    header: Sequence[str], lines: Sequence[Sequence[str]], words: Sequence[str] = WORDS, *, escape: bool = True
) -> str:
    """Return a table in GitHub's Markdown; the first column and those called in `words` are text.

    Args: escape: unless the cells are Markdown, links and the like.
    """
    rule = ["---" if not number or name in words else "---:" for number, name in enumerate(header)]
    shown = ([_markdown(cell) if escape else cell for cell in cells] for cells in (header, *lines))
    first, *others = (f"| {' | '.join(cells)} |" for cells in shown)
    return "\n".join((first, f"| {' | '.join(rule)} |", *others))


def latex_table(one: Sheet) -> str:
    """Return a tabular, its title as a comment above."""
    kinds = "".join("l" if not number or name in one.words else "r" for number, name in enumerate(one.header))
    head, *lines = (" & ".join(map(latex, cells)) + r" \\" for cells in (one.header, *one.lines))
    title = [f"% {one.title}"] if one.title else []
    return "\n".join(
        [*title, rf"\begin{{tabular}}{{{kinds}}}", r"\hline", head, r"\hline", *lines, r"\hline", r"\end{tabular}"]
    )


def latex(text: str) -> str:
    """Set a text in LaTeX: every special character printed, minus signs of numbers, a dash for an empty cell."""
    if text == "-":
        return "--"
    marked = re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)
    return "".join(LATEX.get(letter, letter) for letter in marked)


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Return lines of CSV under the names of all of them; what a line does not have stays empty."""
    names = list(dict.fromkeys(name for record in records for name in record))
    return lines_text([names, *([record.get(name) for name in names] for record in records)])


def _rows(one: Sheet) -> str:
    return markdown_table(one.header, one.lines, one.words)


def _markdown(text: str) -> str:
    """Escape what Markdown would take for its own: a "<" only where a tag could begin, an "_" only at a word's edge."""
    text = re.sub(r"([\\|*`\[\]])", r"\\\1", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", text)
