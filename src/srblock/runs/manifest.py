"""Which records a folder has: SHA256SUMS beside them, a line each, as `sha256sum --check SHA256SUMS` reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from srblock.training.files import write_bytes

MANIFEST = "SHA256SUMS"


def check_manifest(folder: Path, new: Collection[str] = ()) -> dict[str, str]:
    """Compare the records of a folder with its manifest, and return the manifest: sums by file name.

    Args:
        new: names of files that it need not list yet.

    Raises: ValueError naming records that are missing, changed, or not listed, and what to do.
    """
    path = folder / MANIFEST
    listed = _read(path)
    there = {file.name: _sum(file.read_bytes()) for file in sorted(folder.glob("*.json"))}
    extra = [name for name in there if name not in listed and name not in new]
    if extra and not path.exists():
        raise ValueError(
            f"{path} is not there, the list of the {len(there)} records beside it; take it from git again, or if there "
            f"never was one, make it: cd {folder} && sha256sum *.json > {MANIFEST}"
        )
    for names, what, remedy in (
        (
            [name for name in listed if name not in there],
            "are missing: deleted or renamed since",
            "take them from git again; if one had to go, say why in LOG.md and delete its line",
        ),
        (
            [name for name in there if name in listed and there[name] != listed[name]],
            "were changed since",
            "take them from git again; records are never changed",
        ),
        (extra, "are not listed", "move them away and add their runs with srblock results add"),
    ):
        if names:
            raise ValueError(f"records in {path} {what}: {', '.join(names)}; {remedy}")
    return listed


def write_manifest(folder: Path, listed: dict[str, str], new: Collection[str]) -> None:
    """Write the manifest anew, with new records, sorted by name."""
    sums = listed | {name: _sum((folder / name).read_bytes()) for name in new}
    lines = [f"{sums[name]}  {name}\n" for name in sorted(sums)]
    write_bytes(folder / MANIFEST, "".join(lines).encode())


def _read(path: Path) -> dict[str, str]:
    """Read a manifest; one that is not there lists nothing."""
    if not path.exists():
        return {}
    words = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines()]
    for number, line in enumerate(words, 1):
        if len(line) != 2 or len(line[0]) != 64:
            raise ValueError(f"{path}, line {number}: expected a SHA-256 and a name; take the file from git again")
    return {name.removeprefix("*"): digest for digest, name in words}


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
