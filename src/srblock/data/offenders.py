"""How errors name what is wrong: the first few, then the count of the rest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

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


def refuse_unencodable(where: str, noun: str, names: Iterable[str], remedy: str) -> None:
    """Refuse names that no file of text can hold, such as those of folders that are no UTF-8 (Latin-1 caf\\xe9).

    Raises: ValueError naming them, their odd bytes by number.
    """
    wrong = [name for name in names if name.encode("utf-8", "replace").decode() != name]
    if wrong:
        shown = [_bytewise(name) for name in wrong]
        raise ValueError(f"{where}: {counted(len(wrong), noun)} not in UTF-8: {offenders(shown)}; {remedy}")


def _bytewise(name: str) -> str:
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a pair that no file name has
        return name.encode("utf-8", "backslashreplace").decode()
