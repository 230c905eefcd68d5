"""The figures of an analysis that are bars, dots and lines. Each function plans one for a page of a width in pixels.

Blue and orange are told apart by color-blind readers, and every bar has its side of zero or its place
besides. Where bars have a sign, orange is above zero, as red is in the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from srblock.inspection.analysis import Array, BlockAnalysis
from srblock.report.block_figures import MEMORIES_SHOWN, short
from srblock.report.svg import FAINT, INK, SERIES, Plate
from srblock.report.units import signed

ALL, ONE, OTHER = SERIES[0], SERIES[1], SERIES[2]
ENDS = 10  # classes shown at either end of a long list
ARGUED = 5  # classes that a memory block argues for most, and as many against
PANELS = 12  # memory blocks that have a panel of their own
PROBED = {"memory_rms": "memory, root mean square", "memory_spread": "distance from the mean map, relative"}


def class_recall(block: BlockAnalysis, named: Sequence[tuple[int, str]], width: int) -> Plate:
    """Plan a panel for each of some classes: recall weights, mean and standard deviation, beside all images'.

    As Figs. 2 and 5 to 7; one scale for all. Args: named, number and name of classes that have images.
    """
    shown = min(len(block.mean), MEMORIES_SHOWN)
    columns = min(len(named), 3 if width > 500 else 1)
    lines = math.ceil(len(named) / columns)
    left, head, foot, tall, legend = 46, 26, 42, 120, 26
    each, height = width / columns, lines * (head + tall + foot) + legend
    place = np.arange(1, shown + 1)
    numbers = [number for number, _ in named]
    tops = [block.mean + block.std, *(block.class_mean[n] + block.class_std[n] for n in numbers), [1 / len(block.mean)]]
    top = 1.06 * max(float(np.max(values)) for values in tops)

    def bars(axes: Axes, shift: float, mean: Array, std: Array, tint: str) -> None:
        mean, std = mean[:shown], std[:shown]
        whiskers = np.stack([np.minimum(std, mean), std])
        style: dict[str, Any] = {"ecolor": INK, "error_kw": {"elinewidth": 1}}
        axes.bar(place + shift, mean, 0.38, yerr=whiskers, color=tint, **style)

    def paint(figure: Figure) -> None:
        for index, (number, name) in enumerate(named):
            line, column = divmod(index, columns)
            bottom = height - legend - (line + 1) * (head + tall + foot) + foot
            axes = figure.add_axes(
                ((column * each + left) / width, bottom / height, (each - left - 12) / width, tall / height)
            )
            bars(axes, -0.2, block.class_mean[number], block.class_std[number], ONE)
            bars(axes, 0.2, block.mean, block.std, ALL)
            axes.axhline(1 / len(block.mean), color=FAINT, linewidth=1, linestyle=":")
            axes.set(ylim=(0, top), xlim=(0.4, shown + 0.6), xlabel="memory block")
            axes.set_title(short(name, int(each / 11)), size=12, loc="left")
            axes.xaxis.set_major_locator(MaxNLocator(min(10, shown), integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
        keys = [Patch(color=ONE, label="images of the class"), Patch(color=ALL, label="all images")]
        figure.legend(handles=keys, loc="upper left", ncols=2, frameon=False, borderaxespad=0, handlelength=1)

    farthest = max(
        ((abs(block.class_mean[n][p] - block.mean[p]), name, p) for n, name in named for p in range(shown)),
        key=lambda found: found[0],
    )
    return Plate(
        width,
        height,
        f"Recall weights of {', '.join(name for _, name in named)} beside those of all images. The greatest difference "
        f"is {farthest[0]:.3f}, of {farthest[1]} at memory block {farthest[2] + 1}.",
        paint,
    )


def by_class(values: Array, overall: float | None, classes: Sequence[str], label: str, width: int) -> Plate:
    """Plan a bar for every class that has a value, the greatest first; of many the greatest and the smallest ten.

    Args: overall, of all images, a line; None for none.
    """
    order = class_order(values)
    cut = len(order) > 2 * ENDS
    rows = [*order[:ENDS], None, *order[-ENDS:]] if cut else list(order)
    names = ["…" if number is None else short(classes[number], 28 if width > 500 else 16) for number in rows]
    left, foot, thick = 14 + 7.4 * max(map(len, names)), 46, 20
    height = thick * len(rows) + foot + 6
    there = values[order]
    low, high = min(0.0, float(there.min()), overall or 0.0), max(0.0, float(there.max()), overall or 0.0)
    span = 0.03 * (high - low or 1.0)
    positive = OTHER if low < 0 else ONE

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((left / width, foot / height, 1 - (left + 68) / width, 1 - (foot + 6) / height))
        for row, number in enumerate(rows):
            if number is not None:
                value = float(values[number])
                axes.barh(row, value, height=0.72, color=positive if value >= 0 else ONE)
                beside = axes.get_yaxis_transform()
                axes.text(
                    1.02,
                    row,
                    f"{value:.3g}" if abs(value) >= 0.01 else f"{value:.2g}",
                    transform=beside,
                    va="center",
                    size=11,
                )
        if overall is not None:
            axes.axvline(overall, color=INK, linewidth=1.2, linestyle="--")
        axes.axvline(0, color=FAINT, linewidth=1)
        axes.set(xlim=(low - span * (low < 0), high + span), ylim=(len(rows) - 0.4, -0.6), xlabel=label)
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(axis="y", length=0)
        axes.spines.left.set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6 if width > 500 else 4))

    most, least = order[0], order[-1]
    description = f"{label}: most for {classes[most]} ({values[most]:.3g}), least for {classes[least]} "
    description += f"({values[least]:.3g})" + ("." if overall is None else f"; {overall:.3g} over all images.")
    return Plate(width, height, description, paint)


def class_order(values: Array) -> list[int]:
    """Return the numbers of the classes that have a value, the greatest value first."""
    present = np.flatnonzero(np.isfinite(values))
    return [int(number) for number in present[np.argsort(-values[present], kind="stable")]]


def control_dots(
    changes: Sequence[tuple[str, float, tuple[float, float] | None]], label: str, images: int, width: int
) -> Plate:
    """Plan a dot for the change under each control, with its interval, around zero.

    Args: changes, name, percentage points, and their interval if there is one.
    """
    left, foot, band = 14 + 7.6 * max(len(name) for name, _, _ in changes), 46, 32
    height = band * len(changes) + foot + 8
    ends = [end for _, points, interval in changes for end in (points, *(interval or ()))]
    low, high = min(0.0, *ends), max(0.0, *ends)
    span = max(high - low, 100 / images)
    low, high = low - 0.06 * span, high + 0.06 * span

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((left / width, foot / height, 1 - (left + 62) / width, 1 - (foot + 8) / height))
        axes.axvline(0, color=INK, linewidth=1.2)
        for row, (_, points, interval) in enumerate(changes):
            if interval is not None:
                axes.plot(interval, (row, row), color=ONE, alpha=0.35, linewidth=8, solid_capstyle="butt")
            axes.scatter(points, row, s=46, color=ONE, edgecolors=INK, linewidths=0.7, zorder=3)
            place = axes.get_yaxis_transform()
            axes.text(1.02, row, signed(points), transform=place, va="center", size=11)
        axes.set(xlim=(low, high), ylim=(len(changes) - 0.5, -0.5), xlabel=f"change of {label}, points")
        axes.set_yticks(range(len(changes)), [name for name, _, _ in changes])
        axes.tick_params(axis="y", length=0)
        axes.spines.left.set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6 if width > 500 else 4))
        axes.grid(axis="x", color=FAINT, alpha=0.25)

    said = (
        f"{name} {signed(points)}" + (f" ({signed(interval[0])} to {signed(interval[1])})" if interval else "")
        for name, points, interval in changes
    )
    return Plate(width, height, f"Change of {label} under each control in points: {'; '.join(said)}.", paint)


def argued(by_block: Array, shown: Sequence[int], classes: Sequence[str], width: int) -> Plate:
    """Plan a panel for some memory blocks: the classes that each argues for most, and against.

    Shapes: by_block (P, classes), each row around its mean: only differences between logits count.
    """
    count = min(ARGUED, len(classes) // 2)
    columns = min(len(shown), 3 if width > 500 else 1)
    lines = math.ceil(len(shown) / columns)
    each, head, foot, thick = width / columns, 26, 30, 19
    tall = thick * 2 * count
    height = lines * (head + tall + foot)
    left = min(0.5 * each, 14 + 7.4 * max(len(short(name, 18)) for name in classes))
    reach = 1.08 * float(np.abs(by_block[list(shown)]).max()) or 1.0
    chosen = {block: ends(by_block[block], count) for block in shown}

    def paint(figure: Figure) -> None:
        for index, block in enumerate(shown):
            line, column = divmod(index, columns)
            bottom = height - (line + 1) * (head + tall + foot) + foot
            axes = figure.add_axes(
                ((column * each + left) / width, bottom / height, (each - left - 16) / width, tall / height)
            )
            values = by_block[block][chosen[block]]
            axes.barh(range(2 * count), values, height=0.72, color=[OTHER if value >= 0 else ONE for value in values])
            axes.axvline(0, color=INK, linewidth=1)
            axes.set(xlim=(-reach, reach), ylim=(2 * count - 0.4, -0.6))
            axes.set_yticks(range(2 * count), [short(classes[number], 18) for number in chosen[block]])
            axes.set_title(f"memory block {block + 1}", size=12, loc="left")
            axes.tick_params(axis="y", length=0)
            axes.spines.left.set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(4))

    said = (f"{block + 1} for {classes[chosen[block][0]]}, against {classes[chosen[block][-1]]}" for block in shown)
    return Plate(width, height, f"What memory blocks argue for most: {'; '.join(said)}.", paint)


def ends(values: Array, count: int) -> list[int]:
    """Return the numbers of the greatest values and of the smallest, in falling order."""
    order = np.argsort(-values, kind="stable")
    return [int(number) for number in (*order[:count], *order[len(order) - count :])]


def epoch_lines(series: Sequence[tuple[str, Array]], selected: int, width: int) -> Plate:
    """Plan a panel for each figure that was recorded after every epoch; a line marks the epoch that counts.

    Shapes: series, key and values (epochs,), NaN where there is none.
    """
    columns = min(len(series), 2 if width > 500 else 1)
    lines = math.ceil(len(series) / columns)
    height = 220 * lines

    def paint(figure: Figure) -> None:
        places = np.ravel(figure.subplots(lines, columns))
        for axes, (key, values) in zip(places, series, strict=False):
            epochs = np.arange(1, len(values) + 1)
            axes.plot(epochs, values, color=ONE, linewidth=2, marker="o" if len(values) == 1 else None)
            axes.axvline(selected, color=FAINT, linewidth=1.2, linestyle="--")
            axes.set_title(probed(key), size=12, loc="left")
            axes.set(xlabel="epoch", xlim=(min(0.5, len(values) / 2), len(values) + 0.5))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.grid(color=FAINT, alpha=0.25)
        for axes in places[len(series) :]:
            axes.set_visible(False)
        figure.tight_layout(pad=0.5, w_pad=2, h_pad=1.5)

    said = (f"{probed(key)} {values[selected - 1]:.3g}" for key, values in series)
    return Plate(width, height, f"Over the epochs; at epoch {selected}, which counts: {'; '.join(said)}.", paint)


def probed(key: str) -> str:
    """Name a figure of the probe for people."""
    return PROBED.get(key, key.replace("_", " "))
