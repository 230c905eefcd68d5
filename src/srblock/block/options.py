"""Every setting of a block, once: its default, what it may be, and the word by which the notation names it.

A new option is one line in `Options`, and its use. `SqueezeRemember2d` takes the fields by name, and the notation
(`srblock.variants`) reads, prints and refuses them by the words and choices that stand here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from srblock.block.checks import as_size, check_count


@dataclass(frozen=True)
class Setting:
    """What is known about one option.

    Attributes:
        name: of the field in `Options`.
        word: of the notation.
        default: its value unless told otherwise.
        choices: the values it may have; None for a count, which is any integer of at least 1, and for a grid.
        grid: whether it is the height and width of a grid, or None.
    """

    name: str
    word: str
    default: Any
    choices: tuple[str | None, ...] | None
    grid: bool = False

    def check(self, value: object) -> None:
        """Refuse a value that the option cannot have.

        Raises: ValueError, or TypeError for a count that is no integer.
        """
        if self.grid:
            if value is not None:
                as_size(value, self.name)  # type: ignore[arg-type]
        elif self.choices is None:
            check_count(self.name, value)
        elif value not in self.choices:
            raise ValueError(f"{self.name} must be one of {', '.join(map(repr, self.choices))}, got {value!r}")

    def show(self, value: Any) -> str:
        """Print a value as the notation does: 8, relu, 2x2."""
        return "x".join(map(str, value)) if self.grid and value is not None else str(value)


def _count(word: str, default: int) -> Any:
    return field(default=default, metadata={"word": word, "choices": None})


def _choice(word: str, default: str | None, *others: str | None) -> Any:
    return field(default=default, metadata={"word": word, "choices": (default, *others)})


def _grid(word: str) -> Any:
    return field(default=None, metadata={"word": word, "choices": None, "grid": True})


@dataclass(frozen=True)
class Options:
    """The settings of one block.

    Attributes:
        blocks: P, the number of memory blocks.
        hidden: U, the units between the two linear layers.
        activation: between them: None for the identity (the paper names none), or "relu".
        init: "fan_in" draws each layer from U(-sqrt(k), sqrt(k)) with k = 1/fan_in; "channels" uses k = 1/C in
            every layer, the other reading of Sec. III-B.
        resize: None refuses maps of another size; "bilinear" resizes the squeezed map to the block's grid and the
            recalled map to the input's. At the block's own size both are the same.
        grid: the memory's own (h, w), or its side: each of its positions stands for a rectangle of the map, whose
            height and width it must divide. None for one position of the map each, as in the paper.

    Raises: ValueError or TypeError for a value that an option cannot have, with those it can.
    """

    blocks: int = _count("P", 10)
    hidden: int = _count("U", 8)
    activation: str | None = _choice("act", None, "relu")
    init: str = _choice("init", "fan_in", "channels")
    resize: str | None = _choice("resize", None, "bilinear")
    grid: int | tuple[int, int] | None = _grid("grid")

    def __post_init__(self) -> None:
        for setting in SETTINGS:
            setting.check(getattr(self, setting.name))
        if self.grid is not None:
            object.__setattr__(self, "grid", as_size(self.grid))


SETTINGS = tuple(Setting(entry.name, default=entry.default, **entry.metadata) for entry in fields(Options))
