"""A sweep's answer: what was chosen on validation, what fresh seeds say, and what choosing alone would have gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from srblock.report import units
from srblock.report.tables import empty_table
from srblock.runs.records import Run
from srblock.statistics.differences import Summary, difference, signed, summarize
from srblock.statistics.selection import gain_of_selection, noise_std
from srblock.variants.notation import Variant


@dataclass(frozen=True)
class Setting:
    """One setting of a sweep: its figures on the seeds of the selection, percent."""

    variant: Variant
    validation: tuple[float, ...]
    test: tuple[float, ...]

    @property
    def summary(self) -> Summary:
        """Of the validation figures."""
        return summarize(self.validation)


@dataclass(frozen=True)
class Selection:
    """The first half of a sweep: all settings on the same seeds, and the plain network beside them.

    Attributes:
        settings: those of which every seed finished, in the order written.
        base: the network without the block.
        dropped: settings left out of the choice, because not every seed of them finished.
    """

    settings: tuple[Setting, ...]
    base: Setting
    dropped: tuple[Variant, ...]

    @property
    def seeds(self) -> int:
        """On how many seeds was chosen."""
        return len(self.base.validation)


def selection(settings: Sequence[Variant], seeds: Sequence[int], runs: Sequence[Run]) -> Selection:
    """Collect a sweep's first runs.

    Raises: ValueError if a seed of the plain network is missing, or no setting is complete: there is nothing to
        choose.
    """
    by_key = {(run.variant, run.seed): run for run in runs}

    def collect(variant: Variant) -> Setting | None:
        found = [by_key.get((variant, seed)) for seed in seeds]
        if any(run is None for run in found):
            return None
        validation = tuple(float(run.result["validation_top1"]) for run in found if run is not None)
        return Setting(variant, validation, tuple(run.test_top1 for run in found if run is not None))

    base = collect(settings[0].without_sr())
    whole = tuple(found for variant in settings if (found := collect(variant)) is not None)
    if base is None or not whole:
        what = settings[0].without_sr() if base is None else "any setting"
        raise ValueError(f"not every seed of {what} finished, so there is nothing to choose; give the command again")
    kept = {setting.variant for setting in whole}
    return Selection(whole, base, tuple(variant for variant in settings if variant not in kept))


def print_selection(found: Selection, chosen: Variant, console: Console) -> None:
    """Print every setting's validation figure, the chosen one marked."""
    table = empty_table("setting", "validation top-1", "chosen")
    for setting in (found.base, *found.settings):
        figure = units.mean_and_std(setting.summary.mean, setting.summary.std)
        table.add_row(Text(str(setting.variant)), figure, "yes" if setting.variant == chosen else "")
    console.print(table)
    for text in selection_sentences(found, chosen):
        console.print(text, markup=False, highlight=False)


def selection_sentences(found: Selection, chosen: Variant) -> list[str]:
    """Say what the choice rests on."""
    said = [
        f"{chosen} has the best mean validation accuracy of {len(found.settings)} settings on "
        f"{found.seeds} seed{'s' if found.seeds > 1 else ''}; the test set had no part in it."
    ]
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
    if std is None and len(runs) > 1:
        std = summarize([float(run.result["validation_top1"]) for run in runs]).std
        source = "the spread of the fresh seeds, as one seed a setting shows none"
    if std is not None:
        gain = gain_of_selection(len(found.settings), found.seeds, std)
        said.append(
            f"Choosing the best of {len(found.settings)} settings that are all equal gains {signed(gain)} on "
            f"validation by chance alone, with a noise of {std:.2f} a run ({source})."
        )
    if runs and base_runs:
        before = settings[chosen].summary.mean - found.base.summary.mean
        after = _mean(runs, "validation_top1") - _mean(base_runs, "validation_top1")
        said.append(
            f"On validation, {chosen} led {found.base.variant} by {signed(before)} when it was chosen and by "
            f"{signed(after)} on fresh seeds: {signed(before - after)} of it was the choice."
        )
        best = max(found.settings, key=lambda setting: sum(setting.test))
        claimed = difference(found.base.test, best.test).mean
        said.append(
            f"Had the best been chosen by its test accuracy ({best.variant}), its gain would have been reported as "
            f"{signed(claimed)}."
        )
    return said


def _mean(runs: Sequence[Run], name: str) -> float:
    return summarize([float(run.result[name]) for run in runs]).mean
