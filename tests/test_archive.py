"""Published records: what enters one, what is refused, and that nothing is ever overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_fixture import BASELINE, WITH_SR, write_run, write_runs

from srblock.report.published import write_tables
from srblock.runs import archive, record_file
from srblock.runs.archive import add_records, pack_study, read_records, write_archive
from srblock.runs.record_file import dumps, pack_run, read_record
from srblock.runs.records import NUMERICS, RunConfig, read_run
from srblock.statistics.comparison import comparison


@pytest.fixture(autouse=True)
def _results(tmp_path: Path) -> None:
    (tmp_path / "results" / "records").mkdir(parents=True)


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; part__name is a field of a part."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        part, _, key = name.partition("__")
        if key:
            content[part][key] = value
        else:
            content[part] = value
    path.write_text(json.dumps(content))


def the_record(results: Path) -> Path:
    (path,) = (results / "records").glob("*.json")
    return path


def test_a_record_gives_the_run_back(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "out")
    added = add_records(tmp_path / "out", tmp_path / "results")
    assert sorted(added.added) == sorted(run.directory.name for run in runs)
    found = {run.directory.stem: run for run in read_records(tmp_path / "results")}
    for run in runs:
        again = found[run.directory.name]
        assert replace(again, directory=run.directory, recall=run.recall) == run
        assert again.metrics == run.metrics
        assert again.recall == {}
        assert read_run(run.directory).recall or not run.variant.sr_blocks  # there was something to leave out
    assert comparison(sorted(found.values(), key=lambda run: (run.seed, str(run.variant)))) == comparison(runs)


def test_adding_again_changes_nothing(tmp_path: Path) -> None:
    write_runs(tmp_path / "out")
    first = add_records(tmp_path / "out", tmp_path / "results")
    before = {path: path.read_bytes() for path in (tmp_path / "results" / "records").iterdir()}
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    for file in (tmp_path / "copy").rglob("result.json"):
        os.utime(file, (86_400, 86_400))  # as if copied on another day
    again = add_records(tmp_path / "copy", tmp_path / "results")
    assert again.added == []
    assert again.known == first.added
    assert {path: path.read_bytes() for path in (tmp_path / "results" / "records").iterdir()} == before


def test_a_record_with_other_content_is_never_overwritten(tmp_path: Path) -> None:
    write_run(tmp_path / "one", BASELINE, 1, test_top1=90.0)
    add_records(tmp_path / "one", tmp_path / "results")
    before = the_record(tmp_path / "results").read_bytes()
    write_run(tmp_path / "two", BASELINE, 0)
    write_run(tmp_path / "two", BASELINE, 1, test_top1=91.0)
    with pytest.raises(ValueError, match=r"s1-.*\.json exists with other content .* never overwritten"):
        add_records(tmp_path / "two", tmp_path / "results")
    assert the_record(tmp_path / "results").read_bytes() == before  # and the other run was not added either


def test_unfinished_runs_are_left_out_and_counted(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "out", seeds=(0, 1))
    (runs[2].directory / "result.json").unlink()
    added = add_records(tmp_path / "out", tmp_path / "results")
    assert len(added.added) == 3
    assert added.unfinished == 1
    assert runs[2].directory.name not in added.added


def test_nothing_to_add_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no runs; name the --out of a study"):
        add_records(tmp_path, tmp_path / "results")
    run = write_run(tmp_path / "out", BASELINE, 0)
    for folder in (run.directory.parent, run.directory):
        with pytest.raises(FileNotFoundError, match=rf"no runs; name their --out, {tmp_path / 'out'}, or"):
            add_records(folder, tmp_path / "results")


def test_a_folder_of_results_is_never_made_unasked(tmp_path: Path) -> None:
    write_run(tmp_path / "out", BASELINE, 0)
    for call in (lambda to: add_records(tmp_path / "out", to), read_records, write_tables):
        with pytest.raises(FileNotFoundError, match=rf"no folder of results.* mkdir -p {tmp_path}/typo/records"):
            call(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize(
    "place",
    ["/home/someone/data", "cifar100:/data/x", "~/data", r"C:\data", r"\\server\data", "killed, see /var/log/x"],
)
def test_a_figure_that_names_a_place_is_refused(tmp_path: Path, place: str) -> None:
    run = write_run(tmp_path / "out", BASELINE, 0)
    edit(run.directory / "result.json", environment__started_on={"log": place})
    with pytest.raises(ValueError, match="names a place on a machine"):
        add_records(tmp_path / "out", tmp_path / "results")
    assert list((tmp_path / "results" / "records").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "r8-s0-00000000"}, r"does not belong to its content, which is r8-s0-"),
        ({"config__seed": 7}, r"does not belong to its content, which is r8-s7-"),
        ({"config__variant": "R20"}, r"does not belong to its content, which is r20-s0-"),
        ({"result__test_top1": 99.9}, r"was changed after it was made"),
        ({"epochs": []}, r"was changed after it was made"),
        ({"date": "2020-01-01"}, r"was changed after it was made"),
        ({"format": "srblock-record-9"}, r"no record of a run that this version knows"),
        ({"remark": "best of many"}, r"has the fields format, name"),
        ({"config__numerics": 0}, r"does not belong to its content, which is r8-s0-"),
        ({"config": None}, r"is damaged"),
    ],
)
def test_a_changed_record_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_run(tmp_path / "out", BASELINE, 0)
    add_records(tmp_path / "out", tmp_path / "results")
    edit(the_record(tmp_path / "results"), **change)
    with pytest.raises(ValueError, match=message):
        read_records(tmp_path / "results")


def test_a_record_of_older_numerics_stays_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "out", BASELINE, 0)
    (name,) = add_records(tmp_path / "out", tmp_path / "results").added
    monkeypatch.setattr(RunConfig.__init__, "__defaults__", (None, NUMERICS + 1, None))  # code that was changed since
    write_run(tmp_path / "new", BASELINE, 0)
    (newer,) = add_records(tmp_path / "new", tmp_path / "results").added
    assert newer != name
    assert {run.config.numerics for run in read_records(tmp_path / "results")} == {NUMERICS, NUMERICS + 1}


def test_a_renamed_record_and_a_cut_one_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "out", BASELINE, 0)
    add_records(tmp_path / "out", tmp_path / "results")
    path = the_record(tmp_path / "results")
    other = path.rename(path.with_name("r8-s1-00000000.json"))
    with pytest.raises(ValueError, match="named after its run"):
        read_record(other)
    path.write_bytes(other.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged"):
        read_record(path)


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Three records in their folder, two with the block."""
    write_runs(tmp_path / "out", seeds=(0,))
    write_run(tmp_path / "out", WITH_SR, 1)
    add_records(tmp_path / "out", tmp_path / "results")
    return sorted((tmp_path / "results" / "records").glob("*.json"))


def test_the_list_of_records_is_what_sha256sum_reads(tmp_path: Path, three: list[Path]) -> None:
    lines = three[0].with_name("SHA256SUMS").read_text().splitlines()
    assert lines == [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in three]


def test_a_record_that_is_gone_is_missed(tmp_path: Path, three: list[Path]) -> None:
    three[1].unlink()
    for call in (read_records, lambda to: add_records(tmp_path / "out", to)):
        with pytest.raises(ValueError, match=rf"are missing: .*: {three[1].name}; take them from git again"):
            call(tmp_path / "results")


def test_a_record_that_was_forged_is_told(tmp_path: Path, three: list[Path]) -> None:
    """With a sum of its own that fits, which `check` cannot tell."""
    record = read_record(three[0])
    record["date"] = "2020-01-01"
    three[0].write_text(dumps(record | {"sha256": record_file._digest(record)}))
    with pytest.raises(ValueError, match=rf"were changed since: {three[0].name}; take them from git again"):
        read_records(tmp_path / "results")


def test_a_record_that_came_in_by_itself_is_told(tmp_path: Path, three: list[Path]) -> None:
    """The same call that could not write the list any more is not stopped by it."""
    whole = three[0].with_name("SHA256SUMS").read_text()
    three[0].with_name("SHA256SUMS").write_text("".join(whole.splitlines(keepends=True)[1:]))
    with pytest.raises(ValueError, match=rf"are not listed: {three[0].name}; move them away and add their runs"):
        read_records(tmp_path / "results")
    assert add_records(tmp_path / "out", tmp_path / "results").added == []
    assert three[0].with_name("SHA256SUMS").read_text() == whole


def test_a_list_that_is_gone_or_damaged_is_told(tmp_path: Path, three: list[Path]) -> None:
    manifest = three[0].with_name("SHA256SUMS")
    manifest.write_text(manifest.read_text() + "<<<<<<< ours\n")
    with pytest.raises(ValueError, match="SHA256SUMS, line 4: expected a SHA-256 and a name"):
        read_records(tmp_path / "results")
    manifest.unlink()
    with pytest.raises(ValueError, match=r"is not there, the list of the 3 records .*sha256sum \*.json > SHA256SUMS"):
        read_records(tmp_path / "results")


def test_a_record_older_than_a_recipe_field_is_read_with_its_default(tmp_path: Path) -> None:
    """Records made before a field existed compare with those made after."""
    run = write_run(tmp_path / "out", BASELINE, 0)
    for file in ("config.json", "result.json"):
        recipe = json.loads((run.directory / file).read_text())["recipe"]
        edit(run.directory / file, recipe={key: value for key, value in recipe.items() if key != "crop"})
    add_records(tmp_path / "out", tmp_path / "results")
    write_run(tmp_path / "new", BASELINE, 1)
    add_records(tmp_path / "new", tmp_path / "results")
    assert comparison(read_records(tmp_path / "results"))[0].n == 2


def test_an_archive_brings_records_back(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "out")
    write_archive(tmp_path / "back" / "records.tar.gz", [pack_run(run.directory) for run in runs])
    assert (tmp_path / "back" / "records.tar.gz").stat().st_size < 20_000
    added = add_records(tmp_path / "back" / "records.tar.gz", tmp_path / "results")
    assert sorted(added.added) == sorted(run.directory.name for run in runs)
    assert add_records(tmp_path / "out", tmp_path / "results").added == []  # the folders say the same


def test_a_study_is_packed_as_far_as_it_is_finished(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "out", seeds=(0, 1))
    (runs[2].directory / "result.json").unlink()
    packed = pack_study(tmp_path / "out", tmp_path / "new" / "back.tar.gz")
    assert packed == (sorted(runs[n].directory.name for n in (0, 1, 3)), 1)
    assert add_records(tmp_path / "new" / "back.tar.gz", tmp_path / "results").added == packed[0]
    for number in (0, 1, 3):
        (runs[number].directory / "result.json").unlink()
    with pytest.raises(ValueError, match=r"none of the 4 runs in .* is finished"):
        pack_study(tmp_path / "out", tmp_path / "none.tar.gz")
    assert not (tmp_path / "none.tar.gz").exists()


def test_an_archive_is_checked_like_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "out", BASELINE, 0)
    path = tmp_path / "records.tar.gz"
    write_archive(path, [pack_run(run.directory)])
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match="no whole archive of records"):
        add_records(path, tmp_path / "results")
    monkeypatch.setattr(archive, "dumps", lambda record: dumps(record | {"name": "../../escape"}))
    write_archive(path, [pack_run(run.directory)])
    with tarfile.open(path) as tar:
        assert tar.getnames() == [f"{run.directory.name}.json"]
    with pytest.raises(ValueError, match="does not belong to its content"):
        add_records(path, tmp_path / "results")
