"""The figures of an SR block that every page has: recall weights by class, memory blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from srblock.report.svg import FAINT, Plate

Array = np.ndarray[Any, Any]

DIVERGING = "RdBu_r"
CLASSES_SHOWN, MEMORIES_SHOWN = 20, 64
NUMBERS_FIT = 26  # pixels that a number in a cell needs
CELL_TEXT: dict[str, Any] = {"ha": "center", "va": "center", "size": 11}
FLAT = 0.1  # recall weights closer to 1/P than a tenth of it look equal


def recall_weights(mean: Array, overall: Array, spread: Array, classes: Sequence[str], name: str, width: int) -> str:
    """Draw `recall_plate` as an element of a page."""
    return recall_plate(mean, overall, spread, classes, width).inline(name)


def recall_plate(mean: Array, overall: Array, spread: Array, classes: Sequence[str], width: int) -> Plate:
    """Plan a figure of the mean recall weight of each memory block for each class, around 1/P.

    There are numbers where there is room. Of many classes those are shown whose weights lie farthest from the mean of
    all images (see `shown_classes`).

    Args:
        mean: (classes, P); overall, spread: mean and standard deviation over all images, (P,).
    """
    shown, blocks = shown_classes(mean, overall), mean.shape[1]
    table = np.vstack([mean[shown], overall])
    labels = [*(short(classes[index], 28 if width > 500 else 14) for index in shown), "all images", "sd over images"]
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
            extent = (-0.5, blocks - 0.5, top + 1, top)
            axes.imshow(line[None], cmap=DIVERGING, norm=norm, interpolation="none", aspect="auto", extent=extent)
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
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = figure.add_axes(((left + 20) / full, 30 / height, min(full - left - 40, 220) / full, 10 / height))
        ticks = {1 / blocks - reach: f"{1 / blocks - reach:.3f}", 1 / blocks: f"1/{blocks}"}
        color_bar(figure, bar, norm, ticks | {1 / blocks + reach: f"{1 / blocks + reach:.3f}"})

    description = f"Mean recall weights of {blocks} memory blocks for {len(shown)} classes and for all images."
    return Plate(full, height, description, paint)


def memories(memory: Array, name: str, width: int) -> str:
    """Draw `memory_plate` as an element of a page."""
    return memory_plate(memory, width).inline(name)


def memory_plate(memory: Array, width: int, *, own_scales: bool = False) -> Plate:
    """Plan a figure of the channel mean of each memory block, around zero.

    Shapes: memory (P, H, W).

    Args:
        own_scales: whether each block has a scale of its own, its end above it, so that weak ones show their form;
            else all share one.
    """
    shown = memory[:MEMORIES_SHOWN]
    columns = min(len(shown), max(2, width // 105))
    lines = math.ceil(len(shown) / columns)
    gap, head, foot = 12, 20, 50
    side = min(104.0, (width - gap * (columns - 1)) / columns)
    tall = side * min(2.0, max(0.5, memory.shape[1] / memory.shape[2]))
    full = columns * side + gap * (columns - 1)
    full_width, height = max(full, 220), lines * (tall + head) + foot
    shared = float(np.abs(memory).max()) or 1.0
    reach = [(float(np.abs(block).max()) or 1.0) if own_scales else shared for block in shown]
    ends = ("-", "0", "+") if own_scales else (f"{-shared:.2g}", "0", f"{shared:.2g}")

    def paint(figure: Figure) -> None:
        for index, block in enumerate(shown):
            line, column = divmod(index, columns)
            bottom = height - (line + 1) * (tall + head)
            axes = figure.add_axes(
                (column * (side + gap) / full_width, bottom / height, side / full_width, tall / height)
            )
            norm = Normalize(-reach[index], reach[index])
            axes.imshow(block, cmap=DIVERGING, norm=norm, interpolation="none", aspect="auto")
            title = f"{index + 1}: ±{np.abs(block).max():.2g}" if own_scales else str(index + 1)
            axes.set_title(title, size=12, pad=4)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=FAINT)
        bar = figure.add_axes((24 / full_width, 24 / height, min(full_width - 48, 220) / full_width, 10 / height))
        norm = Normalize(-shared, shared)
        color_bar(figure, bar, norm, dict(zip((-shared, 0, shared), ends, strict=True)))

    height_shape, width_shape = memory.shape[1:]
    return Plate(
        full_width,
        height,
        f"Channel means of {len(shown)} memory blocks, {height_shape} by {width_shape} each, "
        f"between {memory.min():.2g} and {memory.max():.2g}{', each on its own scale' if own_scales else ''}.",
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


def _weight(value: float, room: float) -> str:
    """Print a weight; without its leading zero where the cell is small."""
    text = f"{value:.3f}"
    return text if room >= 38 else text.removeprefix("0")


def short(text: str, length: int) -> str:
    """Leave out the middle of a long name: many differ at their ends only."""
    return text if len(text) <= length else f"{text[: length // 2]}…{text[len(text) + 1 - (length + 1) // 2 :]}"


def _some(blocks: int, room: float) -> list[int]:
    """Pick the memory blocks that get a number above them: all, or every fifth."""
    return [block for block in range(blocks) if room >= 18 or (block + 1) % 5 == 0]


def color_bar(figure: Figure, axes: Axes, norm: Normalize, ticks: Mapping[float, str]) -> None:
    scale = ScalarMappable(norm, colormaps[DIVERGING])
    bar = figure.colorbar(scale, cax=axes, orientation="horizontal", ticks=list(ticks))
    bar.ax.set_xticklabels(list(ticks.values()), size=11)
    bar.ax.tick_params(length=3)
    bar.outline.set_visible(False)
