"""Who may read what is written: as everywhere on this machine."""

from __future__ import annotations

import stat
from pathlib import Path


def as_any_file(path: Path) -> None:
    """Give a file the permissions that a new one gets here: safetensors writes for its owner alone."""
    example = path.with_name(f"{path.name}.new")
    example.touch()
    try:
        path.chmod(stat.S_IMODE(example.stat().st_mode))
    finally:
        example.unlink()
