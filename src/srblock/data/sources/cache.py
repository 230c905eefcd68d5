"""Where decoded images are kept between runs: one safetensors file for each content."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from srblock.data.permissions import as_any_file


def cache_folder(cache: Path | None = None) -> Path:
    """Choose the cache folder: the argument, else $SRBLOCK_CACHE, else srblock in $XDG_CACHE_HOME or ~/.cache."""
    if cache is not None:
        return Path(cache).expanduser()
    if os.environ.get("SRBLOCK_CACHE"):
        return Path(os.environ["SRBLOCK_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "srblock"


def file_in(cache: Path, name: str, key: str) -> Path:
    """Name the file of a content; a set's name may be longer than names of files can be."""
    return cache / f"{name[:40]}-{key[:20]}.safetensors"


def read(file: Path, names: tuple[str, ...]) -> tuple[dict[str, Tensor], str] | None:
    """Read named tensors and the fingerprint they were written with; None if there is no such file.

    A damaged file counts as none, with a warning: what it held is made again.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in names}, stored.metadata()["fingerprint"]
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        warn_damaged(file, error)
        return None


def warn_damaged(file: Path, why: object) -> None:
    warnings.warn(f"the cache file {file} is damaged ({why}); its images are decoded again", stacklevel=2)


def write(file: Path, tensors: Mapping[str, Tensor], fingerprint: str) -> None:
    """Write tensors and their fingerprint so that nobody ever sees half a file.

    A folder that cannot be written costs time in the next run, not this one: it warns.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()}, partial, {"fingerprint": fingerprint}
            )
            as_any_file(partial)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"cannot write the cache folder {file.parent} ({error}); going on without it, images are decoded again in "
            "the next run; set SRBLOCK_CACHE to a folder that can be written",
            stacklevel=2,
        )
