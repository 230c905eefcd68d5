"""Tables in Markdown, LaTeX and CSV: what a reader of each gets is what was in the cells."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from run_fixture import BASELINE, WITH_SR, write_run, write_runs

from srblock.paper.overheads import overhead_table
from srblock.report import tables
from srblock.report.audit import audit_sheets
from srblock.report.formats import Sheet, csv_text, formatted, latex, latex_table, markdown_table, sheet
from srblock.report.verdicts import words
from srblock.statistics.audit import audit
from srblock.statistics.comparison import comparison

ROWS = [("R18", 76.5, -0.25), ("R18 + SR(M=4)", 77.0, 0.5)]
SHEET = sheet(
    "Table 1",
    ROWS,
    ("row", lambda row: row[0]),
    (("detec-\ntable", lambda row: f"{row[1]:.1f}%"), ("seeds\nneeded", lambda row: f"{row[2]:+.2f}")),
    [{"row": row[0], "top1_percent": row[1]} for row in ROWS],
)


def read_markdown(text: str) -> list[list[str]]:
    """Return the cells that a reader of GitHub's Markdown sees, by an independent parser."""
    cells: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        if token.type == "tr_open":
            cells.append([])
        elif token.type == "inline":
            kinds = {child.type for child in token.children or ()}
            assert kinds <= {"text"}, f"{token.content!r} is more than text: {kinds}"
            cells[-1].append("".join(child.content for child in token.children or ()))
    return cells


def test_markdown_by_hand() -> None:
    assert formatted([SHEET], "markdown", ["Percent.", ""]) == (
        "**Table 1**\n\n"
        "| row | detectable | seeds needed |\n"
        "| --- | ---: | ---: |\n"
        "| R18 | 76.5% | -0.25 |\n"
        "| R18 + SR(M=4) | 77.0% | +0.50 |\n"
        "\nPercent.\n"
    )


def test_latex_by_hand() -> None:
    assert formatted([SHEET], "latex", ["Percent."]) == (
        "% Table 1\n"
        "\\begin{tabular}{lrr}\n\\hline\n"
        "row & detectable & seeds needed \\\\\n\\hline\n"
        "R18 & 76.5\\% & $-$0.25 \\\\\n"
        "R18 + SR(M=4) & 77.0\\% & +0.50 \\\\\n"
        "\\hline\n\\end{tabular}\n\n% Percent.\n"
    )


def test_csv_by_hand() -> None:
    assert formatted([SHEET], "csv", ["Percent."]) == "row,top1_percent\nR18,76.5\nR18 + SR(M=4),77.0\n"
    assert csv_text([{"a": 1}, {"b": None}]) == "a,b\n1,\n,\n"
    with pytest.raises(ValueError, match="expected markdown, latex or csv, got 'text'"):
        formatted([SHEET], "text")


@pytest.mark.parametrize(
    "cell",
    [
        "a|b",
        "*bold*",
        "__init__.py:make",
        "my_net.py:make",
        "`code`",
        "[link](to)",
        "<b>",
        "p <0.001",
        "a \\ b",
        "1*2*3",
    ],
)
def test_markdown_keeps_every_letter(cell: str) -> None:
    assert read_markdown(markdown_table(("x", "y"), [(cell, "1")])) == [["x", "y"], [cell, "1"]]


@given(st.text(st.sampled_from("ab1 |*_`[]<>\\()!-.:/"), min_size=1, max_size=12).map(str.strip).filter(bool))
def test_markdown_keeps_any_letters(cell: str) -> None:
    assert read_markdown(markdown_table(("x", "y"), [(f"z{cell}z", "1")]))[1] == [f"z{cell}z", "1"]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("76.74 ± 0.33", "76.74 $\\pm$ 0.33"),
        ("-0.14 to +0.68", "$-$0.14 to +0.68"),
        ("-", "--"),
        ("r8-s0", "r8-s0"),
        ("<0.001", "$<$0.001"),
        ("my_net.py & 5% #1 {a} $x$", "my\\_net.py \\& 5\\% \\#1 \\{a\\} \\$x\\$"),
        ("a\\b~c^d", "a\\textbackslash{}b\\textasciitilde{}c\\textasciicircum{}d"),
        ("3 \N{MULTIPLICATION SIGN} 3", "3 $\\times$ 3"),
    ],
)
def test_latex_prints_every_letter(cell: str, text: str) -> None:
    assert latex(cell) == text


def test_a_column_of_words_stands_left() -> None:
    table = Sheet("", ("row", "n", "verdict"), (("a", "1", "better"),))
    assert "{lrl}" in latex_table(table)
    assert "| --- | ---: | --- |" in formatted([table], "markdown")


def test_a_comparison_leaves_its_tables(tmp_path: Path) -> None:
    rows = comparison(write_runs(tmp_path, [BASELINE, "R8 + SE", WITH_SR], seeds=range(3)))
    tables.write_comparison(tmp_path, rows)
    text = (tmp_path / "comparison.md").read_text()
    first, second = text.split("**Cost**")
    accuracy, verdicts = map(read_markdown, first.removeprefix("**Accuracy**").split("**Verdicts**"))
    assert [line[0] for line in accuracy] == ["variant", BASELINE, "R8 + SE", WITH_SR]
    assert verdicts == [["variant", "verdict"], *([row.variant, words(row.verdict)] for row in rows if row.verdict)]
    assert f"| {rows[2].parameters:,} | {rows[2].overhead_percent:.2f}% |" in second
    assert "in percentage points" in second
    source = (tmp_path / "comparison.tex").read_text()
    assert source.count(r"\begin{tabular}") == source.count(r"\end{tabular}") == 3
    columns = len(accuracy[0])
    assert all(line.count(" & ") == columns - 1 for line in source.split("% Verdicts")[0].splitlines() if " & " in line)


def test_nothing_to_compare_leaves_no_empty_tables(tmp_path: Path) -> None:
    tables.write_comparison(tmp_path, comparison([write_run(tmp_path, BASELINE, 0)])[:0])
    assert [path.name for path in tmp_path.glob("comparison.*")] == ["comparison.csv"]


def test_the_audit_in_full_precision() -> None:
    rows = audit()
    lines = list(csv.DictReader(io.StringIO(formatted(audit_sheets(rows), "csv"))))
    assert len(lines) == len(rows) == 44
    for line, row in zip(lines, rows, strict=True):
        assert float(line["gain"]) == row.gain.mean
        assert float(line["holm_p"]) == row.holm_p
        assert (line["table"], line["row"], line["n"]) == (row.paper.table, row.paper.label, str(row.gain.n))
    assert formatted(audit_sheets(rows), "latex").count(r"\begin{tabular}{lrrrrrrr}") == 5


def test_the_overheads_in_full_precision() -> None:
    rows = overhead_table()
    lines = list(csv.DictReader(io.StringIO(formatted([tables.overhead_sheet(rows)], "csv"))))
    assert [float(line["built_percent"]) for line in lines] == [row.built_percent for row in rows]
    assert sum(line["matches"] == "True" for line in lines) == 38
    assert [line["note"] for line in lines if line["note"]] == [row.note for row in rows if row.note]
