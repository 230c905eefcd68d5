"""The queue of runs to make when a device is at hand: `results/queue.toml`, read, checked, and what to run next.

[[entry]]
name = "a"                              # to talk about it
data = "cifar100"                       # a known image set
seeds = 5                               # 0 to 4
variants = ["R18", "R18 + SR(M=4, P=2)"]
# or rows of the paper's tables, with the networks that they are compared with:
tables = ["I", "II"]
rows = "R18*"                           # in our notation or the paper's spelling; all rows if left out
epochs = 30                             # the paper's number if left out
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srblock.data.sources import SOURCES
from srblock.paper.select import select, variants_of
from srblock.paper.tables import CLASSES
from srblock.variants.notation import Variant, parse

KEYS: dict[str, type] = {
    "name": str,
    "data": str,
    "seeds": int,
    "variants": list,
    "tables": list,
    "rows": str,
    "epochs": int,
}
SPOKEN = {str: "a text", int: "a whole number", list: "a list of texts"}


@dataclass(frozen=True)
class Entry:
    """Runs that belong together.

    Attributes:
        seeds: how many, from 0 on.
        epochs: of the data's own recipe; None for the whole of it.
    """

    name: str
    data: str
    seeds: int
    variants: tuple[Variant, ...]
    epochs: int | None = None


@dataclass(frozen=True)
class Pace:
    """How fast a network trains here.

    Attributes:
        start_s: what a start costs over its epochs.
        epoch_s: an epoch with its validation.
        finish_s: test and inspection after the last epoch.
    """

    start_s: float
    epoch_s: float
    finish_s: float


@dataclass(frozen=True)
class Pending:
    """A run that has no result yet.

    Attributes:
        name: of its folder.
        pace: None where it is not known yet.
        epochs_done, epochs: how far it is, and where it ends.
    """

    name: str
    pace: Pace | None
    epochs_done: int
    epochs: int

    def rest_s(self, pace: Pace) -> float:
        """Return the seconds that the rest of the run takes."""
        return pace.start_s + (self.epochs - self.epochs_done) * pace.epoch_s + pace.finish_s

    def gain_s(self, pace: Pace) -> float:
        """Return the seconds after which there is something to keep: an epoch, or the result."""
        return pace.start_s + (pace.epoch_s if self.epochs_done < self.epochs else pace.finish_s)


def read_queue(path: Path) -> list[Entry]:
    """Read a queue.

    Raises: ValueError, naming the entry, for anything that it does not know or that no run can be made of.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    entries = content.pop("entry", [])
    if content or not isinstance(entries, list):
        raise ValueError(f"{path}: expected [[entry]] tables only, got {', '.join(content) or 'entry as one table'}")
    read = [_entry(values, f"{path}, entry {number}") for number, values in enumerate(entries, 1)]
    names = [entry.name for entry in read]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path}: two entries are named {name!r}; give each its own name")
    return read


def choose(
    pending: Sequence[Pending], left_s: float, whole_s: float, measure: Callable[[Pending], Pace]
) -> Pending | None:
    """Choose what to run in the time left; None if nothing should be.

    Finishing goes before starting: of the runs that are started, the one with the least left. Then the first of the
    queue that fits into the time left as a whole. If none does, the first of all, should it be too long for any call:
    waiting for the next one would not help it.

    Args:
        pending: in the queue's order.
        left_s, whole_s: seconds left in this call, and in a whole one.
        measure: finds out a pace that is not known. It takes time, so it is asked for started runs and the first of the
            queue only.
    """
    started = [(run, run.pace or measure(run)) for run in pending if run.epochs_done]
    going_on = [(run.rest_s(pace), run) for run, pace in started if run.gain_s(pace) <= left_s]
    if going_on:
        return min(going_on, key=lambda found: found[0])[1]
    new = [run for run in pending if not run.epochs_done]
    if not new:
        return None
    first_pace = new[0].pace or measure(new[0])
    if new[0].rest_s(first_pace) <= left_s:
        return new[0]
    for run in new[1:]:
        if run.pace is not None and run.rest_s(run.pace) <= left_s:
            return run
    if new[0].rest_s(first_pace) > whole_s and new[0].gain_s(first_pace) <= left_s:
        return new[0]
    return None


def _entry(values: dict[str, Any], where: str) -> Entry:
    unknown = [key for key in values if key not in KEYS]
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(KEYS)}")
    for key, value in values.items():
        if type(value) is not KEYS[key]:
            raise ValueError(f"{where}: {key} must be {SPOKEN[KEYS[key]]}, got {value!r}")
        if type(value) is list and not (value and all(type(item) is str for item in value)):
            raise ValueError(f"{where}: {key} must be a list of texts, got {value!r}")
    missing = [key for key in ("name", "data", "seeds") if key not in values]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    where = f"{where} ({values['name']})"
    if min(values["seeds"], values.get("epochs", 1)) < 1:
        raise ValueError(f"{where}: seeds and epochs are at least 1")
    if values["data"] not in {*SOURCES, *CLASSES}:
        raise ValueError(f"{where}: unknown data {values['data']!r}; known are {', '.join({**SOURCES, **CLASSES})}")
    if ("variants" in values) == ("tables" in values) or ("rows" in values and "tables" not in values):
        raise ValueError(f"{where}: say what to run with either variants, or tables and maybe rows")
    variants = _parsed(values["variants"], where) if "variants" in values else _rows(values, where)
    return Entry(values["name"], values["data"], values["seeds"], variants, values.get("epochs"))


def _parsed(texts: Iterable[str], where: str) -> tuple[Variant, ...]:
    try:
        return tuple(dict.fromkeys(map(parse, texts)))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _rows(values: dict[str, Any], where: str) -> tuple[Variant, ...]:
    """Find rows of the paper's tables, with those that they are compared with."""
    try:
        rows = [row for table in values["tables"] for row in select(table, values.get("rows", "*"))]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    for row in rows:
        if row.data != values["data"]:
            raise ValueError(f"{where}: table {row.table} is of {row.data}, not of {values['data']}")
    return variants_of(rows)
