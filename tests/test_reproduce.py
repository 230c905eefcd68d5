"""Which rows a pattern names, and which runs they ask for."""

import pytest

from srblock.paper.select import TABLES, select, variant_of, variants_of
from srblock.paper.tables import ROWS, base_of
from srblock.variants.notation import parse


@pytest.mark.parametrize(
    ("table", "count"), [("table1", 28), ("table2", 12), ("table3", 10), ("table5", 28), ("V", 28)]
)
def test_a_whole_table_in_its_order(table: str, count: int) -> None:
    rows = select(table)
    assert len(rows) == count
    assert rows == [row for row in ROWS if row.table == TABLES.get(table, table)]


@pytest.mark.parametrize(
    ("table", "pattern", "expected"),
    [
        ("table1", "R18 + SR", ["R18", "R18 + SR"]),
        ("table1", "r18 + d2d*", ["R18 + D2D", "R18 + D2D + SR"]),
        ("table1", "R18 + DB + SR*", ["R18 + DB", "R18 + DB + SR"]),
        ("table1", "VGG??", ["VGG16", "VGG19"]),
        ("table2", "R18*SE*", ["ResNet18 + SE", "ResNet18 + SE + SR"]),
        ("TABLE3", "*P=20)", ["R50 + D2D", "R50 + D2D + SR"]),
    ],
)
def test_patterns_name_rows_and_bring_their_baselines(table: str, pattern: str, expected: list[str]) -> None:
    assert [row.model for row in select(table, pattern)] == expected


def test_all_r18_rows_of_a_table() -> None:
    assert len(select("table1", "R18*")) == 8
    assert len(select("table2", "R18*")) == len(select("table2", "ResNet18*")) == 4


@pytest.mark.parametrize(
    ("table", "pattern", "message"),
    [
        ("table6", "*", "the paper has no table 'table6'; there are table1, table2"),
        ("table4", "*", "table4 is segmentation, which is not built yet"),
        ("table1", "R101*", r"no row of table1 fits 'R101\*'; its rows are R18, R18 \+ D, .*write --rows"),
    ],
)
def test_refuses(table: str, pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(table, pattern)


def test_every_row_with_the_block_has_its_baseline() -> None:
    for row in (row for row in ROWS if row.stage is not None):
        base = base_of(row)
        assert base is not None
        assert (base.table, base.metric, base.stage) == (row.table, row.metric, None)
        if row.variant is not None:
            assert row.variant.without_sr() == base.variant
    assert base_of(ROWS[0]) is None


def test_variants_are_those_of_the_rows_with_another_u_if_asked_for() -> None:
    rows = select("table1", "R18 + SR")
    assert [str(variant) for variant in variants_of(rows)] == ["R18", "R18 + SR(M=4, P=2)"]
    assert variants_of(rows, hidden=16) == (parse("R18"), parse("R18 + SR(M=4, P=2, U=16)"))
    with pytest.raises(ValueError, match="of table IV is segmentation"):
        variant_of(next(row for row in ROWS if row.table == "IV"))
