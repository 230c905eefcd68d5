"""Files that are whole or not there: written beside, flushed to disk, then renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` atomically; on any error the old file stays and no scrap is left.

    Raises: OSError, with the path and what to do, if the disk is full or the folder is not writable.
    """
    scrap = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scrap.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scrap, path)
    except OSError as error:
        scrap.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"cannot write {path}: {error.strerror or error}. Finished runs are safe; free space or make the folder "
            "writable, then give the same command again to go on",
        ) from error
    except BaseException:
        scrap.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically. NaN and infinity are refused: JSON has neither."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())
