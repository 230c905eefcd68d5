"""Fetch a published file: resumed where it broke off, checked, and visible only when complete."""

from __future__ import annotations

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from srblock.data.progress import Progress

ATTEMPTS, PAUSE_S, TIMEOUT_S, CHUNK_BYTES = 5, 0.5, 30.0, 2**18


def download(url: str, file: Path, *, md5: str, progress: Progress | None = None) -> Path:
    """Download to a file, checked against a published MD5 sum.

    What arrives is kept beside the file as NAME.part, so that a broken connection, or a later run, goes on from there
    if the server allows it. A connection that breaks is tried again, as long as it brings something.

    Raises:
        ConnectionError: the server cannot be reached, refuses, or breaks off again and again.
        ValueError: the content is complete and not the published one; it is deleted.
        OSError: the file cannot be written (disk full, no permission).
    """
    if file.is_file() and _md5(file) == md5:
        return file
    part = file.with_name(file.name + ".part")
    with writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        resumed = part.is_file()
        _complete(url, part, progress)
        if resumed and _md5(part) != md5:  # its beginning may be from another time: once more from zero
            part.unlink()
            _complete(url, part, progress)
        found, size = _md5(part), part.stat().st_size
        if found != md5:
            part.unlink()
            raise ValueError(
                f"{url} brought {size:,} bytes with MD5 {found}, expected {md5}: not the published file (a "
                "proxy's page, or changed on the way); deleted; try again, or fetch the file yourself and give its path"
            )
        part.replace(file)
    return file


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say what to do when a folder cannot be written (disk full, no permission). Network errors pass."""
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write to {folder}: {error.strerror or error}; free some space there, or set SRBLOCK_CACHE "
            "to a folder that can be written",
        ) from error


def _complete(url: str, part: Path, progress: Progress | None) -> None:
    """Fetch until the part is whole; give up after some attempts in a row that brought nothing."""
    fruitless, most = 0, _size(part)
    while True:
        reason = _attempt(url, part, _size(part), progress)
        if reason is None:
            return
        # The most so far, not the last attempt: without ranges every attempt starts from zero.
        fruitless = 0 if _size(part) > most else fruitless + 1
        most = max(most, _size(part))
        if fruitless == ATTEMPTS:
            raise ConnectionError(
                f"cannot download {url}: {reason}, {ATTEMPTS} times in a row; {_size(part):,} bytes are kept, and the "
                "same command goes on from there; without a network, unpack it elsewhere and give its path"
            )
        time.sleep(PAUSE_S * 2**fruitless)


def _attempt(url: str, part: Path, start: int, progress: Progress | None) -> str | None:
    """Fetch what is missing from `start` on. Return why it broke off, None when the part is whole."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and start:
                if error.headers.get("Content-Range", "") == f"bytes */{start}":
                    return None  # nothing is missing
                part.unlink()
                return "the part at hand is longer than the file"
            if error.code >= 500 or error.code in (408, 429):
                return f"the server answers {error.code} {error.reason}"
            raise ConnectionError(f"cannot download {url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    with response:
        resumes = re.match(rf"bytes {start}-\d+/(\d+)$", response.headers.get("Content-Range", ""))
        if start and response.status == 206 and resumes:
            total: int | None = int(resumes[1])
        else:
            start = 0
            length = response.headers.get("Content-Length")
            total = int(length) if length and length.isdigit() else None
        with part.open("ab" if start else "wb") as sink:
            return _copy(response, sink, start, total, progress, what=f"downloading {url.rsplit('/', 1)[-1]}")


def _copy(
    response: IO[bytes], sink: IO[bytes], done: int, total: int | None, progress: Progress | None, *, what: str
) -> str | None:
    while True:
        try:
            chunk = response.read(CHUNK_BYTES)
        except (http.client.HTTPException, OSError) as error:
            return str(error) or type(error).__name__
        if not chunk:
            break
        sink.write(chunk)
        done += len(chunk)
        if progress:
            progress(what, done, total)
    if total is not None and done < total:
        return f"the connection broke after {done:,} of {total:,} bytes"
    return None


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
