"""One run: how each ending is told, and what its log holds."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from test_resume import study
from torch import nn

from srblock.runs.outcome import Outcome
from srblock.runs.run_one import Paused, Work, train_one
from srblock.training.loop import TrainingDiverged

CPU = torch.device("cpu")


@pytest.fixture
def _warnings_are_shown() -> Iterator[None]:
    """As outside the tests, where they are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


class PanicException(BaseException):
    """As libraries in Rust raise it, when an allocation fails for example; Python can import theirs from nowhere."""


def train(out: Path, error: BaseException | None = None, **options: Any) -> Outcome:
    """Train a run of one epoch, which prints and warns, and raises if so told."""

    def probe(model: nn.Module) -> dict[str, float]:
        print("printed")
        print("printed as an error", file=sys.stderr)
        os.write(1, b"written by C code\n")
        warnings.warn("something is odd", stacklevel=1)
        if error is not None:
            raise error
        return {}

    work = Work(study(1), out, probe)
    return train_one(work, work.study.runs[0], CPU, **options)


def log(out: Path) -> Path:
    return out / "runs" / study(1).runs[0].name / "log.txt"


@pytest.mark.parametrize(
    ("error", "ending", "text"),
    [
        (TrainingDiverged("the loss became nan"), "diverged", "the loss became nan; see {log}"),
        (LookupError("not there\nat all"), "failed", "LookupError: not there; see {log}"),
        (ValueError("expected this, got that"), "failed", "expected this, got that; see {log}"),
        (PanicException("rust has nothing left"), "failed", "PanicException: rust has nothing left; see {log}"),
        (AssertionError(), "failed", "AssertionError: AssertionError; see {log}"),
        (PermissionError(errno.EACCES, "not yours"), "failed", "PermissionError: [Errno 13] not yours; see {log}"),
        (OSError(errno.ENOSPC, "cannot write x: disk full"), "stop", "cannot write x: disk full"),
        (OSError(errno.EDQUOT, "quota"), "stop", "quota"),
        (torch.OutOfMemoryError("CUDA out of memory."), "memory", "out of memory (CUDA out of memory.); use a smaller"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"), "memory", "out of memory (CUDA error"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "memory", "out of memory"),
        (MemoryError(), "memory", "out of memory (MemoryError); use a smaller --batch-size or --image-size; see {log}"),
        (RuntimeError("something else"), "failed", "RuntimeError: something else"),
    ],
)
def test_how_an_exception_is_told(error: BaseException, ending: str, text: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="something is odd"):
        outcome = train(tmp_path, error)
    assert outcome.ending == ending
    assert outcome.text.startswith(text.format(log=log(tmp_path)))
    assert outcome.errno == (getattr(error, "errno", None) if ending == "stop" else 0)
    assert log(tmp_path).exists() == (ending != "stop")
    if ending != "stop":
        assert log(tmp_path).read_text().rstrip().endswith(str(error))
        assert ("in probe" in log(tmp_path).read_text()) == (ending != "diverged"), "a whole traceback"


@pytest.mark.usefixtures("_warnings_are_shown")
def test_a_worker_s_output_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = train(tmp_path, log=True)
    assert outcome == Outcome("done", warnings=("something is odd",))
    assert capfd.readouterr() == ("", "")
    text = log(tmp_path).read_text()
    for said in ("printed\n", "printed as an error\n", "written by C code\n", "UserWarning: something is odd"):
        assert text.count(said) == 1
    print("heard again", flush=True)
    os.write(2, b"so is this")
    assert capfd.readouterr() == ("heard again\n", "so is this")


@pytest.mark.usefixtures("_warnings_are_shown")
def test_the_log_of_a_failure_grows(tmp_path: Path) -> None:
    for number in (1, 2):
        outcome = train(tmp_path, LookupError("gone"), log=True)
        assert (outcome.ending, outcome.warnings) == ("failed", ("something is odd",))
        assert log(tmp_path).read_text().count("Traceback") == number


def test_in_this_process_output_stays_and_there_is_no_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="something is odd"):
        assert train(tmp_path) == Outcome("done")
    assert capfd.readouterr().out.startswith(("printed\n", "written by C code\n"))
    assert not log(tmp_path).exists()


def test_a_log_that_cannot_be_written_hides_nothing(tmp_path: Path) -> None:
    log(tmp_path).mkdir(parents=True)
    with pytest.warns(UserWarning, match="something is odd"):
        assert train(tmp_path, LookupError("gone")).text.startswith("LookupError: gone")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.filterwarnings("ignore:something is odd")
def test_interruptions_are_no_outcome(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        train(tmp_path, error)
    with FileLock(log(tmp_path).with_name(".lock"), blocking=False):
        assert train(tmp_path).ending == "busy"
    assert train(tmp_path).ending == "done"


@pytest.mark.filterwarnings("ignore:something is odd")
def test_a_paused_run_is_saved_and_free_for_others(tmp_path: Path) -> None:
    def pause(record: object) -> None:
        raise Paused

    assert train(tmp_path, on_epoch=pause) == Outcome("paused")
    assert not log(tmp_path).exists()
    assert (log(tmp_path).parent / "trainer.safetensors").exists()
    assert train(tmp_path).ending == "done"


def test_a_damaged_state_is_told_of(tmp_path: Path) -> None:
    log(tmp_path).parent.mkdir(parents=True)
    (log(tmp_path).parent / "trainer.safetensors").write_bytes(b"?")
    outcome = train(tmp_path)
    assert outcome.ending == "failed"
    assert "trainer.safetensors cannot be read" in outcome.text
    assert "CheckpointError" not in outcome.text.partition(";")[0], "our messages need no name of a class"


def test_a_folder_that_cannot_be_made_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    assert "cannot make the folder" in train(tmp_path).text


def test_a_folder_where_the_lock_should_be_is_named(tmp_path: Path) -> None:
    folder = log(tmp_path).parent
    (folder / ".lock").mkdir(parents=True)
    outcome = train(tmp_path)
    assert outcome.ending == "failed"
    assert f"cannot lock {folder / '.lock'}: a folder is in the place of that file; move it away" in outcome.text


@pytest.mark.usefixtures("_warnings_are_shown")
def test_scrap_that_is_a_folder_ends_no_run(tmp_path: Path) -> None:
    (log(tmp_path).parent / ".config.json.1.tmp").mkdir(parents=True)
    assert train(tmp_path).ending == "done"
