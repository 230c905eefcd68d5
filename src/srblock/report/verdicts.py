"""Verdicts in words, the same on terminal, page and tables."""

from __future__ import annotations

from srblock.data.offenders import counted
from srblock.report import units
from srblock.statistics.verdicts import Verdict

ONE_SEED = "one seed: nothing can be said about chance"
NO_SPREAD = "all seeds differ by the same, so there is no spread to test the difference against"


def words(verdict: Verdict) -> str:
    """Say a verdict as a phrase: "better", "undecided: 12 more seeds per variant would settle ±0.2"."""
    match verdict.finding:
        case "one seed":
            return ONE_SEED
        case "no spread":
            return NO_SPREAD
        case "no difference":
            beyond = "" if verdict.within == verdict.margin else f" ({_beyond(verdict)})"
            return f"no difference larger than {_within(verdict)}{beyond}"
        case "undecided":
            return f"undecided: {_plan(verdict)}{_alone(verdict)}"
    return f"{verdict.finding}{_less(verdict)}"


def headline(verdict: Verdict, variant: str, baseline: str) -> str:
    """Say a verdict as a title that names both sides."""
    match verdict.finding:
        case "one seed":
            return f"Nothing can be said yet about {variant} against {baseline}"
        case "no spread":
            return f"No test is possible of {variant} against {baseline}"
        case "no difference":
            return f"No difference larger than {_within(verdict)} between {variant} and {baseline}"
        case "undecided":
            return f"Undecided between {variant} and {baseline}"
    return f"{variant} does {verdict.finding} than {baseline}{_less(verdict)}"


def advice(verdict: Verdict) -> str:
    """Say what follows from a verdict, as a sentence; empty if it speaks for itself."""
    match verdict.finding:
        case "one seed":
            return "Another seed may turn it around; run with --seeds 5 or more to learn how far seeds differ."
        case "no spread":
            return f"{NO_SPREAD[0].upper()}{NO_SPREAD[1:]}."
        case "no difference" if verdict.within != verdict.margin:
            return f"{_beyond(verdict)}."
        case "undecided":
            text = f"{_plan(verdict)}{_alone(verdict)}."
            return text[0].upper() + text[1:]
    return ""


def _less(verdict: Verdict) -> str:
    return f", but by less than {verdict.margin:g}" if verdict.within == verdict.margin else ""


def _within(verdict: Verdict) -> str:
    assert verdict.within is not None
    return _size(verdict.within, verdict)


def _size(difference: float, verdict: Verdict) -> str:
    """Print the margin as it was given, and what follows from the test images with two digits."""
    return f"{difference:g}" if difference == verdict.margin else f"{difference:.2g}"


def _plan(verdict: Verdict) -> str:
    """Say with how many more seeds the difference could be settled, and how long they train."""
    target, beyond = _size(verdict.target, verdict), f"{_beyond(verdict)}; " if verdict.beyond else ""
    if verdict.more_seeds == 0:
        return f"{beyond}enough seeds to settle ±{target} four times in five, but not here"
    seeds = counted(verdict.more_seeds or 0, "more seed")
    time = "" if verdict.seconds is None else f" (about {units.duration(verdict.seconds)} of training)"
    return f"{beyond}{seeds} per variant would settle ±{target}{time}"


def _beyond(verdict: Verdict) -> str:
    """Say that the test images do not measure one accuracy to the margin."""
    assert verdict.limits is not None
    images, known = f"{verdict.limits.test_images:,}", _size(verdict.target, verdict)
    return f"{images} test images measure one accuracy to ±{known}, not to ±{verdict.margin:g}"


def _alone(verdict: Verdict) -> str:
    """Explain an interval without 0 beside the word "undecided"."""
    if verdict.p is None or verdict.holm_p is None or verdict.p >= verdict.alpha:
        return ""
    alone, corrected = units.probability(verdict.p), units.probability(verdict.holm_p)
    return f" (p = {alone} counts alone, {corrected} after Holm's correction does not)".replace("= <", "< ")
