"""The file that repeats a comparison: `srblock compare --config study.toml`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srblock import __version__
from srblock.experiments.session import Asked, lasting
from srblock.runs.again import NONE, OPTIONS, WITHOUT_OPTION
from srblock.statistics.equivalence import MARGIN
from srblock.training.files import write_bytes
from srblock.variants.notation import Variant


def write_study(
    folder: Path, asked: Asked, variants: Sequence[Variant], seeds: Sequence[int], margin: float
) -> Path | None:
    """Write what was asked for as options of `srblock compare`; None for what only Python code has.

    That is data and recipes handed over as objects, functions, changes that no option makes, and seeds that are not in
    a row; a file of a study before is removed then. How many ran at once, how long and where are left out.

    Raises: OSError if the file cannot be written or removed.
    """
    file = folder / "study.toml"
    in_a_row = list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    changes = {name: value for name, value in asked.changes.items() if value is not None or name in NONE}
    by_option = in_a_row and not asked.networks and not changes.keys() & set(WITHOUT_OPTION)
    if not by_option or not isinstance(asked.data, str) or not isinstance(asked.recipe, str):
        file.unlink(missing_ok=True)
        return None
    options: dict[str, Any] = {
        "variants": [str(variant) for variant in variants],
        "seeds": f"{seeds[0]}-{seeds[-1]}",
        "margin": None if margin == MARGIN else margin,
        "data": lasting(asked.data),
        "image-size": asked.image_size,
        "recipe": asked.recipe,
        **{OPTIONS.get(name, name.replace("_", "-")): _word(name, value) for name, value in changes.items()},
        "pretrained": asked.pretrained or None,
        "weights": None if asked.weights is None else str(asked.weights.resolve()),
        "device": None if asked.device == "auto" else asked.device,
    }
    lines = [f"# srblock compare --config study.toml (srblock {__version__})"]
    lines += [
        f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in options.items() if value is not None
    ]
    write_bytes(file, ("\n".join(lines) + "\n").encode())
    return file


def _word(name: str, value: Any) -> Any:
    if value is None:
        return "none"
    return f"{value[0]}x{value[1]}" if name == "crop_size" else value
