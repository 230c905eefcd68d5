"""The plan: what is left of a study, how long that takes, and how it is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from srblock.data import load
from srblock.data.sources.published import PUBLISHED, stand_in
from srblock.paper.tables import CLASSES, IMAGE_SIZES
from srblock.report.plan import print_plan
from srblock.runs import plan as planning
from srblock.runs.plan import PlanRow, plan, seconds_left
from srblock.runs.records import numerics
from srblock.runs.study import Study, recipe_for
from srblock.variants.notation import Variant, parse

CPU = torch.device("cpu")
PLAIN, BLOCK = parse("R8"), parse("R8 + SR(M=3, P=4)")
ROWS = [
    PlanRow("R8", 75_290, 0.0, 1_600_000, 0.42, None, done=3, partial=0, todo=0, seconds_left=0.0),
    PlanRow("R8 + SR(M=3, P=4)", 77_514, 2.95, 1_605_000, 0.44, 2.0, done=0, partial=1, todo=2, seconds_left=67.3),
]


@pytest.fixture(scope="module")
def study() -> Study:
    data = load("digits")
    return Study((PLAIN, BLOCK), (0, 1), data, "digits", recipe_for(data, CPU, epochs=3))


def two_ms(study: Study, variants: list[Variant], device: torch.device, until: float | None) -> dict[Variant, float]:
    return dict.fromkeys(variants, 2.0)


def printed(capsys: pytest.CaptureFixture[str], rows: list[PlanRow], study: Study, **options: object) -> str:
    print_plan(rows, study, CPU, Console(width=80), **options)  # type: ignore[arg-type]
    return " ".join(capsys.readouterr().out.split())


def test_runs_in_bfloat16_are_not_those_of_versions_that_evaluated_them_wrongly(study: Study) -> None:
    exact, rounded = (replace(study, recipe=replace(study.recipe, precision=p)).runs for p in ("float32", "bfloat16"))
    assert {run.numerics for run in exact} == {1}
    assert {run.numerics for run in rounded} == {2}


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        ({"freeze_epochs": 1}, None, 2),
        ({"ema": 0.9}, None, 1),
        ({"ema": 0.9}, {"source": "a", "structure": "b"}, 2),
        ({"class_weights": "balanced"}, None, 2),
        ({}, {"source": "a", "structure": "b"}, 1),
    ],
)
def test_so_are_those_that_0_2_trained_otherwise(study: Study, options: Any, code: Any, expected: int) -> None:
    assert numerics(replace(study.recipe, **options), code) == expected


def test_time_follows_measured_steps_and_what_is_left(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "measure_ms_per_image", two_ms)
    runs = study.runs
    for config, name, text in ((runs[0], "result.json", "{}"), (runs[2], "metrics.jsonl", "{}\n{}\n")):
        (tmp_path / "runs" / config.name).mkdir(parents=True)
        (tmp_path / "runs" / config.name / name).write_text(text)
    plain, block = plan(study, tmp_path, CPU)
    assert (plain.done, plain.partial, plain.todo) == (1, 1, 0)
    assert (block.done, block.partial, block.todo) == (0, 0, 2)
    assert plain.epoch_seconds == block.epoch_seconds == pytest.approx(2e-3 * 1438)
    assert plain.seconds_left == pytest.approx(2e-3 * 1438)  # one epoch of one run
    assert block.seconds_left == pytest.approx(6 * 2e-3 * 1438)
    assert plain.overhead_percent == 0 < block.overhead_percent


def test_of_many_variants_one_of_each_network_is_measured(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Variant] = []

    def noting(
        study: Study, variants: list[Variant], device: torch.device, until: float | None
    ) -> dict[Variant, float]:
        measured.extend(variants)
        return two_ms(study, variants, device, until)

    monkeypatch.setattr(planning, "measure_ms_per_image", noting)
    many = replace(study, variants=(PLAIN, *(parse(f"R8 + SR(M=3, P={p})") for p in (1, 2, 3, 4))))
    rows = plan(many, tmp_path, CPU)
    assert measured == [PLAIN]
    assert rows[-1].ms_per_image == pytest.approx(2 * rows[-1].flops_per_image / rows[0].flops_per_image)


def test_epochs_done_here_say_how_long_the_next_ones_take(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "measure_ms_per_image", two_ms)
    here = planning.runtime.environment(CPU)["device"]
    for config, device in zip(study.runs, (here, "another"), strict=False):
        folder = tmp_path / "runs" / config.name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config.as_dict() | {"environment": {"device": device}}))
        lines = [json.dumps({"train_seconds": seconds}) for seconds in (90.0, 5.0, 6.0)]
        (folder / "metrics.jsonl").write_text("\n".join(lines[:2]) + "\n" + lines[2] + "\n")
    plain, block = plan(study, tmp_path, CPU)
    assert plain.ms_per_image == pytest.approx(1e3 * 6.0 / len(study.loaders(0, CPU).train.plan.samples))
    assert block.ms_per_image == 2.0
    (folder / "config.json").write_text("{")
    assert plan(study, tmp_path, CPU)[1].ms_per_image == 2.0


def test_an_epoch_may_be_a_number_of_steps(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "measure_ms_per_image", two_ms)
    steps = replace(study, recipe=replace(study.recipe, epoch_steps=5, batch_size=32))
    assert plan(steps, tmp_path, CPU)[0].epoch_seconds == pytest.approx(2e-3 * 5 * 32)


def test_measuring_ends_with_the_time(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 10.0))
    monkeypatch.setattr(planning, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    plain, block = plan(study, tmp_path, CPU, until=5.0)
    assert plain.ms_per_image is not None
    assert block.ms_per_image == pytest.approx(plain.ms_per_image * block.flops_per_image / plain.flops_per_image)
    monkeypatch.setattr(planning, "time", SimpleNamespace(monotonic=lambda: 10.0))
    assert [row.ms_per_image for row in plan(study, tmp_path, CPU, until=5.0)] == [None, None]


def test_variants_are_measured_in_turns(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is twice as slow in the last round, and a variant that always takes half as long again."""
    slowness, now, turns = (1.0, 1.0, 2.0), [0.0], []

    def step(step: object, loader: object, epoch: int, *, batches: int) -> int:
        turns.append(step)
        number = len(turns) - 3  # two warm-ups
        now[0] += 0.0 if number < 0 else slowness[number // 2] * (1.0 if step is turns[0] else 1.5)
        return 100

    monkeypatch.setattr(planning, "train_epoch", step)
    monkeypatch.setattr("srblock.training.runtime.now", lambda device: now[0])
    assert planning.measure_ms_per_image(study, [PLAIN, BLOCK], CPU) == {PLAIN: 10.0, BLOCK: 15.0}
    plain, block = turns[:2]
    assert turns[2:] == [plain, block, block, plain, plain, block]


def test_several_at_once_take_a_share_of_the_time_but_not_more_than_there_are_runs() -> None:
    assert seconds_left(ROWS, 1) == 67.3
    assert seconds_left(ROWS, 2) == 67.3 / 2
    assert seconds_left(ROWS, 9) == 67.3 / 3
    assert seconds_left([replace(ROWS[1], seconds_left=None)], 1) is None


def test_what_is_printed(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, ROWS, study)
    assert "1,438 training and 359 test images of 8x8 in 10 classes; 3 epochs" in text
    assert "6 runs: 3 finished, 1 started, 2 not started; about 1 min 07 s left, from measured steps." in text
    assert "0 of 3 -" in text
    assert "3 of 3 1 min 07 s" in text
    assert "All 3 runs are finished." in printed(capsys, ROWS[:1], study)
    assert "at least 34 s left with 2 at once" in printed(capsys, ROWS, study, at_once=2)


def test_data_that_is_not_at_hand_has_its_published_sizes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = stand_in("cifar100")
    study = Study((parse("R18"),), (0,), data, "cifar100", recipe_for(data, CPU))
    (row,) = plan(study, tmp_path, CPU, measure=False)
    assert row.parameters == 11_220_132
    assert row.ms_per_image is row.seconds_left is None
    assert study.recipe.epochs == 200
    text = printed(capsys, [row], study, at_hand=False)
    assert "50,000 training and 10,000 test images of 32x32 in 100 classes" in text
    assert "1 run. cifar100 is not at hand" in text
    assert "left" not in text.split("cifar100 is not at hand")[1]


def test_published_sizes_are_those_of_the_sets_and_of_the_papers_tables() -> None:
    data = load("digits")
    shape = (data.train_size, data.test_size, len(data.classes), data.channels, data.size[0])
    assert shape == PUBLISHED["digits"]
    for name, size in IMAGE_SIZES.items():
        known = stand_in(name)
        assert (len(known.classes), known.size) == (CLASSES[name], size)
    assert stand_in("imagenet:somewhere", 160).size == (160, 160)
