"""Verdicts: each kind of finding and its words, the correction over a table, the seeds that settle it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srblock.report.verdicts import advice, headline, words
from srblock.statistics.differences import Summary, difference, difference_of_summaries
from srblock.statistics.equivalence import tost_p
from srblock.statistics.pairing import Comparison, pairing
from srblock.statistics.power import detection_power, equivalence_power
from srblock.statistics.verdicts import Limits, Verdict, more_seeds, resolution, verdicts


def compare(gain: float, std: float = 0.25, n: int = 5) -> Comparison:
    return Comparison(difference_of_summaries(Summary(n, 70.0, std), Summary(n, 70.0 + gain, std)))


def of(baseline: list[float], ours: list[float]) -> Comparison:
    return Comparison(difference(baseline, ours))


def judge(gain: float, std: float = 0.25, n: int = 5) -> Verdict:
    return verdicts([compare(gain, std, n)])[0]


@pytest.mark.parametrize(
    ("gain", "std", "n", "phrase", "title"),
    [
        (1.0, 0.25, 5, "better", "B does better than A"),
        (-1.0, 0.25, 5, "worse", "B does worse than A"),
        (0.1, 0.05, 30, "better, but by less than 0.2", "B does better than A, but by less than 0.2"),
        (-0.1, 0.05, 30, "worse, but by less than 0.2", "B does worse than A, but by less than 0.2"),
        (0.01, 0.05, 5, "no difference larger than 0.2", "No difference larger than 0.2 between B and A"),
        (0.1, 0.25, 5, "undecided: 23 more seeds per variant would settle ±0.2", "Undecided between B and A"),
    ],
)
def test_words(gain: float, std: float, n: int, phrase: str, title: str) -> None:
    found = judge(gain, std, n)
    assert words(found) == phrase
    assert headline(found, "B", "A") == title
    assert (found.more_seeds is None) == (found.finding != "undecided")


def test_a_finding_may_be_large_though_its_interval_reaches_below_the_margin() -> None:
    assert words(judge(0.5)) == "better"
    assert judge(0.5).within is None


def test_without_a_test_it_says_why() -> None:
    one, other, flat = verdicts([of([90.0], [95.0]), of([90.0], [95.0, 96.0]), of([90.0, 90.0], [95.0, 95.0])])
    for found in (one, other):
        assert words(found) == "one seed: nothing can be said about chance"
        assert headline(found, "B", "A") == "Nothing can be said yet about B against A"
        assert "run with --seeds 5 or more" in advice(found)
    assert words(flat).startswith("all seeds differ by the same")
    assert headline(flat, "B", "A") == "No test is possible of B against A"
    assert advice(flat).startswith("All seeds differ by the same")
    assert {found.p for found in (one, other, flat)} == {None}


def test_the_table_is_corrected_and_the_words_say_so() -> None:
    alone = judge(0.4)
    assert words(alone) == "better"
    assert alone.p == alone.holm_p == pytest.approx(0.0353, abs=1e-4)
    first, second, untested = verdicts([compare(0.4), compare(0.1), of([1.0], [2.0])])
    assert first.finding == "undecided"
    assert first.holm_p == pytest.approx(2 * alone.p)  # what has no test does not count
    assert words(first).endswith("±0.2 (p = 0.0353 counts alone, 0.0705 after Holm's correction does not)")
    assert "counts alone" not in words(second)
    assert untested.finding == "one seed"
    # A table of two needs more seeds than a comparison alone, the same for both: they have the same spread.
    assert first.more_seeds == second.more_seeds
    assert second.more_seeds is not None
    assert second.more_seeds > (judge(0.1).more_seeds or 0)


def test_equivalence_is_corrected_too() -> None:
    estimate = compare(0.1, 0.085).estimate
    assert estimate is not None
    assert 0.025 < tost_p(estimate) < 0.05
    assert judge(0.1, 0.085).finding == "no difference"
    assert [found.finding for found in verdicts([compare(0.1, 0.085)] * 2)] == ["undecided"] * 2


def test_enough_seeds_and_yet_undecided() -> None:
    found = judge(0.11, 0.25, 40)
    assert found.more_seeds == 0
    assert words(found) == "undecided: enough seeds to settle ±0.2 four times in five, but not here"
    assert advice(found) == "Enough seeds to settle ±0.2 four times in five, but not here."


def test_one_more_seed_is_singular() -> None:
    found = Verdict("undecided", 0.1, 0.1, None, 0.2, 1, 1, 0.05)
    assert words(found) == "undecided: 1 more seed per variant would settle ±0.2"
    assert advice(found) == "1 more seed per variant would settle ±0.2."


def test_margin_and_alpha_are_named() -> None:
    (found,) = verdicts([compare(0.1)], margin=1.0)
    assert words(found) == "no difference larger than 1"
    assert verdicts([compare(0.4)], alpha=0.01)[0].finding == "undecided"
    with pytest.raises(ValueError, match="the margin must be above 0"):
        verdicts([compare(0.1)], margin=0)
    with pytest.raises(ValueError, match="alpha must be between 0 and 1"):
        verdicts([compare(0.1)], alpha=5)
    assert verdicts([]) == []


def shared(n: int) -> Comparison:
    """Two variants whose runs of a seed differ by about 0.3, with a spread of 3 between seeds."""
    random = np.random.default_rng(2410)
    baseline = random.normal(70, 3, n)
    ours = baseline + random.normal(0.3, 0.2, n)
    first, second = (dict(enumerate(side.tolist())) for side in (baseline, ours))
    return Comparison(difference(list(first.values()), list(second.values())), pairing(first, second))


def test_from_eight_shared_seeds_on_the_paired_test_is_judged_by() -> None:
    assert verdicts([shared(7)])[0].finding == "undecided"
    assert verdicts([shared(8)])[0].finding == "better"


def test_the_plan_is_by_the_test_that_would_count_with_so_many_seeds() -> None:
    """Welch's test would ask for thousands of seeds; with 8 of them it no longer counts."""
    few = shared(4)
    assert few.pairing is not None
    by_welch = more_seeds(Comparison(few.difference))
    assert by_welch > 1000
    asked = more_seeds(few)
    assert 4 <= asked < 20
    error = few.pairing.std / (4 + asked) ** 0.5, 4 + asked - 1
    assert min(detection_power(0.2, *error), equivalence_power(0.2, *error)) >= 0.8


def test_a_plan_may_end_before_the_paired_test_counts() -> None:
    """Five seeds that go against each other: Welch's test is done with two more, the paired one would not be."""
    baseline, ours = [70.0, 70.2, 70.1, 70.3, 70.15], [70.3, 70.05, 70.2, 70.0, 70.2]
    paired = pairing(dict(enumerate(baseline)), dict(enumerate(ours)))
    assert paired is not None
    found = Comparison(difference(baseline, ours), paired)
    asked = more_seeds(found)
    assert asked == more_seeds(Comparison(found.difference)) == 2
    estimate = found.with_more(3)
    assert estimate is not None
    assert estimate.freedom == 7, "three more and the paired test counts"
    assert equivalence_power(0.2, estimate.standard_error, estimate.freedom) < 0.8


@pytest.mark.parametrize(("std", "n"), [(0.25, 5), (0.1, 3), (0.7, 5)])
def test_the_seeds_it_asks_for_do_settle_it(std: float, n: int) -> None:
    """Whatever the truth, none or the margin, four in five tables of that size get a verdict."""
    total = n + more_seeds(compare(0.1, std, n))
    random = np.random.default_rng(2410)
    for truth, findings in ((0.0, ("no difference",)), (0.2, ("better",))):
        found = []
        for _ in range(300):
            sides = (random.normal(mean, std, total) for mean in (70, 70 + truth))
            summaries = (Summary(total, float(side.mean()), float(side.std(ddof=1))) for side in sides)
            found.append(verdicts([Comparison(difference_of_summaries(*summaries))])[0])
        settled = sum(one.finding in findings or one.within is not None for one in found) / 300
        assert settled >= 0.75


def test_nothing_can_be_planned_without_spread() -> None:
    with pytest.raises(ValueError, match="nothing can be planned"):
        more_seeds(of([70.0, 70.0], [71.0, 71.0]))


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.01, 0.5), st.integers(2, 30)), min_size=1, max_size=5))
def test_verdicts_agree_with_their_figures(some: list[tuple[float, float, int]]) -> None:
    found = verdicts([compare(*one) for one in some])
    for (gain, _, _), one in zip(some, found, strict=True):
        assert one.p is not None
        assert one.holm_p is not None
        assert one.holm_p >= one.p
        assert (one.finding in ("better", "worse")) == (one.holm_p < 0.05)
        if one.finding in ("better", "worse"):
            assert (gain > 0) == (one.finding == "better")
        assert one.comparisons == len(some)


LIMITS = Limits(226, resolution(60.0, 226), 1800.0)


def test_resolution_is_the_binomial_error() -> None:
    assert resolution(60.0, 226) == pytest.approx(100 * (0.6 * 0.4 / 226) ** 0.5)
    assert resolution(75.0, 10_000) == pytest.approx(0.433, abs=5e-4)
    assert resolution(100.0, 10) == 0
    with pytest.raises(ValueError, match="an accuracy of 0 to 100 and at least 1 image, got 101 and 5"):
        resolution(101, 5)


def test_it_never_asks_for_what_the_test_images_cannot_show() -> None:
    """The case of issue 14: 226 images, and thousands of seeds were asked for to settle 0.2."""
    without = judge(0.5, 5.0, 3)
    assert (without.more_seeds or 0) > 5_000
    (found,) = verdicts([compare(0.5, 5.0, 3)], limits=[LIMITS])
    assert found.beyond
    assert found.target == LIMITS.resolution == pytest.approx(3.2588, abs=1e-4)
    assert found.more_seeds == more_seeds(compare(0.5, 5.0, 3), LIMITS.resolution)
    assert found.seconds == 1800 * (found.more_seeds or 0)
    assert words(found) == (
        "undecided: 226 test images measure one accuracy to ±3.3, not to ±0.2; 39 more seeds per variant "
        "would settle ±3.3 (about 19 h 30 min of training)"
    )


def test_a_margin_that_the_test_images_can_show_is_planned_for() -> None:
    fine = Limits(10_000, 0.15, 60.0)
    (found,) = verdicts([compare(0.1)], limits=[fine])
    assert not found.beyond
    assert words(found) == "undecided: 23 more seeds per variant would settle ±0.2 (about 23 min 00 s of training)"


def test_a_difference_below_what_the_test_images_can_show_is_called_so() -> None:
    wide = Limits(10_000, 0.46)
    (found,) = verdicts([compare(0.1, 0.1, 5)], margin=0.05, limits=[wide])
    assert (found.finding, found.within) == ("no difference", 0.46)
    beyond = "10,000 test images measure one accuracy to ±0.46, not to ±0.05"
    assert words(found) == f"no difference larger than 0.46 ({beyond})"
    assert advice(found) == f"{beyond}."
    assert headline(found, "B", "A") == "No difference larger than 0.46 between B and A"
    (small,) = verdicts([compare(0.0, 0.1, 100)], margin=0.05, limits=[wide])
    assert (small.finding, small.within) == ("no difference", 0.05), "the narrower bound where it is shown"
    assert words(small) == "no difference larger than 0.05"
