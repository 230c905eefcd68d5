"""Following runs of other processes through their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from srblock.executors.watch import Watch


def write(folder: Path, epochs: int) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"epoch": n + 1}) + "\n" for n in range(epochs)))


def test_each_epoch_is_told_once(tmp_path: Path) -> None:
    watch, told = Watch(), []
    for epochs in (0, 2, 2, 3, 5):
        write(tmp_path, epochs)
        told.append([record["epoch"] for record in watch.news(tmp_path)])
    assert told == [[], [1, 2], [], [3], [4, 5]]


def test_repeated_epochs_are_told_again(tmp_path: Path) -> None:
    """A killed run goes on from the last saved epoch, which may be earlier than the last recorded one."""
    watch = Watch()
    write(tmp_path, 4)
    watch.news(tmp_path)
    write(tmp_path, 2)
    assert watch.news(tmp_path) == []
    write(tmp_path, 3)
    assert watch.news(tmp_path) == [{"epoch": 3}]


@pytest.mark.parametrize("content", [None, b'{"epoch": 1}\n{"epo', b"\xff\xfe"])
def test_what_cannot_be_read_waits(content: bytes | None, tmp_path: Path) -> None:
    watch = Watch()
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
    assert watch.news(tmp_path) == []
    write(tmp_path, 1)
    assert watch.news(tmp_path) == [{"epoch": 1}]
