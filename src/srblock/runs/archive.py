"""Published records: a finished run as one JSON file, kept for good.

`results/records/NAME.json` holds what a run folder says in figures: what the run is, its result, what it ran on, and
every epoch, unrounded. It leaves out weights and recall figures, and where the data lay. Records are only ever added:
one that exists is never overwritten, and one that was changed, renamed or deleted by hand is missed when they are read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from srblock.runs.manifest import check_manifest, write_manifest
from srblock.runs.records import Run, RunConfig, finished, read_run
from srblock.training.files import write_bytes
from srblock.training.recipe import Recipe
from srblock.variants.notation import parse

FORMAT = "srblock-record-1"
FIELDS = ("format", "name", "date", "config", "result", "environment", "columns", "epochs", "sha256")
CONFIG = ("variant", "seed", "recipe", "data", "weights", "numerics")
PLACE = re.compile(r"(^|[\s:=\"'(])(~?/|[A-Za-z]:[\\/])|\\\\|file:")  # an absolute path, anywhere in a text

Record = dict[str, Any]


@dataclass(frozen=True)
class Added:
    """What adding came to.

    Attributes:
        added, known: names of the new records, and of those that were there already with the same content.
        unfinished: how many run folders hold no result and were left out.
    """

    added: list[str]
    known: list[str]
    unfinished: int


@dataclass(frozen=True)
class Packed:
    """What packing came to.

    Attributes:
        packed: names of the runs in the archive.
        unfinished: how many run folders hold no result and were left out.
    """

    packed: list[str]
    unfinished: int


def pack_run(directory: Path) -> Record:
    """Turn a finished run folder into a record.

    The day is the one on which result.json was written, in UTC.

    Raises: FileNotFoundError if the run is not finished; ValueError if the folder is damaged, or if a figure names a
    place on this machine.
    """
    run = read_run(directory)
    config = {key: run.result.get(key) for key in CONFIG}
    written = datetime.fromtimestamp((directory / "result.json").stat().st_mtime, UTC)
    rows = [_flat(metrics) for metrics in run.metrics]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    record: Record = {
        "format": FORMAT,
        "name": directory.name,
        "date": written.date().isoformat(),
        "config": config,
        "result": {key: value for key, value in run.result.items() if key not in (*CONFIG, "environment")},
        "environment": run.result["environment"],
        "columns": columns,
        "epochs": [[row.get(column) for column in columns] for row in rows],
    }
    record["sha256"] = _digest(record)
    check(record, str(directory))
    return record


def add_records(source: Path, results: Path) -> Added:
    """Add the finished runs of `source` to `results/records`: all that are new, or none if one cannot be added.

    Args:
        source: the `--out` of a study, a folder with run folders in `runs`; or an archive that `write_archive` made.

    Raises: ValueError if a record of the same name has other content, or as `pack_run` and `check_manifest`;
    FileNotFoundError if there is nothing to add from, or `results` is no folder of results; OSError if a file cannot be
    written.
    """
    folder = _records_folder(results)
    records, unfinished = _from_archive(source) if source.is_file() else _from_study(source)
    names = [f"{record['name']}.json" for record in records]
    listed = check_manifest(folder, names)
    added, known = [], []
    for record in records:
        path = folder / f"{record['name']}.json"
        if not path.exists():
            added.append(record)
        elif _same(record, read_record(path)):
            known.append(record["name"])
        else:
            raise ValueError(
                f"{path} exists with other content than {source} has for this run; records are never overwritten. "
                "If the old one is wrong, say so in LOG.md and raise NUMERICS, so that the new run has a new name"
            )
    for record in added:
        write_bytes(folder / f"{record['name']}.json", dumps(record).encode())
    write_manifest(folder, listed, names)
    return Added([record["name"] for record in added], known, unfinished)


def read_records(results: Path) -> list[Run]:
    """Read all records of `results/records`, by name, as runs that `report.comparison` takes (without recall figures).

    Raises: ValueError if a record is damaged, was changed, is missing, or came in without `add_records`;
    FileNotFoundError if `results` is no folder of results.
    """
    folder = _records_folder(results)
    runs = [_as_run(read_record(path), path) for path in sorted(folder.glob("*.json"))]
    check_manifest(folder)
    return runs


def read_record(path: Path) -> Record:
    """Read and check one record.

    Raises: ValueError as `check`, or if the file is no JSON or has another name than the run.
    """
    record = _loads(path.read_bytes(), str(path))
    if path.stem != record["name"]:
        raise ValueError(f"{path} holds the run {record['name']}; a record is named after its run")
    return record


def pack_study(out: Path, path: Path) -> Packed:
    """Pack the finished runs of a study's `--out` into an archive for `add_records`, to bring them elsewhere.

    Raises: ValueError if none is finished, or as `pack_run`; FileNotFoundError if there are no runs; OSError if the
    archive cannot be written.
    """
    records, unfinished = _from_study(out)
    if not records:
        raise ValueError(f"none of the {unfinished} runs in {out} is finished; give the command that made them again")
    write_archive(path, records)
    return Packed([record["name"] for record in records], unfinished)


def write_archive(path: Path, records: Sequence[Record]) -> int:
    """Pack records into one small tar.gz for `add_records`; return its size in bytes."""
    tape = io.BytesIO()
    with tarfile.open(fileobj=tape, mode="w") as tar:
        for record in records:
            text = dumps(record).encode()
            member = tarfile.TarInfo(f"{record['name']}.json")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    data = gzip.compress(tape.getvalue(), mtime=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
    return len(data)


def check(record: Any, where: str) -> None:
    """Check that a record is whole, unchanged, of the run that its name says, and names no place on a machine.

    Raises: ValueError naming `where` and what is wrong.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{where} is no record of a run that this version knows ({FORMAT})")
    if set(record) != set(FIELDS) or set(record["config"]) != set(CONFIG):
        raise ValueError(f"{where}: a record has the fields {', '.join(FIELDS)}, and config {', '.join(CONFIG)}")
    config = record["config"]
    recipe = Recipe.from_dict(config["recipe"])
    run = RunConfig(
        parse(config["variant"]), config["seed"], recipe, config["data"], config["weights"], config["numerics"]
    )
    if record["name"] != run.name:
        raise ValueError(
            f"{where}: the name {record['name']} does not belong to its content, which is {run.name}; the record was "
            "changed or mixed up: take it from the run's folder again"
        )
    if record["sha256"] != _digest(record):
        raise ValueError(f"{where} was changed after it was made (its sha256 differs); take it from the run again")
    if len(record["epochs"]) != recipe.epochs:
        raise ValueError(f"{where} has {len(record['epochs'])} epochs, its recipe {recipe.epochs}: not a whole run")
    data = config["data"] | {"classes": []}  # names of the data's own, free to look like anything
    for text in _texts(record | {"config": config | {"data": data}}):
        if PLACE.search(text):
            raise ValueError(f"{where} names a place on a machine ({text!r}); a published record must not")


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


def _loads(data: bytes, where: str) -> Record:
    try:
        record: Record = json.loads(data)
        check(record, where)
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{where} is damaged ({type(error).__name__}: {error}); take it from the run again") from error
    return record


def _records_folder(results: Path) -> Path:
    folder = results / "records"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{results} is no folder of results: it has no records/ in it. Name one that has, or make a new one: "
            f"mkdir -p {folder}"
        )
    return folder


def _from_study(out: Path) -> tuple[list[Record], int]:
    if not (out / "runs").is_dir():
        runs = next((folder for folder in (out.absolute(), out.absolute().parent) if folder.name == "runs"), None)
        remedy = f"name their --out, {runs.parent}" if runs else "name the --out of a study"
        raise FileNotFoundError(f"{out} holds no runs; {remedy}, or an archive of records")
    folders = sorted(folder for folder in (out / "runs").iterdir() if folder.is_dir())
    done = [folder for folder in folders if finished(folder)]
    return [pack_run(folder) for folder in done], len(folders) - len(done)


def _from_archive(path: Path) -> tuple[list[Record], int]:
    try:
        with tarfile.open(path, "r:gz") as tar:
            return [_loads(data, f"{name} in {path}") for name, data in _members(tar)], 0
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no whole archive of records ({error}); fetch it again") from error


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Read the files of an archive without unpacking it: a name in it never becomes a path."""
    for member in tar:
        file = tar.extractfile(member)
        if file is not None:
            yield member.name, file.read()


def _as_run(record: Record, path: Path) -> Run:
    result = record["config"] | record["result"] | {"environment": record["environment"]}
    metrics = [_nested(dict(zip(record["columns"], epoch, strict=True))) for epoch in record["epochs"]]
    return Run(path, result, metrics, {})


def _flat(metrics: dict[str, Any]) -> dict[str, Any]:
    """Put figures of the probe beside the others, as probe/NAME."""
    probe = {f"probe/{name}": value for name, value in metrics.get("probe", {}).items()}
    return {key: value for key, value in metrics.items() if key != "probe"} | probe


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    figures = {key: value for key, value in row.items() if value is not None}
    probe = {key.removeprefix("probe/"): figures.pop(key) for key in list(figures) if key.startswith("probe/")}
    return figures | {"probe": probe}


def _same(record: Record, other: Record) -> bool:
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
