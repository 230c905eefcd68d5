"""CSV that a spreadsheet takes for text where it is text: a cell that begins a formula gets an apostrophe in front."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def lines_text(lines: Iterable[Sequence[Any]]) -> str:
    """Return lines of CSV. Numbers stay as they are, negative ones too; None is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")  # of which it quotes both in a cell
    for line in lines:
        writer.writerow([cell(value) for value in line])
        text.seek(text.tell() - 2)
        text.truncate()
        text.write("\n")
    return text.getvalue()


def cell(value: Any) -> Any:
    """Return what a cell is to hold: names that a spreadsheet would compute, such as =1+2, with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def said(text: str) -> str:
    """Return what `cell` was given, from the text of a cell that was read."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text
