"""Looking into the blocks of a run as one page, with every figure as a file and the numbers behind it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srblock.inspection.analysis import Analysis, BlockAnalysis, Subject
from srblock.report import analysis_words as words
from srblock.report import control_words
from srblock.report.analysis_exhibits import Exhibit, block_exhibits, control_exhibit
from srblock.report.analysis_numbers import number_tables
from srblock.report.blocks import NARROW, WIDE, Drawing, draw_both
from srblock.report.page import render
from srblock.report.svg import Plate
from srblock.report.units import probability, reach, signed
from srblock.training.files import remove_scrap, write_bytes


@dataclass(frozen=True)
class Shown:
    """A figure on the page: its words, both drawings, the wide one for its files, and their name."""

    exhibit: Exhibit
    drawing: Drawing
    wide: Plate
    stem: str


def write_analysis(
    folder: Path, subject: Subject, found: Analysis, *, command: str, classes: Sequence[str]
) -> list[tuple[str, Path]]:
    """Write analysis.html, the CSVs, and figures/ with each figure as SVG and PNG.

    Args:
        command: that repeats the analysis.
        classes: to look at closely, by name.

    Returns what each file is, and the file, the page first.

    Raises: ValueError for a class that the data has not; OSError if a file cannot be written.
    """
    names = subject.classes
    if unknown := [name for name in classes if name not in names]:
        raise ValueError(f"there is no class {unknown[0]!r} in the data; there are {', '.join(names[:20])}")
    judged = control_words.judge_controls(found, subject.figures[0])
    of_run = [_shown(control_exhibit(judged, found, subject.figures[0].label), "")] if judged else []
    of_blocks = [
        [_shown(exhibit, f"{stem}-") for exhibit in block_exhibits(subject, block, classes)]
        for block, stem in zip(found.blocks, _stems(found.blocks), strict=True)
    ]
    texts = number_tables(subject, found, judged)
    tables = {name: text for name, text in texts.items() if text}
    page = folder / "analysis.html"
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for place in (folder, figures):
        remove_scrap(place)
    written = [("page", page)]
    for name, text in tables.items():
        written.append((f"numbers: {name}", folder / f"{name}.csv"))
        write_bytes(written[-1][1], text.encode())
    for shown in [*of_run, *(shown for of_block in of_blocks for shown in of_block)]:
        for ending, data in (("svg", shown.wide.svg().encode()), ("png", shown.wide.png())):
            written.append((f"figure: {shown.exhibit.heading}", figures / f"{shown.stem}.{ending}"))
            write_bytes(written[-1][1], data)
    context = _context(subject, found, judged, of_run, of_blocks, tables, command)
    write_bytes(page, render("analysis.html", context).encode())
    _remove_others(folder, [*texts], _stems(found.blocks), {path for _, path in written})
    return written


def _remove_others(folder: Path, tables: Sequence[str], stems: Sequence[str], written: set[Path]) -> None:
    """Remove what an earlier analysis wrote here and this one did not, so that nothing stands beside a page not its."""
    figures = [folder / "figures" / f"controls.{ending}" for ending in ("svg", "png")]
    for stem in stems:
        figures += [path for ending in ("svg", "png") for path in (folder / "figures").glob(f"{stem}-*.{ending}")]
    for path in {*figures, *(folder / f"{name}.csv" for name in tables)} - written:
        path.unlink(missing_ok=True)


def answers(subject: Subject, found: Analysis) -> list[tuple[str, str]]:
    """Say in a line each, with the evidence, what the controls that matter most show, and what the blocks hold."""
    judged, count = control_words.judge_controls(found, subject.figures[0]), len(found.blocks)
    first = [one for name in control_words.FIRST for one in judged if one.controlled.name == name]
    said = [
        (control_words.control_headline(one, count), control_words.control_evidence(one, found, subject.figures[0]))
        for one in first
    ]
    return said or [(control_words.without_controls(count, judged=bool(found.figures)), "")]


def _shown(exhibit: Exhibit, prefix: str) -> Shown:
    stem = f"{prefix}{exhibit.key}"
    tag = re.sub(r"[^A-Za-z0-9-]", "-", stem)
    plates = {width: exhibit.plan(width) for width in (WIDE, NARROW)}
    return Shown(exhibit, draw_both(lambda name, width: plates[width].inline(name), tag), plates[WIDE], stem)


def _stems(blocks: Sequence[BlockAnalysis]) -> list[str]:
    """Name the files of each block after it; a number tells those apart that would have the same."""
    stems = [re.sub(r"[^A-Za-z0-9.]+", "-", block.name).strip("-.") or "block" for block in blocks]
    alike = len({re.sub(r"[^A-Za-z0-9-]", "-", stem).lower() for stem in stems}) < len(stems)
    return [f"{number}-{stem}" if alike else stem for number, stem in enumerate(stems, 1)]


def _context(
    subject: Subject,
    found: Analysis,
    judged: Sequence[control_words.Judged],
    of_run: Sequence[Shown],
    of_blocks: Sequence[Sequence[Shown]],
    tables: dict[str, str],
    command: str,
) -> dict[str, Any]:
    """Collect everything that the template shows."""
    count, names = len(found.blocks), subject.classes
    without = control_words.without_controls(count, judged=bool(found.figures))
    return {
        "subject": subject,
        "found": found,
        "figures": [(figure.label, found.figures[figure.key]) for figure in subject.figures if found.figures],
        "answers": answers(subject, found) if judged else [],
        "remark": control_words.untested(judged, subject.figures[0]) if judged else without,
        "blocks": [
            {
                "name": block.name,
                "memories": len(block.mean),
                "size": block.memory.shape[1:],
                "headline": words.block_headline(block),
                "lines": words.block_lines(block, names),
                "facts": words.block_facts(block),
                "shown": shown,
            }
            for block, shown in zip(found.blocks, of_blocks, strict=True)
        ],
        "controls": [_control_row(subject, found, one, count) for one in judged],
        "tested": any(one.change is not None for one in judged),
        "of_run": of_run,
        "numbers": [(name, text.count("\n") - 1) for name, text in tables.items()],
        "command": command,
    }


def _control_row(subject: Subject, found: Analysis, judged: control_words.Judged, blocks: int) -> dict[str, Any]:
    one, change = judged.controlled, judged.change
    cells = [f"{one.figures[figure.key]:.2f}" for figure in subject.figures] + [signed(judged.points)]
    if change is not None:
        cells += [reach(change.interval), str(one.lost), str(one.gained)]
        cells += [probability(change.p), probability(judged.holm_p)]
    return {
        "name": one.name,
        "done": control_words.done(one.name),
        "answer": control_words.control_headline(judged, blocks),
        "cells": cells,
    }
