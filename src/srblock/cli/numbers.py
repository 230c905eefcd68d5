"""What every number on the command line must be: finite, and no more than 64 bits hold."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from cyclopts import App
from cyclopts.validators import Number

LARGEST = 2**63 - 1
LARGEST_SIDE = 2**16  # of an image in pixels; 12 GiB in color
FRACTION = re.compile(r"[-+]?\d*\.\d*[1-9]\d*(e[-+]?\d+)?", re.IGNORECASE)
MOST_SEEDS = 100_000  # more are a slip of the pen, and each has a name in a list


def within(_: Any, value: Any) -> None:
    """Refuse infinity, NaN and whole numbers beyond 64 bits, alone or in a tuple; what is no number passes.

    Raises: ValueError, which the command line puts behind the option's name and what came.
    """
    if isinstance(value, (tuple, list)):
        for part in value:
            within(_, part)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("Must be a finite number.")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"Must be a number of at most 64 bits, {LARGEST:,}.")


def number(**limits: float) -> tuple[Any, ...]:
    """Return what checks a number of these limits (`gte`, `gt`, `lte`), and `within`."""
    check = Number(**limits)

    def limited(kind: Any, value: Any) -> None:
        if not isinstance(value, str):  # "none"
            check(kind, value)

    return within, limited


def refuse_fractions(command: App, words: Sequence[str], of_file: Mapping[str, Any]) -> None:
    """Refuse 3.7 where an option takes a whole number: cyclopts would round it.

    Args:
        words: of the command line. of_file: options from a file.

    Raises: ValueError naming the option and what came.
    """
    said = [word.partition("=")[::2] for word in words if "=" in word] + list(pairwise(words))
    said += [(f"--{name.replace('_', '-')}", str(value)) for name, value in of_file.items()]
    said = [(name, value) for name, value in said if FRACTION.fullmatch(value)]
    for argument in command.assemble_argument_collection() if said else ():
        kinds = {argument.hint, *typing.get_args(argument.hint)}
        for name, value in said:
            if name in argument.names and int in kinds and float not in kinds:
                raise ValueError(f'Invalid value "{value}" for {name}. Must be a whole number.')


AT_LEAST_1 = number(gte=1)
SIDE = number(gte=1, lte=LARGEST_SIDE)
