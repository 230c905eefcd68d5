"""Braces: what they stand for, and what is refused."""

import pytest

from srblock.variants.grid import expand
from srblock.variants.notation import parse


def test_the_papers_study() -> None:
    """Sec. III-D: two stages, P from 2 to 12, three U."""
    found = expand("R18 + D2D + SR(M={3,4}, P={2..12:2}, U={8,16,32})")
    assert len(found) == 2 * 6 * 3
    assert str(found[0]) == "R18 + D2D + SR(M=3, P=2)"
    assert str(found[1]) == "R18 + D2D + SR(M=3, P=2, U=16)"
    assert str(found[-1]) == "R18 + D2D + SR(M=4, P=12, U=32)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("R8 + SR(P={1..3})", ["P=1", "P=2", "P=3"]),
        ("R8 + SR(P={4, 1..5:2,4})", ["P=4", "P=1", "P=3", "P=5"]),
        ("R8 + SR(P={2..5:2})", ["P=2", "P=4"]),
    ],
)
def test_lists_and_counts(text: str, expected: list[str]) -> None:
    assert list(expand(text)) == [parse(f"R8 + SR({word})") for word in expected]


def test_words_can_be_chosen_among() -> None:
    assert expand("R8 + SR(act={none,relu})") == (parse("R8 + SR"), parse("R8 + SR(act=relu)"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("R8 + SR(M=3)", "is one setting; write what to choose from in braces"),
        ("R8 + SR(P={2})", "is one setting"),
        ("R8 + SR(P={2,4)", "braces are nested or not closed"),
        ("R8 + SR(P={2,{4}})", "braces are nested or not closed"),
        ("R8 + SR(P={2..})", r"cannot read \{2..\}; write \{3,4\}"),
        ("R8 + SR(P={})", r"cannot read \{\}"),
        ("R8 + SR(P={5..2})", "5..2 counts nothing"),
        ("R8 + SR(P={1..9:0})", "1..9:0 counts nothing"),
        ("R8 + SR(P={1..2000})", "counts more than 1,000 settings; leave some out"),
        ("R8 + {D,D2D} + SR", "chooses a block for one network, got R8 .* D, R8 .* D2D"),
        ("R8 + D(p={0.1,0.2})", "a sweep chooses a block, but there is none"),
        ("R8 + SR(M={3,4})", "R8 has stages 1 to 3, got M=4"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand(text)
