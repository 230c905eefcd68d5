"""Tables and sentences on the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

T = TypeVar("T")
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
Column = tuple[str, Callable[[T], str]]  # its heading, and what it says of a row


def empty_table(first: str, *others: str) -> Table:
    """Return a table with a text column that may fold, and number columns that do not."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column(first, overflow="fold", min_width=12)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def table_of(
    rows: Iterable[T], first: Column[T], columns: Sequence[Column[T]], style: Callable[[T], str] = lambda _: ""
) -> Table:
    """Return a table with a line for each row, in a style of rich by the row."""
    table = empty_table(first[0], *(name for name, _ in columns))
    for row in rows:
        table.add_row(*(Text(without_controls(cell(row)), style(row)) for _, cell in (first, *columns)))
    return table


def print_fitting(whole: Table, parts: Sequence[Table], console: Console) -> None:
    """Print a table where it fits, else its parts one below the other."""
    fits = console.measure(whole, options=console.options.update(max_width=1000)).maximum <= console.width
    for table in [whole] if fits else parts:
        console.print(table)


def print_lines(lines: Iterable[str], console: Console) -> None:
    """Print sentences, wrapped at the console's width."""
    for line in lines:
        console.print(without_controls(line), markup=False, highlight=False)


def without_controls(text: str) -> str:
    """Show in a text of ours by its code what a name in it may have brought: control characters, which would command a
    terminal and which XML has not, and halves of pairs, which no encoding has. New lines and tabs stay.
    """
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def escaped(text: str) -> str:
    """Show what a terminal must not get raw, or an encoding does not have, by its code: control characters, bytes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
