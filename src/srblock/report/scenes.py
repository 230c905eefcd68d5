"""What a report shows of a segmentation: some scenes with what was said of them, and the IoU of every class."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from srblock.data.scene_files import IGNORED
from srblock.report.figures import color
from srblock.report.svg import FAINT, INK, draw
from srblock.report.units import mean_and_std
from srblock.runs.records import Run, read_scenes
from srblock.statistics.segmentation import iou_by_class

Array = np.ndarray[Any, Any]
UNSEEN = (0, 0, 0)  # the color of ignored pixels
# Where two predictions differ: only the variant is right, only the baseline is, both are wrong.
GAINED, LOST, WRONG, RIGHT = (0, 114, 178), (213, 94, 0), (140, 140, 140), (244, 244, 244)


@dataclass(frozen=True)
class Picture:
    """A picture and what it is, its source a data URI."""

    caption: str
    source: str


@dataclass(frozen=True)
class SceneView:
    """One scene of the test part.

    Attributes:
        number: its place there, from 0.
        pictures: image, truth, what each variant said, and where each differs from the first.
        recalled: (variant, block, weights) of every block.
    """

    number: int
    pictures: tuple[Picture, ...]
    recalled: tuple[tuple[str, str, tuple[float, ...]], ...]


def scene_views(groups: Sequence[tuple[str, Sequence[Run]]], colors: Sequence[Sequence[int]]) -> list[SceneView]:
    """Collect the scenes that all variants have pictures of with the first seed that they share.

    Raises: ValueError if a file of pictures is damaged.
    """
    shared = set.intersection(*({run.seed for run in runs} for _, runs in groups))
    if not shared:
        return []
    seed = min(shared)
    seen = [(variant, read_scenes(run.directory)) for variant, runs in groups for run in runs if run.seed == seed]
    if not all(found for _, found in seen):
        return []
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)], palette[IGNORED] = colors, UNSEEN
    numbers = sorted({int(key.partition("/")[0]) for key in seen[0][1]})
    _refuse_others(seen)
    return [_view(number, seen, palette) for number in numbers]


def _refuse_others(seen: Sequence[tuple[str, dict[str, Array]]]) -> None:
    """Refuse runs that show other scenes than the first one does: their pictures could not be compared."""

    def shapes(found: dict[str, Array]) -> dict[str, tuple[int, ...]]:
        return {key: value.shape for key, value in sorted(found.items()) if key.endswith("/truth")}

    first, expected = seen[0][0], shapes(seen[0][1])
    for variant, found in seen[1:]:
        if shapes(found) != expected:
            raise ValueError(
                f"scenes.safetensors of {variant} has scenes of {list(shapes(found).values())}, that of {first} of "
                f"{list(expected.values())}; delete the folder of the run that was changed to train it anew"
            )


def _view(number: int, seen: Sequence[tuple[str, dict[str, Array]]], palette: Array) -> SceneView:
    first, files = seen[0]
    image, truth = files[f"{number}/image"], files[f"{number}/truth"]
    pictures = [
        Picture("the scene", encoded(image.transpose(1, 2, 0), "JPEG")),
        Picture("the truth", encoded(palette[truth], "PNG")),
    ]
    pictures += [Picture(variant, encoded(palette[found[f"{number}/said"]], "PNG")) for variant, found in seen]
    said = files[f"{number}/said"]
    pictures += [
        Picture(f"{first} and {variant}", encoded(compared(truth, said, found[f"{number}/said"]), "PNG"))
        for variant, found in seen[1:]
    ]
    prefix = f"{number}/recall/"
    recalled = tuple(
        (variant, key.removeprefix(prefix), tuple(map(float, found[key])))
        for variant, found in seen
        for key in sorted(found)
        if key.startswith(prefix)
    )
    return SceneView(number, tuple(pictures), recalled)


def compared(truth: Array, baseline: Array, variant: Array) -> Array:
    """Color where a variant alone is right, where the baseline alone is, and where neither is.

    Shapes: (h, w) three times -> (h, w, 3), uint8.
    """
    right, right_before = variant == truth, baseline == truth
    colors = np.full((*truth.shape, 3), RIGHT, np.uint8)
    colors[right & ~right_before] = GAINED
    colors[~right & right_before] = LOST
    colors[~right & ~right_before] = WRONG
    colors[truth == IGNORED] = UNSEEN
    return colors


def encoded(pixels: Array, kind: str) -> str:
    """Return a picture as a data URI, "PNG" or "JPEG". Shapes: pixels (h, w) or (h, w, 3), uint8."""
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if kind == "PNG":
        image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=85)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def class_bars(groups: Sequence[tuple[str, Sequence[Run]]], classes: Sequence[str], name: str, width: int) -> str:
    """Draw the IoU of every class, a bar for the mean of each variant and a dot for each seed."""
    scores = [iou_by_class(runs) for _, runs in groups]
    thick = 11
    band, foot = thick * len(groups) + 12, 44
    left = 12 + 7.2 * min(24, max(map(len, classes)))
    height = band * len(classes) + foot

    def paint(figure: Figure) -> None:  # y is in pixels above the axis
        axes = figure.add_axes((left / width, foot / height, 1 - (left + 14) / width, 1 - foot / height))
        for number in range(len(classes)):
            top = band * (len(classes) - number) - 6
            for index, of_variant in enumerate(scores):
                there = of_variant[:, number][np.isfinite(of_variant[:, number])]
                middle = top - thick * (index + 0.5)
                if len(there):
                    axes.barh(middle, there.mean(), height=thick - 2, color=color(index), alpha=0.75)
                    axes.scatter(there, [middle] * len(there), s=9, color=INK, linewidths=0, zorder=3)
        axes.set(xlim=(0, 100), ylim=(0, band * len(classes)), xlabel="test IoU, %")
        axes.set_yticks([band * (len(classes) - number - 0.5) for number in range(len(classes))])
        axes.set_yticklabels([text if len(text) <= 24 else f"{text[:23]}…" for text in classes])
        axes.tick_params(axis="y", length=0)
        axes.spines.left.set_visible(False)
        axes.grid(axis="x", color=FAINT, alpha=0.25)

    return draw(width, height, name, f"Test IoU of {len(classes)} classes, by variant.", paint)


def class_lines(groups: Sequence[tuple[str, Sequence[Run]]], classes: Sequence[str]) -> list[tuple[str, ...]]:
    """List every class with the IoU of each variant, mean and standard deviation over its seeds."""
    scores = [iou_by_class(runs) for _, runs in groups]
    return [(name, *(_cell(found[:, number]) for found in scores)) for number, name in enumerate(classes)]


def _cell(values: Array) -> str:
    there = values[np.isfinite(values)]
    if not len(there):
        return "-"
    return mean_and_std(float(there.mean()), float(there.std(ddof=1)) if len(there) > 1 else None)
