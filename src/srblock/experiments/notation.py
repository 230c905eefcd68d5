"""Variants in the paper's naming: "R18 + D2D(p=0.2) + SR(M=4, P=12)" (Sec. IV).

`parse` reads a variant and `str` prints it in one canonical way; the two are inverse to each other, and two spellings
with the same meaning print the same. An option at its default is not printed; where a block stands always is.
The words, options and defaults are listed in docs/notation.md.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

STAGES = {"R8": 3, "R18": 4, "R20": 3, "R34": 4, "R50": 4, "VGG16": 5, "VGG19": 5}
LIBRARIES = ("timm", "torchvision")
REGULARIZERS = ("D", "D2D", "DB")
ATTENTION = ("SE", "CBAM")
WORDS = (*REGULARIZERS, *ATTENTION, "SR")
PLACEMENTS = ("stage", "inner")
INNER = ("R50",)  # networks of bottlenecks, whose blocks have an inner width


@dataclass(frozen=True)
class Regularizer:
    """Dropout (D), dropout2d (D2D) or dropblock (DB), with its rate and its place.

    Attributes:
        kind: "D", "D2D" or "DB".
        p: the rate, above 0 and below 1.
        stages: 1-based stages whose convolutions it follows; () stands for the linear layers of a VGG's head.
        size: side of dropblock's blocks, odd; None for the default of the network's form (3 for CIFAR, 7 for ImageNet).
    """

    kind: str
    p: float
    stages: tuple[int, ...]
    size: int | None = None


@dataclass(frozen=True)
class SR:
    """One Squeeze-and-Remember block: its place and its settings (paper: M, P, U).

    Attributes:
        stage: M, the 1-based stage that the block follows, or None where `after` names a module.
        blocks, hidden: P and U.
        placement: "stage", or "inner" for the inner width of the stage's last bottleneck.
        after: name of a module that the block follows.
        activation, init, resize: as in `srblock.SqueezeRemember2d`.
    """

    stage: int | None = 3
    blocks: int = 10
    hidden: int = 8
    placement: str = "stage"
    after: str | None = None
    activation: str | None = None
    init: str = "fan_in"
    resize: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the block itself."""
        return {
            "blocks": self.blocks,
            "hidden": self.hidden,
            "activation": self.activation,
            "init": self.init,
            "resize": self.resize,
        }

    def __str__(self) -> str:
        shown = [f"M={self.stage}" if self.after is None else f"after={self.after}"]
        usual = SR()
        for name, field in (
            ("P", "blocks"),
            ("U", "hidden"),
            ("placement", "placement"),
            ("act", "activation"),
            ("init", "init"),
            ("resize", "resize"),
        ):
            value = getattr(self, field)
            if value != getattr(usual, field):
                shown.append(f"{name}={value}")
        return f"SR({', '.join(shown)})"


@dataclass(frozen=True)
class Variant:
    """A network with what is added to it; printing and `parse` are inverse to each other.

    Attributes:
        network: a key of `STAGES`, or "timm/NAME" or "torchvision/NAME".
        regularizer: at most one.
        attention: "SE", "CBAM" or None, in every residual block.
        blocks: the SR blocks, sorted by place.

    Raises: ValueError for a combination that cannot be built, saying what can.
    """

    network: str
    regularizer: Regularizer | None = None
    attention: str | None = None
    blocks: tuple[SR, ...] = ()

    def __post_init__(self) -> None:
        _check_network(self)
        if self.regularizer is not None:
            _check_regularizer(self.network, self.regularizer)
        blocks = tuple(_settle(self.network, block) for block in self.blocks)
        places = [_place(block) for block in blocks]
        for place in places:
            if places.count(place) > 1:
                raise ValueError(
                    f"two SR blocks stand at the same place ({place[1] or f'M={place[0]}'}); give each its own M"
                )
        object.__setattr__(self, "blocks", tuple(sorted(blocks, key=_place)))

    @property
    def own(self) -> bool:
        """Whether the network is one of ours, not timm's or torchvision's."""
        return self.network in STAGES

    def without_sr(self) -> Variant:
        """Return the same network without any SR block: the one to compare with."""
        return replace(self, blocks=())

    def __str__(self) -> str:
        words = [self.network]
        if self.regularizer is not None:
            usual = default_regularizer(self.network, self.regularizer.kind)
            shown = []
            if self.regularizer.p != usual.p:
                shown.append(f"p={self.regularizer.p!r}")
            if self.regularizer.size is not None:
                shown.append(f"size={self.regularizer.size}")
            if self.regularizer.stages != usual.stages:
                shown.append(f"M={'+'.join(map(str, self.regularizer.stages))}")
            words.append(self.regularizer.kind + (f"({', '.join(shown)})" if shown else ""))
        if self.attention is not None:
            words.append(self.attention)
        return " + ".join([*words, *map(str, self.blocks)])


def default_regularizer(network: str, kind: str) -> Regularizer:
    """Return the regularizer with the rate and place it has unless told otherwise.

    The paper gives neither. Its authors' other papers use 0.1 or 0.2 in stage 3 or 4 of a ResNet, and 0.5 in the
    linear layers of a VGG; here 0.1 in the last stage.
    """
    return (
        Regularizer(kind, 0.5, ()) if network.startswith("VGG") else Regularizer(kind, 0.1, (STAGES.get(network, 4),))
    )


def parse(text: str) -> Variant:
    """Read a variant such as "R18 + D2D(p=0.1) + SR(M=4, P=12)"; upper and lower case and spaces are free.

    Raises: ValueError for anything that is not a variant, saying what came, what was expected and what to write.
    """
    if not isinstance(text, str):
        raise TypeError(f'expected a variant as text, such as "R18 + SR(M=3)", got {text!r}')
    (first, options), *rest = [_term(term, text) for term in _split(text)]
    network = _network(first, text)
    if options is not None:
        _refuse(text, f"a network takes no options, got {first}(...)", f"write {network} alone")
    regularizer: Regularizer | None = None
    attention: str | None = None
    blocks: list[SR] = []
    for name, options in rest:
        word = name.upper()
        if word in REGULARIZERS:
            if regularizer is not None:
                _refuse(text, f"{regularizer.kind} and {word} are two regularizers", "keep one of D, D2D and DB")
            regularizer = replace(default_regularizer(network, word), kind=word, **_options(word, options, text))
        elif word in ATTENTION:
            if attention is not None:
                _refuse(text, f"{attention} and {word} are two attention modules", "keep one of SE and CBAM")
            _options(word, options, text)
            attention = word
        elif word == "SR":
            read = _options(word, options, text)
            if "after" in read:
                if "stage" in read:
                    _refuse(text, "SR has both M and after", "name one place: M=3 or after=layer3.1")
                read["stage"] = None
            blocks.append(SR(**read))
        else:
            _refuse_word(name, text)
    try:
        return Variant(network, regularizer, attention, tuple(blocks))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


# --- reading ---------------------------------------------------------------------------------------------------------


def _refuse(text: str, problem: str, remedy: str) -> NoReturn:
    raise ValueError(f"{text!r}: {problem}; {remedy}")


def _split(text: str) -> list[str]:
    """Cut at every + outside parentheses."""
    terms, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if depth not in (0, 1):
            _refuse(
                text, "a parenthesis is " + ("nested" if depth > 1 else "closed but not opened"), "write SR(M=3, P=10)"
            )
        if letter == "+" and depth == 0:
            terms.append("")
        else:
            terms[-1] += letter
    if depth:
        _refuse(text, "a parenthesis is not closed", 'add ")" after the last option')
    if not all(term.strip() for term in terms):
        _refuse(text, "a word is missing", 'write a network and what it gets, joined by "+": R18 + D + SR(M=3)')
    return terms


def _term(term: str, text: str) -> tuple[str, str | None]:
    """Read NAME or NAME(options)."""
    match = re.fullmatch(r"\s*([^\s()]+)\s*(?:\(([^()]*)\)\s*)?", term)
    if match is None:
        _refuse(text, f"cannot read {term.strip()!r}", 'join words by "+": R18 + D + SR(M=3)')
    return match[1], match[2]


def _network(name: str, text: str) -> str:
    library, slash, rest = name.partition("/")
    if slash and library.lower() in LIBRARIES and rest:
        return f"{library.lower()}/{rest}"
    short = re.sub("[-_]", "", name.upper())
    short = re.sub("^RESNET", "R", short)
    if short.startswith("VGG"):
        short = short.removesuffix("BN")
    if short in STAGES:
        return short
    known = (*STAGES, "timm/NAME", "torchvision/NAME")
    near = difflib.get_close_matches(short, STAGES, n=1, cutoff=0.5) or difflib.get_close_matches(
        name, known, n=1, cutoff=0.3
    )
    hint = f"did you mean {near[0]}?" if near else "a variant starts with its network"
    _refuse(text, f"unknown network {name!r}; known are {', '.join(known)}", hint)


def _refuse_word(name: str, text: str) -> NoReturn:
    if re.sub("[-_]", "", name.upper()).replace("RESNET", "R").removesuffix("BN") in STAGES or "/" in name:
        _refuse(text, f"{name} is a second network", "write one network, at the start")
    near = difflib.get_close_matches(name.upper(), WORDS, n=1, cutoff=0.4)
    _refuse(
        text,
        f"unknown word {name!r}; known after the network are {', '.join(WORDS)}",
        f"did you mean {near[0]}?" if near else "see docs/notation.md",
    )


def _whole(value: str) -> int:
    if not re.fullmatch(r"[0-9]+", value) or int(value) < 1:
        raise ValueError("a whole number of at least 1")
    return int(value)


def _odd(value: str) -> int:
    if not re.fullmatch(r"[0-9]+", value) or int(value) % 2 == 0:
        raise ValueError("an odd whole number")
    return int(value)


def _rate(value: str) -> float:
    if not re.fullmatch(r"[0-9]*\.?[0-9]+(e-?[0-9]+)?", value.lower()) or not 0 < float(value) < 1:
        raise ValueError("a number above 0 and below 1")
    return float(value)


def _stages(value: str) -> tuple[int, ...]:
    try:
        numbers = [_whole(part.strip()) for part in value.split("+")]
    except ValueError:
        raise ValueError("a stage such as 4, or several such as 3+4") from None
    if len(set(numbers)) < len(numbers):
        raise ValueError("each stage once, such as 3+4")
    return tuple(sorted(numbers))


def _name(value: str) -> str:
    if not value or re.search(r"[\s+=]", value):
        raise ValueError("the name of a module, such as layer3.1")
    return value


def _choice(*known: str | None) -> Callable[[str], str | None]:
    def read(value: str) -> str | None:
        by_name = {str(choice).lower(): choice for choice in known}
        if value.lower() not in by_name:
            raise ValueError(f"one of {', '.join(by_name)}")
        return by_name[value.lower()]

    return read


# What each word's options are called, the field that each sets, its reader and an example.
READERS: Mapping[str, Mapping[str, tuple[str, Callable[[str], Any], str]]] = {
    "D": {"p": ("p", _rate, "0.1"), "M": ("stages", _stages, "4")},
    "D2D": {"p": ("p", _rate, "0.1"), "M": ("stages", _stages, "4")},
    "DB": {"p": ("p", _rate, "0.1"), "size": ("size", _odd, "3"), "M": ("stages", _stages, "4")},
    "SE": {},
    "CBAM": {},
    "SR": {
        "M": ("stage", _whole, "3"),
        "P": ("blocks", _whole, "10"),
        "U": ("hidden", _whole, "8"),
        "placement": ("placement", _choice(*PLACEMENTS), "inner"),
        "after": ("after", _name, "layer3.1"),
        "act": ("activation", _choice(None, "relu"), "relu"),
        "init": ("init", _choice("fan_in", "channels"), "channels"),
        "resize": ("resize", _choice(None, "bilinear"), "bilinear"),
    },
}


def _options(word: str, options: str | None, text: str) -> dict[str, Any]:
    """Read "M=3, P=10" as the fields they set."""
    readers = {name.lower(): (name, *reader) for name, reader in READERS[word].items()}
    read: dict[str, Any] = {}
    for option in (options or "").split(",") if (options or "").strip() else []:
        key, equals, value = (part.strip() for part in option.partition("="))
        if not readers:
            _refuse(text, f"{word} takes no options, got {option.strip()!r}", f"write {word} alone")
        if not equals or key.lower() not in readers:
            known = ", ".join(READERS[word])
            near = difflib.get_close_matches(key.lower(), readers, n=1, cutoff=0.4) if equals else []
            name, _, _, example = readers[near[0] if near else next(iter(readers))]
            _refuse(text, f"unknown option {option.strip()!r} of {word}, known are {known}", f"write {name}={example}")
        name, field, reader, example = readers[key.lower()]
        if field in read:
            _refuse(text, f"{word} has {name} twice", "keep one")
        try:
            read[field] = reader(value)
        except ValueError as expected:
            _refuse(text, f"{name} of {word} must be {expected}, got {value!r}", f"write {name}={example}")
    return read


# --- checking --------------------------------------------------------------------------------------------------------


def _check_network(variant: Variant) -> None:
    network = variant.network
    if network not in STAGES and not re.fullmatch(rf"({'|'.join(LIBRARIES)})/\S+", network):
        raise ValueError(f"unknown network {network!r}; known are {', '.join(STAGES)}, timm/NAME and torchvision/NAME")
    if variant.attention is None:
        return
    if variant.attention not in ATTENTION:
        raise ValueError(f"attention must be one of {', '.join(ATTENTION)}, got {variant.attention!r}")
    if not network.startswith("R"):
        raise ValueError(
            f"{variant.attention} goes into our own ResNets only (R8 to R50), not into {network}; leave it out"
        )


def _check_regularizer(network: str, regularizer: Regularizer) -> None:
    kind, stages = regularizer.kind, regularizer.stages
    if kind not in REGULARIZERS:
        raise ValueError(f"a regularizer is one of {', '.join(REGULARIZERS)}, got {kind!r}")
    if not 0 < regularizer.p < 1:
        raise ValueError(f"p of {kind} must be above 0 and below 1, got {regularizer.p}")
    if regularizer.size is not None and (kind != "DB" or regularizer.size < 1 or regularizer.size % 2 == 0):
        raise ValueError(f"size is dropblock's (DB) and odd, got {kind} with size={regularizer.size}")
    if network not in STAGES:
        raise ValueError(
            f"{kind} goes into our own networks only ({', '.join(STAGES)}), not into {network}; leave it out"
        )
    if network.startswith("VGG"):
        if kind != "D" or stages:
            raise ValueError(f"a VGG has dropout in its linear layers only (Sec. IV-A); write {network} + D, without M")
        return
    if not stages or not set(stages) <= set(range(1, STAGES[network] + 1)):
        raise ValueError(
            f"{kind} stands in stages 1 to {STAGES[network]} of {network}, got M={'+'.join(map(str, stages))}"
        )


def _settle(network: str, block: SR) -> SR:
    """Check one block and name its place by stage where `after` says the same."""
    whole = re.fullmatch(r"(layer|stage)([1-9])", block.after or "")
    if whole and network in STAGES and (whole[1] == "stage") == network.startswith("VGG"):
        block = replace(block, after=None, stage=int(whole[2]))
    if (block.stage is None) == (block.after is None):
        raise ValueError("an SR block has one place: a stage (M) or a module's name (after)")
    if block.stage is not None and not 1 <= block.stage <= STAGES.get(network, block.stage):
        raise ValueError(f"{network} has stages 1 to {STAGES[network]}, got M={block.stage}")
    if min(block.blocks, block.hidden) < 1 or block.placement not in PLACEMENTS:
        raise ValueError(f"P and U are at least 1 and placement is stage or inner, got {block}")
    if block.placement == "inner" and (network not in INNER or block.stage is None):
        raise ValueError(
            f"placement=inner is a place in the bottlenecks of {', '.join(INNER)}, with M, got {block} in {network}"
        )
    return block


def _place(block: SR) -> tuple[int, str, str]:
    return block.stage or 99, block.after or "", block.placement
