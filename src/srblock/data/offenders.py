"""How errors name what is wrong: the first few, then the count of the rest."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 5


def offenders(names: Sequence[str]) -> str:
    """List the first names and count the others: "a, b, c, d, e and 12 more"."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")


def counted(count: int, noun: str) -> str:
    """Say how many in words that agree: "1 file", "2 files", "2 classes", "2 entries"."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}es" if noun.endswith("s") else f"{count:,} {noun}s"
