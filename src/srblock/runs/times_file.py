"""Times measured in turns as a CSV file: a line for every variant, part and round, with what they were measured on."""

from __future__ import annotations

import csv
from pathlib import Path

from srblock.runs.side_by_side import SideBySide, Times
from srblock.training.csv_lines import lines_text, said
from srblock.training.files import write_bytes

MEASURED = ("variant", "part", "round", "ms_per_image")
PARTS = ("train", "test")


def write_times(path: Path, found: SideBySide) -> None:
    """Write times with full precision.

    Raises: OSError if the file cannot be written; an older one stays whole.
    """
    lines: list[list[object]] = [[*MEASURED, *found.conditions]]
    for variant, times in found.times.items():
        for part in PARTS:
            for number, ms in enumerate(getattr(times, part), 1):
                lines.append([variant, part, number, ms, *found.conditions.values()])
    write_bytes(path, lines_text(lines).encode())


def read_times(path: Path) -> SideBySide:
    """Read what `write_times` wrote.

    Raises: OSError or ValueError if that is not possible.
    """
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = [[said(text) for text in line] for line in csv.reader(file)] or [[]]
    wrong = ValueError(f"{path} holds no times as srblock writes them; delete it")
    if tuple(header[: len(MEASURED)]) != MEASURED or not lines or any(len(line) != len(header) for line in lines):
        raise wrong
    values = {tuple(line[len(MEASURED) :]) for line in lines}
    if len(values) > 1:
        raise wrong
    rounds: dict[str, dict[str, list[float]]] = {}
    for variant, part, _, ms, *_ in lines:
        rounds.setdefault(variant, {name: [] for name in PARTS}).setdefault(part, []).append(float(ms))
    counts = [{len(parts[part]) for parts in rounds.values()} for part in PARTS]
    if any(len(lengths) > 1 or 0 in lengths for lengths in counts):  # every variant takes part in every round
        raise wrong
    times = {variant: Times(*(tuple(parts[part]) for part in PARTS)) for variant, parts in rounds.items()}
    return SideBySide(times, dict(zip(header[len(MEASURED) :], values.pop(), strict=True)))
