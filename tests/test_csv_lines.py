"""Cells of CSV that a spreadsheet would compute."""

import csv
import io

import pytest

from srblock.training.csv_lines import lines_text, said


@pytest.mark.parametrize("name", ["=1+2", "+x", "-minus", "@x", "\tx", "\rx", "'=x"])
def test_names_that_begin_a_formula_are_text_and_come_back(name: str) -> None:
    [[found]] = csv.reader(io.StringIO(lines_text([[name]]), newline=""))
    assert found == ("'" + name if name[0] != "'" else name)
    assert name[0] == "'" or said(found) == name


def test_numbers_stay_numbers() -> None:
    assert lines_text([[-0.5, -3, 1e-9, None, "a-b", "'t is", True]]) == "-0.5,-3,1e-09,,a-b,'t is,True\n"


def test_a_cell_with_ends_of_lines_is_one_cell() -> None:
    lines = [["a\rb", "c\nd"], ["e\r\nf", 'g"h']]
    assert list(csv.reader(io.StringIO(lines_text(lines), newline=""))) == lines
