"""Which runs a table of the paper asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from srblock.paper.tables import ROWS, PaperRow, base_of
from srblock.variants.notation import Variant

TABLES = {f"table{number}": numeral for number, numeral in enumerate(("I", "II", "III", "IV", "V"), start=1)}


def select(table: str, pattern: str = "*") -> list[PaperRow]:
    """Return the rows of a table whose name fits a pattern, in the table's order, each with the row it is against.

    Args:
        table: "table1" to "table5", or "I" to "V".
        pattern: with * and ?, upper and lower case alike; it is held against the row as the paper spells it, with and
            without its M and P, and against the notation, so "R18*" finds "ResNet18 + SE + SR" too.

    Raises: ValueError for a table or pattern that names nothing, saying what there is.
    """
    numeral = TABLES.get(table.lower(), table.upper())
    rows = [row for row in ROWS if row.table == numeral]
    if not rows:
        raise ValueError(f"the paper has no table {table!r}; there are {', '.join(TABLES)}")
    if rows[0].data == "cityscapes":
        raise ValueError(f"{table} is segmentation, which is not built yet; there are table1, table2, table3, table5")
    found = [row for row in rows if any(fnmatchcase(name.lower(), pattern.lower()) for name in _names(row))]
    if not found:
        known = ", ".join(dict.fromkeys(row.model for row in rows))
        raise ValueError(f'no row of {table} fits {pattern!r}; its rows are {known} (write --rows "R18*")')
    wanted = [*found, *(base for row in found if (base := base_of(row)) is not None)]
    return [row for row in rows if row in wanted]


def _names(row: PaperRow) -> tuple[str, ...]:
    return row.model, row.label, row.notation or ""


def variants_of(rows: Sequence[PaperRow], hidden: int | None = None) -> tuple[Variant, ...]:
    """Return the variants of some rows, each once.

    Args:
        hidden: U for all blocks in place of the audit's reading (the paper does not say which row has which).
    """
    return tuple(dict.fromkeys(variant_of(row, hidden) for row in rows))


def variant_of(row: PaperRow, hidden: int | None = None) -> Variant:
    """Return the variant to train for a row, with U replaced if asked for.

    Raises: ValueError for a row of the segmentation table.
    """
    variant = row.variant
    if variant is None:
        raise ValueError(f"{row.label} of table {row.table} is segmentation, which is not built yet")
    if hidden is None:
        return variant
    changed = (replace(block, options=replace(block.options, hidden=hidden)) for block in variant.sr_blocks)
    return replace(variant, sr_blocks=tuple(changed))
