"""The audit of the paper's printed figures: every row against figures computed elsewhere, and what they come to."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srblock.statistics.audit import CIFAR, AuditRow, against_best, audit, pool, selection
from srblock.statistics.multiple import holm

# Table, row, metric, M, P; gain and its 95% interval; p with deviations read as n - 1, then n; seeds needed;
# detectable.
# fmt: off
GOLDENS = (
    ("I", "R18 + D + SR", "top1", 3, 10, 0.17, -0.15, 0.49, 0.232, 0.2787, 24, 0.44),
    ("I", "R18 + D2D + SR", "top1", 4, 12, 0.34, -0.02, 0.7, 0.05962, 0.08543, 10, 0.5),
    ("I", "R18 + DB + SR", "top1", 3, 2, 0.11, -0.15, 0.37, 0.3562, 0.4065, 42, 0.36),
    ("I", "R18 + SR", "top1", 4, 2, 0.27, -0.14, 0.68, 0.1643, 0.207, 18, 0.57),
    ("I", "R34 + D + SR", "top1", 4, 4, 0.36, -0.29, 1.01, 0.2326, 0.2811, 25, 0.9),
    ("I", "R34 + D2D + SR", "top1", 3, 6, 0.1, -0.31, 0.51, 0.5878, 0.6271, 125, 0.57),
    ("I", "R34 + DB + SR", "top1", 3, 2, 0.16, -0.16, 0.48, 0.2834, 0.3338, 31, 0.45),
    ("I", "R34 + SR", "top1", 3, 6, 0.15, -0.42, 0.72, 0.5549, 0.5964, 104, 0.79),
    ("I", "R50 + D + SR", "top1", 4, 6, 0.25, -0.27, 0.77, 0.2937, 0.3439, 32, 0.72),
    ("I", "R50 + D2D + SR", "top1", 3, 8, 0.1, -0.72, 0.92, 0.7868, 0.8087, 503, 1.14),
    ("I", "R50 + DB + SR", "top1", 4, 4, 0.09, -0.6, 0.78, 0.7605, 0.7849, 387, 0.95),
    ("I", "R50 + SR", "top1", 3, 2, 1.05, 0.01, 2.09, 0.04903, 0.07178, 9, 1.45),
    ("I", "VGG16 + SR", "top1", 2, 8, 0.39, -0.07, 0.85, 0.0863, 0.1181, 12, 0.64),
    ("I", "VGG19 + SR", "top1", 4, 10, 0.08, -0.25, 0.41, 0.5778, 0.6177, 115, 0.46),
    ("II", "ResNet18 + CBAM + SR", "top1", 3, 6, 0.25, -0.13, 0.63, 0.1689, 0.213, 19, 0.53),
    ("II", "ResNet18 + SE + SR", "top1", 3, 2, -0.1, -0.43, 0.23, 0.5034, 0.5483, 81, 0.46),
    ("II", "ResNet34 + CBAM + SR", "top1", 3, 6, 0.53, 0.11, 0.95, 0.01986, 0.03113, 6, 0.58),
    ("II", "ResNet34 + SE + SR", "top1", 4, 2, 0.2, -0.13, 0.53, 0.1977, 0.2444, 21, 0.46),
    ("II", "ResNet50 + CBAM + SR", "top1", 3, 6, 0.33, -0.34, 1.0, 0.2731, 0.3221, 29, 0.92),
    ("II", "ResNet50 + SE + SR", "top1", 4, 4, 0.43, -0.01, 0.87, 0.0532, 0.07721, 9, 0.61),
    ("III", "R50 + D + SR", "top1", 3, 2, 0.11, -0.06, 0.28, 0.1708, 0.2266, 15, 0.24),
    ("III", "R50 + D2D + SR", "top1", 3, 2, 0.43, 0.25, 0.61, 0.002162, 0.003843, 3, 0.24),
    ("III", "R50 + D2D + SR", "top1", 3, 10, 0.52, 0.33, 0.71, 0.002729, 0.004228, 3, 0.25),
    ("III", "R50 + D2D + SR", "top1", 3, 20, 0.49, 0.31, 0.67, 0.0008799, 0.001731, 3, 0.25),
    ("III", "R50 + DB + SR", "top1", 3, 8, 0.07, -0.12, 0.26, 0.4028, 0.4654, 40, 0.26),
    ("III", "R50 + SR", "top1", 3, 10, 0.03, -0.19, 0.25, 0.7343, 0.7684, 241, 0.31),
    ("IV", "F-CONV + SR", "miou", 2, 3, 0.2, -0.1, 0.5, 0.1537, 0.1956, 17, 0.41),
    ("IV", "F-CONV + SR", "macc", 2, 3, 0.13, -0.27, 0.53, 0.4771, 0.5234, 72, 0.56),
    ("IV", "DLv3 + SR", "miou", 2, 2, 0.2, -0.2, 0.6, 0.2714, 0.3207, 29, 0.55),
    ("IV", "DLv3 + SR", "macc", 2, 2, 0.17, -0.24, 0.58, 0.3658, 0.4158, 44, 0.57),
    ("V", "R18 + D + SR", "top1", 3, 6, 0.07, -0.15, 0.29, 0.4868, 0.5326, 75, 0.31),
    ("V", "R18 + D2D + SR", "top1", 3, 10, 0.16, 0.0, 0.32, 0.0496, 0.06833, 8, 0.22),
    ("V", "R18 + DB + SR", "top1", 4, 6, 0.09, -0.14, 0.32, 0.3885, 0.4382, 49, 0.32),
    ("V", "R18 + SR", "top1", 4, 4, -0.11, -0.56, 0.34, 0.5484, 0.5898, 95, 0.62),
    ("V", "R34 + D + SR", "top1", 3, 10, 0.07, -0.37, 0.51, 0.7219, 0.7501, 290, 0.61),
    ("V", "R34 + D2D + SR", "top1", 3, 8, 0.2, 0.01, 0.39, 0.04219, 0.06267, 8, 0.26),
    ("V", "R34 + DB + SR", "top1", 4, 2, 0.22, -0.16, 0.6, 0.2102, 0.2573, 22, 0.52),
    ("V", "R34 + SR", "top1", 3, 8, 0.49, -0.4, 1.38, 0.2204, 0.2663, 22, 1.22),
    ("V", "R50 + D + SR", "top1", 3, 2, 0.07, -0.23, 0.37, 0.5935, 0.6323, 127, 0.41),
    ("V", "R50 + D2D + SR", "top1", 3, 6, 0.02, -0.4, 0.44, 0.9159, 0.9247, 3302, 0.59),
    ("V", "R50 + DB + SR", "top1", 3, 2, 0.24, -0.15, 0.63, 0.1858, 0.2305, 20, 0.54),
    ("V", "R50 + SR", "top1", 3, 6, 0.48, -0.08, 1.04, 0.08532, 0.1172, 12, 0.78),
    ("V", "VGG16 + SR", "top1", 4, 8, 0.26, -0.04, 0.56, 0.07431, 0.1017, 10, 0.41),
    ("V", "VGG19 + SR", "top1", 2, 12, 0.18, -0.01, 0.37, 0.05498, 0.07774, 9, 0.26),
)
# fmt: on


@pytest.fixture(scope="module")
def rows() -> list[AuditRow]:
    return audit()


def cifar(rows: list[AuditRow]) -> list[AuditRow]:
    return [row for row in rows if row.paper.table in CIFAR]


def test_every_row_of_the_paper(rows: list[AuditRow]) -> None:
    other = audit(ddof=0)
    for row, read_as_n, golden in zip(rows, other, GOLDENS, strict=True):
        table, model, metric, stage, blocks, gain, low, high, p, p0, seeds, detectable = golden
        paper = row.paper
        assert (paper.table, paper.model, paper.metric) == (table, model, metric)
        assert (paper.stage, paper.blocks) == (stage, blocks)
        assert row.baseline.model + " + SR" == model
        assert row.gain.mean == pytest.approx(gain, abs=1e-9)
        assert row.gain.interval == pytest.approx((low, high), abs=0.00501)
        assert row.p == row.gain.p == pytest.approx(p, rel=6e-4)
        assert read_as_n.p == pytest.approx(p0, rel=6e-4)
        assert row.seeds_needed == seeds
        assert row.detectable == pytest.approx(detectable, abs=0.00501)


def test_goldens_are_those_of_the_independent_audit(rows: list[AuditRow], real_data: Path) -> None:
    file = real_data.parent / "paper" / "gains.csv"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    with file.open(newline="") as lines:
        theirs = sorted(csv.DictReader(lines), key=lambda line: line["table"])
    for row, read_as_n, line in zip(rows, audit(ddof=0), theirs, strict=True):
        assert (row.paper.table, row.paper.model) == (line["table"], line["model"])
        assert str(row.paper.blocks) == line["memory_blocks"]
        assert row.gain.n == row.gain.n_baseline == int(line["n"])
        assert (row.paper.mean, row.paper.std) == (float(line["sr_mean"]), float(line["sr_std"]))
        assert (row.baseline.mean, row.baseline.std) == (float(line["base_mean"]), float(line["base_std"]))
        assert row.p == pytest.approx(float(line["welch_p"]), rel=6e-4)
        assert read_as_n.p == pytest.approx(float(line["welch_p_if_std_ddof0"]), rel=6e-4)
        assert row.seeds_needed == int(line["n_per_arm_for_80pct_power"])
        assert f"{row.detectable:.2f}" == f"{float(line['mde80_at_n']):.2f}"
        assert (row.p < 0.05) == (line["sig_005"] == "true")


def test_how_many_are_significant(rows: list[AuditRow]) -> None:
    assert len(rows) == 44
    by_table = {
        table: sum(row.p < 0.05 for row in rows if row.paper.table == table) for table in ("I", "II", "III", "IV", "V")
    }
    assert by_table == {"I": 1, "II": 1, "III": 3, "IV": 0, "V": 2}
    assert sum(row.p < 0.05 for row in audit(ddof=0)) == 4
    (survivor,) = (row for row in rows if row.holm_p < 0.05)
    assert survivor.paper.label == "R50 + D2D + SR (M=3, P=20)"
    assert [row.paper.blocks for row in rows if row.holm_table_p < 0.05] == [2, 10, 20]
    assert {row.paper.table for row in rows if row.holm_table_p < 0.05} == {"III"}


def test_holm_over_a_table_by_hand(rows: list[AuditRow]) -> None:
    table = [row for row in rows if row.paper.table == "II"]
    smallest = min(table, key=lambda row: row.p)
    assert smallest.holm_table_p == pytest.approx(6 * smallest.p)
    assert smallest.holm_p <= 44 * smallest.p
    for row, expected in zip(table, holm([row.p for row in table]), strict=True):
        assert row.holm_table_p == pytest.approx(expected)


def test_pooled_gain_on_cifar(rows: list[AuditRow]) -> None:
    pooled = pool(cifar(rows))
    assert (pooled.rows, pooled.positive) == (34, 32)
    assert pooled.mean == pytest.approx(0.17, abs=0.005)
    assert pooled.standard_error == pytest.approx(0.02, abs=0.005)
    assert pooled.plain_mean == pytest.approx(0.23, abs=0.005)
    assert pooled.q == pytest.approx(28.0, abs=0.05)
    assert 0.6 < pooled.q_p < 0.8  # 28 of 33 degrees of freedom: less than noise alone is expected to give
    # Two rows of errors 0.1 and 0.2 by hand: weights 100 and 25.
    one, two = (
        replace(row, gain=replace(row.gain, baseline=replace(row.gain.baseline, n=5, mean=70.0, std=0.0),
                                  ours=replace(row.gain.ours, n=4, mean=70.0 + gain, std=std)))
        for row, gain, std in zip(rows[:2], (0.1, 0.6), (0.2, 0.4), strict=True)
    )  # fmt: skip
    by_hand = pool([one, two])
    assert by_hand.mean == pytest.approx((100 * 0.1 + 25 * 0.6) / 125)
    assert by_hand.standard_error == pytest.approx(1 / math.sqrt(125))
    assert by_hand.q == pytest.approx(100 * 0.1**2 + 25 * 0.4**2)
    assert by_hand.q_p == pytest.approx(math.erfc(math.sqrt(5 / 2)))  # chi-square with one degree of freedom


# The expected largest of k standard normal values, as tables of order statistics have it.
@pytest.mark.parametrize(("settings", "largest"), [(1, 0.0), (2, 0.56419), (6, 1.26721), (12, 1.62923)])
def test_selection_by_order_statistics(rows: list[AuditRow], settings: int, largest: float) -> None:
    errors = [row.paper.std / math.sqrt(5) for row in cifar(rows)]
    assert selection(cifar(rows), settings).expected == pytest.approx(largest * np.mean(errors), abs=5e-4)


def test_selection_by_choosing(rows: list[AuditRow]) -> None:
    """The same the long way: draw every setting of every row, take the best, subtract the baseline."""
    random = np.random.default_rng(7)
    total = np.zeros(20_000)
    for row in cifar(rows):
        best = (random.normal(size=(20_000, 12)) * row.paper.std / math.sqrt(5)).max(1)
        total += (best - random.normal(size=20_000) * row.baseline.std / math.sqrt(5)) / 34
    found = selection(cifar(rows))
    assert found.p == pytest.approx(np.mean(total >= pool(cifar(rows)).plain_mean), abs=0.012)
    assert found.p == pytest.approx(0.23, abs=0.01)
    assert found.expected == pytest.approx(0.21, abs=0.005)
    assert selection(cifar(rows), 6).p == pytest.approx(0.013, abs=0.002)
    assert selection(cifar(rows), 1).p < 1e-4
    assert selection(cifar(rows)) == found  # the same draws every time


def test_best_against_best_on_imagenet(rows: list[AuditRow]) -> None:
    best, base, apart = against_best([row for row in rows if row.paper.table == "III"])
    assert (best.paper.mean, base.baseline.model) == (77.79, "R50 + D")
    assert apart.mean == pytest.approx(0.26)
    assert apart.p == pytest.approx(0.012, abs=5e-4)


def test_refusals(rows: list[AuditRow]) -> None:
    with pytest.raises(ValueError, match="best of one setting or more, got 0"):
        selection(rows, 0)
    with pytest.raises(ValueError, match="ddof 0 or 1"):
        audit(ddof=2)
