"""Every setting of a block, once: its default, what it may be, and the word by which the notation names it.

A new option is one line in `Options`, and its use. `SqueezeRemember2d` takes the fields by name, and the notation
(`srblock.variants`) reads, prints and refuses them by the words and choices that stand here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from srblock.block.checks import as_size, check_count, check_positive


@dataclass(frozen=True)
class Setting:
    """What is known about one option.

    Attributes:
        name: of the field in `Options`.
        word: of the notation.
        default: its value unless told otherwise.
        kind: "count", an integer of at least 1; "number", a finite one above 0; "grid", a height and width; or
            "choice". A count and a grid may be None where that is the default.
        choices: the values that a choice may have.
    """

    name: str
    word: str
    default: Any
    kind: str
    choices: tuple[str | None, ...] = ()

    def check(self, value: object) -> None:
        """Refuse a value that the option cannot have.

        Raises: ValueError, or TypeError for a count that is no integer and a number that is none.
        """
        if value is None and self.default is None and self.kind != "choice":
            return
        if self.kind == "grid":
            as_size(value, self.name)  # type: ignore[arg-type]
        elif self.kind == "count":
            check_count(self.name, value)
        elif self.kind == "number":
            check_positive(self.name, value)
        elif value not in self.choices:
            raise ValueError(f"{self.name} must be one of {', '.join(map(repr, self.choices))}, got {value!r}")

    def show(self, value: Any) -> str:
        """Print a value as the notation does: 8, 0.5, relu, 2x2."""
        if self.kind == "grid" and value is not None:
            return "x".join(map(str, value))
        if self.kind == "number":
            return repr(value).removesuffix(".0").replace("e+", "e")
        return str(value)


def _of(kind: str, word: str, default: Any, *others: str | None) -> Any:
    choices = (default, *others) if kind == "choice" else ()
    return field(default=default, metadata={"word": word, "kind": kind, "choices": choices})


@dataclass(frozen=True)
class Options:
    """The settings of one block. All but the first five are beyond the paper.

    Attributes:
        blocks: P, the number of memory blocks.
        hidden: U, the units between the two linear layers.
        activation: between them: None for the identity (the paper names none), or "relu".
        init: "fan_in" draws each layer from U(-sqrt(k), sqrt(k)) with k = 1/fan_in; "channels" uses k = 1/C in
            every layer, the other reading of Sec. III-B.
        resize: None refuses maps of another size; "bilinear" resizes the squeezed map to the block's grid and the
            recalled map to the input's. At the block's own size both are the same.
        grid: the memory's own (h, w), or its side: each of its positions stands for a rectangle of the map, whose
            height and width it must divide. None for one position of the map each, as in the paper; 1 for channels
            only.
        rank: of the maps of the memory blocks: each is a sum of so many products of a vector of C channels and a map of
            one channel. None for maps of their own, as in the paper.
        squeeze_channels: K, to which the map is squeezed; 1 in the paper.
        logits: what the softmax takes: "plain" as they come, or "standardized" over images: each less its mean and by
            its standard deviation, those of the batch in training and running ones in evaluation.
        temperature: by which these are divided.
        gain: by which the memory is multiplied on recall. Its numbers then learn as if at gain^2 times the rate of SGD
            (gain times Adam's), with the same weight decay, whatever the training loop.
        start: of the memory: "zeros", as in the paper, small "normal" values, or zeros until `srblock.init_memory`
            makes it from features: their "kmeans" or "class_means".

    Raises: ValueError or TypeError for a value that an option cannot have, with those it can.
    """

    blocks: int = _of("count", "P", 10)
    hidden: int = _of("count", "U", 8)
    activation: str | None = _of("choice", "act", None, "relu")
    init: str = _of("choice", "init", "fan_in", "channels")
    resize: str | None = _of("choice", "resize", None, "bilinear")
    grid: int | tuple[int, int] | None = _of("grid", "grid", None)
    rank: int | None = _of("count", "rank", None)
    squeeze_channels: int = _of("count", "K", 1)
    logits: str = _of("choice", "logits", "plain", "standardized")
    temperature: float = _of("number", "T", 1.0)
    gain: float = _of("number", "gain", 1.0)
    start: str = _of("choice", "start", "zeros", "normal", "kmeans", "class_means")

    def __post_init__(self) -> None:
        for setting in SETTINGS:
            setting.check(getattr(self, setting.name))
        if self.grid is not None:
            object.__setattr__(self, "grid", as_size(self.grid))
        for name in ("temperature", "gain"):
            object.__setattr__(self, name, float(getattr(self, name)))


SETTINGS = tuple(Setting(entry.name, default=entry.default, **entry.metadata) for entry in fields(Options))
