"""What the page of an analysis shows of each block: its figures, with captions and the numbers behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from srblock.inspection.analysis import Analysis, Attribution, BlockAnalysis, Subject
from srblock.report import analysis_figures as bars
from srblock.report import analysis_pictures as pictures
from srblock.report.analysis_numbers import around_mean, epoch_series, own_logits
from srblock.report.analysis_words import enriched_lines
from srblock.report.block_figures import CLASSES_SHOWN, MEMORIES_SHOWN, memory_plate, recall_plate, shown_classes
from srblock.report.control_words import Judged
from srblock.report.svg import Plate


@dataclass(frozen=True)
class Exhibit:
    """A figure of the page.

    Attributes:
        key: of its files, unique among those of a block.
        heading, caption: its words.
        numbers: the CSV that holds what it shows.
        plan: its plate for a page of a width in pixels.
        notes: what else is seen, a line each.
    """

    key: str
    heading: str
    caption: str
    numbers: str
    plan: Callable[[int], Plate]
    notes: tuple[str, ...] = ()


def control_exhibit(judged: Sequence[Judged], found: Analysis, label: str) -> Exhibit:
    """Show the change under each control."""
    changes = [(one.controlled.name, one.points, None if one.change is None else one.change.interval) for one in judged]
    caption = f"A dot is the change of {label} against the network as it is, over the same {found.images:,} images"
    if any(interval for _, _, interval in changes):
        caption += (
            "; the pale bar is its 95% interval (Bonett and Price). It covers the chance of the test images, not that "
            "of training: another seed has other weights"
        )
    return Exhibit(
        "controls",
        "The change under each control",
        f"{caption}.",
        "controls",
        lambda width: bars.control_dots(changes, label, found.images, width),
    )


def block_exhibits(subject: Subject, block: BlockAnalysis, named: Sequence[str]) -> Iterator[Exhibit]:
    """Yield what is shown of a block; what has no meaning for it is left out."""
    classes, scenes = subject.classes, subject.scenes
    size = len(block.mean)
    yield from _recalled(block, named, classes, scenes=scenes)
    cut = f" The first {MEMORIES_SHOWN} of {size} are shown." if size > MEMORIES_SHOWN else ""
    yield Exhibit(
        "memory",
        "What is in memory",
        "Each picture is one memory block, averaged over its channels: what it adds (red) or takes away (blue) and "
        f"where, all on one scale. Channels that differ cancel out here, so a pale map is not an empty one.{cut}",
        "memory",
        lambda width: memory_plate(block.memory, width),
    )
    if size > 1:
        yield Exhibit(
            "memory-own",
            "The same, each on its own scale",
            f"The number above a map is where its red and blue end, so that weak maps show their form.{cut}",
            "memory",
            lambda width: memory_plate(block.memory, width, own_scales=True),
        )
        yield Exhibit(
            "cosine",
            "How alike the memory blocks are",
            "Cosine between memory blocks over all channels and positions: 1 is the same direction, 0 nothing in "
            f"common, -1 the opposite.{cut}",
            "cosine",
            lambda width: pictures.cosines(block.cosine, width),
        )
    if block.closeups:
        yield Exhibit(
            "closeups",
            "Images before and after the block",
            "Mean over the channels of the map before and after, on one scale, and the mean absolute difference, which "
            "has its own: dark is low. The change is the mean absolute difference over the mean size of the map "
            f"(Fig. 3).{' Of a scene that is looked at through windows the first, top left.' if scenes else ''}",
            "closeups",
            lambda width: pictures.closeups(block.closeups, width),
        )
    if np.isfinite(block.class_change).any():
        yield Exhibit(
            "change",
            "By how much the map changes",
            "Mean absolute difference over the mean size of the map before, "
            + ("each scene counting for a class by its pixels of it" if scenes else "mean over the images of a class")
            + f"; the dashed line is the mean over all images.{_cut(block.class_change)}",
            "change",
            lambda width: bars.by_class(block.class_change, block.change, classes, "change of the map, %", width),
        )
    if block.attribution is not None:
        yield from _logits(block.attribution, classes)
    if len(block.mean) > 1 and block.exemplars and all(one.images for one in block.exemplars):
        yield _exemplars(block, classes)
    if series := epoch_series(subject, block.name):
        yield Exhibit(
            "epochs",
            "Over the epochs",
            "Recorded after every epoch; the dashed line is the epoch that counts. The distance is that of the memory "
            "blocks from their mean map, relative to it: near 0 all memory blocks are one map.",
            "epochs",
            lambda width: bars.epoch_lines(series, subject.best_epoch, width),
        )


def _recalled(block: BlockAnalysis, named: Sequence[str], classes: Sequence[str], *, scenes: bool) -> Iterator[Exhibit]:
    counted = "the test scenes, each counting for a class by its pixels of it" if scenes else "images of the class"
    close = [(classes.index(name), name) for name in named]
    close = [(number, name) for number, name in close if np.isfinite(block.class_mean[number]).all()]
    if close:
        pictured = "" if scenes else f" ({', '.join(f'{block.class_images[n]} of {name}' for n, name in close)})"
        yield Exhibit(
            "recall-classes",
            "What some classes recall",
            f"Mean recall weight of each memory block over {counted}{pictured} beside that over all images; a whisker "
            "is one standard deviation up and down, the dotted line 1/P (Figs. 2, 5 to 7).",
            "recall",
            lambda width: bars.class_recall(block, close, width),
        )
    shown = shown_classes(block.class_mean, block.mean)
    if shown:
        most = (
            f" Of {len(classes)} classes the {len(shown)} are shown whose weights lie farthest from the mean of all."
            if len(shown) == CLASSES_SHOWN < len(classes)
            else ""
        )
        yield Exhibit(
            "recall",
            "Which memory blocks are recalled for which class",
            f"Mean recall weights over {counted}: red is above 1/P, blue below. Rows that look alike mean that the "
            f"class does not matter.{most}",
            "recall",
            lambda width: recall_plate(block.class_mean, block.mean, block.std, classes, width),
        )


def _logits(found: Attribution, classes: Sequence[str]) -> Iterator[Exhibit]:
    if found.by_block is not None:
        centered = around_mean(found.by_block)
        strongest = sorted(np.argsort(-np.ptp(centered, axis=1), kind="stable")[: bars.PANELS].tolist())
        cut = f" The {len(strongest)} with the greatest range are shown." if len(strongest) < len(centered) else ""
        yield Exhibit(
            "attribution",
            "What each memory block argues for",
            "What a memory block adds to the logits at a recall weight of 1, less its mean over the classes, since "
            f"only differences between logits count: the classes it argues for most (orange), and against (blue).{cut}",
            "attribution",
            lambda width: bars.argued(centered, strongest, classes, width),
        )
        return
    own = own_logits(found.by_class)
    if np.isfinite(own).any():
        yield Exhibit(
            "attribution",
            "What the block adds to the logit of the image's own class",
            "Logit with the block less logit without, of the image's class against the mean of all classes, mean over "
            f"the images of each class. Above 0 the block argues for the truth.{_cut(own)}",
            "attribution",
            lambda width: bars.by_class(own, None, classes, "added to the logit of the own class", width),
        )


def _exemplars(block: BlockAnalysis, classes: Sequence[str]) -> Exhibit:
    caption = "The images with the greatest recall weight of each memory block, which stands below"
    caption += ", with the class." if block.exemplars[0].labels is not None else "."
    if len(block.exemplars) > pictures.SHEETS:
        caption += f" The first {pictures.SHEETS} of {len(block.exemplars)} memory blocks are shown."
    notes = enriched_lines(block, len(classes))
    if notes:
        caption += (
            f" The list has the classes that are too many among the {block.exemplars[0].top} images that recall a "
            "memory block most (p < 0.05 over all memory blocks and classes together)."
        )
    return Exhibit(
        "exemplars",
        "The images that recall a memory block most",
        caption,
        "exemplars",
        lambda width: pictures.contact_sheets(block.exemplars, classes, width),
        tuple(notes),
    )


def _cut(values: np.ndarray) -> str:
    present = int(np.isfinite(values).sum())
    if present <= 2 * bars.ENDS:
        return ""
    return f" Of {present} classes the {bars.ENDS} with the greatest and the {bars.ENDS} with the smallest are shown."
