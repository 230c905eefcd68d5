"""What stands in a field of JSON that anyone may have written: kinds of values, and the sentence when another came."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

LARGEST = 1e300  # of a number that figures are made of
TOP = 2**63  # whole numbers are below it
SHOWN = 60  # characters of a value in a message


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number; true and false are none."""
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST  # type: ignore[operator] # exact for long ints


def is_whole(value: object, low: int = 0, below: int = TOP) -> bool:
    """Tell whether a value is a whole number in a range."""
    return type(value) is int and low <= value < below


def is_percent(value: object) -> bool:
    """Tell whether a value is a share in percent, up to rounding."""
    return is_number(value) and -1e-6 <= value <= 100 + 1e-6  # type: ignore[operator]


def is_text(value: object) -> bool:
    """Tell whether a value is a text with something in it."""
    return isinstance(value, str) and bool(value)


def fits(value: object, kind: Any) -> bool:
    """Tell whether a value from JSON is of an annotated kind, tuples being lists there.

    >>> fits([1, 2], tuple[int, int] | None)
    True
    """
    if get_origin(kind) in (Union, types.UnionType):
        return any(fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if not isinstance(value, list | tuple):
            return False
        if kinds[-1] is Ellipsis:
            return all(fits(item, kinds[0]) for item in value)
        return len(value) == len(kinds) and all(map(fits, value, kinds))
    if kind is float:
        return is_number(value)
    if kind is int:
        return is_whole(value, low=-TOP)
    return value is None if kind in (None, type(None)) else type(value) is kind


def require(ok: bool, field: str, value: object, expected: str) -> None:
    """Refuse a value of a field.

    Raises: ValueError naming the field, what came, and what was expected.
    """
    if not ok:
        raise ValueError(f"{field} is {shown(value)}, expected {expected}")


def require_kinds(values: Mapping[str, object], kinds: Mapping[str, Any], what: str) -> None:
    """Refuse values that are not of their fields' annotated kinds; fields without one are left alone.

    Raises: ValueError as `require`.
    """
    for field, value in values.items():
        if field in kinds:
            kind = kinds[field]
            name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
            require(fits(value, kind), f"{what} {field}", value, {"int": "a whole number", "float": "a number",
                    "bool": "true or false", "str": "a text"}.get(name, name))  # fmt: skip


def shown(value: object) -> str:
    """Print a value for a message, a long one cut."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def read_json(data: bytes | str) -> Any:
    """Read strict JSON: NaN and infinity are none.

    Raises: ValueError for anything else.
    """
    try:
        return json.loads(data, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("its parts are nested too deep") from error


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")
