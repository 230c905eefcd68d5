"""Whether training had ended: few passes, and curves that rise, with the rate held and with a rate that falls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_fixture import BASELINE, write_run

from srblock.runs.records import Run
from srblock.statistics.convergence import few_passes, passes, still_rising


def with_curve(run: Run, curve: list[float], rates: list[float]) -> Run:
    metrics = [
        {"epoch": epoch, "lr": rate, "validation_top1": value}
        for epoch, (value, rate) in enumerate(zip(curve, rates, strict=True), 1)
    ]
    return replace(run, metrics=metrics)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_run(tmp_path, BASELINE, 0, recall=False)


def test_a_straight_rise_by_hand(run: Run) -> None:
    """20 epochs, a point each: the stretches are the last four epochs and the four before, 4 points apart."""
    assert still_rising([with_curve(run, [float(epoch) for epoch in range(20)], [0.1] * 20)]) == 4.0
    assert still_rising([with_curve(run, [90.0] * 20, [0.1] * 20)]) is None
    assert still_rising([with_curve(run, [90 + 0.1 * epoch for epoch in range(20)], [0.1] * 20)]) is None, "0.4"


def test_a_fall_of_the_rate_is_no_sign(run: Run) -> None:
    """The paper's CIFAR-100 recipe drops the rate at four fifths, and accuracy jumps: that is no rise to warn of."""
    rates = [0.1] * 160 + [0.02] * 40
    assert still_rising([with_curve(run, [68.0] * 160 + [77.0] * 40, rates)]) is None
    rising = [68.0] * 160 + [77.0 + 0.1 * epoch for epoch in range(40)]
    assert still_rising([with_curve(run, rising, rates)]) == pytest.approx(2.0), "twenty epochs against twenty"


def test_a_rate_that_falls_to_the_end_says_nothing(run: Run) -> None:
    cosine = (0.05 * (1 + np.cos(np.linspace(0, np.pi, 20)))).tolist()
    assert still_rising([with_curve(run, [float(epoch) for epoch in range(20)], cosine)]) is None


def test_noise_between_runs_is_no_sign(run: Run) -> None:
    """Rises of 3, -1 and 1 points: a mean of 1 with a standard error of 1.2."""
    steps = [with_curve(run, [80.0] * 16 + [80.0 + rise] * 4, [0.1] * 20) for rise in (3.0, -1.0, 1.0)]
    assert still_rising(steps) is None
    assert still_rising([with_curve(run, [80.0] * 16 + [81.0] * 4, [0.1] * 20)] * 3) == 1.0


def test_without_validation_or_with_few_epochs_nothing_is_said(run: Run) -> None:
    trained = replace(run, metrics=[{"epoch": epoch, "lr": 0.1, "train_top1": epoch} for epoch in range(20)])
    assert still_rising([trained]) is None
    assert still_rising([with_curve(run, [1.0, 50.0, 90.0, 95.0], [0.1] * 4)]) is None
    assert still_rising([]) is None


def test_passes_count_images_where_an_epoch_is_a_number_of_steps(run: Run) -> None:
    def of(**changes: object) -> Run:
        return replace(run, config=replace(run.config, recipe=replace(run.config.recipe, **changes)))  # type: ignore[arg-type]

    assert passes(run) == 20
    steps = of(epochs=2, epoch_steps=1437, batch_size=10)
    assert passes(steps) == 20
    assert not few_passes(steps)
    assert few_passes(of(epochs=9))
    assert not few_passes(of(epochs=10))
    fine_tuned = of(epochs=4)
    assert not few_passes(replace(fine_tuned, config=replace(fine_tuned.config, weights="pretrained")))
