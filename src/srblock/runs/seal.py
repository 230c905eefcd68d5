"""The SHA-256 by which a finished run knows its weights again."""

from __future__ import annotations

import hashlib
from pathlib import Path

from srblock.runs.records import Run

WEIGHTS = "checkpoint.safetensors"


def seal_of(directory: Path) -> str:
    """Return the SHA-256 of a run's weights as they are.

    Raises: OSError if they cannot be read.
    """
    with (directory / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_sealed(run: Run) -> bool:
    """Tell whether a run's weights are those that it was finished with.

    As far as it says: runs made before 2026-11-25 do not. Weights that are gone are no others.
    """
    if run.checkpoint_sha256 is None or not (run.directory / WEIGHTS).exists():
        return True
    return seal_of(run.directory) == run.checkpoint_sha256
