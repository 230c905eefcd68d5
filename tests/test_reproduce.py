"""Which rows a pattern names, and which runs they ask for."""

import pytest

from srblock.paper.select import TABLES, Unsaid, select, variants_of
from srblock.paper.tables import ROWS, base_of
from srblock.variants.notation import parse


@pytest.mark.parametrize(
    ("table", "count"), [("table1", 28), ("table2", 12), ("table3", 10), ("table4", 8), ("table5", 28), ("V", 28)]
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
        ("table4", "F-CONV + SR", ["F-CONV", "F-CONV", "F-CONV + SR", "F-CONV + SR"]),
        ("table4", "fcn-r50*", ["F-CONV", "F-CONV", "F-CONV + SR", "F-CONV + SR"]),
        ("table4", "DLv3", ["DLv3", "DLv3"]),
        ("table4", "DLv3 + SR (M=2*", ["DLv3", "DLv3", "DLv3 + SR", "DLv3 + SR"]),
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
        ("table4", "R18*", r'no row of table4 fits .*rows are F-CONV, F-CONV \+ SR, DLv3, DLv3 \+ SR .*"F-CONV\*"'),
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
        assert row.variant.without_sr() == base.variant
    assert base_of(ROWS[0]) is None


def test_variants_are_those_of_the_rows() -> None:
    assert [str(variant) for variant in variants_of(select("table1", "R18 + SR"))] == ["R18", "R18 + SR(M=4, P=2)"]
    assert [str(variant) for variant in variants_of(select("table4"))] == [
        "FCN-R50",
        "FCN-R50 + SR(M=3, P=3, U=32)",
        "DLv3-R50",
        "DLv3-R50 + SR(M=3, P=2, U=16)",
    ], "each network once, for both metrics"


@pytest.mark.parametrize(
    ("pattern", "unsaid", "expected"),
    [
        ("R18 + SR", Unsaid(hidden=16), ["R18", "R18 + SR(M=4, P=2, U=16)"]),
        (
            "R18 + SR",
            Unsaid(activation="relu", init="channels"),
            ["R18", "R18 + SR(M=4, P=2, act=relu, init=channels)"],
        ),
        ("R18 + D2D + SR", Unsaid(p=0.2), ["R18 + D2D(p=0.2)", "R18 + D2D(p=0.2) + SR(M=4, P=12)"]),
        ("R18 + D + SR", Unsaid(stages=(3, 4)), ["R18 + D(M=3+4)", "R18 + D(M=3+4) + SR(M=3, P=10)"]),
        ("VGG16 + SR", Unsaid(p=0.3), ["VGG16 + D(p=0.3)", "VGG16 + D(p=0.3) + SR(M=2, P=8)"]),
        (
            "R18 + DB + SR",
            Unsaid(size=5, schedule="linear"),
            ["R18 + DB(size=5, schedule=linear)", "R18 + DB(size=5, schedule=linear) + SR(M=3, P=2)"],
        ),
    ],
)
def test_what_the_paper_leaves_unsaid_can_be_chosen(pattern: str, unsaid: Unsaid, expected: list[str]) -> None:
    assert variants_of(select("table1", pattern), unsaid) == tuple(map(parse, expected))


def test_a_choice_touches_only_what_it_is_of() -> None:
    """A VGG's dropout stands in its linear layers, dropout2d has no size, a baseline no block."""
    rows = select("table1")
    chosen = variants_of(rows, Unsaid(stages=(3,), size=5, schedule="linear", activation="relu"))
    assert len(chosen) == len(rows)
    assert {
        parse("R18"),
        parse("VGG16 + D"),
        parse("R34 + D2D(M=3)"),
        parse("R50 + DB(M=3, size=5, schedule=linear)"),
    } <= {*chosen}


def test_a_choice_of_classification_fits_no_row_of_table_iv() -> None:
    rows = select("table4", "F-CONV + SR")
    assert variants_of(rows, Unsaid(hidden=8)) == (parse("FCN-R50"), parse("FCN-R50 + SR(M=3, P=3)"))
    for choice in (Unsaid(p=0.2), Unsaid(stages=(3,)), Unsaid(size=5)):
        with pytest.raises(ValueError, match=r"none of these rows has it: F-CONV, F-CONV \+ SR \(M=2 from 0, P=3\);"):
            variants_of(rows, choice)


@pytest.mark.parametrize(
    ("pattern", "unsaid", "message"),
    [
        (
            "R18 + SR",
            Unsaid(p=0.2),
            r"dropout's rate is given, but none of these rows has it: R18, R18 \+ SR \(M=4, P=2\)",
        ),
        ("R18 + D2D + SR", Unsaid(size=5), "dropblock's size is given, but none"),
        ("VGG16*", Unsaid(stages=(3,)), "dropout's place in a ResNet is given, but none"),
        ("R18 + D + SR", Unsaid(stages=(5,)), "D stands in stages 1 to 4 of R18, in order, got M=5"),
        ("R18", Unsaid(hidden=8), "U of the block is given, but none"),
        ("R18 + SR", Unsaid(activation="tanh"), "activation must be one of"),
    ],
)
def test_a_choice_that_fits_no_row_is_refused(pattern: str, unsaid: Unsaid, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        variants_of(select("table1", pattern), unsaid)
