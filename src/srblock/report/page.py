"""What all pages share: their style sheet, and how words and numbers are set. Pages are templates beside this file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from srblock.report import units
from srblock.report.terminal import without_controls


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill in a template of this room by its file's name; it may include others, such as the style sheet."""
    environment = Environment(
        loader=FunctionLoader(lambda name: files("srblock.report").joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"typeset": typeset, "duration": units.duration, "count": "{:,}".format, "opening": opening}
    return without_controls(environment.get_template(template).render(context))


def opening(text: str) -> str:
    """Begin a sentence with a word; mIoU keeps its small letter."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def typeset(text: str) -> str:
    """Set minus signs and the dashes of empty cells."""
    return "\N{EN DASH}" if text == "-" else re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)


def plain(value: Any) -> str:
    """Print a setting as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
