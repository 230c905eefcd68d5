"""A published record: a finished run as one JSON file.

It holds what a run folder says in figures: what the run is, its result, what it ran on, and every epoch, unrounded. It
leaves out weights and recall figures, and where the data lay.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from srblock.runs.records import Run, RunConfig, read_result, read_run
from srblock.training.fields import is_text, read_json, require

FORMAT = "srblock-record-1"
FIELDS = ("format", "name", "date", "config", "result", "environment", "columns", "epochs", "sha256")
CONFIG = ("variant", "seed", "recipe", "data", "weights", "numerics")
CODE = "code"  # in the config of networks of a user's own
NAME = re.compile(r"[a-z0-9.-]{1,61}-s[0-9]{1,19}-[0-9a-f]{8}")  # it becomes the name of a file
DATA_NAME = 100  # characters, most: it becomes part of the names of files
LARGEST = 4_000_000  # bytes of a record; one of 450 epochs and 1,000 classes has 0.2 MB
PLACE = re.compile(r"(^|[\s:=\"'(])(~?/|[A-Za-z]:[\\/])|\\\\|file:")  # an absolute path, anywhere in a text

Record = dict[str, Any]


def pack_run(directory: Path) -> Record:
    """Turn a finished run folder into a record.

    The day is the one on which result.json was written, in UTC.

    Raises: FileNotFoundError if the run is not finished; ValueError if the folder is damaged, or if a figure names a
    place on this machine.
    """
    run = read_run(directory)
    result = read_result(directory)
    written = datetime.fromtimestamp((directory / "result.json").stat().st_mtime, UTC)
    rows = [_flat(metrics) for metrics in run.metrics]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    record: Record = {
        "format": FORMAT,
        "name": directory.name,
        "date": written.date().isoformat(),
        "config": {key: result.get(key) for key in CONFIG} | ({CODE: result[CODE]} if CODE in result else {}),
        "result": {key: value for key, value in result.items() if key not in (*CONFIG, CODE, "environment")},
        "environment": run.environment,
        "columns": columns,
        "epochs": [[row.get(column) for column in columns] for row in rows],
    }
    record["sha256"] = _digest(record)
    check(record, str(directory))
    return record


def read_record(path: Path) -> Record:
    """Read and check one record.

    Raises: ValueError as `check`, or if the file is no JSON or has another name than the run.
    """
    record = loads(path.read_bytes(), str(path))
    if path.stem != record["name"]:
        raise ValueError(f"{path} holds the run {record['name']}; a record is named after its run")
    return record


def check(record: Any, where: str) -> None:
    """Check that a record is whole, unchanged, of the run that its name says, and names no place on a machine.

    All that it says is in the range that `schema.check_run` knows, so that tables can be made of it.

    Raises: ValueError naming `where` and what is wrong.
    """
    try:
        _check(record, where)
    except KeyError as error:
        raise _damaged(where, f"it lacks {error}") from error


def _check(record: Any, where: str) -> None:
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{where} is no record of a run that this version knows ({FORMAT})")
    config = record.get("config")
    if not isinstance(config, dict):
        raise _damaged(where, "its config holds no fields")
    if set(record) != set(FIELDS) or set(config) - {CODE} != set(CONFIG):
        raise ValueError(f"{where}: a record has the fields {', '.join(FIELDS)}, and config {', '.join(CONFIG)}")
    try:
        run = RunConfig.from_dict(config)
    except ValueError as error:
        raise _damaged(where, error) from error
    if record["name"] != run.name or not NAME.fullmatch(run.name):
        raise ValueError(
            f"{where}: the name {record['name']} does not belong to its content, which is {run.name}; the record was "
            "changed or mixed up: take it from the run's folder again"
        )
    try:
        changed = record["sha256"] != _digest(record)
    except ValueError as error:  # of infinity, written as 1e999
        raise _damaged(where, error) from error
    if changed:
        raise ValueError(f"{where} was changed after it was made (its sha256 differs); take it from the run again")
    try:
        _check_form(record)
        as_run(record, Path(where))
    except ValueError as error:
        raise _damaged(where, error) from error
    data = run.data | {"classes": []}  # names of the data's own, free to look like anything
    for text in _texts(record | {"config": record["config"] | {"data": data}}):
        if PLACE.search(text):
            raise ValueError(f"{where} names a place on a machine ({text!r}); a published record must not")
    for text in _texts(record):
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
            raise ValueError(f"{where} has control characters or broken Unicode in {text!r}; tables cannot show it")


def _check_form(record: Record) -> None:
    """Check the parts of a record beside its config, as far as the schema of runs does not."""
    try:
        day = date.fromisoformat(record["date"]) if is_text(record["date"]) else None
    except ValueError:
        day = None
    require(day is not None, "date", record["date"], "a day such as 2026-11-25")
    columns, epochs, result = record["columns"], record["epochs"], record["result"]
    named = isinstance(columns, list) and all(map(is_text, columns)) and len(set(columns)) == len(columns)
    require(named, "columns", columns, "different names")
    rows = isinstance(epochs, list) and all(isinstance(row, list) and len(row) == len(columns) for row in epochs)
    require(rows, "epochs", epochs, f"rows of {len(columns)} figures")
    require(isinstance(result, dict), "result", result, "figures by name")
    again = sorted(set(result) & {*CONFIG, CODE, "environment"})
    require(not again, "result", again, "nothing that stands elsewhere in the record")
    name = record["config"]["data"]["name"]
    require(len(name.encode(errors="replace")) <= DATA_NAME, "data name", name, f"at most {DATA_NAME} bytes")


def _damaged(where: str, why: object) -> ValueError:
    return ValueError(f"{where} is damaged ({why}); take it from the run again")


def dumps(record: Record) -> str:
    """Write a record for people too: a line for each part, a line for each epoch."""
    lines = []
    for key, value in record.items():
        if key == "config":
            inner = ",\n".join(f"  {json.dumps(name)}: {_json(part)}" for name, part in value.items())
            text = f"{{\n{inner}\n }}"
        elif key == "epochs":
            text = "[\n" + ",\n".join(f"  {_json(epoch)}" for epoch in value) + "\n ]"
        else:
            text = _json(value)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def loads(data: bytes, where: str) -> Record:
    """Read what `dumps` wrote, and check it.

    Raises: ValueError as `check`, or if it is no JSON.
    """
    if len(data) > LARGEST:
        raise _damaged(where, f"it has {len(data):,} bytes, and a record {LARGEST:,} at most")
    try:
        record: Record = read_json(data)
    except ValueError as error:
        raise _damaged(where, error) from error
    check(record, where)
    return record


def as_run(record: Record, path: Path) -> Run:
    """Return the run that a record was made of, without recall figures."""
    result = record["config"] | record["result"] | {"environment": record["environment"]}
    metrics = [_nested(dict(zip(record["columns"], epoch, strict=True))) for epoch in record["epochs"]]
    return Run.from_result(path, result, metrics, {})


def _flat(metrics: dict[str, Any]) -> dict[str, Any]:
    """Put figures of the probe beside the others, as probe/NAME."""
    probe = {f"probe/{name}": value for name, value in metrics.get("probe", {}).items()}
    return {key: value for key, value in metrics.items() if key != "probe"} | probe


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    figures = {key: value for key, value in row.items() if value is not None}
    probe = {key.removeprefix("probe/"): figures.pop(key) for key in list(figures) if key.startswith("probe/")}
    return figures | {"probe": probe}


def same(record: Record, other: Record) -> bool:
    """Compare all but the day: a copied folder has the day of copying."""
    return all(record[field] == other[field] for field in FIELDS if field not in ("date", "sha256"))


def _digest(record: Record) -> str:
    whole = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(whole, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _texts(value: Any) -> Iterator[str]:
    """Find every text in a record, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from (*_texts(key), *_texts(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
