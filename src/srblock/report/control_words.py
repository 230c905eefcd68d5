"""What the controls of an analysis show, in words that follow from its figures.

A control is a finding if McNemar's p is below 0.05 after Holm's correction over the controls, a hint if it is so only
before; else there is no sign, and what the test images could have shown is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from srblock.inspection.analysis import Analysis, Controlled
from srblock.report.page import opening
from srblock.report.units import p_equals, reach, signed
from srblock.statistics.multiple import holm
from srblock.statistics.paired_images import PairedChange, paired_change
from srblock.statistics.power import ALPHA
from srblock.training.task import Figure

Sign = Literal["finding", "hint", "none", "untested"]


@dataclass(frozen=True)
class Way:
    """A control in words; `{block}` is "the block" or "the blocks", `{s}` and `{are}` agree with it.

    Attributes:
        done: what is done.
        worse: what it means if the network then does worse: what the control is for.
        better: what it means if it then does better.
    """

    done: str
    worse: str
    better: str


WAYS = {
    "removed": Way(
        "every block returns its input",
        "{block} matter{s}",
        "the network does better without {block}",
    ),
    "mean": Way(
        "every image gets the mean recall weights, which makes a fixed bias map",
        "{block} {are} more than a bias map",
        "the network does better with a fixed bias map",
    ),
    "uniform": Way(
        "every memory block weighs 1/P",
        "it matters how the memory blocks are weighed",
        "the network does better with equal weights",
    ),
    "shuffled": Way(
        "every image gets another image's recall weights",
        "it matters which image the recall weights are of",
        "the network does better with another image's recall weights",
    ),
    "largest": Way(
        "each image's largest weight is set to 1, the others to 0",
        "it matters that memory blocks are mixed",
        "the network does better with one memory block for each image",
    ),
    "flat": Way(
        "every memory block is replaced by its mean over the positions",
        "it matters where in the map the memory adds",
        "the network does better with the same at all positions",
    ),
}
FIRST = ("mean", "shuffled", "removed")  # what a reader asks first


@dataclass(frozen=True)
class Judged:
    """A control and what came of it.

    Attributes:
        controlled: its figures.
        points: change of the task's first figure against the intact network, percentage points.
        change: over the same images; None of scenes.
        holm_p: McNemar's after Holm's correction over all controls; None of scenes.
    """

    controlled: Controlled
    points: float
    change: PairedChange | None
    holm_p: float | None

    @property
    def sign(self) -> Sign:
        """How sure it is that something changes."""
        if self.change is None or self.holm_p is None:
            return "untested"
        return "finding" if self.holm_p < ALPHA else "hint" if self.change.p < ALPHA else "none"


def judge_controls(found: Analysis, figure: Figure) -> list[Judged]:
    """Judge all controls of an analysis together."""
    if not found.controls:
        return []
    intact = found.figures[figure.key]
    changes = [
        None if one.lost is None or one.gained is None else paired_change(one.lost, one.gained, found.images)
        for one in found.controls
    ]
    corrected = iter(holm([change.p for change in changes if change is not None]).tolist())
    return [
        Judged(one, one.figures[figure.key] - intact, change, None if change is None else next(corrected))
        for one, change in zip(found.controls, changes, strict=True)
    ]


def done(name: str) -> str:
    """Say what a control does."""
    return WAYS[name].done if name in WAYS else name


def control_headline(judged: Judged, blocks: int) -> str:
    """Say what a control shows, in one clause."""
    name = judged.controlled.name
    way = WAYS.get(name, Way(name, f"{name} changes the accuracy", f"{name} changes the accuracy"))
    claim = _fill(way.worse if judged.points <= 0 else way.better, blocks)
    if judged.sign == "finding":
        return opening(claim)
    if judged.sign == "hint":
        return f"A hint that {claim}, too weak after Holm's correction"
    doubted = _fill(way.worse, blocks)
    return f"No sign that {doubted}" if judged.sign == "none" else f"Not tested whether {doubted}"


def control_evidence(judged: Judged, found: Analysis, figure: Figure) -> str:
    """Give the figures behind what a control shows."""
    one, change = judged.controlled, judged.change
    text = f"{opening(done(one.name))}"
    if one.name == "mean" and found.mean_over is not None:
        text += f" (mean over {found.mean_over:,} training images)"
    text += f": {figure.label} changes by {signed(judged.points)} points"
    if change is None or judged.holm_p is None:
        text += "."
    else:
        text += f", 95% interval {reach(change.interval)}, McNemar's {p_equals(change.p)}"
        if len(found.controls) > 1:
            text += f", {p_equals(judged.holm_p).removeprefix('p ').removeprefix('= ')} after Holm's correction"
        text += f" ({one.lost} of {found.images:,} images lost, {one.gained} gained)."
        if judged.sign in ("none", "hint"):
            seen = f"could have shown a change of about {change.detectable:.2g} points"
            text += f" This test set {seen if change.detectable < 99 else 'is too small to show any change'}."
    if one.name == "removed":
        text += " The paper: -0.4 points, of a ResNet-50 on ImageNet (Sec. IV-D)."
    return text


def without_controls(blocks: int, *, judged: bool = True) -> str:
    """Say that the controls were left out; `judged`: whether the images have the network's classes."""
    of = _fill("{block}", blocks)
    if not judged:
        return (
            "These images have other classes than the network, so it cannot be right or wrong on them: there is no "
            f"accuracy, and nothing is known of whether it depends on {of}."
        )
    return f"The controls were left out, so nothing is known of whether the accuracy depends on {of}."


def untested(judged: Sequence[Judged], figure: Figure) -> str | None:
    """Say why there is no test of a control, where there is none."""
    if not judged or any(one.change is not None for one in judged):
        return None
    return (
        f"There are no intervals and no tests: {figure.label} is no share of the images, and one run has no spread. "
        "More seeds would tell how far these changes are chance."
    )


def _fill(text: str, blocks: int) -> str:
    if blocks > 1:
        return text.format(block="the blocks", s="", are="are")
    return text.format(block="the block", s="s", are="is")
