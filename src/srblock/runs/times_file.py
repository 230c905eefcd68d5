"""Times measured in turns as a CSV file: a line for every variant and round, with what they were measured on."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from srblock.runs.side_by_side import SideBySide, Times
from srblock.training.files import write_bytes

MEASURED = ("variant", "round", "train_ms_per_image", "test_ms_per_image")


def write_times(path: Path, found: SideBySide) -> None:
    """Write times with full precision.

    Raises: OSError if the file cannot be written; an older one stays whole.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*MEASURED, *found.conditions])
    for variant, times in found.times.items():
        for number, pair in enumerate(zip(times.train, times.test, strict=True), 1):
            writer.writerow([variant, number, *pair, *found.conditions.values()])
    write_bytes(path, text.getvalue().encode())


def read_times(path: Path) -> SideBySide:
    """Read what `write_times` wrote.

    Raises: OSError or ValueError if that is not possible.
    """
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    wrong = ValueError(f"{path} holds no times as srblock writes them; delete it")
    if tuple(header[: len(MEASURED)]) != MEASURED or not lines or any(len(line) != len(header) for line in lines):
        raise wrong
    values = {tuple(line[len(MEASURED) :]) for line in lines}
    if len(values) > 1:
        raise wrong
    rounds: dict[str, list[tuple[float, float]]] = {}
    for variant, _, train, test, *_ in lines:
        rounds.setdefault(variant, []).append((float(train), float(test)))
    if len({len(pairs) for pairs in rounds.values()}) > 1:
        raise wrong
    times = {
        variant: Times(tuple(train for train, _ in pairs), tuple(test for _, test in pairs))
        for variant, pairs in rounds.items()
    }
    return SideBySide(times, dict(zip(header[len(MEASURED) :], values.pop(), strict=True)))
