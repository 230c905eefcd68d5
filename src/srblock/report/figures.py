"""The figures of a comparison, as SVG elements: every seed, learning curves.

Series take the page's colors (safe for color-blind readers) in the order of the variants: the baseline is gray. Beyond
six variants colors repeat with another line style.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from srblock.report.svg import FAINT, INK, SERIES, draw
from srblock.runs.records import Run
from srblock.statistics.comparison import Row
from srblock.statistics.differences import mean_interval

Array = np.ndarray[Any, Any]

BARS_FROM = 4  # seeds; the interval of fewer is longer than anything in the picture
SEEDS_AS_LINES = 10  # more are drawn as a band
ZOOMED_FROM = 5  # epochs; from there on the first fifth may leave the frame


def color(index: int) -> str:
    """Return the stand-in for a variant's color."""
    return SERIES[index % len(SERIES)]


def dashes(index: int) -> str:
    """Return a variant's line style."""
    return ("-", "--", ":")[index // len(SERIES) % 3]


def seeds(rows: Sequence[Row], name: str, width: int) -> str:
    """Draw every seed's figure on the test set as a dot, with the mean and, of enough seeds, its 95% interval."""
    labels = [textwrap.fill(row.variant, width // 8) for row in rows]
    band, foot = 50 + 15 * max(label.count("\n") + 1 for label in labels), 46
    height = band * len(rows) + foot

    def paint(figure: Figure) -> None:  # y is in pixels above the axis
        axes = figure.add_axes((12 / width, foot / height, 1 - 24 / width, 1 - foot / height))
        for index, row in enumerate(rows):
            bottom, tint = band * (len(rows) - 1 - index), color(index)
            found = bar(row)
            if found is not None:
                axes.plot(found, (bottom + 24,) * 2, color=tint, alpha=0.3, linewidth=9, solid_capstyle="round")
            if row.n > 1:
                axes.plot((row.mean,) * 2, (bottom + 13, bottom + 35), color=tint, linewidth=2.5)
            apart = np.linspace(-8, 8, row.n) if row.n > 1 else np.zeros(1)
            axes.scatter(row.values, bottom + 24 + apart, s=36, color=tint, edgecolors=INK, linewidths=0.7, zorder=3)
            place = axes.get_yaxis_transform()
            axes.text(0, bottom + band - 4, labels[index], transform=place, va="top", weight="bold")
        axes.set(xlim=frame(rows), ylim=(0, band * len(rows)), yticks=[], xlabel=f"test {rows[0].figure.label}, %")
        axes.spines.left.set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6 if width > 500 else 4))
        axes.grid(axis="x", color=FAINT, alpha=0.25)

    means = "; ".join(f"{row.variant} {row.mean:.2f} from {row.n}" for row in rows)
    return draw(width, height, name, f"Test {rows[0].figure.label} of every seed. Means: {means}.", paint)


def bar(row: Row) -> tuple[float, float] | None:
    """Return the interval that is drawn of a mean; None of few seeds, whose dots say more, or without spread."""
    return mean_interval(row.values) if row.n >= BARS_FROM and row.std else None


def frame(rows: Sequence[Row]) -> tuple[float, float]:
    """Pick the accuracies that the seeds' figure spans: at least one point, all dots, and as much as fits of intervals.

    Intervals can be so long that the dots would be one.
    """
    values = [value for row in rows for value in row.values]
    ends = [end for row in rows for end in bar(row) or ()]
    low, high = min(values), max(values)
    span = high - low or 1.0
    low, high = max(min([low, *ends]), low - span), min(max([high, *ends]), high + span)
    margin = max(0.06 * (high - low), (1 - (high - low)) / 2)
    return max(low - margin, -margin / 4), min(high + margin, 100 + margin / 4)  # nothing is above 100%


def learning_curves(groups: Sequence[tuple[str, Sequence[Run]]], name: str, width: int) -> str:
    """Draw validation figure and training loss by epoch, seeds thin and their mean bold; side by side where wide.

    Without validation the training figure stands in its place.
    """
    side = width > 500
    height = 290 if side else 520
    figure = next(run.figure for _, runs in groups for run in runs)
    part = "validation" if all(run.validation for _, runs in groups for run in runs) else "train"
    of_part = {"validation": "validation", "train": "training"}[part]
    panels = (f"{part}_{figure.key}", f"{of_part} {figure.label}, %", True), ("train_loss", "training loss", False)

    def paint(sheet: Figure) -> None:
        places = sheet.subplots(1, 2) if side else sheet.subplots(2, 1)
        for axes, (key, title, rising) in zip(places, panels, strict=True):
            curves = [[np.array([record[key] for record in run.metrics], float) for run in runs] for _, runs in groups]
            for index, of_variant in enumerate(curves):
                _plot_curves(axes, of_variant, index)
            axes.set_title(title, size=12, loc="left")
            axes.set_xlabel("epoch")
            if axes.dataLim.width == 0:  # one epoch
                axes.set_xlim(0, 2)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.grid(color=FAINT, alpha=0.25)
            _zoom(axes, [curve for of_variant in curves for curve in of_variant], rising=rising)
        sheet.tight_layout(pad=0.5, w_pad=2, h_pad=1.5)

    names = ", ".join(variant for variant, _ in groups)
    return draw(
        width, height, name, f"{of_part.capitalize()} {figure.label} and training loss by epoch of {names}.", paint
    )


def _plot_curves(axes: Axes, curves: Sequence[Array], index: int) -> None:
    common = np.vstack([curve[: min(map(len, curves))] for curve in curves])
    epochs = np.arange(1, common.shape[1] + 1)
    style: dict[str, Any] = {"color": color(index), "linestyle": dashes(index)}
    if len(curves) > SEEDS_AS_LINES:
        axes.fill_between(epochs, common.min(0), common.max(0), color=color(index), alpha=0.2, linewidth=0)
    elif len(curves) > 1:
        axes.plot(epochs, common.T, linewidth=0.8, alpha=0.45, **style)
    axes.plot(epochs, common.mean(0), linewidth=2.2, marker="o" if len(epochs) == 1 else None, **style)


def _zoom(axes: Axes, curves: Sequence[Array], *, rising: bool) -> None:
    """Let the first fifth of the epochs run out of the frame where they would flatten all that follows."""
    everything = np.concatenate(curves)
    later = np.concatenate([curve[len(curve) // ZOOMED_FROM :] for curve in curves])
    span = float(np.ptp(later)) or 1.0
    if rising:
        axes.set_ylim(max(everything.min(), later.min()) - 0.05 * span, later.max() + 0.05 * span)
    else:
        axes.set_ylim(later.min() - 0.05 * span, min(everything.max(), later.max()) + 0.05 * span)
