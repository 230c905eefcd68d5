"""A sweep's answer: what was chosen on validation, what fresh seeds say, and what choosing alone would have gained."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from srblock.data.offenders import counted
from srblock.report import units
from srblock.report.formats import Sheet, sheet
from srblock.report.terminal import Column, print_lines, table_of
from srblock.report.units import signed
from srblock.runs.records import Run
from srblock.statistics.differences import difference, summarize
from srblock.statistics.selection import Selection, Setting, gain_of_selection, noise_std
from srblock.variants.notation import Variant

SETTING: Column[Setting] = ("setting", lambda setting: str(setting.variant))


def print_selection(found: Selection, chosen: Variant, console: Console) -> None:
    """Print every setting's validation figure, the chosen one marked."""
    console.print(table_of((found.base, *found.settings), SETTING, _columns(chosen)))
    print_lines(selection_sentences(found, chosen), console)


def selection_sheet(found: Selection, chosen: Variant) -> Sheet:
    """Return the same table for other programs."""
    return sheet("Settings on validation", (found.base, *found.settings), SETTING, _columns(chosen))


def _columns(chosen: Variant) -> tuple[Column[Setting], ...]:
    return (
        ("validation", lambda setting: units.mean_and_std(setting.summary.mean, setting.summary.std)),
        ("chosen", lambda setting: "yes" if setting.variant == chosen else ""),
    )


def selection_sentences(found: Selection, chosen: Variant) -> list[str]:
    """Say what the choice rests on."""
    of = f"mean validation {found.label} of {len(found.settings)} settings on {counted(found.seeds, 'seed')}"
    said = [f"{chosen} has the best {of}; the test set had no part in it."]
    if found.equals:
        said = [f"{chosen} shares the best {of} with {counted(found.equals, 'other')}, and was written first."]
    if found.dropped:
        said.append(f"Left out, as not every seed finished: {', '.join(map(str, found.dropped))}.")
    return said


def verdict_sentences(found: Selection, chosen: Variant, base_runs: Sequence[Run], runs: Sequence[Run]) -> list[str]:
    """Say what choosing alone would have gained: expected, and seen on fresh seeds.

    Args:
        base_runs, runs: of the plain network and the chosen setting on fresh seeds.
    """
    settings = {setting.variant: setting for setting in found.settings}
    said = []
    std = noise_std([setting.validation for setting in found.settings])
    source = "what is left of the settings' validation figures after setting and seed"
    if std is None:
        std = noise_std(_by_shared_seeds(base_runs, runs))
        source = "what is left of the fresh seeds' after variant and seed, as one seed a setting shows none"
    if std is not None and len(found.settings) > 1:
        gain = gain_of_selection(len(found.settings), found.seeds, std)
        said.append(
            f"Choosing the best of {len(found.settings)} settings that are all equal gains {signed(gain)} on "
            f"validation by chance alone, with a noise of {std:.2f} a run ({source})."
        )
    if runs and base_runs:
        before = settings[chosen].summary.mean - found.base.summary.mean
        after = _validation(runs) - _validation(base_runs)
        lead = f"by {signed(before)} when it was chosen and by {signed(after)} on fresh seeds"
        choice = (
            f": {signed(before - after)} of it was the choice, or the chance of these seeds" if before > after else ""
        )
        said.append(f"On validation, {chosen} led {found.base.variant} {lead}{choice}.")
        best = max(found.settings, key=lambda setting: sum(setting.test))
        claimed = difference(found.base.test, best.test).mean
        said.append(
            f"Had the best been chosen by its test accuracy ({best.variant}), its gain would have been reported as "
            f"{signed(claimed)}."
        )
    return said


def _validation(runs: Sequence[Run]) -> float:
    return summarize(_scores(runs)).mean


def _by_shared_seeds(*variants: Sequence[Run]) -> list[list[float]]:
    """List each variant's validation figures on the seeds that all have, in their order."""
    tables = [{run.seed: score for run, score in zip(runs, _scores(runs), strict=True)} for runs in variants]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    return [[table[seed] for seed in shared] for table in tables]


def _scores(runs: Sequence[Run]) -> list[float]:
    return [run.validation[run.figure.key] for run in runs]
