"""Published records, `results/records/NAME.json`, kept for good, and archives that bring them there.

Records are only ever added: one that exists is never overwritten, and one that was changed, renamed or deleted by hand
is noticed when they are read.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from srblock.runs.manifest import check_manifest, write_manifest
from srblock.runs.record_file import LARGEST, Record, as_run, dumps, loads, pack_run, read_record, same
from srblock.runs.records import Run, RunConfig, check_of_one_make, finished
from srblock.training.files import write_bytes

MOST_RECORDS = 10_000  # in an archive
MOST_BYTES = 200_000_000  # of it, unpacked: a few kB to some tens of kB a record
SAME_DATA = ("task", "classes", "train", "test", "size")  # what a fingerprint stands for, but the name


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


def add_records(source: Path, results: Path) -> Added:
    """Add the finished runs of `source` to `results/records`: all that are new, or none if one cannot be added.

    Args:
        source: the `--out` of a study, a folder with run folders in `runs`; or an archive that `write_archive` made.

    Raises: ValueError if a record of the same name has other content, if records contradict each other, or as
    `pack_run` and `check_manifest`;
    FileNotFoundError if there is nothing to add from, or `results` is no folder of results; OSError if a file cannot be
    written.
    """
    records, unfinished = _from_archive(source) if source.is_file() else _from_study(source)
    folder = _records_folder(results)
    names = [f"{record['name']}.json" for record in records]
    if again := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"{source} has {', '.join(again)} more than once; a run has one record, leave out the other")
    listed = check_manifest(folder, names)
    added, known = [], []
    for record in records:
        path = folder / f"{record['name']}.json"
        if not path.exists():
            added.append(record)
        elif same(record, read_record(path)):
            known.append(record["name"])
        else:
            raise ValueError(
                f"{path} exists with other content than {source} has for this run; records are never overwritten. "
                "If the old one is wrong, say so in LOG.md and raise NUMERICS, so that the new run has a new name"
            )
    there = [as_run(read_record(path), path) for path in sorted(folder.glob("*.json"))]
    _check_together([*there, *(as_run(record, folder / f"{record['name']}.json") for record in added)])
    for record in added:
        write_bytes(folder / f"{record['name']}.json", dumps(record).encode())
    write_manifest(folder, listed, names)
    return Added([record["name"] for record in added], known, unfinished)


def read_records(results: Path) -> list[Run]:
    """Read all records of `results/records`, by name, as runs without recall figures.

    Raises: ValueError if a record is damaged, was changed, is missing, came in without `add_records`, or contradicts
    another one;
    FileNotFoundError if `results` is no folder of results.
    """
    folder = _records_folder(results)
    runs = [as_run(read_record(path), path) for path in sorted(folder.glob("*.json"))]
    check_manifest(folder)
    _check_together(runs)
    return runs


def pack_study(out: Path, path: Path) -> tuple[list[str], int]:
    """Pack the finished runs of a study's `--out` into an archive for `add_records`, to bring them elsewhere.

    Returns: the names of the runs in it, and how many run folders hold no result and were left out.

    Raises: ValueError if none is finished, or as `pack_run`; FileNotFoundError if there are no runs; OSError if the
    archive cannot be written.
    """
    records, unfinished = _from_study(out)
    if not records:
        raise ValueError(f"none of the {unfinished} runs in {out} is finished; give the command that made them again")
    write_archive(path, records)
    return [record["name"] for record in records], unfinished


def write_archive(path: Path, records: Sequence[Record]) -> None:
    """Pack records into one small tar.gz for `add_records`."""
    tape = io.BytesIO()
    with tarfile.open(fileobj=tape, mode="w") as tar:
        for record in records:
            text = dumps(record).encode()
            member = tarfile.TarInfo(f"{record['name']}.json")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, gzip.compress(tape.getvalue(), mtime=0))


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
    records = []
    for name, data in _members(path).items():
        record = loads(data, f"{name} in {path}")
        if Path(name).name != f"{record['name']}.json":
            raise ValueError(f"{name} in {path} holds the run {record['name']}; a record is named after its run")
        records.append(record)
    return records, 0


def _members(path: Path) -> dict[str, bytes]:
    """Read the files of an archive without unpacking it: a name in it never becomes a path.

    No more is read than an archive of records may have, whatever its headers say.
    """
    try:
        with gzip.open(path) as file:
            tape = file.read(MOST_BYTES + 1)
        if len(tape) > MOST_BYTES:
            raise _refused(path, f"unpacks to more than {MOST_BYTES:,} bytes")
        with tarfile.open(fileobj=io.BytesIO(tape), mode="r:") as tar:
            found: dict[str, bytes] = {}
            for member in tar:
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                    raise _refused(path, f"holds {member.name!r}, which is no regular file")
                if member.size > LARGEST:
                    raise _refused(path, f"holds {member.name!r} of {member.size:,} bytes, a record has {LARGEST:,}")
                if len(found) == MOST_RECORDS:
                    raise _refused(path, f"holds more than {MOST_RECORDS:,} files")
                if member.name in found:
                    raise _refused(path, f"holds two files with the name {member.name!r}")
                read = tar.extractfile(member)
                assert read is not None
                found[member.name] = read.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"{path} is no whole archive of records ({error}); fetch it again") from error
    return found


def _refused(path: Path, why: str) -> ValueError:
    return ValueError(f"{path} is no archive of records: it {why}; take one that srblock results pack made")


def _check_together(runs: Sequence[Run]) -> None:
    """Refuse records that contradict each other, of which no table can be made.

    Raises: ValueError naming two of them: one set of images with different facts, or one seed of a variant twice in a
    study; as `check_of_one_make` within a study.
    """
    facts: dict[str, tuple[str, Run]] = {}
    studies: dict[str, list[RunConfig]] = {}
    seen: dict[tuple[str, str, int], Run] = {}
    for run in runs:
        config = run.config
        fact = json.dumps([config.data.get(key) for key in SAME_DATA if key != "task"] + [run.figure.key])
        known, first = facts.setdefault(config.data["fingerprint"], (fact, run))
        if known != fact:
            raise ValueError(
                f"{run.directory.name} and {first.directory.name} are of the same images by their fingerprint, and say "
                f"different things of their {', '.join(SAME_DATA)}; one of them is wrong, leave it out"
            )
        studies.setdefault(config.study, []).append(config)
        other = seen.setdefault((config.study, str(run.variant), run.seed), run)
        if other is not run:
            raise ValueError(
                f"{run.directory.name} and {other.directory.name} are both {run.variant} with seed {run.seed} in one "
                "study, built by different code or from different weights; a study has one of them, leave the other out"
            )
    for configs in studies.values():
        check_of_one_make(configs)
