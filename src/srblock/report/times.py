"""What variants cost in time, in words and columns: only from times that were measured in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from srblock.report import units
from srblock.report.terminal import Column
from srblock.statistics.comparison import Row
from srblock.statistics.times import Ratio, VariantTimes

Times = Mapping[str, VariantTimes]
"""By variant; empty where none were measured."""


def time_columns(times: Times) -> tuple[Column[Row], ...]:
    """Return the columns of times; none where none were measured."""
    if not times:
        return ()
    return (
        ("train ms\nper image", lambda row: _cell(times, row, "train")),
        ("test ms\nper image", lambda row: _cell(times, row, "test")),
    )


def _cell(times: Times, row: Row, part: str) -> str:
    return units.milliseconds(getattr(times[row.variant], f"{part}_ms")) if row.variant in times else "-"


def in_turns(found: VariantTimes, baseline: str) -> str:
    """Say how long a variant takes against the baseline: a sentence without its stop.

    "training step x 1.006 (1.002 to 1.011), inference x 1.01 (0.99 to 1.03; no measurable difference) of R8's, n = 15
    rounds in turns".
    """
    assert found.train is not None
    assert found.test is not None
    return (
        f"training step {_ratio(found.train)}, inference {_ratio(found.test)} of {baseline}'s "
        f"(n = {' and '.join(dict.fromkeys((str(found.train.n), str(found.test.n))))} rounds in turns)"
    )


def _ratio(found: Ratio) -> str:
    if found.interval is None:
        return f"x {found.median:.3f} (too few rounds for an interval)"
    low, high = found.interval
    verdict = "" if found.differs else "; no measurable difference"
    return f"x {found.median:.3f} ({low:.3f} to {high:.3f}{verdict})"


def time_sentences(rows: Sequence[Row], times: Times) -> list[str]:
    """Say for each variant how long it takes against the baseline, and how that was measured."""
    said = [
        f"{row.variant}: {in_turns(times[row.variant], row.baseline)}."
        for row in rows
        if row.variant in times and times[row.variant].train is not None
    ]
    return [*said, LEGEND] if said else []


LEGEND = (
    "Times are of steps measured in turns after training, on this machine, without loading images: medians over the "
    "rounds, and in brackets 95% intervals of the median ratio by the sign test."
)
