"""The figures of an analysis that are pictures: cosines, close-ups, the images that recall a memory block most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from srblock.inspection.analysis import Array, Closeup, Exemplars
from srblock.report.block_figures import CELL_TEXT, DIVERGING, MEMORIES_SHOWN, color_bar, short
from srblock.report.svg import FAINT, Plate

SEQUENTIAL = "cividis"
SHEETS = 12  # memory blocks on a contact sheet
CLOSE, THUMB = 160, 64  # pixels that a side of an image has at most in a close-up and on a sheet


def cosines(cosine: Array, width: int) -> Plate:
    """Plan a matrix of the cosine between memory blocks, from -1 to 1. Shapes: cosine (P, P)."""
    shown = cosine[:MEMORIES_SHOWN, :MEMORIES_SHOWN]
    blocks = len(shown)
    left, head, foot = 46, 46, 56
    cell = min(46.0, (width - left - 4) / blocks)
    full, height = max(left + blocks * cell + 4, 220 + left), head + blocks * cell + foot
    norm = Normalize(-1, 1)

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((left / full, foot / height, blocks * cell / full, blocks * cell / height))
        axes.imshow(shown, cmap=DIVERGING, norm=norm, interpolation="none", aspect="auto")
        if cell >= 30:
            for (row, column), value in np.ndenumerate(shown):
                ink = "#ffffff" if abs(value) > 0.64 else "#1a1a1a"
                axes.text(column, row, f"{value:.2f}", color=ink, **CELL_TEXT)
        numbers = [number for number in range(blocks) if cell >= 18 or (number + 1) % 5 == 0]
        axes.set_xticks(numbers, [str(number + 1) for number in numbers])
        axes.set_yticks(numbers, [str(number + 1) for number in numbers])
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set(xlabel="memory block", ylabel="memory block")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = figure.add_axes(((left + 16) / full, 28 / height, min(full - left - 40, 200) / full, 10 / height))
        color_bar(figure, bar, norm, {-1: "-1", 0: "0", 1: "1"})

    low, high = off_diagonal(cosine)
    return Plate(full, height, f"Cosine between {blocks} memory blocks: from {low:.2f} to {high:.2f}.", paint)


def off_diagonal(cosine: Array) -> tuple[float, float]:
    """Return the smallest and the greatest cosine of two different memory blocks, of at least two."""
    apart = cosine[~np.eye(len(cosine), dtype=bool)]
    return float(apart.min()), float(apart.max())


def closeups(found: Sequence[Closeup], width: int) -> Plate:
    """Plan a row for each close-up: image, channel means before and after on one scale, mean absolute difference.

    As Fig. 3, with the relative change as a number.
    """
    heads, gap, title, range_ = ("image", "before", "after", "|after - before|"), 10, 22, 18
    side = min(150.0, (width - 3 * gap) / 4)
    full = 4 * side + 3 * gap
    tall = [side * max(_ratio(one.image[0]), _ratio(one.before)) for one in found]
    top = 22
    height = top + sum(title + each + range_ + gap for each in tall)

    def paint(figure: Figure) -> None:
        edge = height - top
        for index, head in enumerate(heads):
            middle = index * (side + gap) + side / 2
            text = head if side > 110 else head.replace("|after - before|", "difference")
            figure.text(middle / full, 1 - 4 / height, text, ha="center", va="top", size=11)
        for one, each in zip(found, tall, strict=True):
            said = f"{short(one.title, 22)}, change {one.change_percent:.3g}%"
            figure.text(0, (edge - 4) / height, said, va="top", weight="bold", size=12)
            edge -= title
            shared = (
                float(min(one.before.min(), one.after.min())),
                float(max(one.before.max(), one.after.max())),
            )
            scales = (None, shared, shared, (0.0, float(one.difference.max())))
            for index, pixels in enumerate((one.image, one.before, one.after, one.difference)):
                scale = scales[index]
                own = side * _ratio(pixels[0] if scale is None else pixels)
                place = (index * (side + gap) / full, (edge - own) / height, side / full, own / height)
                axes = figure.add_axes(place)
                if scale is None:
                    show_image(axes, pixels, CLOSE)
                else:
                    norm = Normalize(scale[0], scale[1] if scale[1] > scale[0] else scale[0] + 1)
                    axes.imshow(pixels, cmap=colormaps[SEQUENTIAL], norm=norm, interpolation="none", aspect="auto")
                    axes.set(xticks=[], yticks=[])
                    text = f"{pixels.min():.2g} to {pixels.max():.2g}"
                    axes.set_xlabel(text, size=11 if side > 110 else 9, labelpad=3)
                axes.spines[:].set(visible=True, color=FAINT)
            edge -= each + range_ + gap

    said = "; ".join(f"{one.title} {one.change_percent:.3g}%" for one in found)
    return Plate(full, height, f"Maps before and after the block; they change by: {said}.", paint)


def contact_sheets(found: Sequence[Exemplars], classes: Sequence[str], width: int) -> Plate:
    """Plan a row for each of the first memory blocks: the images that recall it most, with weight and class."""
    shown = found[:SHEETS]
    columns = min(max(len(one.images) for one in shown), 8 if width > 500 else 4)
    left, gap = 28, 8
    side = min(96.0, (width - left) / columns - gap)
    each = side * max(_ratio(image[0]) for one in shown for image in one.images[:columns])
    line = each + (34 if shown[0].labels is not None else 20)
    full, height = left + columns * (side + gap), len(shown) * line + 4

    def paint(figure: Figure) -> None:
        for row, one in enumerate(shown):
            edge = height - row * line
            figure.text(4 / full, (edge - each / 2) / height, str(row + 1), va="center", weight="bold")
            for column, image in enumerate(one.images[:columns]):
                own = side * _ratio(image[0])
                place = ((left + column * (side + gap)) / full, (edge - own) / height, side / full, own / height)
                axes = figure.add_axes(place)
                show_image(axes, image, THUMB)
                text = f"{one.weights[column]:.3f}"
                if one.labels is not None:
                    text += f"\n{short(classes[one.labels[column]], int(side / 7))}"
                axes.set_xlabel(text, size=10, labelpad=2, linespacing=1.1)
                axes.spines[:].set_visible(False)

    weights = [one.weights[0] for one in shown if one.weights]
    return Plate(
        full,
        height,
        f"The images that recall each of {len(shown)} memory blocks most; the greatest weights lie between "
        f"{min(weights):.3f} and {max(weights):.3f}.",
        paint,
    )


def show_image(axes: Axes, image: Array, most: int) -> None:
    """Show uint8 pixels (1 or 3, h, w), made smaller if a side has more than so many."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    factor = most / max(pixels.shape[:2])
    if factor < 1:
        size = max(1, round(factor * pixels.shape[1])), max(1, round(factor * pixels.shape[0]))
        pixels = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BOX))
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="none", aspect="auto")
    axes.set(xticks=[], yticks=[])


def _ratio(picture: Array) -> float:
    """Return height over width as it is drawn: very long pictures are drawn less so."""
    height, width = picture.shape[:2]
    return min(2.0, max(0.4, float(height) / float(width)))
