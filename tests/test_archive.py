"""Published records: what enters one, what is refused, and that nothing is ever overwritten."""

from __future__ import annotations

import hashlib
import io
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

RESULTS = Path(__file__).parents[1] / "results"


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


def signed(record: dict[str, Any]) -> dict[str, Any]:
    """Sign a record that was changed, as an attacker does."""
    return record | {"sha256": record_file._digest(record)}


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "an accuracy beyond all": ({"result__test_top1": 1e9}, r"test_top1 is 1000000000.0, expected a share in percent"),
    "an accuracy below all": ({"result__last_test_top1": -1}, r"last_test_top1 is -1, expected a share in percent"),
    "no accuracy": ({"result__test_top1": None}, r"test_top1 is None, expected a share in percent"),
    "a text": ({"result__test_loss": "0.1"}, r"test_loss is '0.1', expected a finite number"),
    "an unknown figure": ({"result__test_top5": 99.0}, r"test_top5 is 99.0, expected no such figure"),
    "an epoch that was not": ({"result__best_epoch": 21}, r"best_epoch is 21, expected 1 to 20"),
    "another validation": (
        {"result__validation_top1": 99.9},
        r"validation_top1 is 99.9, expected .* as epoch",
    ),
    "another identity": (
        {"result__variant": "R20"},
        r"result is \['variant'\], expected nothing that",
    ),
    "no device": ({"environment": {"threads": 1}}, r"environment device is None, expected a text"),
    "no epochs": ({"epochs": []}, r"the list of epochs is \[\], expected a record for each epoch"),
    "no date": ({"date": "yesterday"}, r"date is 'yesterday', expected a day such as"),
    "controls of nothing": ({"result__controls": {"mean": {"top1": 9}}}, r"controls is \['mean'\], expected intact"),
    "a confusion of images": ({"result__confusion": [[1]]}, r"confusion is \[\[1\]\], expected 10 rows of 10 counts"),
    "a line break": ({"environment__device": "CPU\n\n# 100%"}, r"control characters or broken Unicode"),
    "half a character": ({"environment__device": "\ud800"}, r"control characters or broken Unicode"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_signed_lie_is_refused(tmp_path: Path, lie: str) -> None:
    """With a name and a sum that fit, it is refused for what it says."""
    changes, message = LIES[lie]
    run = write_run(tmp_path / "out", BASELINE, 0)
    file = tmp_path / "record.json"
    file.write_text(json.dumps(pack_run(run.directory)))
    edit(file, **changes)
    write_archive(tmp_path / "lie.tar.gz", [signed(json.loads(file.read_text()))])
    with pytest.raises(ValueError, match=rf"lie.tar.gz .*{message}"):
        add_records(tmp_path / "lie.tar.gz", tmp_path / "results")
    assert list((tmp_path / "results" / "records").iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", "a/../../evil", r"seed is 'a/../../evil', expected a whole number from 0"),
        ("seed", "7", r"seed is '7', expected a whole number"),
        ("seed", -1, r"seed is -1, expected a whole number"),
        ("seed", 2**63, r"seed is 9223372036854775808, expected"),
        ("seed", True, r"seed is True, expected"),
        ("variant", 5, r"variant is 5, expected a text such as"),
        ("recipe", 7, r"recipe is 7, expected fields by name"),
        ("recipe", {"epochs": 20.0}, r"recipe epochs is 20.0, expected a whole number"),
        ("recipe", {"flip": "no"}, r"recipe flip is 'no', expected true or false"),
        ("recipe", {"learning_rate": float("1e301")}, r"recipe learning_rate is 1e\+301, expected a number"),
        ("data", {"name": "digits"}, r"data fingerprint is None, expected a text"),
        ("code", [], r"code is \[\], expected texts by name"),
        ("numerics", "1", r"numerics is '1', expected a whole number"),
    ],
)
def test_an_identity_of_the_wrong_kind_is_refused(tmp_path: Path, field: str, value: Any, message: str) -> None:
    run = write_run(tmp_path / "out", BASELINE, 0)
    record = pack_run(run.directory)
    record["config"][field] = value
    write_archive(tmp_path / "lie.tar.gz", [signed(record)])
    with pytest.raises(ValueError, match=rf"lie.tar.gz is damaged \({message}.*; take it from the run again"):
        add_records(tmp_path / "lie.tar.gz", tmp_path / "results")


def test_every_published_record_is_taken(tmp_path: Path) -> None:
    records = [read_record(path) for path in sorted((RESULTS / "records").glob("*.json"))]
    write_archive(tmp_path / "all.tar.gz", records)
    assert len(add_records(tmp_path / "all.tar.gz", tmp_path / "results").added) == len(records) > 40


def test_records_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """Each by itself is right, and no table can be made of both."""
    records = [pack_run(run.directory) for run in write_runs(tmp_path / "out", seeds=(0,))]
    records[1]["config"]["data"]["classes"] = ["one"]
    write_archive(tmp_path / "two.tar.gz", [signed(record) for record in records])
    with pytest.raises(ValueError, match=r"are of the same images by their fingerprint, and say different things"):
        add_records(tmp_path / "two.tar.gz", tmp_path / "results")
    twice = [pack_run(run.directory) for run in write_runs(tmp_path / "again", (BASELINE,), seeds=(0,))]
    twice.append(json.loads(json.dumps(twice[0])))
    twice[1]["config"]["code"] = {"source": "0" * 64}
    twice[1]["name"] = RunConfig.from_dict(twice[1]["config"]).name
    write_archive(tmp_path / "two.tar.gz", [signed(record) for record in twice])
    with pytest.raises(ValueError, match=r"are both R8 with seed 0 in one study"):
        add_records(tmp_path / "two.tar.gz", tmp_path / "results")
    apart = [pack_run(run.directory) for run in write_runs(tmp_path / "apart", (BASELINE,), seeds=(0, 1))]
    apart[1]["config"]["code"] = {"source": "0" * 64}
    apart[1]["name"] = RunConfig.from_dict(apart[1]["config"]).name
    write_archive(tmp_path / "two.tar.gz", [signed(record) for record in apart])
    with pytest.raises(ValueError, match=r"R8 was built by different code for different runs"):
        add_records(tmp_path / "two.tar.gz", tmp_path / "results")
    assert list((tmp_path / "results" / "records").iterdir()) == []


def pack_members(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), "elsewhere" if kind == tarfile.SYMTYPE else ""
    return info, data


def test_an_archive_of_anything_else_than_records_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = pack_run(write_run(tmp_path / "out", BASELINE, 0).directory)
    name, text = f"{record['name']}.json", dumps(record).encode()
    path = tmp_path / "records.tar.gz"
    for members, message in (
        ([member(name, text), member(name, text)], rf"holds two files with the name '{name}'"),
        ([member(name, text), member(f"copy/{name}", text)], rf"has {name} more than once; a run has one record"),
        ([member("folder", kind=tarfile.DIRTYPE)], r"holds 'folder', which is no regular file"),
        ([member(name, kind=tarfile.SYMTYPE)], r"which is no regular file"),
        ([member(name, kind=tarfile.FIFOTYPE)], r"which is no regular file"),
        ([member("other.json", text)], r"other.json in .* holds the run r8-s0-\w+; a record is named after its run"),
        ([member(name, b" " * 4_000_001)], r"holds 'r8-.*' of 4,000,001 bytes, a record has 4,000,000"),
    ):
        pack_members(path, *members)
        with pytest.raises(ValueError, match=message):
            add_records(path, tmp_path / "results")
    with monkeypatch.context() as patch:
        patch.setattr(archive, "MOST_RECORDS", 1)
        pack_members(path, member(name, text), member("b.json", text))
        with pytest.raises(ValueError, match=r"holds more than 1 files"):
            add_records(path, tmp_path / "results")
    monkeypatch.setattr(archive, "MOST_BYTES", 10_000)
    pack_members(path, member(name, b" " * 20_000))
    with pytest.raises(ValueError, match=r"unpacks to more than 10,000 bytes; take one that srblock results pack made"):
        add_records(path, tmp_path / "results")
    assert list((tmp_path / "results" / "records").iterdir()) == []
