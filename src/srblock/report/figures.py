"""The figures of a report, as SVG elements: every seed, learning curves, recall weights, memory blocks.

Series take the page's colors (safe for color-blind readers) in the order of the variants: the baseline is gray. Beyond
six variants colors repeat with another line style.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from srblock.report.svg import FAINT, INK, SERIES, draw
from srblock.runs.records import Run
from srblock.statistics.comparison import Row
from srblock.statistics.differences import mean_interval

Array = np.ndarray[Any, Any]

DIVERGING = "RdBu_r"
SEEDS_AS_LINES = 10  # more are drawn as a band
ZOOMED_FROM = 5  # epochs; from there on the first fifth may leave the frame
CLASSES_SHOWN, MEMORIES_SHOWN = 20, 64
NUMBERS_FIT = 26  # pixels that a number in a cell needs
CELL_TEXT: dict[str, Any] = {"ha": "center", "va": "center", "size": 11}
FLAT = 0.1  # recall weights closer to 1/P than a tenth of it look equal


def color(index: int) -> str:
    """Return the stand-in for a variant's color."""
    return SERIES[index % len(SERIES)]


def dashes(index: int) -> str:
    """Return a variant's line style."""
    return ("-", "--", ":")[index // len(SERIES) % 3]


def seeds(rows: Sequence[Row], name: str, width: int) -> str:
    """Draw every seed's figure on the test set as a dot, with the mean and its 95% interval."""
    labels = [textwrap.fill(row.variant, width // 8) for row in rows]
    band, foot = 50 + 15 * max(label.count("\n") + 1 for label in labels), 46
    height = band * len(rows) + foot

    def paint(figure: Figure) -> None:  # y is in pixels above the axis
        axes = figure.add_axes((12 / width, foot / height, 1 - 24 / width, 1 - foot / height))
        for index, row in enumerate(rows):
            bottom, tint = band * (len(rows) - 1 - index), color(index)
            found = mean_interval(row.values)
            if found is not None and row.std:
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


def frame(rows: Sequence[Row]) -> tuple[float, float]:
    """Pick the accuracies that the seeds' figure spans: at least one point, all dots, and as much as fits of intervals.

    Intervals of two seeds can be so long that the dots would be one.
    """
    values = [value for row in rows for value in row.values]
    ends = [end for row in rows for end in mean_interval(row.values) or ()]
    low, high = min(values), max(values)
    span = high - low or 1.0
    low, high = max(min([low, *ends]), low - span), min(max([high, *ends]), high + span)
    margin = max(0.06 * (high - low), (1 - (high - low)) / 2)
    return max(low - margin, -margin / 4), min(high + margin, 100 + margin / 4)  # nothing is above 100%


def learning_curves(groups: Sequence[tuple[str, Sequence[Run]]], name: str, width: int) -> str:
    """Draw validation figure and training loss by epoch, seeds thin and their mean bold; side by side where wide."""
    side = width > 500
    height = 290 if side else 520
    figure = next(run.figure for _, runs in groups for run in runs)
    panels = (f"validation_{figure.key}", f"validation {figure.label}, %", True), ("train_loss", "training loss", False)

    def paint(sheet: Figure) -> None:
        places = sheet.subplots(1, 2) if side else sheet.subplots(2, 1)
        for axes, (key, title, rising) in zip(places, panels, strict=True):
            curves = [[_curve(run, key) for run in runs] for _, runs in groups]
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
    return draw(width, height, name, f"Validation accuracy and training loss by epoch of {names}.", paint)


def recall_weights(mean: Array, overall: Array, spread: Array, classes: Sequence[str], name: str, width: int) -> str:
    """Draw the mean recall weight of each memory block for each class, around 1/P, with numbers where there is room.

    Of many classes those are shown whose weights lie farthest from the mean of all images (see `shown_classes`).

    Args:
        mean: (classes, P); overall, spread: mean and standard deviation over all images, (P,).
    """
    shown, blocks = shown_classes(mean, overall), mean.shape[1]
    table = np.vstack([mean[shown], overall])
    labels = [*(_short(classes[index], 28 if width > 500 else 14) for index in shown), "all images", "sd over images"]
    left = 12 + 7.2 * max(map(len, labels))
    cell_width, cell = min(46.0, (width - left - 4) / blocks), 26
    full = max(left + blocks * cell_width + 4, left + 160)
    numbers = cell_width >= NUMBERS_FIT
    tops = [*range(len(shown)), len(shown) + 0.3]  # of the rows of the table, with a gap above that of all images
    rows = len(shown) + (2.3 if numbers else 1.3)
    height = 44 + rows * cell + 56
    reach = max(float(np.abs(table - 1 / blocks).max()), FLAT / blocks)
    norm = Normalize(1 / blocks - reach, 1 / blocks + reach)

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((left / full, 56 / height, blocks * cell_width / full, rows * cell / height))
        for top, line in zip(tops, table, strict=True):
            _row_of_cells(axes, line, top, norm)
            for block, value in enumerate(line if numbers else ()):
                ink = "#ffffff" if abs(float(norm(value)) - 0.5) > 0.32 else "#1a1a1a"
                axes.text(block, top + 0.5, _weight(value, cell_width), color=ink, **CELL_TEXT)
        for block, value in enumerate(spread if numbers else ()):
            axes.text(block, rows - 0.5, _weight(value, cell_width), **CELL_TEXT)
        axes.set(xlim=(-0.5, blocks - 0.5), ylim=(rows, 0))
        named = [*tops, rows - 1] if numbers else tops
        axes.set_yticks([top + 0.5 for top in named], labels[: len(named)])
        axes.set_xticks(_some(blocks, cell_width), [str(block + 1) for block in _some(blocks, cell_width)])
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("memory block")
        _bare(axes)
        bar = figure.add_axes(((left + 20) / full, 30 / height, min(full - left - 40, 220) / full, 10 / height))
        ticks = {1 / blocks - reach: f"{1 / blocks - reach:.3f}", 1 / blocks: f"1/{blocks}"}
        _color_bar(figure, bar, norm, ticks | {1 / blocks + reach: f"{1 / blocks + reach:.3f}"})

    description = f"Mean recall weights of {blocks} memory blocks for {len(shown)} classes and for all images."
    return draw(full, height, name, description, paint)


def memories(memory: Array, name: str, width: int) -> str:
    """Draw the channel mean of each memory block, all on one scale around zero.

    Shapes: memory (P, H, W).
    """
    shown = memory[:MEMORIES_SHOWN]
    columns = min(len(shown), max(2, width // 105))
    lines = math.ceil(len(shown) / columns)
    gap, head, foot = 12, 20, 50
    side = min(104.0, (width - gap * (columns - 1)) / columns)
    tall = side * min(2.0, max(0.5, memory.shape[1] / memory.shape[2]))
    full = columns * side + gap * (columns - 1)
    full_width, height = max(full, 220), lines * (tall + head) + foot
    reach = float(np.abs(memory).max()) or 1.0
    norm = Normalize(-reach, reach)

    def paint(figure: Figure) -> None:
        for index, block in enumerate(shown):
            line, column = divmod(index, columns)
            bottom = height - (line + 1) * (tall + head)
            axes = figure.add_axes(
                (column * (side + gap) / full_width, bottom / height, side / full_width, tall / height)
            )
            axes.imshow(block, cmap=DIVERGING, norm=norm, interpolation="none", aspect="auto")
            axes.set_title(str(index + 1), size=12, pad=4)
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set(visible=True, color=FAINT)
        bar = figure.add_axes((24 / full_width, 24 / height, min(full_width - 48, 220) / full_width, 10 / height))
        _color_bar(figure, bar, norm, {-reach: f"{-reach:.2g}", 0: "0", reach: f"{reach:.2g}"})

    height_shape, width_shape = memory.shape[1:]
    return draw(
        full_width,
        height,
        name,
        f"Channel means of {len(shown)} memory blocks, {height_shape} by {width_shape} each, "
        f"between {memory.min():.2g} and {memory.max():.2g}.",
        paint,
    )


def shown_classes(mean: Array, overall: Array) -> list[int]:
    """Pick the classes of a recall figure: all of few, else those farthest from the overall mean, in their order.

    Classes without images (NaN) are left out.
    """
    present = np.flatnonzero(np.isfinite(mean).all(axis=1))
    distance = np.abs(mean[present] - overall).sum(axis=1)
    far = present[np.argsort(-distance, kind="stable")[:CLASSES_SHOWN]]
    return [int(index) for index in sorted(far)]


# --- parts -----------------------------------------------------------------------------------------------------------


def _curve(run: Run, key: str) -> Array:
    return np.array([record[key] for record in run.metrics], dtype=float)


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


def _row_of_cells(axes: Axes, line: Array, top: float, norm: Normalize) -> None:
    extent = (-0.5, len(line) - 0.5, top + 1, top)
    axes.imshow(line[None], cmap=DIVERGING, norm=norm, interpolation="none", aspect="auto", extent=extent)


def _weight(value: float, room: float) -> str:
    """Print a weight; without its leading zero where the cell is small."""
    text = f"{value:.3f}"
    return text if room >= 38 else text.removeprefix("0")


def _short(text: str, length: int) -> str:
    """Leave out the middle of a long name: many differ at their ends only."""
    return text if len(text) <= length else f"{text[: length // 2]}…{text[len(text) + 1 - (length + 1) // 2 :]}"


def _some(blocks: int, room: float) -> list[int]:
    """Pick the memory blocks that get a number above them: all, or every fifth."""
    return [block for block in range(blocks) if room >= 18 or (block + 1) % 5 == 0]


def _bare(axes: Axes) -> None:
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _color_bar(figure: Figure, axes: Axes, norm: Normalize, ticks: Mapping[float, str]) -> None:
    scale = ScalarMappable(norm, colormaps[DIVERGING])
    bar = figure.colorbar(scale, cax=axes, orientation="horizontal", ticks=list(ticks))
    bar.ax.set_xticklabels(list(ticks.values()), size=11)
    bar.ax.tick_params(length=3)
    bar.outline.set_visible(False)
