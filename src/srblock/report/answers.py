"""What a comparison came to in plain words, and what to do next: the first sentences of page and terminal.

They say no more than the verdict does (`statistics.verdicts`); its figures stand one level below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from srblock.data.offenders import counted
from srblock.report import units
from srblock.report.control_lines import not_used
from srblock.report.units import reach, signed
from srblock.runs.records import Run
from srblock.statistics.classes import no_better_than_one_answer
from srblock.statistics.comparison import Row
from srblock.statistics.convergence import few_passes, passes, still_rising
from srblock.statistics.verdicts import Verdict

MOST_SEEDS = 50  # per variant; a plan for more is no advice
FIRST_SEEDS = 5  # that one seed is told to become
ALL_RIGHT = 99.0  # percent, from which a task is easy

DECIDED = ("better", "worse", "no difference")


@dataclass(frozen=True)
class Answer:
    """What a variant came to against the baseline.

    Attributes:
        variant, baseline: which.
        finding: a sentence.
        step: what to do next, a sentence.
        unused: that the controls show the block to be of no use, a sentence; "" if they do not, or were not made.
    """

    variant: str
    baseline: str
    finding: str
    step: str
    unused: str

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(filter(None, (self.finding, f"Next: {self.step}", self.unused)))


def answers(rows: Sequence[Row], runs: Sequence[Run] = (), command: str = "") -> list[Answer]:
    """Answer for every row that has a verdict.

    Args:
        runs: that the rows are of, for their controls and how far they were trained.
        command: that repeats the study; the next step is told in its words.
    """
    found, cautioned = [], bool(cautions(runs))
    for row in rows:
        if row.verdict is None:
            continue
        step = _step(row, rows, command)
        if row.verdict.finding in DECIDED and (first := _first(row, rows, cautioned=cautioned)):
            step = f"{first} before you decide; as it stands, {step}"
        found.append(Answer(row.variant, row.baseline, _finding(row, rows), step, _unused(row, runs)))
    return found


def cautions(runs: Sequence[Run]) -> list[str]:
    """Say where more epochs may turn the answer around, and which networks tell nothing apart."""
    return [*_too_short(runs), *_blind(runs)]


def _too_short(runs: Sequence[Run]) -> list[str]:
    if not runs:
        return []
    if few_passes(runs[0]):
        few = passes(runs[0])
        text = f"{few:.0f} {'pass' if few == 1 else 'passes'} over the images {'is' if few == 1 else 'are'} very few"
        return [f"{text}: trained longer, networks may compare otherwise."]
    rise = still_rising(runs)
    if rise is None:
        return []
    label = runs[0].figure.label
    return [
        f"Validation {label} was still rising at the end, by {rise:.1f} points from one stretch of the last epochs to "
        "the next (a fifth of the epochs or less, mean over the runs): trained longer, networks may compare otherwise."
    ]


def _blind(runs: Sequence[Run]) -> list[str]:
    """Name the variants whose networks get no more test images right than one answer to all of them would."""
    by_variant: dict[str, list[Run]] = {}
    for run in runs:
        by_variant.setdefault(str(run.variant), []).append(run)
    lines = []
    for variant, some in by_variant.items():
        shares = [found for run in some if (found := no_better_than_one_answer(run)) is not None]
        if shares:
            name, share = shares[0]
            lines.append(
                f"{variant} gets no more test images right than saying {name} of every one would ({share:.2f}%), in "
                f"{len(shares)} of {counted(len(some), 'run')}."
            )
    return lines


def _first(row: Row, rows: Sequence[Row], *, cautioned: bool) -> str:
    """Say what should be done before the answer is acted upon; "" if nothing."""
    both = [row, *(other for other in rows if other.variant == row.baseline)]
    needed = []
    if cautioned:
        needed.append("train longer")
    if missing := sum(len(side.missing) for side in both):
        which = "the missing run" if missing == 1 else f"the {missing} missing runs"
        needed.append(f"get {which} (by the same command, or see why not)")
    if _turns_with_the_images(row):
        needed.append("test on more images")
    return " and ".join(needed)


def _turns_with_the_images(row: Row) -> bool:
    """Tell whether a difference found over the seeds may be chance of the test images."""
    found = row.verdict is not None and row.verdict.finding in ("better", "worse")
    return found and row.over_images is not None and row.over_images[0] <= 0 <= row.over_images[1]


def _finding(row: Row, rows: Sequence[Row]) -> str:
    text = _plain_finding(row)
    if _turns_with_the_images(row):
        text += f" But over the test images it is anything from {reach(row.over_images)}: others may turn it around."
    return f"{text}{_balance(row, rows)}"


def _balance(row: Row, rows: Sequence[Row]) -> str:
    """Say if the difference goes the other way with every class counted alike."""
    base = next((other for other in rows if other.variant == row.baseline), None)
    if base is None or base.balance is None or row.balance is None or row.verdict is None:
        return ""
    before, now = base.balance.accuracy.mean, row.balance.accuracy.mean
    if (row.verdict.finding, now < before) not in (("better", True), ("worse", False)):
        return ""
    return f" With every class counted alike it goes the other way: balanced accuracy from {before:.2f}% to {now:.2f}%."


def _plain_finding(row: Row) -> str:
    verdict, found = row.verdict, row.analysis
    assert verdict is not None
    assert found is not None
    less = f", if by less than {verdict.margin:g}" if verdict.within == verdict.margin else ""
    match verdict.finding:
        case "better":
            return f"It helps here{less}: {signed(found.mean)} points."
        case "worse":
            return f"It hurts here{less}: {signed(found.mean)} points."
        case "no difference":
            within = verdict.within
            assert within is not None
            return f"It makes no difference here that is larger than {_size(within, verdict)} points."
        case "one seed":
            return f"Nothing can be said yet: {signed(found.mean)} points from one seed may be chance."
        case "no spread":
            return f"No test is possible: all seeds differ by the same {signed(found.mean)} points."
    return f"{_sign(row)}; {_seen(row)}."


def _sign(row: Row) -> str:
    verdict, found = row.verdict, row.analysis
    assert verdict is not None
    assert found is not None
    if verdict.p is not None and verdict.p < verdict.alpha:
        return f"A hint that it {'helps' if found.mean > 0 else 'hurts'} here, too weak for a table of so many"
    return "No sign that it helps or hurts here"


def _seen(row: Row) -> str:
    sides = row.difference
    assert sides is not None
    seeds = f"{sides.n} seeds" if sides.n == sides.n_baseline else f"{sides.n} and {sides.n_baseline} seeds"
    if row.detectable is None or row.detectable >= 100:
        return f"these {seeds} could not have seen any difference"
    return f"these {seeds} could only have seen differences above {about(row.detectable)} points"


def _step(row: Row, rows: Sequence[Row], command: str) -> str:
    assert row.verdict is not None
    match row.verdict.finding:
        case "one seed":
            seeds = max(FIRST_SEEDS, _seeds(row))
            return f"{_ask(seeds, rows, command)}{_time(seeds, rows)}, would tell how far seeds differ."
        case "no spread":
            easy = row.figure.per_image and row.mean > ALL_RIGHT
            return "a harder task, or more test images." if easy else "more test images."
        case "undecided":
            return _more_seeds(row, rows, command)
    base = next(other for other in rows if other.variant == row.baseline)
    more = 100 * (row.parameters / base.parameters - 1)
    cost = f"{abs(more):.2g}% {'more' if more > 0 else 'fewer'} parameters" if more else "as many parameters"
    match row.verdict.finding:
        case "worse":
            return "leave it out."
        case "better":
            return f"keep it, if that is worth {cost}." if more > 0 else f"keep it; it has {cost}."
    if more == 0:
        return "take either."
    return f"leave it out; it has {cost}." if more > 0 else f"take it if size counts; it has {cost}."


def _more_seeds(row: Row, rows: Sequence[Row], command: str) -> str:
    """Ask for the seeds that settle it, or if these are too many for as many as are no burden."""
    verdict, now = row.verdict, _seeds(row)
    assert verdict is not None
    needed = verdict.more_seeds or 0
    settles = 0 < needed <= MOST_SEEDS - now
    more = needed if settles else 3 * now if 4 * now <= MOST_SEEDS else now
    text = f"{_ask(now + more, rows, command)}{_time(now + more, rows)}"
    sees, images = row.detectable_with(more), verdict.limits
    if sees is not None and images is not None and sees < images.resolution:
        text += f", would see {images.resolution:.2g}, as much as {images.test_images:,} test images leave open"
    elif sees is not None:
        text += f", would see about {about(sees)}"
    if needed and not settles:
        text += f"; to settle {_size(verdict.target, verdict)} would take {now + needed:,} seeds"
    return f"{text}."


def _seeds(row: Row) -> int:
    sides = row.difference
    assert sides is not None
    return max(sides.n, sides.n_baseline)


def _ask(seeds: int, rows: Sequence[Row], command: str) -> str:
    """Name the option that makes it so many seeds."""
    first = min(seed for row in rows for seed in (*row.seeds, *row.missing))
    if command.startswith("srblock sweep"):
        return f"--fresh {seeds}"
    if command.startswith("srblock.compare("):
        return f"seeds={seeds}" if first == 0 else f"seeds=range({first}, {first + seeds})"
    return f"--seeds {seeds}" if first == 0 else f"--seeds {first}-{first + seeds - 1}"


def _time(seeds: int, rows: Sequence[Row]) -> str:
    """Say how long it takes until all variants have so many seeds, trained one after another as fast as these were."""
    if any(row.wall_s is None for row in rows):
        return ""
    seconds = sum(max(0, seeds - row.n) * (row.wall_s or 0.0) for row in rows)
    return f", about {units.duration(seconds)} one run after another"


def _size(points: float, verdict: Verdict) -> str:
    """Print the margin as it was given, and what follows from the test images with two digits."""
    return f"{points:g}" if points == verdict.margin else f"{points:.2g}"


def _unused(row: Row, runs: Sequence[Run]) -> str:
    assert row.verdict is not None
    return not_used([run for run in runs if str(run.variant) == row.variant], row.verdict.margin)


def about(points: float) -> str:
    """Print percentage points with two digits: 31, 3.6, 0.31."""
    return f"{points:.0f}" if points >= 9.95 else f"{points:.2g}"
