"""Notation: parsing and printing are inverse, one meaning has one spelling, and every refusal says what to write."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srblock.block import Options
from srblock.block.options import SETTINGS, Setting
from srblock.variants.notation import READERS, SR, Regularizer, Variant, parse
from srblock.variants.variant import STAGES

CANONICAL = {
    "R18": "R18",
    "r18": "R18",
    "ResNet18": "R18",
    "ResNet-50": "R50",
    "VGG16-BN": "VGG16",
    "vgg19bn": "VGG19",
    "fcn-r50": "FCN-R50",
    "FCNR50 + SR(P=3, U=32)": "FCN-R50 + SR(M=3, P=3, U=32)",
    "fcn_r50_d8": "FCN-R50-D8",
    "DLV3-ResNet50 + SR(after=layer3, U=16)": "DLv3-R50 + SR(M=3, U=16)",
    "dlv3r18+sr(after=head.branches.1)": "DLv3-R18 + SR(after=head.branches.1)",
    "R18 + D2D(p=0.1) + SR(M=4, P=12)": "R18 + D2D + SR(M=4, P=12)",
    "r34+sr( p = 4 ,m=4,u=08 )+d(P=.20)": "R34 + D(p=0.2) + SR(M=4, P=4)",
    "R8 + SR": "R8 + SR(M=3)",
    "R8 + SR()": "R8 + SR(M=3)",
    "R8 + SR(M=3, P=10, U=8, placement=stage, act=none, init=fan_in, resize=none)": "R8 + SR(M=3)",
    "R50 + SR(M=4, placement=INNER, act=ReLU, init=channels, resize=bilinear)": (
        "R50 + SR(M=4, placement=inner, act=relu, init=channels, resize=bilinear)"
    ),
    "R18 + SR(M=4, grid=none)": "R18 + SR(M=4)",
    "R18 + SR(M=4, resize=bilinear, GRID=2X1, P=4)": "R18 + SR(M=4, P=4, grid=2x1, resize=bilinear)",
    "R18 + SR(M=4, grid=2)": "R18 + SR(M=4, grid=2x2)",
    "R18 + D(M=4)": "R18 + D",
    "R8 + D(M=3)": "R8 + D",
    "R18 + D(M=3)": "R18 + D(M=3)",
    "R18 + DB(schedule=Linear, p=0.2)": "R18 + DB(p=0.2, schedule=linear)",
    "R18 + DB(M=4+3, size=3)": "R18 + DB(size=3, M=3+4)",
    "VGG16 + D(p=0.5)": "VGG16 + D",
    "VGG16 + D(p=0.1)": "VGG16 + D(p=0.1)",
    "R20 + CBAM + DB": "R20 + DB + CBAM",
    "R18 + SR(M=4) + se + SR(M=2)": "R18 + SE + SR(M=2) + SR(M=4)",
    "R18 + SR(after=layer3)": "R18 + SR(M=3)",
    "VGG16 + SR(after=stage2)": "VGG16 + SR(M=2)",
    "R18 + SR(after=layer3.0)": "R18 + SR(after=layer3.0)",
    "timm/resnet18 + SR(after=layer3)": "timm/resnet18 + SR(after=layer3)",
    "TorchVision/vgg16_bn + SR(after=features.12)": "torchvision/vgg16_bn + SR(after=features.12)",
    "R50 + SR(M=3) + SR(M=3, placement=inner)": "R50 + SR(M=3, placement=inner) + SR(M=3)",
}


@pytest.mark.parametrize(("text", "printed"), CANONICAL.items())
def test_one_meaning_has_one_spelling(text: str, printed: str) -> None:
    assert str(parse(text)) == printed
    assert parse(printed) == parse(text)


def test_parse_reads_every_field() -> None:
    assert parse("R50 + DB(p=0.2, size=5, M=3) + SE + SR(M=2, P=4, U=6, act=relu)") == Variant(
        "R50",
        Regularizer("DB", 0.2, (3,), 5),
        "SE",
        (SR(stage=2, options=Options(blocks=4, hidden=6, activation="relu")),),
    )


def test_block_options_are_the_blocks_own_arguments() -> None:
    (block,) = parse("R18 + SR(P=4, U=6, act=relu, init=channels, resize=bilinear)").sr_blocks
    assert block.target == 3
    assert block.options == Options(blocks=4, hidden=6, activation="relu", init="channels", resize="bilinear")


def test_no_two_options_of_a_block_have_the_same_word() -> None:
    words = ["m", "after", "placement", *(setting.word.lower() for setting in SETTINGS)]
    assert len(set(words)) == len(words) == len(READERS["SR"])


def test_blocks_are_sorted_by_stage_and_those_after_a_module_come_last() -> None:
    text = "timm/x + SR(after=b) + SR(M=100) + SR(after=a) + SR(M=2)"
    assert str(parse(text)) == "timm/x + SR(M=2) + SR(M=100) + SR(after=a) + SR(after=b)"


def test_without_sr_keeps_the_rest() -> None:
    assert str(parse("R18 + D2D(p=0.2) + SE + SR(M=3) + SR(M=4)").without_sr()) == "R18 + D2D(p=0.2) + SE"


def values(setting: Setting) -> st.SearchStrategy[Any]:
    drawn: dict[str, st.SearchStrategy[Any]] = {
        "grid": st.tuples(st.integers(1, 99), st.integers(1, 99)),
        "count": st.integers(1, 99),
        "number": st.floats(1e-6, 1e6),
        "choice": st.sampled_from(setting.choices or (None,)),
    }
    return drawn[setting.kind] | st.just(setting.default)


@st.composite
def variants(draw: st.DrawFn) -> Variant:
    known = ["R8", "R18", "R20", "R34", "R50", "VGG16", "VGG19", "FCN-R50-D8", "DLv3-R18", "timm/resnet26d.bt_in1k"]
    network = draw(st.sampled_from(known))
    last = {"R8": 3, "R20": 3, "VGG16": 5, "VGG19": 5}.get(network, 4)
    rate = st.floats(0, 1, exclude_min=True, exclude_max=True)
    kinds, stages, sizes = st.just("D"), st.just(()), st.none()
    if network.startswith("R"):
        kinds = st.sampled_from(["D", "D2D", "DB"])
        stages = st.sets(st.integers(1, last), min_size=1).map(lambda found: tuple(sorted(found)))
        sizes = st.none() | st.integers(0, 5).map(lambda half: 2 * half + 1)
    regularizer = None
    if network[0] in "RV" and draw(st.booleans()):
        regularizer = Regularizer(draw(kinds), draw(rate), draw(stages))
        if regularizer.kind == "DB":
            regularizer = dataclasses.replace(regularizer, size=draw(sizes))
    attention = draw(st.sampled_from([None, "SE", "CBAM"])) if network.startswith("R") else None
    blocks = tuple(
        SR(
            stage=stage,
            placement=draw(st.sampled_from(["stage", "inner"])) if network == "R50" else "stage",
            options=Options(**{setting.name: draw(values(setting)) for setting in SETTINGS}),
        )
        for stage in draw(st.lists(st.integers(1, last), unique=True))
    )
    if draw(st.booleans()):
        blocks += (SR(stage=None, after="features.12"),)
    return Variant(network, regularizer, attention, blocks)


@given(variants())
def test_printing_and_parsing_are_inverse(variant: Variant) -> None:
    assert parse(str(variant)) == variant
    assert str(parse(str(variant).lower().replace(" ", ""))) == str(variant)


REFUSED = {
    "": "a word is missing; write a network",
    "R18 +": "a word is missing",
    "R18 + + SR": "a word is missing",
    "R19": "unknown network 'R19'; known are R8, R18, .*did you mean R18",
    "ResNet51": "did you mean R50",
    "VGG11": "did you mean VGG1",
    "tim/resnet18": "unknown network 'tim/resnet18'.*timm/NAME",
    "timm/": "unknown network 'timm/'",
    "SR(M=3)": "unknown network 'SR'",
    "R18(M=3)": "a network takes no options.*write R18 alone",
    "FCN-R34": "unknown network 'FCN-R34'.*did you mean FCN-R",
    "DLv3": "did you mean DLv3-R",
    "DeepLabv3-R50": "did you mean DLv3-R50",
    "FCN-R50-D16": "did you mean FCN-R50",
    "R18 + FCN-R18": "FCN-R18 is a second network",
    "FCN-R50 + D": "FCN-R50 takes no regularizer: its heads have dropout already; leave D out",
    "DLv3-R50 + DB": "DLv3-R50 takes no regularizer",
    "FCN-R18 + SE": "SE goes into our own ResNets .*only, not into FCN-R18; leave it out",
    "FCN-R50 + SR(placement=inner)": "placement=inner is a place in the bottlenecks of R50, with M, got .* in FCN-R50",
    "DLv3-R50 + SR(M=5)": "DLv3-R50 has stages 1 to 4, got M=5",
    "R18 + SRR": "unknown word 'SRR'; known after the network are D, D2D, DB, SE, CBAM, SR; did you mean SR",
    "R18 + CBMA": "did you mean CBAM",
    "R18 + R34": "R34 is a second network; write one",
    "R18 + timm/resnet18": "is a second network",
    "R18 SR(M=3)": r"cannot read .*; join words by \"\+\"",
    "R18 + SR(M=3": "a parenthesis is not closed; add",
    "R18 + SR M=3)": "a parenthesis is closed but not opened",
    "R18 + SR((M=3))": "a parenthesis is nested",
    "R18 + SR(M=3)x": "cannot read",
    "R18 + SR(X=3)": "unknown option 'X=3' of SR, known are M, after, placement, P, .*, start; take one of these",
    "R18 + SR(place=inner)": "unknown option 'place=inner'.*write placement=inner",
    "R18 + SR(3)": "unknown option '3' of SR",
    "R18 + SR(M=3,)": "unknown option '' of SR",
    "R18 + D(size=3)": "unknown option 'size=3' of D, known are p, M",
    "R18 + SR(P=0)": "P of SR must be a whole number of at least 1, got '0'; write P=10",
    "R18 + SR(P=1.5)": "P of SR must be a whole number of at least 1, got '1.5'",
    "R18 + SR(P=-2)": "must be a whole number of at least 1, got '-2'",
    "R18 + SR(P=1_0)": "must be a whole number",
    "R18 + SR(U=)": "U of SR must be a whole number of at least 1, got ''; write U=8",
    "R18 + SR(M=three)": "M of SR must be a whole number",
    "R18 + SR(act=gelu)": "act of SR must be one of none, relu, got 'gelu'",
    "R18 + SR(grid=0x2)": "grid of SR must be rows x columns of at least 1, or none, got '0x2'; write grid=1x1",
    "R18 + SR(grid=2x2x2)": "grid of SR must be rows x columns",
    "R18 + SR(M=3, m=4)": "SR has M twice; keep one",
    "R18 + SR(M=3, after=layer3.0)": "both M and after; name one place",
    "R18 + SR(after=)": "after of SR must be the name of a module",
    "R18 + D(p=1.5)": "p of D must be a number above 0 and below 1, got '1.5'; write p=0.1",
    "R18 + D(p=0)": "p of D must be a number above 0",
    "R18 + D(p=nan)": "p of D must be a number above 0",
    "R18 + DB(size=4)": "size of DB must be an odd whole number, got '4'; write size=3",
    "R18 + DB(schedule=cosine)": "schedule of DB must be one of constant, linear, got 'cosine'; write schedule=linear",
    "R18 + D(M=3+3)": "M of D must be each stage once",
    "R18 + D(M=a)": "M of D must be a stage such as 4",
    "R18 + D + DB": "D and DB are two regularizers; keep one",
    "R18 + D + D": "D and D are two regularizers",
    "R18 + SE + CBAM": "SE and CBAM are two attention modules; keep one",
    "R18 + SE + SE": "SE and SE are two attention modules",
    "R18 + SE(r=16)": "SE takes no options, got 'r=16'; write SE alone",
    "R8 + SR(M=4)": "R8 has stages 1 to 3, got M=4",
    "R8 + SR(after=layer4)": "R8 has stages 1 to 3, got M=4",
    "R18 + D(M=5)": "D stands in stages 1 to 4 of R18, in order, got M=5",
    "R18 + SR(M=3) + SR(P=4)": "two SR blocks stand at the same place .M=3.; give each its own M",
    "R18 + SR(M=3) + SR(after=layer3)": "two SR blocks stand at the same place",
    "R18 + SR(after=a.b) + SR(after=a.b, P=4)": "two SR blocks stand at the same place .a.b.",
    "R18 + SR(placement=inner)": "placement=inner is a place in the bottlenecks of R50",
    "R50 + SR(after=layer3.0, placement=inner)": "placement=inner is a place in the bottlenecks of R50, with M",
    "timm/resnet50 + SR(placement=inner)": "placement=inner is a place in the bottlenecks of R50",
    "timm/resnet18 + D": "D goes into our own networks only .*not into timm/resnet18; leave it out",
    "torchvision/resnet18 + SE": "SE goes into our own ResNets .*only",
    "VGG16 + CBAM": "CBAM goes into our own ResNets .*only, not into VGG16",
    "VGG16 + DB": "dropout in its linear layers only .*write VGG16 . D",
    "VGG16 + D(M=3)": "dropout in its linear layers only",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items())
def test_refusals_say_what_came_and_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        parse(text)
    assert str(refusal.value).startswith(repr(text))


def test_only_text_is_parsed() -> None:
    with pytest.raises(TypeError, match="expected a variant as text"):
        parse(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Variant("R19"), "unknown network 'R19'"),
        (lambda: Variant("R18", attention="ECA"), "attention must be one of SE, CBAM"),
        (lambda: Variant("R18", Regularizer("SD", 0.1, (4,))), "a regularizer is one of"),
        (lambda: Variant("R18", Regularizer("D", 1.0, (4,))), "above 0 and below 1"),
        (lambda: Variant("R18", Regularizer("D", 0.1, (4,), 3)), "size is dropblock's"),
        (lambda: Variant("R18", Regularizer("D", 0.1, (4,), schedule="linear")), "schedule is dropblock's"),
        (lambda: Variant("R18", Regularizer("D", 0.1, ())), "stands in stages 1 to 4"),
        (lambda: Variant("R18", sr_blocks=(SR(stage=None),)), "one place"),
        (lambda: Variant("R18", sr_blocks=(SR(stage=3, after="layer2"),)), "one place"),
        (lambda: Variant("R18", sr_blocks=(SR(placement="outer"),)), "placement of SR must be one of stage, inner"),
        (lambda: Variant("R18", sr_blocks=(SR(stage=0),)), "stages 1 to 4, got M=0"),
        (lambda: Variant("R18", Regularizer("D", 0.1, (4, 3))), "in order, got M=4.3"),
    ],
)
def test_variants_made_without_parsing_are_checked_too(made: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made()  # type: ignore[operator]


def test_the_page_on_notation_has_every_word_and_option() -> None:
    page = (Path(__file__).parents[1] / "docs" / "notation.md").read_text(encoding="utf-8")
    for word in (*STAGES, *READERS):
        assert f"`{word}`" in page, word
    for option in {name for options in READERS.values() for name in options}:
        assert f"`{option}=" in page or f"`{option}`" in page, option
