"""A run's log: what a worker printed and warned of, and how it failed."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

LOG = "log.txt"


def add_to_log(directory: Path, text: str) -> Path:
    """Add to a run's log, if the disk has room for it, and return its path."""
    path = directory / LOG
    with contextlib.suppress(OSError), path.open("a") as file:
        file.write(text)
    return path


@contextlib.contextmanager
def output_to(directory: Path) -> Iterator[list[str]]:
    """Append all output of this process to a run's log, what C code writes included; collect the texts of warnings.

    An empty file is removed at the end.
    """
    path = directory / LOG
    warned: list[str] = []

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        warned.append(str(message))
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))

    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    try:
        with path.open("a", buffering=1) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file), warnings.catch_warnings():
                warnings.showwarning = show
                yield warned
    finally:
        for number, saved in enumerate(before, start=1):
            os.dup2(saved, number)
            os.close(saved)
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()
