"""The answer in plain words: one for each verdict, a next step that the figures bear, and cautions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_fixture import BASELINE, WITH_SR, write_run, write_runs

from srblock.report.answers import about, answers, cautions
from srblock.runs.records import Answers, Run
from srblock.statistics.comparison import comparison
from srblock.statistics.power import detection_power


def pair(out: Path, baseline: tuple[float, ...], ours: tuple[float, ...], first: int = 0, **changes: Any) -> list[Run]:
    return [
        write_run(out, variant, seed, test_top1=value, recall=False, **changes)
        for variant, values in ((BASELINE, baseline), (WITH_SR, ours))
        for seed, value in enumerate(values, first)
    ]


def said(runs: list[Run], command: str = "srblock compare", margin: float = 0.2) -> str:
    (found,) = answers(comparison(runs, margin=margin), runs, command)
    return found.text


@pytest.mark.parametrize(
    ("baseline", "ours", "text"),
    [
        (
            (90.0, 90.2, 90.1),
            (92.0, 92.2, 92.1),
            "It helps here: +2.00 points. Next: keep it, if that is worth 3% more parameters.",
        ),
        ((92.0, 92.2, 92.1), (90.0, 90.2, 90.1), "It hurts here: -2.00 points. Next: leave it out."),
        (
            (90.0, 90.02, 90.01),
            (90.05, 90.07, 90.06),
            "It helps here, if by less than 0.2: +0.05 points. Next: keep it, if that is worth 3% more parameters.",
        ),
        (
            (90.0, 90.02, 90.01),
            (90.02, 90.0, 90.01),
            "It makes no difference here that is larger than 0.2 points. Next: leave it out; it has 3% more "
            "parameters.",
        ),
        (
            (90.0,),
            (91.0,),
            "Nothing can be said yet: +1.00 points from one seed may be chance. Next: --seeds 5, about 1 min 36 s one "
            "run after another, would tell how far seeds differ.",
        ),
        (
            (90.0, 90.0),
            (91.0, 91.0),
            "No test is possible: all seeds differ by the same +1.00 points. Next: more test images.",
        ),
    ],
)
def test_every_verdict_has_its_words(
    tmp_path: Path, baseline: tuple[float, ...], ours: tuple[float, ...], text: str
) -> None:
    assert said(pair(tmp_path, baseline, ours)) == text


def test_undecided_asks_for_seeds_that_see_the_margin(tmp_path: Path) -> None:
    """A margin of 2 points that the test images can show: the seeds that settle it, what they see, how long."""
    runs = pair(tmp_path, (90.0, 91.0, 92.0), (91.0, 92.5, 90.5))
    row = comparison(runs, margin=2.0)[1]
    assert row.verdict is not None
    more = row.verdict.more_seeds
    sees = row.detectable_with(more or 0)
    assert more
    assert sees is not None
    assert sees <= 2
    total = 3 + more
    assert said(runs, margin=2.0) == (
        "No sign that it helps or hurts here; these 3 seeds could only have seen differences above 3.1 points. "
        f"Next: --seeds {total}, about {round(more * 24)} s one run after another, would see about {about(sees)}."
    ).replace(f"{round(more * 24)} s", f"{more * 24 // 60} min {more * 24 % 60:02d} s")


def test_what_no_reasonable_number_of_seeds_sees_is_not_asked_for(tmp_path: Path) -> None:
    runs = pair(tmp_path, (85.0, 91.0), (93.0, 84.0))
    row = comparison(runs)[1]
    text = said(runs)
    sees = row.detectable_with(6)
    assert sees is not None
    assert row.comparison is not None
    estimate = row.comparison.with_more(6)
    assert estimate is not None
    assert detection_power(sees, estimate.standard_error, estimate.freedom) == pytest.approx(0.8, abs=1e-6)
    assert "these 2 seeds could only have seen differences above" in text
    assert f"Next: --seeds 8, about 2 min 24 s one run after another, would see about {about(sees)}; to settle" in text
    assert text.endswith(" seeds.")


def test_a_hint_is_called_so_in_a_table_of_several(tmp_path: Path) -> None:
    values = {BASELINE: (69.8, 70.0, 70.2, 70.0, 70.1), WITH_SR: (70.05, 70.35, 70.5, 70.2, 70.35),
              "R8 + SE": (70.0, 70.2, 69.9, 69.8, 70.3)}  # fmt: skip
    runs = [
        write_run(tmp_path, variant, seed, test_top1=70 + 10 * (value - 70), recall=False)
        for variant, some in values.items()
        for seed, value in enumerate(some)
    ]
    rows = comparison(runs)
    hinted = [row.verdict for row in rows if row.verdict and row.p and row.p < 0.05 < (row.holm_p or 0)]
    hints = [found for found in answers(rows) if found.finding.startswith("A hint that it helps here, too weak")]
    assert len(hinted) == len(hints) == 1


def test_the_next_step_is_in_the_words_of_the_command(tmp_path: Path) -> None:
    runs = pair(tmp_path, (90.0,), (91.0,), first=3)
    for command, words in (
        ("srblock compare a b --seeds 3-3", "Next: --seeds 3-7,"),
        ("srblock sweep 'R8 + SR'", "Next: --fresh 5,"),
        ("srblock.compare('R8', ...)", "Next: seeds=range(3, 8),"),
    ):
        assert words in said(runs, command)
    assert "Next: seeds=5," in said(pair(tmp_path / "b", (90.0,), (91.0,)), "srblock.compare('R8', ...)")


def controlled(removed: float, mean: float) -> dict[str, Any]:
    return {"controls": {"intact": {"top1": 92.0}, "removed": {"top1": removed}, "mean": {"top1": mean}}}


def test_a_block_of_no_use_is_called_so(tmp_path: Path) -> None:
    """Within two of 360 test images (0.56 points), which is more than the margin, and by two seeds or more."""
    values = (90.0, 90.2, 90.1), (92.0, 92.2, 92.1)
    unused = said(pair(tmp_path / "a", *values, **controlled(92.1, 92.0)))
    assert unused.endswith(
        " The trained networks hardly use the block: without it, test top-1 changes by +0.10 points, less than 0.56."
    )
    bias = said(pair(tmp_path / "b", *values, **controlled(80.0, 91.9)))
    assert "hardly more than a fixed bias map: with the mean recall weights for every image, test top-1 " in bias
    assert "changes by -0.10 points" in bias
    assert said(pair(tmp_path / "c", *values, **controlled(80.0, 91.0))).endswith("parameters.")
    spread = pair(tmp_path / "e", *values, **controlled(92.1, 91.0))
    for run, change in zip([run for run in spread if run.controls], (-1.5, 0.2, 1.4), strict=True):
        run.controls["removed"]["top1"] = 92.0 + change
    assert said(spread).endswith("parameters."), "small on average, and not shown to be"
    few = [replace(run, config=replace(run.config, data=run.config.data | {"test": 30})) for run in spread]
    assert said(few).endswith("parameters."), "two of 30 images are more than a point"
    assert said(pair(tmp_path / "f", *values, **controlled(91.7, 91.7))).endswith("parameters."), "alike, and too much"
    assert said(pair(tmp_path / "d", (90.0,), (92.0,), **controlled(92.0, 92.0))).endswith("differ."), "one seed"


def test_few_passes_are_cautioned_about(tmp_path: Path) -> None:
    (text,) = cautions(write_runs(tmp_path / "a", seeds=[0], epochs=2, recall=False))
    assert text.startswith("2 passes over the images are very few: ")
    (text,) = cautions(write_runs(tmp_path / "b", seeds=[0], epochs=1, recall=False))
    assert text.startswith("1 pass over the images is very few: ")
    assert cautions(write_runs(tmp_path / "c", seeds=[0], recall=False)) == cautions([]) == []


def test_nothing_is_decided_for_good_by_short_runs(tmp_path: Path) -> None:
    worse = (92.0, 92.2, 92.1), (90.0, 90.2, 90.1)
    assert said(pair(tmp_path / "a", *worse)).endswith("Next: leave it out.")
    assert "Next: train longer before you decide; as it stands, leave it out." in said(
        pair(tmp_path / "b", *worse, epochs=3)
    )


def test_runs_that_did_not_finish_are_asked_for_first(tmp_path: Path) -> None:
    runs = pair(tmp_path, (90.0, 90.2, 90.1), (92.0, 92.2, 92.1))
    (found,) = answers(comparison(runs, seeds=range(5)), runs)
    ask = "(by the same command, or see why not) before you decide"
    assert found.step.startswith(f"get the 4 missing runs {ask}; as it stands, keep it")
    (found,) = answers(comparison(runs[1:]), runs)
    assert found.step.startswith(f"get the missing run {ask}")
    (found,) = answers(comparison(runs, seeds=range(3)), runs)
    assert found.step.startswith("keep it")


def test_the_seeds_asked_for_begin_with_those_that_failed(tmp_path: Path) -> None:
    """Seed 0 of the variant failed: to ask for seeds 1 to N would leave the baseline's out."""
    runs = [
        run
        for run in pair(tmp_path, (90.0, 91.0, 92.0), (91.0, 92.5, 90.5))
        if run.seed or str(run.variant) == BASELINE
    ]
    assert "Next: --seeds 5" in said(pair(tmp_path / "b", (90.0,), (91.0,)), "srblock compare")
    (found,) = answers(comparison(runs, margin=2.0), runs, "srblock compare")
    assert "--seeds 1-" not in found.step
    assert found.step.startswith("--seeds ")


def answering(run: Run, right: int, images: int, commonest: float = 0.9) -> Run:
    """Give a run answers of two classes: the first `right` images right."""
    true = (np.arange(images) >= round(commonest * images)).astype(np.int64)
    said = np.where(np.arange(images) < right, true, 1 - true)
    config = replace(run.config, data=run.config.data | {"classes": ["healthy", "ill"], "test": images})
    return replace(run, config=config, answers=Answers(said, true), test={"top1": 100 * right / images})


def test_what_few_images_carry_may_turn_around(tmp_path: Path) -> None:
    """Five seeds agree on one image of thirty, and on 300 of a thousand."""
    right = {BASELINE: (27, 27, 27, 27, 26), WITH_SR: (28, 28, 28, 28, 28)}
    runs = [
        answering(run, right[str(run.variant)][run.seed], 30, 0.5) for run in pair(tmp_path, (90.0,) * 5, (90.0,) * 5)
    ]
    text = said(runs)
    assert text.startswith("It helps here: +4.00 points. But over the test images it is anything from ")
    assert "Next: test on more images before you decide; as it stands, keep it" in text
    right = {BASELINE: (600, 601, 602, 600, 602), WITH_SR: (900, 901, 902, 903, 900)}
    many = [answering(run, right[str(run.variant)][run.seed], 1000, 0.5) for run in runs]
    assert said(many).startswith("It helps here: +30.02 points. Next: keep it")


def test_networks_that_give_one_answer_are_named(tmp_path: Path) -> None:
    runs = [answering(run, 90 + run.seed, 100) for run in pair(tmp_path, (90.0,) * 2, (90.0,) * 2)]
    assert cautions(runs) == [
        f"{variant} gets no more test images right than saying healthy of every one would (90.00%), in 1 of 2 runs."
        for variant in (BASELINE, WITH_SR)
    ]
    assert said([answering(run, 90, 100) for run in runs]).endswith("Next: more test images.")
    assert said([answering(run, 100, 100) for run in runs]).endswith("Next: a harder task, or more test images.")


def test_balanced_accuracy_that_goes_the_other_way_is_said(tmp_path: Path) -> None:
    """More of the common class right, and fewer of the rare one."""

    def uneven(run: Run) -> Run:
        helped = str(run.variant) == WITH_SR
        common, rare = (890 + run.seed, 40) if helped else (860 + run.seed, 60)
        true = (np.arange(1000) >= 900).astype(np.int64)
        wrong = ((np.arange(1000) >= common) & (true == 0)) | (np.arange(1000) >= 900 + rare)
        config = replace(run.config, data=run.config.data | {"classes": ["healthy", "ill"], "test": 1000})
        answers = Answers(np.where(wrong, 1 - true, true), true)
        return replace(run, config=config, answers=answers, test={"top1": (common + rare) / 10})

    text = said([uneven(run) for run in pair(tmp_path, (90.0,) * 3, (90.0,) * 3)])
    assert text.startswith("It helps here: +1.00 points.")
    assert "With every class counted alike it goes the other way: balanced accuracy from 77.83% to 69.50%." in text


def test_curves_that_rise_are_cautioned_about(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, seeds=[0, 1], recall=False)
    for run in runs:
        for record in run.metrics:
            record |= {"lr": 0.1, "validation_top1": 2.0 * record["epoch"]}
    (text,) = cautions(runs)
    assert text.startswith("Validation top-1 was still rising at the end, by 8.0 points")


@pytest.mark.parametrize(("value", "text"), [(31.4, "31"), (9.96, "10"), (3.56, "3.6"), (0.314, "0.31")])
def test_two_digits(value: float, text: str) -> None:
    assert about(value) == text
