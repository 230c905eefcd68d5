"""What a report shows of the test data: the classes, the confusions and the images that two variants differ in."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from srblock.data import ImageData, SceneData
from srblock.data.offenders import counted, offenders
from srblock.data.pictures import pictures
from srblock.report.scenes import Array, encoded
from srblock.report.units import mean_and_std, probability
from srblock.runs.records import Run
from srblock.statistics.classes import (
    ClassChange,
    ImageChange,
    ImageChanges,
    Seeds,
    answers_by_seed,
    class_changes,
    image_changes,
    pair_changes,
)
from srblock.statistics.comparison import Row
from srblock.statistics.power import ALPHA

SHOWN, LISTED, PAIRS, IMAGES = 16, 200, 10, 8
"""Classes in the table, and most that are listed below it; pairs of classes; images of each kind."""
THUMB, SMALL = 96, 64  # pixels of a side: larger images are made smaller, and those above the second are JPEG


@dataclass(frozen=True)
class ClassLine:
    """A class in print: test images, percent right of baseline and variant, difference, its interval, Holm's p.

    Attributes:
        interval: "" without a test.
        holm: "" unless the class differs after Holm's correction.
    """

    name: str
    images: int
    baseline: str
    ours: str
    difference: str
    interval: str
    holm: str


@dataclass(frozen=True)
class Shown:
    """A test image that one variant alone has right.

    Attributes:
        source: a data URI.
        said: of the one that is wrong, most often.
        seeds: how many are right and wrong; "" of one seed.
    """

    source: str
    true: str
    said: str
    seeds: str


@dataclass(frozen=True)
class Strip:
    """The images that one variant has right and the other has wrong: how many there are, and the clearest of them."""

    right: str
    wrong: str
    count: int
    images: tuple[Shown, ...]


@dataclass(frozen=True)
class ClassView:
    """A variant against its baseline.

    Attributes:
        seeds: how many have recorded what was said.
        lines, rest: the classes that differ most, and the others; both from the most gained to the most lost.
        left_out: how many classes are in neither.
        told: what is to be made of the classes' differences.
        pairs: (class, said to be, images with the baseline, with the variant, change).
        strips: gained and lost images.
        alone: what their numbers are, and what they would be by chance.
    """

    variant: str
    baseline: str
    seeds: str
    lines: tuple[ClassLine, ...]
    rest: tuple[ClassLine, ...]
    left_out: int
    told: str
    pairs: tuple[tuple[str, str, str, str, str], ...]
    strips: tuple[Strip, ...]
    alone: str


def class_views(rows: Sequence[Row], runs: Sequence[Run], data: ImageData | SceneData | None = None) -> list[ClassView]:
    """Compare every variant with its baseline, where runs of both recorded what they said of the test images.

    Args:
        data: whose test images are shown; None shows none.
    """
    return [_view(row, *sides, runs[0].config.data["classes"], data) for row, sides in _compared(rows, runs)]


def balance_lines(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """List variant, balanced accuracy and macro F1, where the classes of the test part have very different sizes."""
    known = [(row.variant, row.balance) for row in rows if row.balance is not None]
    return [
        (
            variant,
            mean_and_std(found.accuracy.mean, found.accuracy.std),
            mean_and_std(found.macro_f1.mean, found.macro_f1.std),
        )
        for variant, found in known
    ]


def class_lines(rows: Sequence[Row], runs: Sequence[Run]) -> list[dict[str, object]]:
    """Return what `classes.csv` says: a dict for every class of every variant against its baseline."""
    classes = runs[0].config.data["classes"] if runs else ()
    return [
        {"variant": row.variant, "baseline": row.baseline, "class": classes[found.number], "images": found.images}
        | _numbers(found)
        for row, sides in _compared(rows, runs)
        for found in class_changes(*sides, len(classes))
    ]


def _numbers(found: ClassChange) -> dict[str, object]:
    sides, counts = found.comparison.difference, found.comparison.counts
    estimate = counts.estimate
    low, high = (None, None) if estimate is None else map(float, estimate.interval())
    return {
        "n_baseline": sides.n_baseline,
        "n": sides.n,
        "baseline_mean": sides.baseline.mean,
        "mean": sides.ours.mean,
        "difference": counts.mean,
        "low": low,
        "high": high,
        "p": None if estimate is None else float(estimate.p),
        "holm_p": found.holm_p,
    }


def _compared(rows: Sequence[Row], runs: Sequence[Run]) -> list[tuple[Row, tuple[Seeds, Seeds]]]:
    """List the rows with what baseline and variant said, where both recorded it."""
    found: list[tuple[Row, tuple[Seeds, Seeds]]] = []
    for row in rows:
        before, now = (
            answers_by_seed([run for run in runs if str(run.variant) == name]) for name in (row.baseline, row.variant)
        )
        if row.variant != row.baseline and before and now:
            found.append((row, (before, now)))
    return found


def _view(
    row: Row,
    before: Seeds,
    now: Seeds,
    classes: Sequence[str],
    data: ImageData | SceneData | None,
) -> ClassView:
    changes = class_changes(before, now, len(classes))
    by_size = sorted(changes, key=lambda found: -abs(found.comparison.counts.mean))
    different = sum(found.comparison.counts.mean != 0 for found in by_size)
    most = SHOWN if len(changes) <= SHOWN else min(SHOWN, different)
    first, rest = (
        sorted(part, key=lambda found: -found.comparison.counts.mean) for part in (by_size[:most], by_size[most:])
    )
    listed = rest if len(rest) <= LISTED else []
    images = image_changes(before, now)
    each = (before, row.baseline), (now, row.variant)
    return ClassView(
        row.variant,
        row.baseline,
        counted(len(now), "seed") + (" each" if len(now) == len(before) else f" against {len(before)}"),
        tuple(_line(found, classes) for found in first),
        tuple(_line(found, classes) for found in listed),
        len(rest) - len(listed),
        told(changes, classes),
        tuple(
            (classes[pair.true], classes[pair.said], f"{pair.baseline:.1f}", f"{pair.ours:.1f}", _signed(pair.change))
            for pair in pair_changes(before, now, len(classes), PAIRS)
        ),
        tuple(
            Strip(right, wrong, len(found), shown(found[:IMAGES], (len(of), len(others)), classes, data))
            for found, (of, right), (others, wrong) in ((images.gained, *each[::-1]), (images.lost, *each))
        ),
        alone(row, images, max(len(before), len(now))),
    )


def _line(found: ClassChange, classes: Sequence[str]) -> ClassLine:
    sides, counts = found.comparison.difference, found.comparison.counts
    interval = None if counts.estimate is None else counts.estimate.interval()
    differs = found.holm_p is not None and found.holm_p < ALPHA
    return ClassLine(
        classes[found.number],
        found.images,
        f"{sides.baseline.mean:.1f}",
        f"{sides.ours.mean:.1f}",
        _signed(counts.mean),
        "" if interval is None else f"{_signed(interval[0])} to {_signed(interval[1])}",
        probability(found.holm_p) if differs else "",
    )


def _signed(value: float) -> str:
    """Print a number with its sign and one digit, which is as much as a class's images can tell."""
    text = f"{value:+.1f}"
    return text[1:] if float(text) == 0 else text


def told(changes: Sequence[ClassChange], classes: Sequence[str]) -> str:
    """Say how many classes differ by more than chance, and how many would seem to."""
    tested = [found for found in changes if found.comparison.estimate is not None]
    if not tested:
        return "No class can be tested: that takes two seeds of each or more that do not all say the same."
    outside = 0
    for found in tested:
        assert found.comparison.estimate is not None
        low, high = found.comparison.estimate.interval()
        outside += low > 0 or high < 0
    text = (
        f"Among {counted(len(tested), 'class')} tested, {outside or 'no'} 95% "
        f"{'interval leaves' if outside <= 1 else 'intervals leave'} out zero; by chance alone about "
        f"{ALPHA * len(tested):.1f} would. "
    )
    sure = [found for found in tested if found.holm_p is not None and found.holm_p < ALPHA]
    if not sure:
        return f"{text}After Holm's correction over all classes none differs."
    named = offenders([f"{classes[found.number]} ({_signed(found.comparison.counts.mean)})" for found in sure])
    differ = "this one differs" if len(sure) == 1 else "these differ"
    return f"{text}After Holm's correction over all classes {differ}: {named}."


def alone(row: Row, images: ImageChanges, seeds: int) -> str:
    """Say how many test images one of the two alone has right, and how many that would be by chance."""
    kinds = f"{row.variant} alone has {len(images.gained):,}, {row.baseline} alone {len(images.lost):,}."
    if seeds > 1:
        kinds = f"Right in most seeds of one, wrong in most seeds of the other: {kinds}"
    if images.by_chance is None:
        return f"{kinds} Another seed of the same network differs on images, too."
    return (
        f"{kinds} If the two are exchanged at random in each seed, there are {images.by_chance:.1f} of either kind on "
        "average: that many are to be expected of chance if the two do not differ, and fewer if they do, as what they "
        "differ by is then among them."
    )


def shown(
    found: Sequence[ImageChange], seeds: tuple[int, int], classes: Sequence[str], data: ImageData | SceneData | None
) -> tuple[Shown, ...]:
    """Make pictures of test images; none without data, or if they cannot be read any more."""
    if not isinstance(data, ImageData):
        return ()
    try:
        pixels = pictures(data.test_images, [image.number for image in found])
    except (OSError, ValueError) as error:
        warnings.warn(f"the report shows no test images: {error}", stacklevel=2)
        return ()
    return tuple(
        Shown(
            thumbnail(picture),
            classes[image.true],
            classes[image.said],
            "" if max(seeds) == 1 else f"right in {image.right} of {seeds[0]}, wrong in {image.wrong} of {seeds[1]}",
        )
        for image, picture in zip(found, pixels, strict=True)
    )


def thumbnail(pixels: Array) -> str:
    """Return a picture of at most `THUMB` pixels a side as a data URI. Shapes: (h, w) or (h, w, 3), uint8."""
    height, width = pixels.shape[:2]
    if max(height, width) <= SMALL:
        return encoded(pixels, "PNG")
    factor = min(1.0, THUMB / max(height, width))
    size = max(1, round(factor * width)), max(1, round(factor * height))
    return encoded(np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BOX)), "JPEG")
