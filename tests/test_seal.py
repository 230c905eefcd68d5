"""A finished run that is found: what was changed since is not believed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_archive import edit
from test_resume import Silent, nothing, study

from srblock.executors.execute import run_study
from srblock.runs.evaluate import evaluate_run
from srblock.runs.record_file import pack_run
from srblock.runs.records import RunConfig, read_run
from srblock.runs.run_one import Work, reuse
from srblock.training.checkpoint import save_weights

CPU = torch.device("cpu")
WEIGHTS = "checkpoint.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch."""
    out = tmp_path_factory.mktemp("sealed")
    return run_study(Work(study(1), out, nothing, nothing), device=CPU, progress=Silent())[0].directory


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("srblock.runs.reopen.load_data", lambda source, image_size: study().data)
    return shutil.copytree(trained, tmp_path / "runs" / trained.name)


@pytest.fixture
def config() -> RunConfig:
    return study(1).runs[0]


def change_weights(folder: Path, value: float) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["fc.bias"][:] = torch.tensor([value, -value])
    save_weights(folder / WEIGHTS, weights)


def test_a_run_says_which_weights_it_has(folder: Path, config: RunConfig) -> None:
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert reuse(folder, config, None).checkpoint_sha256 == digest
    assert pack_run(folder)["result"]["checkpoint_sha256"] == digest


def test_other_weights_are_not_reused(folder: Path, config: RunConfig) -> None:
    change_weights(folder, 0.5)
    with pytest.raises(ValueError, match=r"is damaged \(checkpoint.safetensors is not the file .*; delete"):
        reuse(folder, config, None)


def test_a_run_of_before_is_taken_without_that(folder: Path, config: RunConfig) -> None:
    result = json.loads((folder / "result.json").read_text())
    del result["checkpoint_sha256"]
    (folder / "result.json").write_text(json.dumps(result))
    change_weights(folder, 0.5)
    assert reuse(folder, config, None).checkpoint_sha256 is None


def test_weights_that_are_gone_are_no_others(folder: Path, config: RunConfig) -> None:
    (folder / WEIGHTS).unlink()
    assert reuse(folder, config, None).score == read_run(folder).score


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_top1": 1e9}, r"test_top1 is 1000000000.0, expected a share in percent"),
        ({"test_top1": 77.0}, r"test_top1 is 77.0, expected \S+, as predictions.safetensors says"),
        ({"seed": 1}, r"result.json is of the run r8-d-s1-\w+, expected r8-d-s0-"),
        ({"best_epoch": 2}, r"best_epoch is 2, expected 1 to 1"),
        ({"validation_top1": 1.0}, r"validation_top1 is 1.0, expected \S+, as epoch 1 says"),
        ({"checkpoint_sha256": "0"}, r"checkpoint_sha256 is '0', expected 64 hexadecimal digits"),
    ],
)
def test_a_result_that_was_edited_is_not_reused(
    folder: Path, config: RunConfig, change: dict[str, Any], message: str
) -> None:
    edit(folder / "result.json", **change)
    with pytest.raises(ValueError, match=rf"the run in .* is damaged \(.*{message}"):
        reuse(folder, config, None)


def test_epochs_that_are_missing_are(folder: Path, config: RunConfig) -> None:
    (folder / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"is damaged \(the list of epochs is \[\], expected a record"):
        reuse(folder, config, None)


def test_a_study_goes_on_without_a_run_that_was_edited(trained: Path, tmp_path: Path) -> None:
    """An accuracy of a billion percent was published with status 0."""
    shutil.copytree(trained.parent, tmp_path / "runs")
    edit(tmp_path / "runs" / trained.name / "result.json", test_top1=1e9)
    failed = []

    class Watch(Silent):
        def failed(self, run: RunConfig, error: Exception) -> None:
            failed.append((run.name, str(error)))

    runs = run_study(Work(study(1), tmp_path, nothing, nothing), device=CPU, progress=Watch())
    assert [run.directory.name for run in runs] == [study(1).runs[1].name]
    ((name, text),) = failed
    assert name == trained.name
    assert "test_top1 is 1000000000.0" in text


def test_evaluating_other_weights_warns(folder: Path) -> None:
    assert evaluate_run(folder, device=CPU).value == read_run(folder).score
    change_weights(folder, 0.5)
    with pytest.warns(UserWarning, match=r"checkpoint.safetensors is not the file that the run was finished with"):
        evaluate_run(folder, device=CPU)


def test_evaluating_a_figure_that_was_edited_warns(folder: Path) -> None:
    (folder / "predictions.safetensors").unlink()
    edit(folder / "result.json", test_top1=77.0)
    with pytest.warns(UserWarning, match=r"test top-1 is \d+\.\d\d% now and 77\.00% in the record of "):
        evaluate_run(folder, device=CPU)


@pytest.mark.filterwarnings("ignore:.*is not the file that the run was finished with")
def test_weights_that_are_no_numbers_fail(folder: Path) -> None:
    change_weights(folder, float("nan"))
    with pytest.raises(ValueError, match=r"the test loss of .* became nan: its checkpoint.safetensors holds no usable"):
        evaluate_run(folder, device=CPU)
