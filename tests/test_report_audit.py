"""The audit as it is printed."""

from __future__ import annotations

import pytest
from rich.console import Console

from srblock.report.audit import findings, print_audit
from srblock.statistics.audit import AuditRow, audit


@pytest.fixture(scope="module")
def rows() -> list[AuditRow]:
    return audit()


def printed(rows: list[AuditRow], width: int) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        print_audit(rows, console)
    return captured.get()


def test_a_narrow_screen_shows_every_row_whole(rows: list[AuditRow]) -> None:
    text = printed(rows, 80)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    lines = [line.split() for line in text.splitlines()]
    assert ["R18", "+", "D,", "3/10", "+0.17", "-0.15", "to", "+0.49", "0.232", "1.000", "24", "0.44"] in lines
    assert ["R34", "+", "CBAM,", "3/6", "+0.53", "+0.11", "to", "+0.95", "0.0199", "0.119", "6", "0.58"] in lines
    assert ["DLv3", "mAcc,", "2/2", "+0.17", "-0.24", "to", "+0.58", "0.366", "0.814", "44", "0.57"] in lines
    assert sum(" to " in line and "/" in line for line in text.splitlines()) == 44
    assert all(title in text for title in ("Table I, CIFAR-100", "Table III, ImageNet", "Table IV, Cityscapes"))


def test_a_wide_screen_shows_the_correction_over_all_rows(rows: list[AuditRow]) -> None:
    text = printed(rows, 100)
    wide = next(line for line in text.splitlines() if "3/20" in line)
    assert wide.split()[-5:] == ["<0.001", "0.0053", "0.0387", "3", "0.25"]


def test_findings_say_what_the_figures_support(rows: list[AuditRow]) -> None:
    text = " ".join(findings(rows))
    for words in (
        "Of 44 gains, 42 are positive and 7 significant at 0.05 each for itself "
        "(I 1 of 14, II 1 of 6, III 3 of 6, IV 0 of 4, V 2 of 14). Were the deviations divided by n, it would be 4.",
        "over all rows 1 (III R50 + D2D + SR (M=3, P=20)).",
        "32 of 34 are positive, and their mean is +0.17 ± 0.02 weighted by inverse variance (plain +0.23)",
        "Q = 28.0 with 33 degrees of freedom",
        "+0.21 on average for the best of 12",
        "p < 0.001 (no choice)",
        "over the best row without the block, R50 + D, it has +0.26 (p = 0.0121",
        "half of the CIFAR rows could find only 0.55 or more; their median gain is 0.19.",
    ):
        assert words in text


def test_the_other_reading_of_the_deviations() -> None:
    rows = audit(ddof=0)
    text = " ".join(printed(rows, 80).split())
    assert "read as divided by n. Holm" in text
    assert "and 4 significant at 0.05 each for itself (I 0 of 14, II 1 of 6, III 3 of 6, IV 0 of 4, V 0 of 14)" in text
    assert "Were the deviations divided by n - 1, it would be 7." in text
    assert "over all rows none." in text
