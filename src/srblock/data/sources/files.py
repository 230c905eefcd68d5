"""The files of a folder or of a zip, under relative names; a zip is read in place."""

from __future__ import annotations

import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from srblock.data import images
from srblock.data.offenders import counted, offenders

LARGEST_FILE_BYTES = 2**28
LONGEST_NAME = 4096  # of a zip's member; what a path may have on Linux
MOST_WAYS = 64  # that links may lead to one folder: with two to the next folder in each, 22 folders are four million
# What zipfile and its decompressors raise of damaged bytes, besides OSError (bz2): RuntimeError of an encrypted member,
# NotImplementedError, which is one, of methods and versions that are none.
DAMAGED = (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, RuntimeError, OverflowError)
SPLIT_NAMES = ("train", "test", "val", "valid", "validation")  # after train: the first there is the test set
HIDDEN = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir"}


@dataclass(frozen=True)
class Files:
    """Files and folders below a root, hidden ones left out.

    Attributes:
        root: for messages.
        names: sorted, relative, with slashes.
        folders: all folders, empty ones too.
        sizes: bytes of each name, unpacked.
        broken: names that are neither, and why.
        read: gives the bytes of a name.
    """

    root: str
    names: tuple[str, ...]
    folders: frozenset[str]
    sizes: Mapping[str, int]
    broken: Mapping[str, str]
    read: Callable[[str], bytes]

    def refuse_broken(self, prefix: str = "") -> None:
        """Raise ValueError if something below a folder, "" or "folder/", is broken."""
        found = [f"{name} ({why})" for name, why in sorted(self.broken.items()) if name.startswith(prefix)]
        _refuse(self.root, "unreadable", found)

    def refuse_large(self, names: Iterable[str]) -> None:
        """Raise ValueError if one of the files is too large for an image."""
        large = [f"{name} ({self.sizes[name] / 2**20:,.0f} MiB)" for name in sorted(names) if self.too_large(name)]
        _refuse(self.root, f"larger than {LARGEST_FILE_BYTES / 2**20:.0f} MiB, too large for an image", large)

    def too_large(self, name: str) -> bool:
        """Tell whether a file is too large for an image."""
        return self.sizes[name] > LARGEST_FILE_BYTES


def hidden(name: str) -> bool:
    """Tell whether a relative name is one that desktop systems leave behind (.DS_Store, Thumbs.db, __MACOSX/...)."""
    if "/" not in name:  # a million of these take a second less
        return name.startswith(".") or name.lower() in HIDDEN
    return any(part.startswith(".") or part.lower() in HIDDEN for part in name.split("/"))


@contextmanager
def opened(path: Path, *, only: Collection[str] = ()) -> Iterator[Files]:
    """List a folder, or a zip whose single top-level folder, if it has one, is looked through.

    Args:
        only: what is listed directly in a folder, if not everything.

    Raises: ValueError if it is neither, or a zip that holds what must not be read; OSError if it cannot be read.
    """
    if path.is_dir():
        yield _folder(path, only)
    elif zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except (*DAMAGED, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: damaged zip: {error}; copy or pack it again") from error
        with archive:
            yield _zip(path, archive)
    else:
        what = (
            "is no complete zip file (truncated?)" if path.suffix.lower() == ".zip" else "is no folder and no zip file"
        )
        raise ValueError(f"{path} {what}; expected a folder or a zip with one folder per class")


def _folder(root: Path, only: Collection[str] = ()) -> Files:
    sizes: dict[str, int] = {}
    folders: set[str] = set()
    broken: dict[str, str] = {}
    ways: dict[tuple[int, int], int] = {}
    pending = [(root, "", frozenset({identity(root)}))]
    while pending:
        folder, prefix, above = pending.pop()
        for entry in _entries(folder, prefix, broken):
            name = prefix + entry.name
            if hidden(entry.name) or (only and not prefix and entry.name not in only):
                continue
            try:
                if entry.is_file():
                    sizes[name] = entry.stat().st_size
                    continue
                real = identity(entry.path) if entry.is_dir() else None
            except OSError as error:
                broken[name] = error.strerror or str(error)
                continue
            if real is None:
                broken[name] = "a broken link, or no regular file"
            elif real in above:
                broken[name] = "a link to a folder above it"
            else:
                ways[real] = ways.get(real, 0) + 1
                if ways[real] > MOST_WAYS:
                    raise ValueError(
                        f"{root}: links lead to one folder in more than {MOST_WAYS} ways, the last of them "
                        f"{_short(name)}; remove links, so that every image is there once"
                    )
                folders.add(name)
                pending.append((Path(entry.path), name + "/", above | {real}))

    def read(name: str) -> bytes:
        return (root / name).read_bytes()

    return Files(str(root), tuple(sorted(sizes)), frozenset(folders), sizes, broken, read)


def _entries(folder: Path, prefix: str, broken: dict[str, str]) -> Iterator[os.DirEntry[str]]:
    """Go through a folder; one below the root that may not be read counts as broken."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except PermissionError as error:
        if not prefix:
            raise
        broken[prefix.rstrip("/")] = error.strerror or str(error)


def identity(place: str | Path) -> tuple[int, int]:
    """Tell a file or folder by what links cannot change."""
    found = os.stat(place)
    return found.st_dev, found.st_ino


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:40]}...{name[-40:]}"


def _zip(path: Path, archive: zipfile.ZipFile) -> Files:
    members: dict[str, zipfile.ZipInfo] = {}
    folders: set[str] = set()
    unsafe, encrypted, double = [], [], []
    for info in archive.infolist():
        name = _name_in(info).replace("\\", "/")
        if len(name) > LONGEST_NAME:
            unsafe.append(f"{_short(name)} (a name of {len(name):,} characters)")
            continue
        pure = PurePosixPath(name)
        mode = info.external_attr >> 16
        if pure.is_absolute() or ".." in pure.parts or (len(name) > 1 and name[1] == ":") or stat.S_ISLNK(mode):
            unsafe.append(info.filename + (" (a link)" if stat.S_ISLNK(mode) else ""))
            continue
        name = str(pure)
        if hidden(name) or name == ".":
            continue
        folders.update(str(parent) for parent in pure.parents if str(parent) != ".")
        if info.filename.endswith(("/", "\\")):
            folders.add(name)
        elif name in members:
            double.append(name)
        else:
            members[name] = info
            if info.flag_bits & 1:
                encrypted.append(name)
    _refuse(str(path), "outside of the archive or a link", unsafe)
    _refuse(str(path), "twice in the zip", double)
    _refuse(str(path), "encrypted", encrypted)
    total = sum(info.file_size for info in members.values())
    if total > images.MEMORY_LIMIT_BYTES:
        raise ValueError(
            f"{path}: declares {total / 2**30:.1f} GiB unpacked, more than the limit of "
            f"{images.MEMORY_LIMIT_BYTES / 2**30:.0f} GiB for a zip; unpack it and give the folder"
        )
    top = _single_top(folders)

    def read(name: str) -> bytes:
        try:
            return archive.read(members[top + name])
        except DAMAGED as error:
            raise ValueError(f"damaged in the zip: {error or type(error).__name__}") from error

    sizes = {name.removeprefix(top): info.file_size for name, info in members.items()}
    below = frozenset(f.removeprefix(top) for f in folders if f + "/" != top)
    return Files(str(path), tuple(sorted(sizes)), below, sizes, {}, read)


def _name_in(info: zipfile.ZipInfo) -> str:
    """Return a member's name; macOS writes UTF-8 without saying so, and Python then reads it as cp437."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _single_top(folders: set[str]) -> str:
    """Return the prefix of the one folder that holds all others; "" if there is none."""
    tops = {name.split("/", 1)[0] for name in folders}
    top = next(iter(tops), "")
    around = len(tops) == 1 and any("/" in name for name in folders) and top.lower() not in SPLIT_NAMES
    return f"{top}/" if around else ""


def _refuse(root: str, why: str, names: list[str]) -> None:
    if names:
        raise ValueError(f"{root}: {counted(len(names), 'entry')} refused, {why}: {offenders(names)}")
