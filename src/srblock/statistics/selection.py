"""What choosing the best of several settings gains by chance alone.

The best of k means of pure noise lies above their common level; how far is known (the expected largest of k normal
values). A gain of that size needs no block: see the audit of the paper's tables, where every row has an M and P of its
own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import norm

from srblock.runs.records import Run
from srblock.statistics.differences import Summary, summarize
from srblock.variants.variant import Variant


@cache
def expected_largest(count: int) -> float:
    """Return the expected largest of so many independent standard normal values: 0 for 1, 0.56 for 2, 1.63 for 12.

    Raises: ValueError for fewer than one.
    """
    if count < 1:
        raise ValueError(f"the largest of {count} values is not defined; give at least one")

    def density(x: float) -> float:
        return float(x * count * norm.pdf(x) * ndtr(x) ** (count - 1))

    value, _ = quad(density, -12.0, 12.0, limit=200)
    return float(value)


def noise_std(table: Sequence[Sequence[float]]) -> float | None:
    """Estimate the noise that tells settings apart by chance: what is left of settings times seeds after both effects.

    All settings share the seeds, hence the split and the order: what a seed does to all of them alike moves no choice.
    The estimate is the residual standard deviation of the two-way table, with (k - 1)(s - 1) degrees of freedom; a
    setting that suits one seed more than another counts as noise.

    Shapes: k settings with s values each, one per seed, in the order of the seeds. None for one setting or one seed.

    Raises: ValueError if the settings do not all have the same number of values.
    """
    if len({len(row) for row in table}) > 1:
        raise ValueError(f"every setting needs a value of every seed, got {[len(row) for row in table]} values")
    values = np.asarray(table, dtype=float)
    if min(values.shape) < 2:
        return None
    residuals = values - values.mean(1, keepdims=True) - values.mean(0, keepdims=True) + values.mean()
    freedom = (values.shape[0] - 1) * (values.shape[1] - 1)
    return math.sqrt(float((residuals**2).sum()) / freedom)


def gain_of_selection(settings: int, seeds: int, std: float) -> float:
    """Return how far the best of equal settings is expected to lie above their level, in the unit of std.

    Args:
        settings: how many are chosen among, by the mean over `seeds` runs each.
        std: of one run, seeds' common effects taken out (`noise_std`).
    """
    return expected_largest(settings) * std / math.sqrt(seeds)


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
        label: of the figure that was chosen by.
    """

    settings: tuple[Setting, ...]
    base: Setting
    dropped: tuple[Variant, ...]
    label: str

    @property
    def best(self) -> Setting:
        """The setting with the highest mean on validation; of equals the first written."""
        return max(self.settings, key=lambda setting: setting.summary.mean)  # max keeps the first of equals

    @property
    def equals(self) -> int:
        """How many settings the best one shares the highest mean with."""
        best = self.best.summary.mean
        return sum(math.isclose(setting.summary.mean, best) for setting in self.settings) - 1

    @property
    def seeds(self) -> int:
        """On how many seeds was chosen."""
        return len(self.base.validation)


def collect(settings: Sequence[Variant], seeds: Sequence[int], runs: Sequence[Run]) -> Selection:
    """Collect a sweep's first runs.

    Raises: ValueError if a seed of the plain network is missing, or no setting is complete: there is nothing to
        choose.
    """
    by_key = {(run.variant, run.seed): run for run in runs}

    def setting(variant: Variant) -> Setting | None:
        finished = [by_key[variant, seed] for seed in seeds if (variant, seed) in by_key]
        if len(finished) < len(seeds):
            return None
        return Setting(
            variant, tuple(run.validation[run.figure.key] for run in finished), tuple(run.score for run in finished)
        )

    base = setting(settings[0].without_sr())
    whole = tuple(found for variant in settings if (found := setting(variant)) is not None)
    if base is None or not whole:
        what = settings[0].without_sr() if base is None else "any setting"
        raise ValueError(f"not every seed of {what} finished, so there is nothing to choose; give the command again")
    kept = {setting.variant for setting in whole}
    return Selection(whole, base, tuple(variant for variant in settings if variant not in kept), runs[0].figure.label)
