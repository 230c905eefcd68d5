"""How a run ended, and what an exception means for it and for the others."""

from __future__ import annotations

import errno
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from srblock.runs.log import add_to_log
from srblock.training.loop import TrainingDiverged

Ending = Literal["done", "busy", "paused", "diverged", "failed", "memory", "killed", "stop"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # what would end every other run as well
MEMORY_SIGNS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        ending: "done", found or made; "busy", another process is at it; "paused", to go on another time; "diverged";
            "failed" by an exception; out of "memory"; "killed" from outside; "stop" for what would end every other run
            as well.
        text: for people, apart from "done", "busy" and "paused".
        errno: of "stop".
        warnings: what a worker warned of, for the process that people look at.
    """

    ending: Ending
    text: str = ""
    errno: int = 0
    warnings: tuple[str, ...] = ()


def outcome_of(error: BaseException, directory: Path) -> Outcome:
    """Say what an exception means for the run and for the others."""
    if isinstance(error, TrainingDiverged):
        log = add_to_log(directory, f"{error}\n")
        return Outcome("diverged", f"{error}; see {log}")
    if isinstance(error, OSError) and error.errno in FULL:
        return Outcome("stop", error.strerror or str(error), error.errno or 0)
    log = add_to_log(directory, "".join(traceback.format_exception(error)))
    text = (str(error) or type(error).__name__).splitlines()[0]
    if _out_of_memory(error):
        return Outcome("memory", f"out of memory ({text}); use a smaller --batch-size or --image-size; see {log}")
    ours = isinstance(error, ValueError)  # whose messages say what came and what to do
    return Outcome("failed", f"{text if ours else f'{type(error).__name__}: {text}'}; see {log}")


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in MEMORY_SIGNS)
