"""The paper's naming (Sec. IV): "R18 + D2D(p=0.2) + SR(M=4, P=12)".

`parse` reads a variant and `str` prints it in one canonical way; the two are inverse to each other, and two spellings
with the same meaning print the same. The words, options and defaults are listed in docs/notation.md.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from srblock.block import Options
from srblock.block.options import SETTINGS, Setting
from srblock.models.regularizers import SCHEDULES
from srblock.variants.variant import (
    ATTENTION,
    CUSTOM,
    LIBRARIES,
    LOCATED,
    PLACEMENTS,
    REGULARIZERS,
    SR,
    STAGES,
    Regularizer,
    Variant,
    default_regularizer,
)

__all__ = ["SR", "Regularizer", "Variant", "parse"]

NETWORKS = {name.upper().replace("-", ""): name for name in STAGES}  # as they are read, as they are printed
DIGITS = 9  # of whole numbers; what has more is no layer of this world, and too much for 64 bits in a product
WORDS = (*REGULARIZERS, *ATTENTION, "SR")


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
    sr_blocks: list[SR] = []
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
            settings = {setting.name: read.pop(setting.name) for setting in SETTINGS if setting.name in read}
            sr_blocks.append(SR(**read, options=Options(**settings)))
        else:
            _refuse_word(name, text)
    try:
        return Variant(network, regularizer, attention, tuple(sr_blocks))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


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
    if slash and library.lower() in (*LIBRARIES, CUSTOM) and rest:
        return f"{library.lower()}/{rest}"
    if LOCATED.fullmatch(name):
        return name
    short = _short(name)
    if short in NETWORKS:
        return NETWORKS[short]
    if ".py" in name or ":" in name:
        _refuse(text, f"cannot read the network {name!r}", "write FILE.py:FUNCTION, such as mynet.py:make")
    known = (*STAGES, "timm/NAME", "torchvision/NAME", "FILE.py:FUNCTION")
    alike = [network for network in NETWORKS if network[0] == short[:1]]  # of its family rather than of its depth
    near = (
        difflib.get_close_matches(short, alike, n=1, cutoff=0.5)
        or difflib.get_close_matches(short, NETWORKS, n=1, cutoff=0.5)
        or difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    )
    hint = f"did you mean {NETWORKS.get(near[0], near[0])}?" if near else "a variant starts with its network"
    _refuse(text, f"unknown network {name!r}; known are {', '.join(known)}", hint)


def _short(name: str) -> str:
    """Bring the spellings of one of our networks, such as ResNet-50 and VGG16-BN, to that of `NETWORKS`."""
    short = re.sub("[-_]", "", name.upper())
    short = re.sub("^(FCN|DLV3)?RESNET", r"\1R", short)
    return short.removesuffix("BN") if short.startswith("VGG") else short


def _refuse_word(name: str, text: str) -> NoReturn:
    if _short(name) in NETWORKS or "/" in name or LOCATED.fullmatch(name):
        _refuse(text, f"{name} is a second network", "write one network, at the start")
    near = difflib.get_close_matches(name.upper(), WORDS, n=1, cutoff=0.4)
    _refuse(
        text,
        f"unknown word {name!r}; known after the network are {', '.join(WORDS)}",
        f"did you mean {near[0]}?" if near else "see docs/notation.md",
    )


def _whole(value: str) -> int:
    if not re.fullmatch(r"[0-9]+", value) or not value.strip("0"):
        raise ValueError("a whole number of at least 1")
    if len(value) > DIGITS:
        raise ValueError(f"a whole number of at most {DIGITS} digits")
    return int(value)


def _odd(value: str) -> int:
    if not re.fullmatch(rf"[0-9]{{1,{DIGITS}}}", value) or int(value) % 2 == 0:
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


def _grid(value: str) -> tuple[int, int]:
    """Read 2x4, or 2 for 2x2."""
    match = re.fullmatch(rf"([0-9]{{1,{DIGITS}}})(?:x([0-9]{{1,{DIGITS}}}))?", value.lower())
    if match is None or not int(match[1]) or not int(match[2] or 1):
        raise ValueError("rows x columns of at least 1, or none")
    return int(match[1]), int(match[2] or match[1])


def _positive(value: str) -> float:
    if not re.fullmatch(r"[0-9]*\.?[0-9]+(e-?[0-9]{1,3})?", value.lower()) or not 0 < float(value) < math.inf:
        raise ValueError("a number above 0")
    return float(value)


def _or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    def reader(value: str) -> Any:
        return None if value.lower() == "none" else read(value)

    return reader


Reader = tuple[str, Callable[[str], Any], str]  # the field that an option sets, how its value is read, an example


def _of_block(setting: Setting) -> Reader:
    if setting.kind == "choice":
        return setting.name, _choice(*setting.choices), str(setting.choices[-1])
    read, example = {"grid": (_grid, "1x1"), "count": (_whole, "1"), "number": (_positive, "0.5")}[setting.kind]
    optional = setting.default is None
    return setting.name, _or_none(read) if optional else read, example if optional else str(setting.default)


# What each word's options are called.
READERS: Mapping[str, Mapping[str, Reader]] = {
    "D": {"p": ("p", _rate, "0.1"), "M": ("stages", _stages, "4")},
    "D2D": {"p": ("p", _rate, "0.1"), "M": ("stages", _stages, "4")},
    "DB": {
        "p": ("p", _rate, "0.1"),
        "size": ("size", _odd, "3"),
        "schedule": ("schedule", _choice(*SCHEDULES), "linear"),
        "M": ("stages", _stages, "4"),
    },
    "SE": {},
    "CBAM": {},
    "SR": {
        "M": ("stage", _whole, "3"),
        "after": ("after", _name, "layer3.1"),
        "placement": ("placement", _choice(*PLACEMENTS), "inner"),
        **{setting.word: _of_block(setting) for setting in SETTINGS},
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
            remedy = f"write {name}={example}" if near or not equals else "take one of these"
            _refuse(text, f"unknown option {option.strip()!r} of {word}, known are {known}", remedy)
        name, field, reader, example = readers[key.lower()]
        if field in read:
            _refuse(text, f"{word} has {name} twice", "keep one")
        try:
            read[field] = reader(value)
        except ValueError as expected:
            _refuse(text, f"{name} of {word} must be {expected}, got {value!r}", f"write {name}={example}")
    return read
