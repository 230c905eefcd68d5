"""TensorBoard's event files of a run: the figures of every epoch, in the folder `tensorboard/` beside metrics.jsonl."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from srblock.training.loop import Record

FOLDER = "tensorboard"
PARTS = ("train", "validation")


def check_installed() -> None:
    """Refuse to write event files where TensorBoard is missing.

    Raises: ValueError.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            '--tensorboard needs TensorBoard, which is not installed here: pip install "srblock[tensorboard]"'
        )


def scalars(record: Record) -> dict[str, float]:
    """Name the figures of an epoch's record as TensorBoard groups them.

    "train_loss" is "train/loss", "validation_top1" "validation/top1", the probe's are under "probe/"; the times are
    "seconds/train" and "seconds/epoch", the rate is "lr".
    """
    found = {"lr": record["lr"], "seconds/train": record["train_seconds"], "seconds/epoch": record["seconds"]}
    for name, value in record.items():
        part, _, key = name.partition("_")
        if part in PARTS and name != "train_seconds":
            found[f"{part}/{key}"] = value
    return found | {f"probe/{name}": value for name, value in record.get("probe", {}).items()}


class Events:
    """Write event files of a run, which is told of all its epochs at every start.

    Those of an earlier start are removed with the first epoch that this one tells of, and a TensorBoard that shows them
    is told to forget them, so that each epoch stands there once, however often the run was interrupted.

    Raises: ValueError, from the first call on, as `check_installed`.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER
        self._writer: Any = None

    def __call__(self, record: Record) -> None:
        """Write an epoch, to be seen at once."""
        if self._writer is None:
            check_installed()
            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
            tensorboard = importlib.import_module("torch.utils.tensorboard")  # without types; an extra
            self._writer = tensorboard.SummaryWriter(str(self._folder), purge_step=record["epoch"])
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._writer is not None:
            self._writer.close()
