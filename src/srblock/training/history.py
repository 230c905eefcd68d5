"""What every epoch records, and whether a list of such records is what a run leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srblock.training.fields import is_number, is_percent, is_whole, require
from srblock.training.task import Figure

TIMES = ("train_seconds", "seconds")


def check_history(records: Any, figures: Sequence[Figure]) -> bool:
    """Check the records of epochs from the first on: consecutive, finite, figures in percent.

    Returns: whether there are validation figures, which all epochs have then or none.

    Raises: ValueError naming the epoch and the field, what came and what was expected.
    """
    require(isinstance(records, list) and bool(records), "the list of epochs", records, "a record for each epoch")
    validated = isinstance(records[0], dict) and f"validation_{figures[0].key}" in records[0]
    parts = ("train", "validation") if validated else ("train",)
    percent = [f"{part}_{figure.key}" for part in parts for figure in figures]
    for number, record in enumerate(records, 1):
        line = f"epoch {number}:"
        require(isinstance(record, dict), f"epoch {number}", record, "a record with fields")
        said = record.get("epoch")
        require(is_whole(said, number, number + 1), f"{line} its number", said, str(number))
        for key in (*percent, *(f"{part}_loss" for part in parts), *TIMES):
            require(key in record, f"{line} {key}", None, "a number")
        for key, value in record.items():
            if key == "probe":
                _check_probe(value, line)
            elif key in percent:
                require(is_percent(value), f"{line} {key}", value, "a share in percent, 0 to 100")
            else:
                require(is_number(value), f"{line} {key}", value, "a finite number")
                require(key not in TIMES or value >= 0, f"{line} {key}", value, "seconds, not below 0")
        if not validated:
            found = next((key for key in record if key.startswith("validation_")), "")
            require(not found, f"{line} {found}", record.get(found), "none, as the first epoch has none")
    return validated


def _check_probe(probe: object, line: str) -> None:
    require(isinstance(probe, dict), f"{line} probe", probe, "figures by name")
    assert isinstance(probe, dict)
    for key, value in probe.items():
        require(is_number(value), f"{line} probe {key}", value, "a finite number")
