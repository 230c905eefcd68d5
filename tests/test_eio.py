"""A disk that fails at a read or a write costs at most the run that was at it: the same command ends with all bits."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz.bounds import MOST
from mishaps import Diary
from test_resume import Silent, contents, nothing, study

from srblock.executors.execute import run_study
from srblock.runs import arrays
from srblock.runs.run_one import Work
from srblock.training import checkpoint

CPU = torch.device("cpu")
EPOCHS = 2
LEAST = 50  # places; with SRBLOCK_FUZZ twice as many as without


@dataclass
class Disk:
    """Counts what is done to files of a folder, and fails at one of these places.

    Attributes:
        fails_at: the number of the place, from 0; None for a disk that is well.
        places: (file, what was done) of each place so far.
    """

    folder: Path
    fails_at: int | None = None
    places: list[tuple[str, str]] = field(default_factory=list)

    def strike(self, path: Any, what: str) -> None:
        """Note a place, and fail if it is the one."""
        if not isinstance(path, (str, Path)) or self.folder not in Path(path).parents or Path(path).name == ".lock":
            return
        name = Path(path).name.removeprefix(".").split(f".{os.getpid()}")[0]
        self.places.append((f"{Path(path).parent.name}/{name}", what))
        if len(self.places) - 1 == self.fails_at:
            raise OSError(errno.EIO, "Input/output error", str(path))


class File:
    """A file on such a disk."""

    def __init__(self, file: Any, path: Any, disk: Disk) -> None:
        self._file, self._path, self._disk = file, path, disk

    def write(self, data: Any) -> int:
        try:
            self._disk.strike(self._path, "write")
        except OSError:
            self._file.write(data[: len(data) // 2])  # as much of it is there
            raise
        return int(self._file.write(data))

    def writelines(self, pieces: Any) -> None:
        for piece in pieces:
            self.write(piece)

    def read(self, *size: int) -> Any:
        self._disk.strike(self._path, "read")
        return self._file.read(*size)

    def readinto(self, buffer: Any) -> int:
        self._disk.strike(self._path, "read")
        return int(self._file.readinto(buffer))

    def __iter__(self) -> Iterator[Any]:
        self._disk.strike(self._path, "read")
        return iter(self._file)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def failing(disk: Disk) -> Iterator[Disk]:
    """Let this process use the disk: by Python's files, and by the library that maps weights into memory."""
    open_file, sync, replace_file = io.open, os.fsync, os.replace
    opened: dict[int, Any] = {}

    def opening(path: Any, *args: Any, **kwargs: Any) -> Any:
        disk.strike(path, "open")
        file = open_file(path, *args, **kwargs)
        opened[file.fileno()] = path
        return File(file, path, disk)

    def syncing(number: int) -> None:
        disk.strike(opened.get(number), "fsync")
        sync(number)

    def replacing(source: Any, target: Any, **kwargs: Any) -> None:
        disk.strike(target, "replace")
        replace_file(source, target, **kwargs)

    def mapping(reader: Callable[..., Any]) -> Callable[..., Any]:
        def mapped(path: Any, *args: Any, **kwargs: Any) -> Any:
            disk.strike(path, "read")
            return reader(path, *args, **kwargs)

        return mapped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "open", opening)
        patch.setattr(os, "fsync", syncing)
        patch.setattr(os, "replace", replacing)
        patch.setattr(checkpoint, "safe_open", mapping(checkpoint.safe_open))
        patch.setattr(arrays, "load_file", mapping(arrays.load_file))
        yield disk


def go(out: Path, progress: Silent | None = None) -> None:
    run_study(Work(study(EPOCHS), out, nothing, nothing), device=CPU, progress=progress or Silent())


def results(out: Path) -> dict[Path, bytes]:
    return {path.relative_to(out): path.read_bytes() for path in out.glob("runs/*/result.json")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an undisturbed study leaves."""
    out = tmp_path_factory.mktemp("whole")
    go(out)
    return contents(out)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with its first run finished and its second after one epoch."""
    out, epochs = tmp_path_factory.mktemp("begun"), []

    class Stop(Silent):
        def epoch(self, run: Any, record: dict[str, Any]) -> None:
            epochs.append(record)
            if len(epochs) == EPOCHS + 1:
                raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        run_study(Work(study(EPOCHS), out, nothing, nothing), device=CPU, progress=Stop())
    assert len(results(out)) == 1
    return out


def chosen(places: list[tuple[str, str]]) -> list[int]:
    """Choose of each file and what is done to it the first time and the last."""
    numbers = defaultdict(list)
    for number, place in enumerate(places):
        numbers[place].append(number)
    return sorted({found[at] for found in numbers.values() for at in (0, -1)})


def test_a_failing_disk_loses_no_result_and_changes_no_bit(tmp_path: Path, whole: dict[str, Any], begun: Path) -> None:
    torch.set_num_threads(1)
    tried = []
    for first, start in enumerate((None, begun)):
        out = tmp_path / "counted"
        if start is not None:
            shutil.copytree(start, out)
        with failing(Disk(out)) as counted:
            go(out)
        shutil.rmtree(out)
        for number in chosen(counted.places) if MOST else chosen(counted.places)[first::2]:
            out = tmp_path / str(len(tried))
            if start is not None:
                shutil.copytree(start, out)
            before = results(out)
            diary = Diary()
            with failing(Disk(out, number)) as disk, suppress(OSError):  # the study may end by it
                go(out, diary)
            what = counted.places[number]
            assert disk.places[number] == what
            after = results(out)
            assert before.items() <= after.items(), what
            told = [text for kind, _, text in diary.entries if kind == "failed"]
            assert not any("delete" in text for text in told if "trainer" not in text), "whole files are no damage"
            go(out)
            assert after.items() <= results(out).items(), what
            for log in out.glob("runs/*/log.txt"):  # of the failure
                log.unlink()
            assert contents(out) == whole, what
            shutil.rmtree(out)
            tried.append(what)
    assert len(tried) >= LEAST
    assert {what for _, what in tried} == {"open", "read", "write", "fsync", "replace"}
    assert {name.rpartition("/")[2] for name, _ in tried} >= {
        "config.json", "metrics.jsonl", "trainer.safetensors", "checkpoint.safetensors", "predictions.safetensors",
        "result.json",
    }  # fmt: skip
    print(len(tried), "places")
