"""The differences of a comparison on one axis: zero, the margin, each interval, and every pair of seeds."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from srblock.report.comparison import interval
from srblock.report.figures import color
from srblock.report.svg import FAINT, INK, draw
from srblock.report.units import signed
from srblock.statistics.comparison import Row


def differences(rows: Sequence[Row], name: str, width: int) -> str:
    """Draw what each variant differs from the baseline by: 95% interval, mean, margin, a dot for each shared seed.

    Args:
        rows: of a comparison, one of them with a verdict at least; those without are left out.
    """
    compared = [(index, row) for index, row in enumerate(rows) if row.verdict is not None]
    limits = [row.verdict.target for _, row in compared if row.verdict is not None]  # within these it is no difference
    pairs = {row.variant: seed_differences(row, rows) for _, row in compared}
    labels = [textwrap.fill(row.variant, width // 8) for _, row in compared]
    band, foot = 50 + 15 * max(label.count("\n") + 1 for label in labels), 46
    height = band * len(compared) + foot
    ends = [end for _, row in compared if row.estimate is not None for end in row.estimate.interval()]
    means = [row.analysis.mean for _, row in compared if row.analysis is not None]
    low, high = frame([*ends, *means, *(value for some in pairs.values() for value in some)], max(limits))

    def paint(figure: Figure) -> None:  # y is in pixels above the axis
        axes = figure.add_axes((12 / width, foot / height, 1 - 24 / width, 1 - foot / height))
        for number, (index, row) in enumerate(compared):
            bottom, tint = band * (len(compared) - 1 - number), color(index)
            axes.fill_between(
                (-limits[number], limits[number]), bottom + 4, bottom + 44, color=FAINT, alpha=0.25, linewidth=0
            )
            axes.plot((0, 0), (bottom + 4, bottom + 44), color=INK, linewidth=1)
            if row.estimate is not None:
                axes.plot(row.estimate.interval(), (bottom + 24,) * 2, color=tint, alpha=0.3, linewidth=9)
            if row.analysis is not None and row.estimate is not None:
                axes.plot((row.analysis.mean,) * 2, (bottom + 13, bottom + 35), color=tint, linewidth=2.5)
            dots = pairs[row.variant]
            apart = np.linspace(-8, 8, len(dots)) if len(dots) > 1 else np.zeros(len(dots))
            axes.scatter(dots, bottom + 24 + apart, s=36, color=tint, edgecolors=INK, linewidths=0.7, zorder=3)
            place = axes.get_yaxis_transform()
            axes.text(0, bottom + band - 4, labels[number], transform=place, va="top", weight="bold")
        label = f"difference of test {rows[0].figure.label} in points, above 0 better"
        axes.set(xlim=(low, high), ylim=(0, band * len(compared)), yticks=[], xlabel=label)
        axes.spines.left.set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6 if width > 500 else 4))
        axes.grid(axis="x", color=FAINT, alpha=0.25)

    told = "; ".join(
        f"{row.variant} {signed(row.analysis.mean)}" + ("" if row.estimate is None else f", 95% {interval(row)}")
        for _, row in compared
        if row.analysis is not None
    )
    return draw(width, height, name, f"Difference of test {rows[0].figure.label} to {rows[0].baseline}: {told}.", paint)


def seed_differences(row: Row, rows: Sequence[Row]) -> list[float]:
    """Return what each seed that both have differs by, in the order of the row's seeds."""
    base = next(other for other in rows if other.variant == row.baseline)
    theirs = dict(zip(base.seeds, base.values, strict=True))
    return [value - theirs[seed] for seed, value in zip(row.seeds, row.values, strict=True) if seed in theirs]


def frame(values: Sequence[float], margin: float) -> tuple[float, float]:
    """Pick the points that the axis spans: zero, the margin, and all values, however long an interval of few seeds."""
    low, high = min(-margin, *values), max(margin, *values)
    space = 0.06 * (high - low)
    return low - space, high + space
