"""The comparison's rows against figures worked out by hand, the printed tables, results.csv."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from run_fixture import BASELINE, WITH_SR, write_run, write_runs

from srblock.report import tables, units
from srblock.report.comparison import findings, pairings, remarks
from srblock.report.units import probability
from srblock.report.verdicts import words
from srblock.runs.records import Run, read_result, read_run
from srblock.statistics.comparison import Row, comparison
from srblock.statistics.power import detection_power
from srblock.training.recipe import LATER


def printed(rows: list[Row], width: int = 80) -> str:
    console = Console(width=width, file=None, record=True, quiet=False, force_terminal=False)
    with console.capture() as captured:
        tables.print_table(rows, console)
    return captured.get()


def worked_example(out: Path) -> list[Run]:
    values = {BASELINE: (90.0, 91.0, 92.0), WITH_SR: (92.0, 93.0, 94.0)}
    return [write_run(out, variant, seed, test_top1=values[variant][seed]) for seed in (0, 1, 2) for variant in values]


def test_rows_by_hand(tmp_path: Path) -> None:
    runs = worked_example(tmp_path)
    baseline, with_sr = comparison(runs)
    assert (baseline.variant, with_sr.variant) == (BASELINE, WITH_SR)
    assert (with_sr.n, with_sr.mean, with_sr.std) == (3, 93.0, 1.0)
    assert (with_sr.seeds, with_sr.values) == ((0, 1, 2), (92.0, 93.0, 94.0))
    assert with_sr.last_test.mean == 92.75
    assert baseline.difference is None
    assert with_sr.difference is not None
    assert with_sr.difference.mean == 2.0
    assert with_sr.difference.interval is not None
    assert with_sr.difference.interval[0] == pytest.approx(2 - 2.776 * (2 / 3) ** 0.5, abs=1e-3)
    assert with_sr.difference.p_greater == 8.5 / 9
    assert (with_sr.parameters, with_sr.flops_per_image) == (77_514, 1_605_000)
    assert with_sr.overhead_percent == pytest.approx(2.9539, abs=1e-4)
    times = sorted(run.train_ms_per_image for run in runs if str(run.variant) == WITH_SR)
    assert with_sr.train_ms_per_image == times[1]


def test_the_first_variant_named_is_the_baseline(tmp_path: Path) -> None:
    rows = comparison(worked_example(tmp_path), [WITH_SR, BASELINE])
    assert [row.variant for row in rows] == [WITH_SR, BASELINE]
    assert rows[1].difference is not None
    assert rows[1].difference.mean == -2.0


def test_a_baseline_that_never_finished_is_not_replaced_by_another(tmp_path: Path) -> None:
    runs = [run for run in worked_example(tmp_path) if str(run.variant) == WITH_SR]
    (row,) = rows = comparison(runs, [BASELINE, WITH_SR])
    assert row.difference is None
    assert remarks(rows) == [f"No seed of {BASELINE} finished: there is nothing to compare with."]


def test_printed_table_has_the_figures(tmp_path: Path) -> None:
    rows = comparison(worked_example(tmp_path))
    for width in (80, 200):
        text = printed(rows, width)
        assert all(len(line) <= width for line in text.splitlines())
        for figure in ("91.00 ± 1.00", "93.00 ± 1.00", "+2.00", "-0.27 to +4.27", "0.94", "77,514", "2.95%", "1.60 M"):
            assert figure in text
        words = " ".join(text.split())
        assert "undecided: 360 test images measure one accuracy to ±1.4, not to ±0.2; 7 more seeds per variant" in words
        assert "3 shared seeds: correlation +1.00; every seed differs by the same." in words
        assert "0.0705" in text  # Welch's p: t = 2 / sqrt(2 / 3) with 4 degrees of freedom
        assert "…" not in text
    assert printed(rows, 200).count("variant") < printed(rows, 80).count("variant")  # one table, two tables


def test_one_seed_prints_no_interval_and_says_so(tmp_path: Path) -> None:
    rows = comparison(write_runs(tmp_path, seeds=[0]))
    text = printed(rows)
    assert " to " not in "".join(line for line in text.splitlines() if line.strip().startswith("R8"))
    assert "one seed: nothing can be said about chance" in text
    assert "±" not in text
    assert "P(A > B) is" not in text


def test_several_comparisons_are_corrected(tmp_path: Path) -> None:
    rows = comparison(write_runs(tmp_path, [BASELINE, "R8 + SE", WITH_SR]))
    assert len(findings(rows)) == 2
    assert any("Each interval stands for itself" in line for line in remarks(rows))
    ordered = sorted((row.p, row.holm_p) for row in rows if row.p is not None and row.holm_p is not None)
    assert ordered[0][1] == pytest.approx(min(1, 2 * ordered[0][0]))
    narrow, wide = printed(rows), printed(rows, 250)
    assert "Holm p" in narrow
    assert "detectable" not in narrow.split("─")[0]
    assert narrow.split("─")[0].split().count("p") == 1
    for column in ("Holm p", "detectable", " p "):
        assert column in wide.split("─")[0]
    for row in rows[1:]:
        assert probability(row.holm_p) in narrow
        assert probability(row.p) in wide
        assert f"{row.detectable:.2f}" in wide
    assert all(len(line) <= 80 for line in narrow.splitlines())


def test_one_comparison_needs_no_correction(tmp_path: Path) -> None:
    rows = comparison(worked_example(tmp_path))
    assert rows[1].p == rows[1].holm_p
    for width in (80, 250):
        assert "Holm" not in printed(rows, width)
        assert " p " in printed(rows, width).split("─")[0]


def test_what_is_detectable_counts_the_comparisons(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, [BASELINE, "R8 + SE", WITH_SR], seeds=range(5))
    _, row, _ = comparison(runs)
    assert row.difference is not None
    assert row.difference.estimate is not None
    error, freedom = row.difference.estimate.standard_error, row.difference.estimate.freedom
    assert row.detectable is not None
    assert detection_power(row.detectable, error, freedom, 0.05 / 2) == pytest.approx(0.8)
    _, alone = comparison([run for run in runs if str(run.variant) != WITH_SR])
    assert alone.detectable is not None
    assert detection_power(alone.detectable, error, freedom) == pytest.approx(0.8)


def test_the_margin_is_the_callers(tmp_path: Path) -> None:
    rows = comparison(worked_example(tmp_path), margin=10)
    assert rows[1].verdict is not None
    assert words(rows[1].verdict) == "no difference larger than 10"


def test_pairing_by_seed_is_printed_beside_welchs(tmp_path: Path) -> None:
    tops = {BASELINE: (90.0, 91.0, 92.0, 93.0), WITH_SR: (90.4, 91.6, 92.5, 93.5)}
    runs = [write_run(tmp_path, name, seed, test_top1=tops[name][seed]) for name in tops for seed in range(4)]
    (line,) = pairings(comparison(runs))
    # Differences 0.4, 0.6, 0.5, 0.5: mean 0.5, deviation 0.0816, t(0.975, 3) = 3.182.
    assert line.startswith(f"{WITH_SR} and {BASELINE}, 4 shared seeds: correlation +1.00 (+0.")
    assert line.endswith("; the paired t would give +0.37 to +0.63, p = 0.0012.")
    tops[WITH_SR] = tops[WITH_SR][::-1]
    runs = [write_run(tmp_path / "b", name, seed, test_top1=tops[name][seed]) for name in tops for seed in range(4)]
    (line,) = pairings(comparison(runs))
    assert "correlation -1.00" in line


def test_from_eight_shared_seeds_on_the_paired_test_is_the_one_that_counts(tmp_path: Path) -> None:
    noise = (0.0, 0.9, 1.7, 2.2, 3.1, 3.9, 5.0, 6.4)
    gains = (0.4, 0.6, 0.5, 0.5, 0.3, 0.7, 0.5, 0.5)
    for seed, (shared, gain) in enumerate(zip(noise, gains, strict=True)):
        write_run(tmp_path, BASELINE, seed, test_top1=80 + shared)
        write_run(tmp_path, WITH_SR, seed, test_top1=80 + shared + gain)
    runs = [read_run(folder) for folder in sorted((tmp_path / "runs").iterdir())]
    _, few = comparison([run for run in runs if run.seed < 7], [BASELINE, WITH_SR])
    _, many = rows = comparison(runs, [BASELINE, WITH_SR])
    assert not few.paired
    assert few.p == pytest.approx(few.difference.p if few.difference else None)
    assert many.paired
    assert many.pairing is not None
    assert many.pairing.estimate is not None
    assert many.p == many.pairing.estimate.p < 0.001 < (many.difference.p if many.difference else 0)
    low, high = many.pairing.estimate.interval()
    for width in (80, 200):
        text = printed(rows, width)
        assert f"{units.signed(low)} to {units.signed(high)}" in text
        assert "paired t where both have 8 seeds or more in common, else Welch's t" in " ".join(text.split())
    (line,) = pairings(rows)
    assert "Welch's t, which leaves the pairing out, gives" in line
    tables.write_comparison(tmp_path, rows)
    with (tmp_path / "comparison.csv").open(newline="") as file:
        _, line = csv.DictReader(file)
    assert line["analysis"] == "paired t"
    assert (float(line["low"]), float(line["p"])) == (low, many.p)
    assert float(line["welch_p"]) == (many.difference.p if many.difference else None)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, "-"),
        (0.00021, "<0.001"),
        (0.00216, "0.0022"),
        (0.0496, "0.0496"),
        (0.049996, "0.049996"),
        (0.05001, "0.050010"),
        (0.05, "0.0500"),
        (0.232, "0.232"),
        (1.0, "1.000"),
    ],
)
def test_p_values(p: float | None, text: str) -> None:
    assert probability(p) == text


def test_unequal_seeds_are_said(tmp_path: Path) -> None:
    rows = comparison(worked_example(tmp_path)[:-1])
    assert remarks(rows) == [f"Not all seeds finished: {WITH_SR} 2 of 3 (not 2). The figures are of those that did."]


def test_variants_without_a_finished_run_are_named(tmp_path: Path) -> None:
    runs, others = worked_example(tmp_path), [f"{BASELINE} + SE", f"{BASELINE} + CBAM"]
    rows = comparison(runs, [BASELINE, others[0], WITH_SR, others[1]])
    assert [row.variant for row in rows] == [BASELINE, WITH_SR]
    assert remarks(rows) == [f"No seed finished of {others[0]}, {others[1]}: not in the table."]
    without = comparison([run for run in runs if str(run.variant) != BASELINE], [BASELINE, WITH_SR])
    assert remarks(without) == [f"No seed of {BASELINE} finished: there is nothing to compare with."]


def test_no_run_at_all(tmp_path: Path) -> None:
    assert comparison([], [BASELINE]) == []
    assert "No run finished" in printed([])


def test_runs_made_before_a_recipe_had_a_field_compare_with_those_made_after(tmp_path: Path) -> None:
    old = write_runs(tmp_path)[0].directory
    result = read_result(old)
    for field in LATER:
        del result["recipe"][field]
    (old / "result.json").write_text(json.dumps(result))
    runs = [read_run(folder) for folder in sorted(old.parent.iterdir())]
    assert [row.n for row in comparison(runs)] == [3, 3]


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    first, ours = write_run(tmp_path, BASELINE, 0), write_run(tmp_path, WITH_SR, 0)
    with pytest.raises(ValueError, match="R8 with seed 0 is there twice"):
        comparison([first, first])
    with pytest.raises(ValueError, match="differ in their recipe"):
        comparison([first, write_run(tmp_path, BASELINE, 1, epochs=2)])
    other = write_run(tmp_path / "other", BASELINE, 1)
    other.config.data["fingerprint"] = "cd" * 32
    with pytest.raises(ValueError, match="differ in their data"):
        comparison([first, other])
    with pytest.raises(ValueError, match="differ in their starting weights"):
        comparison([first, changed(ours, weights="pretrained")])
    with pytest.raises(ValueError, match="differ in their numerics"):
        comparison([first, changed(ours, numerics=2)])


def changed(run: Run, **fields: Any) -> Run:
    return replace(run, config=replace(run.config, **fields))


def test_runs_of_two_makes_are_not_one_row(tmp_path: Path) -> None:
    """One name for networks of two sources, and one seed that starts from two files."""
    old, new = (write_run(tmp_path, BASELINE, seed) for seed in (0, 1))
    with pytest.raises(ValueError, match="R8 was built by different code for different runs"):
        comparison([changed(old, code={"source": "a"}), changed(new, code={"source": "b"})])
    other = write_run(tmp_path, WITH_SR, 0)
    files = [changed(run, weights=f"seed:{letter * 64}") for run, letter in ((old, "a"), (new, "b"), (other, "a"))]
    assert [row.n for row in comparison(files)] == [2, 1]
    with pytest.raises(ValueError, match="runs of seed 0 start from different weights"):
        comparison([*files[:2], changed(other, weights=f"seed:{'c' * 64}")])


def test_csv_round_trip(tmp_path: Path) -> None:
    runs = write_runs(tmp_path)
    (tmp_path / "study").mkdir()
    path = tmp_path / "study" / "results.csv"
    runs[0] = replace(runs[0], flops_per_image=None)
    tables.write_csv(path, runs)
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6
    for line, run in zip(lines, runs, strict=True):
        assert (line["variant"], int(line["seed"])) == (str(run.variant), run.seed)
        assert float(line["test_top1"]) == run.score
        assert float(line["train_ms_per_image"]) == run.train_ms_per_image
        assert (path.parent / line["run"] / "result.json").exists()
        assert (line["device"], line["torch"]) == ("CPU Example 9000", "2.15.0")
    assert lines[0]["flops_per_image"] == ""
    assert lines[1]["flops_per_image"] == "1605000"


def test_csv_of_the_comparison(tmp_path: Path) -> None:
    rows = comparison(write_runs(tmp_path, [BASELINE, "R8 + SE", WITH_SR], seeds=range(5)))
    tables.write_comparison(tmp_path, rows)
    with (tmp_path / "comparison.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["variant"] for line in lines] == [BASELINE, "R8 + SE", WITH_SR]
    assert set(lines[0].values()) == {BASELINE, "5", str(rows[0].mean), str(rows[0].std), ""}
    for line, row in zip(lines[1:], rows[1:], strict=True):
        assert row.difference is not None
        assert row.pairing is not None
        assert row.pairing.estimate is not None
        for name in ("difference", "low", "high", "p", "holm_p", "detectable", "correlation", "paired_p", "paired_low"):
            assert line[name] != ""
        assert float(line["difference"]) == row.difference.mean
        assert (float(line["low"]), float(line["high"])) == row.difference.interval
        assert float(line["holm_p"]) == row.holm_p
        assert float(line["paired_p"]) == row.pairing.estimate.p
        assert "undecided" in line["verdict"]


def test_stages_and_overhead(capsys: pytest.CaptureFixture[str]) -> None:
    stages = [
        SimpleNamespace(name="layer3", number=3, channels=256, size=(8, 8)),
        SimpleNamespace(name="features[0]", number=None, channels=64, size=(4, 2)),
    ]
    tables.print_stages(stages, Console(width=80))  # type: ignore[arg-type]
    text = capsys.readouterr().out
    assert "164,688" in text  # 256 + 64*8 + 8*10 + 10*256*64, Eq. (1)
    assert "M=3" in text
    assert "features[0]" in text  # no markup
    assert "4x2" in text
    fits = SimpleNamespace(
        table="I", row="fits", printed="1.47", formula_percent=1.4678, built_percent=1.4678, note="", matches=True
    )
    misfit = SimpleNamespace(
        table="V", row="misfit", printed="0.34", formula_percent=0.2993, built_percent=0.2993, note="why", matches=False
    )
    tables.print_overhead([fits, misfit], Console(width=80))  # type: ignore[list-item]
    text = capsys.readouterr().out
    assert "1 of 2 match" in text
    assert "V, misfit: why" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


def test_numbers() -> None:
    assert [units.operations(value) for value in (None, 950, 1.6e6, 3.337e9)] == ["-", "950", "1.60 M", "3.34 G"]
    assert [units.milliseconds(value) for value in (None, 0.04213, 0.4213, 3.1, 42.13, 125.4)] == [
        "-",
        "0.0421",
        "0.421",
        "3.10",
        "42.1",
        "125",
    ]


def test_differences_of_shared_seeds_are_said(tmp_path: Path) -> None:
    """Twelve seeds against eight: the difference is of the eight, and other means stand beside it."""
    runs = [write_run(tmp_path, BASELINE, seed, test_top1=90 + seed % 3 / 10 + seed // 8, recall=False)
            for seed in range(12)]  # fmt: skip
    runs += [write_run(tmp_path, WITH_SR, seed, test_top1=90.2 + seed % 2 / 10, recall=False) for seed in range(8)]
    rows = comparison(runs)
    shared = [runs[seed].test["top1"] for seed in range(8)], [run.test["top1"] for run in runs[12:]]
    assert rows[1].pairing is not None
    assert rows[1].pairing.means == pytest.approx([sum(side) / 8 for side in shared])
    assert remarks(rows) == [
        f"Not all seeds finished: {WITH_SR} 8 of 12 (not 8, 9, 10, 11). The figures are of those that did.",
        f"{WITH_SR} against {BASELINE}: difference, interval and p are of the 8 seeds that both have, with means of "
        f"{sum(shared[1]) / 8:.2f} and {sum(shared[0]) / 8:.2f}.",
    ]
    from srblock.report.html import behind

    assert f", over the 8 seeds that both have {sum(shared[1]) / 8:.2f}% against" in behind(rows[1], rows[0]).evidence
