"""Records that lie: whatever `results add` takes, `results tables` can show."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from run_fixture import write_run

from fuzz.bounds import Record, tries
from fuzz.mutations import mutated, spoiled
from srblock.report.published import write_tables
from srblock.runs.archive import add_records, write_archive
from srblock.runs.record_file import _digest, pack_run
from srblock.runs.records import RunConfig

RESULTS = Path(__file__).parents[2] / "results"
Records = list[dict[str, Any]]


def signed(record: Any) -> Any:
    """Give a changed record the name and the sum of its content, as far as it has one."""
    try:
        record["name"] = RunConfig.from_dict(record["config"]).name
        record["sha256"] = _digest(record)
    except (ValueError, TypeError, KeyError):
        pass
    return record


def pack(path: Path, record: Any) -> None:
    """Pack anything that JSON of Python's kind can say, infinity too."""
    text = json.dumps(record).encode()
    name = record.get("name") if isinstance(record, dict) else ""
    tape = io.BytesIO()
    with tarfile.open(fileobj=tape, mode="w") as tar:
        member = tarfile.TarInfo(f"{name if isinstance(name, str) and name.isprintable() else 'x'}.json"[-90:])
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    path.write_bytes(gzip.compress(tape.getvalue(), 1))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Records of fake runs, with the block and without, and published ones, two of scenes."""
    out = tmp_path_factory.mktemp("runs")
    controls = {name: {"top1": 98.0, "lost": 1, "gained": 0} for name in ("intact", "removed", "mean")}
    runs = [write_run(out, variant, 0, epochs=2, controls=controls) for variant in ("R8", "R8 + SR(M=3, P=8)")]
    names = ("fcn-r18-s0-63dbdeb5", "fcn-r18-sr-m3-p3-u32-s0-3e916e45", "airbench94-sr-m3-p8-s0-658abdc6")
    published = [json.loads((RESULTS / "records" / f"{name}.json").read_text()) for name in names]
    return [*(pack_run(run.directory) for run in runs), *published]


@pytest.fixture(scope="module")
def whole(records: Records, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results with records that are right: the runs that the drawn ones stand beside."""
    results = tmp_path_factory.mktemp("whole") / "results"
    (results / "records").mkdir(parents=True)
    archive = results.with_name("archive.tar.gz")
    write_archive(archive, records[:2])
    add_records(archive, results)
    return results


def test_a_forged_record_is_refused_or_shown(
    tmp_path: Path, records: Records, whole: Path, record_property: Record
) -> None:
    """One that has a fitting name and sum, as of an attacker."""
    draw = random.Random(0)
    refused, shown = 0, 0
    results, archive = tmp_path / "results", tmp_path / "archive.tar.gz"
    for _ in tries("record, forged", record_property):
        record, what = mutated(draw.choice(records), draw)
        pack(archive, signed(record))
        shutil.rmtree(results, ignore_errors=True)
        shutil.copytree(whole, results)
        try:
            add_records(archive, results)
        except ValueError:
            refused += 1
            continue
        except Exception as error:
            raise AssertionError(f"{what}: {error!r}") from error
        try:
            write_tables(results)
        except Exception as error:
            raise AssertionError(f"{what}: taken, and then {error!r}") from error
        shown += 1
    assert refused > shown > 0, "most changes are of something that counts"


def test_a_spoiled_archive_is_refused_or_whole(
    tmp_path: Path, records: Records, whole: Path, record_property: Record
) -> None:
    """Of flipped, cut and mixed bytes, packed or in the tape."""
    draw = random.Random(1)
    results, archive = tmp_path / "results", tmp_path / "archive.tar.gz"
    write_archive(archive, records[1:2])
    packed = archive.read_bytes()
    tape = gzip.decompress(packed)
    for _ in tries("archive of records", record_property):
        archive.write_bytes(spoiled(packed, draw) if draw.random() < 0.3 else gzip.compress(spoiled(tape, draw), 1))
        shutil.rmtree(results, ignore_errors=True)
        shutil.copytree(whole, results)
        try:
            added = add_records(archive, results)
        except ValueError as error:
            named = str(archive) in str(error)
        else:
            named = not added.added and added.known in ([], [records[1]["name"]])
        assert named, "the archive is named, and only what was there already can come of it"
