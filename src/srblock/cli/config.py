"""Options from a file: `srblock compare --config study.toml`. What stands on the command line counts."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from cyclopts import App
from cyclopts.config import Dict

OPTION, VARIANTS = "--config", "variants"


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a file of options.

    Raises: ValueError if it is missing, no TOML, its variants are no texts, or a key denies what its value says again.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{OPTION}: there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{OPTION}: {path} cannot be read ({error})") from error
    variants = found.get(VARIANTS, [])
    if not isinstance(variants, list) or not all(isinstance(variant, str) for variant in variants):
        raise ValueError(f'{OPTION}: {path}: variants are texts, such as ["R18", "R18 + SR(M=4)"], got {variants!r}')
    for name, value in found.items():
        if re.match("no[-_]", name):
            plain = f"{name[3:]} = {'true' if value is False else 'false'}"
            raise ValueError(f"{OPTION}: {path}: an option in a file has no 'no-' before it; write {plain}")
    return found


def take_options(command: App, words: Sequence[str]) -> dict[str, Any]:
    """Let a command take options from the file that the words name, if they name one, and return them.

    The variants among them it reads itself.

    Raises: as `read_config_file`.
    """
    values = [word.partition("=")[2] for word in words if word.startswith(f"{OPTION}=")]
    values += [after for word, after in pairwise(words) if word == OPTION]
    if not values:
        command.config = ()
        return {}
    options = {name: value for name, value in read_config_file(Path(values[0])).items() if name != VARIANTS}
    command.config = (Dict(options, use_commands_as_keys=False, source=values[0]),)
    return options
