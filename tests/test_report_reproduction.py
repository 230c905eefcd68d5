"""The paper's table beside runs: the figures are where they belong, and the words follow from them."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from run_fixture import of_scenes, write_run

from srblock.paper.select import AS_IT_IS, Unsaid, select, variant_of
from srblock.paper.tables import PaperRow
from srblock.report.reproduction import print_reproduction, remarks, size_control, write_markdown
from srblock.runs.records import Run, RunConfig
from srblock.statistics import reproduction as beside
from srblock.statistics.reproduction import Line
from srblock.training.recipe import RECIPES, Recipe
from srblock.variants.notation import parse

FULL = RECIPES["cifar100"]


def config(recipe: Recipe = FULL, data: str = "cifar100", side: int = 32, weights: str | None = None) -> RunConfig:
    return RunConfig(parse("R18"), 0, recipe, {"name": data, "size": [3, side, side]}, weights)


FIGURES = {"R18": [76.2, 76.5, 76.4, 76.6, 76.3], "R18 + SR(M=4, P=2)": [77.1, 77.4, 77.2, 77.3, 77.5]}


def runs(out: Path, figures: dict[str, list[float]]) -> list[Run]:
    return [write_run(out, name, seed, test_top1=top1, recall=False) for name, values in figures.items()
            for seed, top1 in enumerate(values)]  # fmt: skip


def reproduction(rows: list[PaperRow], runs: list[Run], unsaid: Unsaid = AS_IT_IS) -> list[Line]:
    return beside.reproduction({row: variant_of(row, unsaid) for row in rows}, runs)


def test_figures_and_verdict(tmp_path: Path) -> None:
    base, block = reproduction(select("table1", "R18 + SR"), runs(tmp_path, FIGURES))
    assert base.ours is not None
    assert base.printed is base.ours.difference is base.ours.verdict is None
    assert (base.ours.n, round(base.ours.mean, 3), round(base.ours.std or 0, 4)) == (5, 76.4, 0.1581)
    assert block.printed is not None
    assert block.ours is not None
    assert block.ours.difference is not None
    assert block.ours.verdict is not None
    assert round(block.printed.mean, 2) == 0.27
    assert round(block.ours.difference.mean, 3) == 0.9
    assert block.ours.verdict.finding == "better"


def test_the_paper_s_interval_is_that_of_the_audit() -> None:
    """gains.csv: R18 + SR of Table I, -0.14 to +0.68 with n = 5; Table III has n = 4."""
    _, block = reproduction(select("table1", "R18 + SR"), [])
    assert block.printed is not None
    assert block.printed.interval == pytest.approx((-0.14, 0.68), abs=0.005)
    *_, row = reproduction(select("table3", "*P=20)"), [])
    assert row.printed is not None
    assert row.printed.interval == pytest.approx((0.31, 0.67), abs=0.005)


def test_holm_s_correction_counts_all_rows_of_the_table(tmp_path: Path) -> None:
    dropped = {"R18 + D": [76.2, 76.5, 76.4, 76.6, 76.3], "R18 + D + SR(M=3, P=10)": [76.3, 76.4, 76.5, 76.6, 76.2]}
    lines = reproduction(select("table1", "R18*"), runs(tmp_path, FIGURES | dropped))
    judged = [line.ours.verdict for line in lines if line.ours and line.ours.verdict]
    assert [verdict.comparisons for verdict in judged] == [2, 2]
    assert judged[0].holm_p != judged[1].holm_p


def printed(lines: list, width: int, data: str = "cifar100") -> str:
    console = Console(file=io.StringIO(), width=width)
    print_reproduction(lines, config(data=data), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 200])
def test_prints_both_columns_at_any_width(tmp_path: Path, width: int) -> None:
    text = printed(reproduction(select("table1", "R18 + SR"), runs(tmp_path, FIGURES)), width)
    for part in ("76.74 ± 0.33", "77.30 ± 0.16", "+0.27", "-0.14 to +0.68", "+0.90", "better"):
        assert part in text
    assert max(map(len, text.splitlines())) <= width
    assert "The paper's +0.27 lies outside of our interval" in " ".join(text.split())


def test_says_in_what_the_runs_are_not_the_paper_s(tmp_path: Path) -> None:
    lines = reproduction(select("table1", "R18 + SR"), runs(tmp_path, {"R18": [76.0, 77.0]}))
    said = " ".join(remarks(lines, config(FULL.with_epochs(30), "digits", 16, "pretrained")))
    for part in ("table is of cifar100; these runs are of digits", "Images of 16x16; the paper's have 32x32.",
                 "start from the library's trained weights, the paper's from random",
                 "epochs 30 (paper: 200), milestones 9 18 24",
                 "5 seeds a row, these runs have 2", "No run finished of: R18 + SR (M=4, P=2, U=8)"):  # fmt: skip
        assert part in said
    whole = reproduction(select("table1", "R18 + SR"), runs(tmp_path / "b", FIGURES))
    assert remarks(whole, config()) == []


def test_seeds_that_only_one_side_has_are_named(tmp_path: Path) -> None:
    rises = [76 + seed / 10 + 0.01 * (seed % 3) for seed in range(10)]
    variant = str(variant_of(select("table1", "R18 + SR")[1]))
    lines = reproduction(select("table1", "R18 + SR"), runs(tmp_path, {"R18": rises, variant: rises[:1:-1]}))
    text = " ".join(printed(lines, 200).split())
    assert f"{variant} 8 of 10 (not 8, 9)" in text
    assert f"{variant} against R18: difference, interval and p are of the 8 seeds that both have" in text


def test_the_size_control_compares_the_plain_networks(tmp_path: Path) -> None:
    rows = select("table1", "R?? + SR")
    text = size_control(reproduction(rows, runs(tmp_path, {"R34": [77.0, 77.2], "R50": [77.0, 77.4]})))
    assert text is not None
    assert text.startswith("Size control, R50 against R34 without block: paper -0.90, ours +0.10 (")
    small, large = (
        [77.0 + 0.1 * seed for seed in range(8)],
        [77.1 + 0.1 * seed + 0.01 * (seed % 2) for seed in range(8)],
    )
    text = size_control(reproduction(rows, runs(tmp_path / "paired", {"R34": small, "R50": large})))
    assert text is not None
    assert text.endswith("ours +0.10 (+0.10 to +0.11)."), "paired, as its rows are"
    assert "ours not run" in (size_control(reproduction(rows, [])) or "")
    assert size_control(reproduction(select("table1", "R18*"), [])) is None


def test_markdown_holds_every_row(tmp_path: Path) -> None:
    lines = reproduction(select("table1", "R18 + SR"), runs(tmp_path, FIGURES))
    write_markdown(tmp_path / "table.md", lines, config())
    rows = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert len({line.count("|") for line in rows}) == 1
    assert "| R18 + SR (M=4, P=2, U=8) | 76.74 ± 0.33 | 77.30 ± 0.16 | 5 | +0.27 |" in rows[-1]
    assert rows[-1].endswith("| better |")


def test_markdown_says_what_our_networks_lose_under_controls(tmp_path: Path) -> None:
    """Two seeds that lose 0.2 and 0.4 points without their block: -0.30; runs without controls have no line."""
    made = runs(tmp_path, FIGURES)
    with_block = [run for run in made if run.variant.sr_blocks][:2]
    under = [
        replace(run, controls={"intact": {"top1": run.score}, "removed": {"top1": run.score - loss}})
        for run, loss in zip(with_block, (0.2, 0.4), strict=True)
    ]
    lines = reproduction(select("table1", "R18 + SR"), made)
    write_markdown(tmp_path / "table.md", lines, config(), [*made, *under])
    assert "| R18 + SR(M=4, P=2) | block removed | 2 | -0.30 | -1.57 to +0.97 |" in (tmp_path / "table.md").read_text()


def test_another_u_finds_its_own_runs(tmp_path: Path) -> None:
    made = runs(tmp_path, FIGURES | {"R18 + SR(M=4, P=2, U=16)": [70.0, 71.0]})
    rows = select("table1", "R18 + SR")
    assert [line.ours.n for line in reproduction(rows, made) if line.ours] == [5, 5]
    lines = reproduction(rows, made, Unsaid(hidden=16))
    assert [line.ours.n for line in lines if line.ours] == [5, 2]
    (said,) = (text for text in remarks(lines, config()) if "unsaid" in text)
    assert said.endswith("unsaid: R18 + SR (M=4, P=2, U=16) as R18 + SR(M=4, P=2, U=16).")


SCENES = {
    "FCN-R50": [(70.0, 80.0), (70.2, 80.1), (70.1, 79.9)],
    "FCN-R50 + SR(M=3, P=3, U=32)": [(71.0, 79.9), (71.2, 80.2), (71.3, 80.2)],
}


def scenes(out: Path, figures: dict[str, list[tuple[float, float]]]) -> list[Run]:
    return [of_scenes(write_run(out, name, seed, recall=False), *values) for name, seeds in figures.items()
            for seed, values in enumerate(seeds)]  # fmt: skip


def test_both_metrics_of_table_iv_are_of_the_same_runs(tmp_path: Path) -> None:
    lines = reproduction(select("table4", "F-CONV + SR"), scenes(tmp_path, SCENES))
    seen = [(line.paper.metric, line.paper.mean, line.ours.values, line.ours.last_test.mean) for line in lines
            if line.ours is not None]  # fmt: skip
    assert seen == [
        ("miou", 77.33, (70.0, 70.2, 70.1), pytest.approx(69.1)),
        ("macc", 85.02, (80.0, 80.1, 79.9), pytest.approx(78.0)),
        ("miou", 77.53, (71.0, 71.2, 71.3), pytest.approx(70.1667, abs=1e-4)),
        ("macc", 85.15, (79.9, 80.2, 80.2), pytest.approx(78.1)),
    ]
    gains = [(line.printed.mean, line.ours.analysis.mean, line.ours.pairing.mean) for line in lines
             if line.printed and line.ours and line.ours.analysis and line.ours.pairing]  # fmt: skip
    assert gains == [pytest.approx((0.2, 1.0667, 1.0667), abs=1e-4), pytest.approx((0.13, 0.1, 0.1), abs=1e-4)]
    judged = [line.ours.verdict for line in lines if line.ours and line.ours.verdict]
    assert [verdict.comparisons for verdict in judged] == [2, 2], "judged together"
    assert [verdict.finding for verdict in judged] == ["better", "undecided"]


def test_table_iv_in_words(tmp_path: Path) -> None:
    lines = reproduction(select("table4", "F-CONV + SR"), made := scenes(tmp_path, SCENES))
    write_markdown(tmp_path / "table.md", lines, made[0].config)
    text = (tmp_path / "table.md").read_text()
    for part in (
        "| F-CONV mAcc | 85.02 ± 0.26 | 80.00 ± 0.10 | 3 |",
        "| F-CONV + SR (M=2 from 0, P=3, U=32) mIoU | 77.53 ± 0.23 | 71.17 ± 0.15 | 3 | +0.20 |",
        "Test mIoU and mAcc in percent",
        "of the epoch selected on validation by mIoU",
        "M=2 stands after stage 3, the notation's M=3",
        "- FCN-R50 + SR(M=3, P=3, U=32) and FCN-R50, mIoU, 3 shared seeds: correlation +0.65",
        "- FCN-R50 + SR(M=3, P=3, U=32) and FCN-R50, mAcc, 3 shared seeds: correlation 0.00",
        "MMSegmentation's start from ImageNet's weights. These runs start from random weights.",
    ):
        assert part in text, part
    assert "Images of" not in text
    assert "Not the paper's recipe" not in text
    said = remarks(reproduction(select("table4"), made, Unsaid(hidden=8)), made[0].config)
    assert "No run finished of: F-CONV + SR (M=2 from 0, P=3, U=8), DLv3, DLv3 + SR (M=2 from 0, P=2, U=8)." in said
    assert any(text.count("FCN-R50 + SR(M=3, P=3)") == 1 for text in said), "each network is named once"


def test_runs_of_another_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="these runs have the figures top1, not miou, macc"):
        reproduction(select("table4", "F-CONV"), [write_run(tmp_path, "R18", 0, recall=False)])


def test_seeds_of_the_paper() -> None:
    assert {row.seeds for row in select("table3")} == {4}
    assert {row.seeds for row in select("table1")} == {5}
