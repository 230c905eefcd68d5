"""The counts of what was tried, printed at the end; and no try may take a gigabyte."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fuzz.bounds import LARGEST_MB, TRIED
from srblock.training.runtime import peak_memory_mb


@pytest.fixture(autouse=True)
def _no_gigabyte() -> Iterator[None]:
    before = peak_memory_mb()
    yield
    assert peak_memory_mb() - before < LARGEST_MB


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    counts = sorted(value for report in reports for name, value in report.user_properties if name == TRIED)
    if not counts:
        return
    terminalreporter.section("damaged files tried")
    for kind, number, slowest_s in counts:
        terminalreporter.write_line(f"{number:>7,}  {kind} (the slowest {slowest_s:.2f} s)")
    terminalreporter.write_line(f"{sum(number for _, number, _ in counts):>7,}  in all")
