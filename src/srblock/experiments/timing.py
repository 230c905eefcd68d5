"""Time the variants of a finished study side by side, once for each report folder and machine."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from srblock.experiments.session import Session
from srblock.report.terminal import print_lines
from srblock.runs.records import Run
from srblock.runs.side_by_side import SideBySide, conditions, time_side_by_side
from srblock.runs.study import Study
from srblock.runs.times_file import read_times, write_times
from srblock.statistics.times import VariantTimes, variant_times
from srblock.training import distributed
from srblock.variants.notation import Variant

TIMES = "times.csv"


def times_of(session: Session, study: Study, runs: Sequence[Run], folder: Path) -> dict[str, VariantTimes]:
    """Return what the variants with a finished run cost in time; {} and a sentence on the console where it is unknown.

    Times that `times.csv` of the folder has of the same variants under the same conditions are taken from there. Others
    are measured, as far as a time budget has time left, and written there.

    Raises: OSError if the file cannot be written.
    """
    there = {run.variant for run in runs}
    variants = [variant for variant in study.variants if variant in there]
    if len(variants) < 2 or variants[0] != study.variants[0]:
        return {}
    file = folder / TIMES
    found: SideBySide | None = None
    with contextlib.suppress(OSError, ValueError):  # what cannot be read is measured anew
        found = read_times(file)
    wanted = list(map(str, variants)), conditions(study, session.device)
    if found is None or (list(found.times), found.conditions) != wanted:
        try:
            found = _measure(session, study, variants, runs)
        except Exception as error:  # a report without times is better than none
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            print_lines([f"Times of the variants were not compared: {reason}."], session.asked.console)
            return {}
        folder.mkdir(parents=True, exist_ok=True)
        write_times(file, found)
    return variant_times(found)


def _measure(session: Session, study: Study, variants: Sequence[Variant], runs: Sequence[Run]) -> SideBySide:
    until = session.asked.deadline
    if distributed.world_size() > 1:
        raise ValueError("this is one of several processes")
    if until is not None and time.monotonic() > until:
        raise ValueError("the time is up")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to warn of was said when the networks were built to be trained
        return time_side_by_side(study, variants, runs, session.device, until=until)
