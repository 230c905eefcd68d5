"""What runs said of the test images, class by class and image by image, and what two variants say differently.

Many classes, pairs of classes and images are looked at together, so some differ by chance: of classes that is said by
Holm's correction over all of them, of images by how many differ when the two variants are exchanged at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from srblock.runs.records import Answers, Run
from srblock.statistics.differences import Summary, difference, summarize
from srblock.statistics.multiple import holm
from srblock.statistics.pairing import Comparison, pairing

Array = np.ndarray[Any, Any]
Seeds = Mapping[int, Answers]

UNEVEN = 3.0  # times the images of the smallest class
EXCHANGED = 8  # seeds up to which every way to exchange two variants is counted; of more, as many ways are drawn


@dataclass(frozen=True)
class Balance:
    """Figures in which every class counts alike, whatever its number of test images; percent, over the seeds.

    Attributes:
        images: of the smallest class and of the largest.
        accuracy: the mean over the classes of the share of each that is right.
        macro_f1: the mean over the classes of F1.
    """

    images: tuple[int, int]
    accuracy: Summary
    macro_f1: Summary


@dataclass(frozen=True)
class ClassChange:
    """The share of a class's test images that is right, in percent, of two variants.

    Attributes:
        number, images: the class, and how many test images it has.
        comparison: of the two over their seeds.
        holm_p: corrected for all classes; None where there is no test.
    """

    number: int
    images: int
    comparison: Comparison
    holm_p: float | None


@dataclass(frozen=True)
class PairChange:
    """How many test images of a class are said to be of another, in a run of each variant, mean of the seeds."""

    true: int
    said: int
    baseline: float
    ours: float

    @property
    def change(self) -> float:
        return self.ours - self.baseline


@dataclass(frozen=True)
class ImageChange:
    """A test image that one of two variants alone has right in most seeds.

    Attributes:
        number, true: its place in the test part, and its class.
        said: what the other one says most often where it is wrong.
        right, wrong: in how many of its seeds the one has it right, and the other one has it wrong.
    """

    number: int
    true: int
    said: int
    right: int
    wrong: int


@dataclass(frozen=True)
class ImageChanges:
    """The test images that one of two variants alone has right in most seeds, the clearest first.

    Attributes:
        gained, lost: right by the variant alone, and by the baseline alone.
        by_chance: how many there are of either kind, on average, if the two are exchanged at random in each seed; None
            with fewer than two seeds in common.
    """

    gained: tuple[ImageChange, ...]
    lost: tuple[ImageChange, ...]
    by_chance: float | None


def answers_by_seed(runs: Sequence[Run]) -> dict[int, Answers]:
    """Return what each run said, by its seed, of those that recorded it."""
    return {run.seed: run.answers for run in runs if run.answers is not None}


def no_better_than_one_answer(run: Run) -> tuple[str, float] | None:
    """Name the commonest class of the test images and its share in percent, if the run got no more of them right.

    None if it did, and where no answers were recorded.
    """
    if run.answers is None:
        return None
    images = np.bincount(run.answers.true)
    if (run.answers.said == run.answers.true).sum() > images.max():
        return None
    return run.config.data["classes"][int(images.argmax())], float(100 * images.max() / images.sum())


def confusion(answers: Answers, classes: int) -> Array:
    """Count the images by class and what was said. Shapes: -> (classes, classes), truth by what was said."""
    pairs = answers.true.astype(np.int64) * classes + answers.said
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def recall_by_class(matrix: Array) -> Array:
    """Return the share of each class that is right, in percent; NaN for a class without images."""
    images = matrix.sum(1)
    shares: Array = np.divide(100.0 * matrix.diagonal(), images, out=np.full(len(matrix), np.nan), where=images > 0)
    return shares


def balanced_accuracy(matrix: Array) -> float:
    """Return the mean of `recall_by_class` over the classes that have images."""
    return float(np.nanmean(recall_by_class(matrix)))


def macro_f1(matrix: Array) -> float:
    """Return the mean of F1 over the classes that are in truth or prediction, in percent; 0 for one never right."""
    either = matrix.sum(0) + matrix.sum(1)
    return float(np.mean(200.0 * matrix.diagonal()[either > 0] / either[either > 0]))


def uneven(true: Array) -> tuple[int, int] | None:
    """Return how many images the smallest and the largest class have if that differs more than `UNEVEN` times."""
    counts = np.bincount(true)
    smallest, largest = int(counts[counts > 0].min()), int(counts.max())
    return (smallest, largest) if largest > UNEVEN * smallest else None


def balanced_figures(run: Run) -> dict[str, float]:
    """Return "balanced_accuracy" and "macro_f1" of a run, in percent; {} where classes are even or nothing is known."""
    if run.answers is None or uneven(run.answers.true) is None:
        return {}
    matrix = confusion(run.answers, len(run.config.data["classes"]))
    return {"balanced_accuracy": balanced_accuracy(matrix), "macro_f1": macro_f1(matrix)}


def balance(runs: Sequence[Run]) -> Balance | None:
    """Summarize `balanced_figures` over the seeds of a variant; None if a run has none."""
    found = [balanced_figures(run) for run in runs]
    if not found or not all(found):
        return None
    assert runs[0].answers is not None
    images = uneven(runs[0].answers.true)
    assert images is not None
    accuracy, f1 = (summarize([figures[key] for figures in found]) for key in ("balanced_accuracy", "macro_f1"))
    return Balance(images, accuracy, f1)


def class_changes(baseline: Seeds, ours: Seeds, classes: int) -> list[ClassChange]:
    """Compare two variants in every class that has test images, by the test that counts for so many seeds.

    A class without a test, because all its seeds say the same, counts in Holm's correction as one that shows nothing.
    """
    shares = [
        {seed: recall_by_class(confusion(said, classes)) for seed, said in side.items()} for side in (baseline, ours)
    ]
    images = np.bincount(next(iter(baseline.values())).true, minlength=classes)
    there = [int(number) for number in np.flatnonzero(images)]
    compared = []
    for number in there:
        before, now = ({seed: float(share[number]) for seed, share in side.items()} for side in shares)
        compared.append(Comparison(difference(list(before.values()), list(now.values())), pairing(before, now)))
    estimates = [comparison.estimate for comparison in compared]
    corrected = holm([1.0 if estimate is None else estimate.p for estimate in estimates])
    return [
        ClassChange(number, int(images[number]), comparison, None if estimate is None else float(p))
        for number, comparison, estimate, p in zip(there, compared, estimates, corrected, strict=True)
    ]


def pair_changes(baseline: Seeds, ours: Seeds, classes: int, most: int) -> list[PairChange]:
    """Find the pairs of classes that are confused more or less often now, those that changed most first."""
    before, now = (np.mean([confusion(said, classes) for said in side.values()], axis=0) for side in (baseline, ours))
    change = now - before
    np.fill_diagonal(change, 0)
    order = np.argsort(-np.abs(change), axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), classes) for place in order if change.flat[place]]
    return [PairChange(true, said, float(before[true, said]), float(now[true, said])) for true, said in pairs]


def image_changes(baseline: Seeds, ours: Seeds) -> ImageChanges:
    """Find the test images that one of two variants alone has right in more than half of its seeds."""
    before, now = (np.stack([said.said == said.true for said in side.values()]) for side in (baseline, ours))
    changes = now.mean(0) - before.mean(0)
    found = []
    for one, other, sides, gap in ((now, before, baseline, changes), (before, now, ours, -changes)):
        numbers = np.flatnonzero(_alone(one.mean(0), other.mean(0)))
        clearest = numbers[np.argsort(-gap[numbers], kind="stable")]
        found.append(tuple(_image(int(number), one, other, sides) for number in clearest))
    shared = sorted(baseline.keys() & ours.keys())
    places = [(list(baseline).index(seed), list(ours).index(seed)) for seed in shared]
    return ImageChanges(found[0], found[1], _by_chance(before, now, places) if len(places) > 1 else None)


def _alone(one: Array, other: Array) -> Array:
    return (one > 0.5) & (other < 0.5)


def _image(number: int, one: Array, other: Array, sides: Seeds) -> ImageChange:
    true = int(next(iter(sides.values())).true[number])
    wrong = [int(said.said[number]) for said in sides.values() if said.said[number] != true]
    said = max(sorted(set(wrong)), key=wrong.count)
    return ImageChange(number, true, said, int(one[:, number].sum()), len(wrong))


def _by_chance(before: Array, now: Array, places: Sequence[tuple[int, int]]) -> float:
    """Count the images of either kind with the runs of some seeds exchanged, mean over the ways to do so."""
    if len(places) <= EXCHANGED:
        ways = list(product((False, True), repeat=len(places)))
    else:
        ways = np.random.default_rng(0).integers(2, size=(2**EXCHANGED, len(places))).astype(bool).tolist()
    counts = []
    for way in ways:
        one, other = before.sum(0), now.sum(0)
        for (here, there), exchanged in zip(places, way, strict=True):
            if exchanged:
                moved = now[there].astype(np.int64) - before[here]
                one, other = one + moved, other - moved
        one, other = one / len(before), other / len(now)
        counts.append((np.count_nonzero(_alone(one, other)) + np.count_nonzero(_alone(other, one))) / 2)
    return float(np.mean(counts))
