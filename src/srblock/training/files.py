"""Files that are whole or not there: written beside, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DAY_S = 86_400


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` atomically, as `write_pieces`."""
    write_pieces(path, [data])


def write_pieces(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Replace `path` atomically; on any error the old file stays and no scrap is left.

    Raises: OSError, with the path and what to do, if the disk is full or the folder is not writable.
    """
    scrap = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scrap.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scrap, path)
    except OSError as error:
        for taken in (scrap, path):
            if taken.is_dir():
                raise OSError(
                    error.errno, f"cannot write {path}: there is a folder {taken} in its place; move it away"
                ) from error
        with contextlib.suppress(OSError):  # of a disk that does nothing any more
            scrap.unlink()
        raise OSError(
            error.errno,
            f"cannot write {path}: {error.strerror or error}. Finished runs are safe; free space or make the folder "
            "writable, then give the same command again to go on",
        ) from error
    except BaseException:
        scrap.unlink(missing_ok=True)
        raise


def remove_scrap(folder: Path) -> None:
    """Remove the scrap that processes killed while writing left in a folder: of those that run no more here, and of
    anyone's what is older than a day.
    """
    for scrap in folder.glob(".*.tmp"):
        number = scrap.name.split(".")[-2]
        with contextlib.suppress(OSError):  # somebody else was faster, or it is a folder
            if time.time() - scrap.stat().st_mtime > DAY_S or (number.isdecimal() and not _runs(int(number))):
                scrap.unlink()


def _runs(process: int) -> bool:
    if process == os.getpid() or sys.platform == "win32":  # where a signal of 0 is not only asked about
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        pass
    return True


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically. NaN and infinity are refused: JSON has neither."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())
