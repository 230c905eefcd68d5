"""Training on all images: nothing is held out, the last epoch counts, and whatever shows such a result says so."""

import csv
import json
from pathlib import Path

import pytest
from test_cli import BLOCK, PLAIN, Result, error, invoke

from srblock.data import load
from srblock.runs.records import read_run


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("all")
    words = ["--data", "digits", "--epochs", 2, "--seeds", 2, "--validation-fraction", 0, "--out", out]
    result = invoke("compare", PLAIN, BLOCK, *words)
    assert result.exit_code == 0, result.output
    return out, result


def test_trains_on_every_image_and_takes_the_last_epoch(compared: tuple[Path, Result]) -> None:
    out, _ = compared
    runs = [read_run(folder) for folder in (out / "runs").iterdir()]
    assert len(runs) == 4
    images = load("digits").train_size
    for run in runs:
        assert (run.best_epoch, run.validation, run.validation_score) == (2, {}, None)
        assert run.score == run.last_score
        assert (run.eval_ms_per_image or 0) > 0
        for record in run.metrics:
            assert not [name for name in record if name.startswith("validation")]
            whole = record["train_top1"] / 100 * images
            assert abs(whole - round(whole)) < 1e-6, "a share of all images"


def test_the_terminal_says_so(compared: tuple[Path, Result]) -> None:
    text = " ".join(compared[1].output.split())
    assert text.count("epoch 2, the last; all images trained on, none held out") == 4
    assert "Test top-1 in percent of the last epoch, trained on all images, mean" in text


def test_the_page_says_so(compared: tuple[Path, Result]) -> None:
    page = next(compared[0].glob("compare-*/report.html")).read_text()
    assert "Test top-1 in percent of the last epoch, trained on all images, mean" in page
    assert "training images, none of them held out for validation" in page
    assert "Training top-1 and training loss by epoch" in page
    assert "Top-1 is on the images trained on, none was held out." in page
    assert "held out for validation by each seed" not in page
    assert "split" not in page.partition("How it was made")[0]


def test_the_csv_has_no_validation(compared: tuple[Path, Result]) -> None:
    with next(compared[0].glob("compare-*/results.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert not [name for name in rows[0] if "validation" in name]
    assert all(row["test_top1"] == row["last_test_top1"] and row["best_epoch"] == "2" for row in rows)


def test_published_tables_say_so(compared: tuple[Path, Result], tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    for words in (["add", compared[0], "--to", tmp_path], ["tables", tmp_path]):
        result = invoke("results", *words)
        assert result.exit_code == 0, result.output
    assert "of the last epoch, trained on all images, mean" in next(tmp_path.glob("tables/digits-*.md")).read_text()


def test_train_and_evaluate(tmp_path: Path) -> None:
    words = ["--data", "digits", "--epochs", 1, "--validation-fraction", 0, "--out", tmp_path]
    trained = invoke("train", PLAIN, *words)
    assert "(epoch 1, the last; all images trained on, none held out)" in trained.output
    folder = next((tmp_path / "runs").iterdir())
    tested = invoke("evaluate", folder)
    assert tested.exit_code == 0, tested.output
    assert f"{json.loads((folder / 'result.json').read_text())['test_top1']:.2f}% (recorded" in tested.output


def test_a_sweep_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = error(capsys, monkeypatch, "sweep", "R8 + SR(P={2,4})", "--validation-fraction", 0)
    assert "a sweep chooses on validation, got --validation-fraction 0; leave it out" in text
