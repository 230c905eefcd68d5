"""Fixtures for all tests: real images where they are at hand, a cache folder of the tests' own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from srblock.report.svg import Plate

settings.register_profile("srblock", deadline=None, derandomize=True)
settings.load_profile("srblock")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests away from the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRBLOCK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _timed_for_a_moment() -> Iterator[None]:
    """Take less time over the times in a report: no test asks how exact they are."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("SECONDS", 0.2), ("TURN_S", 0.002), ("PATIENCE", 30.0)):
            patch.setattr(f"srblock.runs.side_by_side.{name}", value)
        yield


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing, which takes most of the time of a page, where a test reads words and numbers only."""
    for way, drawn in (("inline", ""), ("svg", ""), ("png", b"")):
        monkeypatch.setattr(Plate, way, lambda self, *_, drawn=drawn: drawn)


@pytest.fixture(scope="module")
def decoded_here() -> Iterator[None]:
    """Decode in this process: starting workers takes longer than all that small tests do with them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRBLOCK_WORKERS", "0")
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real images with its unpack.py, named by the environment."""
    folder = os.environ.get("SRBLOCK_DATA")
    if not folder:
        pytest.skip("needs real images: set SRBLOCK_DATA to the folder that holds them and unpack.py")
    return Path(folder)


@pytest.fixture(scope="session")
def cifar100_path(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of cifar-100-binary/ with the real CIFAR-100, unpacked once for all workers, removed by the last."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder, users = shared / "cifar100", shared / "cifar100-users"
    me = users / str(os.getpid())
    with FileLock(shared / "cifar100.lock"):
        if not folder.is_dir():
            fresh = shared / "cifar100-unpacking"
            command = [sys.executable, str(real_data / "unpack.py"), "cifar100", str(fresh)]
            subprocess.run(command, check=True, capture_output=True)
            fresh.rename(folder)
        users.mkdir(exist_ok=True)
        me.touch()
    yield folder
    with FileLock(shared / "cifar100.lock"):
        me.unlink()
        if not any(users.iterdir()):
            shutil.rmtree(folder)
