"""The numbers of an analysis as tables: one CSV for each kind of figure, in full precision, units in the names.

Memory blocks, rows, columns and ranks count from 1, as in the figures; images from 0, as in the test part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from srblock.inspection.analysis import Analysis, Array, Subject
from srblock.report.control_words import Judged
from srblock.statistics.paired_images import wilson_interval
from srblock.training.csv_lines import lines_text
from srblock.training.task import Figure

Table = tuple[str, list[tuple[Any, ...]]]  # the columns' names, by spaces, and the rows


def number_tables(subject: Subject, found: Analysis, judged: Sequence[Judged]) -> dict[str, str]:
    """Return the text of every CSV by its name, "" of those without rows."""
    classes = subject.classes
    tables: dict[str, Table] = {
        "recall": (
            "block class class_images memory_block class_mean class_sd all_images_mean all_images_sd",
            list(_recall(found, classes)),
        ),
        "memory": ("block memory_block row column channel_mean", list(_memory(found))),
        "cosine": ("block memory_block other_memory_block cosine", list(_cosine(found))),
        "closeups": (
            "block image title change_percent row column before after absolute_difference",
            list(_closeups(found)),
        ),
        "closeup_weights": ("block image title memory_block recall_weight", list(_closeup_weights(found))),
        "change": ("block class change_percent all_images_change_percent", list(_change(found, classes))),
        "controls": (
            "control figure images percent low_percent high_percent intact_percent change_points low_points "
            "high_points lost_images gained_images mcnemar_p holm_p detectable_points",
            list(_controls(found, judged, subject.figures)),
        ),
        "information": (
            "block memory_blocks bits most_bits null_bits bits_p explained null_explained explained_p "
            "effective_blocks_per_image effective_blocks memory_spread",
            list(_information(found)),
        ),
        "attribution": (
            "block exact largest_error memory_block image_class class logit logit_less_mean",
            list(_attribution(found, classes)),
        ),
        "exemplars": ("block memory_block rank image class recall_weight", list(_exemplars(found, classes))),
        "enriched": ("block memory_block top_images class images expected_images p", list(_enriched(found))),
        "epochs": (
            "epoch block figure value",
            [
                (record["epoch"], block.name, key, value)
                for block in found.blocks
                for key, values in epoch_series(subject, block.name)
                for record, value in zip(subject.metrics, values, strict=True)
            ],
        ),
    }
    return {name: _text(columns.split(), rows) if rows else "" for name, (columns, rows) in tables.items()}


def epoch_series(subject: Subject, block: str) -> list[tuple[str, Array]]:
    """Return what the probe recorded of a block after every epoch, (epochs,) each, NaN where it did not.

    What was recorded never, or not at the epoch that counts, is left out.
    """
    probes = [record.get("probe", {}) for record in subject.metrics]
    keys = dict.fromkeys(key for probe in probes for key in probe if key.rpartition("/")[0] == block)
    series = [(key.rpartition("/")[2], np.array([probe.get(key, math.nan) for probe in probes], float)) for key in keys]
    return [(key, values) for key, values in series if math.isfinite(values[subject.best_epoch - 1])]


def around_mean(logits: Array) -> Array:
    """Take the mean over the classes from logits (..., classes): only differences between them count."""
    return np.asarray(logits - logits.mean(-1, keepdims=True))


def own_logits(by_class: Array) -> Array:
    """Return what is added to the logit of the images' own class, less the mean over all logits.

    Shapes: (classes, classes) -> (classes,).
    """
    return np.asarray(np.diagonal(around_mean(by_class)))


def _text(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> str:
    return lines_text([columns, *([_cell(value) for value in row] for row in rows)])


def _cell(value: Any) -> Any:
    """Keep all digits of a number; what there is not is an empty cell."""
    if value is None or (isinstance(value, (float, np.floating)) and not math.isfinite(value)):
        return ""
    return value.item() if isinstance(value, np.generic) else value


def _recall(found: Analysis, classes: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for block in found.blocks:
        for number, name in enumerate(classes):
            for memory in range(len(block.mean)):
                of_class = block.class_mean[number, memory], block.class_std[number, memory]
                of_all = block.mean[memory], block.std[memory]
                yield block.name, name, block.class_images[number], memory + 1, *of_class, *of_all


def _memory(found: Analysis) -> Iterator[tuple[Any, ...]]:
    for block in found.blocks:
        for (memory, row, column), value in np.ndenumerate(block.memory):
            yield block.name, memory + 1, row + 1, column + 1, value


def _cosine(found: Analysis) -> Iterator[tuple[Any, ...]]:
    for block in found.blocks:
        for (one, other), value in np.ndenumerate(block.cosine):
            yield block.name, one + 1, other + 1, value


def _closeups(found: Analysis) -> Iterator[tuple[Any, ...]]:
    for block in found.blocks:
        for one in block.closeups:
            for (row, column), before in np.ndenumerate(one.before):
                values = before, one.after[row, column], one.difference[row, column]
                yield block.name, one.number, one.title, one.change_percent, row + 1, column + 1, *values


def _closeup_weights(found: Analysis) -> Iterator[tuple[Any, ...]]:
    for block in found.blocks:
        for one in block.closeups:
            for memory, weight in enumerate(one.weights):
                yield block.name, one.number, one.title, memory + 1, weight


def _change(found: Analysis, classes: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for block in found.blocks:
        for name, value in zip(classes, block.class_change, strict=True):
            yield block.name, name, value, block.change


def _controls(found: Analysis, judged: Sequence[Judged], figures: Sequence[Figure]) -> Iterator[tuple[Any, ...]]:
    if not judged:
        return
    for index, figure in enumerate(figures):
        intact = found.figures[figure.key]
        yield "intact", figure.key, found.images, intact, *_interval(intact, found, figure), intact, *[None] * 8
        for one in judged:
            value = one.controlled.figures[figure.key]
            tests: tuple[Any, ...] = (None,) * 7
            if index == 0 and one.change is not None:
                counts = one.controlled.lost, one.controlled.gained
                tests = (*one.change.interval, *counts, one.change.p, one.holm_p, one.change.detectable)
            around = _interval(value, found, figure)
            yield one.controlled.name, figure.key, found.images, value, *around, intact, value - intact, *tests


def _interval(percent: float, found: Analysis, figure: Figure) -> tuple[float | None, float | None]:
    return wilson_interval(percent, found.images) if figure.per_image else (None, None)


def _information(found: Analysis) -> Iterator[tuple[Any, ...]]:
    for block in found.blocks:
        told = block.information
        bits: tuple[Any, ...] = (None,) * 7
        if told is not None:
            most = math.log2(len(block.mean))
            explained = told.explained, told.null_explained, told.explained_p
            bits = told.bits, most, told.null_bits, told.bits_p, *explained
        yield block.name, len(block.mean), *bits, block.effective_per_image, block.effective, block.spread


def _attribution(found: Analysis, classes: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for block in found.blocks:
        if (told := block.attribution) is None:
            continue
        head = block.name, told.exact, told.error
        if told.by_block is not None:
            centered = around_mean(told.by_block)
            for (memory, number), value in np.ndenumerate(told.by_block):
                yield *head, memory + 1, None, classes[number], value, centered[memory, number]
        own = own_logits(told.by_class)
        for number, name in enumerate(classes):
            yield *head, None, name, name, told.by_class[number, number], own[number]


def _exemplars(found: Analysis, classes: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for block in found.blocks:
        for memory, one in enumerate(block.exemplars):
            for rank, (number, weight) in enumerate(zip(one.numbers, one.weights, strict=True)):
                name = None if one.labels is None else classes[one.labels[rank]]
                yield block.name, memory + 1, rank + 1, number, name, weight


def _enriched(found: Analysis) -> Iterator[tuple[Any, ...]]:
    for block in found.blocks:
        for memory, one in enumerate(block.exemplars):
            for name, count, expected, p in one.enriched:
                yield block.name, memory + 1, one.top, name, count, expected, p
