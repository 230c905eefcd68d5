"""Files are whole or not there, also when the disk is full."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from srblock.training.files import remove_scrap, write_bytes, write_json


def test_replaces_and_leaves_no_scrap(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=r"cannot write .*a\.bin: No space left on device.*same command again") as caught:
        write_bytes(path, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_an_interrupt_leaves_no_scrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a.bin", b"new")
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    for taken, path in ((f".a.bin.{os.getpid()}.tmp", "a.bin"), ("b.bin", "b.bin")):
        (tmp_path / taken).mkdir()
        with pytest.raises(OSError, match=rf"cannot write .*{path}: there is a folder .*/{taken} in its place; move"):
            write_bytes(tmp_path / path, b"new")


def test_scrap_of_the_dead_is_removed_and_of_the_living_not(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f".folder.{dead.pid}.tmp").mkdir()
    for name in (f".a.html.{dead.pid}.tmp", f".b.html.{os.getpid()}.tmp", ".old.1.tmp", ".hidden", "a.html"):
        (tmp_path / name).touch()
    os.utime(tmp_path / ".old.1.tmp", (0, 0))
    remove_scrap(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(
        [f".b.html.{os.getpid()}.tmp", f".folder.{dead.pid}.tmp", ".hidden", "a.html"]
    )


def test_json_holds_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []
