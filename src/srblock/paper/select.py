"""Which runs a table of the paper asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from srblock.paper.tables import ROWS, PaperRow, base_of
from srblock.variants.notation import Variant

TABLES = {f"table{number}": numeral for number, numeral in enumerate(("I", "II", "III", "IV", "V"), start=1)}

SPOKEN = {
    "hidden": "U of the block",
    "activation": "the block's activation",
    "init": "the block's initialization",
    "p": "dropout's rate",
    "stages": "dropout's place in a ResNet",
    "size": "dropblock's size",
    "schedule": "dropblock's schedule",
}


@dataclass(frozen=True)
class Unsaid:
    """What the paper leaves unsaid about its rows, chosen for all of them; None keeps what a row has.

    Attributes:
        hidden: U of the blocks (else as the printed overheads imply).
        activation, init: of the blocks.
        p: the rate of dropout, dropout2d and dropblock, in a VGG's linear layers too.
        stages: where they stand in a ResNet; a VGG has them in its linear layers.
        size, schedule: of dropblock.
    """

    hidden: int | None = None
    activation: str | None = None
    init: str | None = None
    p: float | None = None
    stages: tuple[int, ...] | None = None
    size: int | None = None
    schedule: str | None = None

    def of(self, variant: Variant) -> Variant:
        """Return a variant with these choices where it has something that they are of, else the variant itself."""
        options = _given(hidden=self.hidden, activation=self.activation, init=self.init)
        if variant.sr_blocks and options:
            changed = (replace(block, options=replace(block.options, **options)) for block in variant.sr_blocks)
            variant = replace(variant, sr_blocks=tuple(changed))
        drop = variant.regularizer
        if drop is None:
            return variant
        changes = _given(p=self.p)
        if drop.stages:
            changes |= _given(stages=self.stages)
        if drop.kind == "DB":
            changes |= _given(size=self.size, schedule=self.schedule)
        return replace(variant, regularizer=replace(drop, **changes)) if changes else variant


AS_IT_IS = Unsaid()


def select(table: str, pattern: str = "*") -> list[PaperRow]:
    """Return the rows of a table whose name fits a pattern, in the table's order, each with the row it is against.

    Args:
        table: "table1" to "table5", or "I" to "V".
        pattern: with * and ?, upper and lower case alike; it is held against the row as the paper spells it, with and
            without its M and P, and against the notation, so "R18*" finds "ResNet18 + SE + SR" and "FCN-R50*" "F-CONV".

    Raises: ValueError for a table or pattern that names nothing, saying what there is.
    """
    numeral = TABLES.get(table.lower(), table.upper())
    rows = [row for row in ROWS if row.table == numeral]
    if not rows:
        raise ValueError(f"the paper has no table {table!r}; there are {', '.join(TABLES)}")
    found = [row for row in rows if any(fnmatchcase(name.lower(), pattern.lower()) for name in _names(row))]
    if not found:
        known = ", ".join(dict.fromkeys(row.model for row in rows))
        raise ValueError(f'no row of {table} fits {pattern!r}; its rows are {known} (write --rows "{rows[0].model}*")')
    wanted = [*found, *(base for row in found if (base := base_of(row)) is not None)]
    return [row for row in rows if row in wanted]


def _given(**choices: Any) -> dict[str, Any]:
    return {name: value for name, value in choices.items() if value is not None}


def _names(row: PaperRow) -> tuple[str, ...]:
    return row.model, row.label, row.notation


def variants_of(rows: Sequence[PaperRow], unsaid: Unsaid = AS_IT_IS) -> tuple[Variant, ...]:
    """Return the variants of some rows, each once.

    Raises: ValueError as `variant_of`, or if a choice touches no row.
    """
    for field in fields(unsaid):
        value = getattr(unsaid, field.name)
        if value is not None:
            alone = Unsaid(**{field.name: value})
            if all(alone.of(variant) is variant for variant in map(variant_of, rows)):
                labels = ", ".join(dict.fromkeys(row.label for row in rows))
                raise ValueError(
                    f"{SPOKEN[field.name]} is given, but none of these rows has it: {labels}; leave it out"
                )
    return tuple(dict.fromkeys(variant_of(row, unsaid) for row in rows))


def variant_of(row: PaperRow, unsaid: Unsaid = AS_IT_IS) -> Variant:
    """Return the variant to train for a row.

    Raises: ValueError for a choice that the row's network cannot have.
    """
    return unsaid.of(row.variant)
