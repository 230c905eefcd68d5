"""Whether training had come to its end: a comparison of half-trained networks may turn around with more epochs.

Two signs. Few passes over the images. And a validation curve that still rises, judged only over the last epochs that
have one and the same rate: where the rate has just fallen, or falls to the end as in a cosine, the curve rises because
of that and is flat at the end however short the training was, so nothing is said.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from srblock.runs.records import Run

FEW_PASSES, FEW_FROM_TRAINED = 10, 3  # over the training images: below is few, from random and from trained weights
RISE = 0.5  # percentage points between two stretches of epochs that are worth a word
SHARE = 5  # a stretch is a fifth of the epochs, or half of those at the last rate if that is less


def passes(run: Run) -> float:
    """Return how often a run saw each training image, about."""
    recipe = run.config.recipe
    if recipe.epoch_steps is None:
        return float(recipe.epochs)
    return recipe.epochs * recipe.epoch_steps * recipe.batch_size / int(run.config.data["train"])


def few_passes(run: Run) -> bool:
    """Tell whether a run is so short that its figure says little about what the network reaches."""
    return passes(run) < (FEW_PASSES if run.config.weights is None else FEW_FROM_TRAINED)


def still_rising(runs: Sequence[Run]) -> float | None:
    """Return by how many points validation rose between the last two stretches of epochs; None if it did not.

    Mean over the runs of (mean of the last stretch - mean of the one before); it counts from `RISE` on, and if it is
    more than two standard errors over the runs. None too where no run has two such stretches of two epochs or a
    validation figure.
    """
    rises = [rise for run in runs if (rise := _rise(run)) is not None]
    if not rises:
        return None
    mean = statistics.fmean(rises)
    error = statistics.stdev(rises) / math.sqrt(len(rises)) if len(rises) > 1 else 0.0
    return mean if mean >= RISE and mean > 2 * error else None


def _rise(run: Run) -> float | None:
    key = f"validation_{run.figure.key}"
    if not run.metrics or any(key not in record or "lr" not in record for record in run.metrics):
        return None
    last = run.metrics[-1]["lr"]
    at_last_rate = 0
    while at_last_rate < len(run.metrics) and run.metrics[-1 - at_last_rate]["lr"] == last:
        at_last_rate += 1
    stretch = min(at_last_rate // 2, len(run.metrics) // SHARE)
    if stretch < 2:
        return None
    curve = [float(record[key]) for record in run.metrics]
    return statistics.fmean(curve[-stretch:]) - statistics.fmean(curve[-2 * stretch : -stretch])
