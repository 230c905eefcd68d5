"""Looking into finished runs, by the command and from their folders."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from streamed_fixture import write_jpegs
from test_cli import error, invoke

from srblock.data import load_data
from srblock.runs import analyze as analyzing
from srblock.runs.analyze import CACHE, analyze_run
from srblock.runs.records import read_run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("out")
    words = ["compare", "R8", "R8 + SR(M=2, P=3) + SR(M=3, P=2)", "--data", "digits", "--epochs", 3, "--seeds", 1]
    assert invoke(*words, "--out", out).exit_code == 0
    return {str(read_run(folder).variant): folder for folder in sorted((out / "runs").iterdir())}


@pytest.fixture(scope="module")
def block(runs: dict[str, Path]) -> Path:
    return next(folder for variant, folder in runs.items() if "SR" in variant)


def test_the_command_writes_a_page_figures_and_numbers(block: Path) -> None:
    done = invoke("analyze", block, "--classes", "3,8")
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "No sign that the blocks" in text
    assert "mean over 1,293 training images" in text
    page = block / "analysis" / "analysis.html"
    assert "Inside R8 + SR(M=2, P=3) + SR(M=3, P=2)" in page.read_text()
    figures = {path.name for path in (page.parent / "figures").iterdir()}
    assert {"controls.svg", "layer2-memory.png", "layer3-attribution.svg"} <= figures
    with (page.parent / "controls.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) >= 6
    with (page.parent / "closeups.csv").open() as file:
        assert {"3", "8"} <= {value for line in csv.DictReader(file) for value in line.values()}


def test_the_run_records_what_looking_finds_again(block: Path) -> None:
    """What a run recorded at its end is what looking finds in its folder; but for the mean, of other images."""
    _, found, named = analyze_run(block, device=CPU)
    assert named == ("0", "4", "9")
    assert found.figures == read_run(block).test
    result = json.loads((block / "result.json").read_text())
    for one in found.blocks:
        recorded = result["recall"][one.name]
        assert recorded["change"] == pytest.approx(one.change)
        assert recorded["effective"] == pytest.approx(one.effective)
        assert one.information is not None
        assert recorded["bits"] == pytest.approx(one.information.bits)
    for control in found.controls:
        if control.name != "mean":
            then = result["controls"][control.name]
            assert control.figures["top1"] == then["top1"]
            assert (control.lost, control.gained) == (then["lost"], then["gained"])
    assert found.blocks[1].attribution is not None
    assert found.blocks[1].attribution.exact, "layer3 stands before global average pooling and the classifier"
    assert found.blocks[0].attribution is not None
    assert not found.blocks[0].attribution.exact


def test_the_mean_over_training_images_is_kept_for_these_weights(block: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block / CACHE).unlink(missing_ok=True)
    analyze_run(block, device=CPU)
    kept = load_file(block / CACHE)
    assert {name: tuple(weights.shape) for name, weights in kept.items()} == {"layer2": (3,), "layer3": (2,)}
    asked = []
    real = analyzing.mean_weights
    monkeypatch.setattr(analyzing, "mean_weights", lambda *args: asked.append(0) or real(*args))
    _, found, _ = analyze_run(block, device=CPU)
    assert not asked
    assert found.mean_over == 1293
    (block / CACHE).write_bytes(b"damaged")
    analyze_run(block, device=CPU)
    monkeypatch.setattr(analyzing, "MOST", 100)
    _, found, _ = analyze_run(block, device=CPU)
    assert len(asked) == 2
    assert found.mean_over == 100, "every 13th of 1293"


def test_images_of_a_class_can_be_limited_and_controls_left_out(block: Path) -> None:
    _, some, _ = analyze_run(block, device=CPU, per_class=2, with_controls=False)
    assert some.blocks[0].class_images.tolist() == [2] * 10
    assert (some.controls, some.mean_over, some.blocks[1].attribution) == ((), None, None)
    _, all_, _ = analyze_run(block, device=CPU, per_class=None, with_controls=False)
    assert all_.blocks[0].class_images.sum() == 359
    assert (all_.blocks[0].mean == some.blocks[0].mean).all(), "the mean stays that of all images"


@pytest.mark.usefixtures("unpainted")
def test_weights_alone_show_what_their_run_shows(block: Path, tmp_path: Path) -> None:
    weights = tmp_path / "taken.safetensors"
    shutil.copy(block / "checkpoint.safetensors", weights)
    _, there, _ = analyze_run(block, device=CPU)
    subject, here, _ = analyze_run(weights, source="digits", device=CPU)
    assert (subject.name, subject.best_epoch) == ("taken.safetensors", 0)
    assert here.figures == there.figures
    for one, other in zip(here.blocks, there.blocks, strict=True):
        np.testing.assert_allclose(one.class_mean, other.class_mean, atol=1e-6)
    for one, other in zip(here.controls, there.controls, strict=True):
        assert one == other or one.name == "mean", "which is over the validation part too"
    assert (there.mean_over, here.mean_over) == (1293, 1438)
    done = invoke("analyze", weights, "--data", "digits", "--no-controls")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "analysis" / "analysis.html").read_text()
    assert "Weights of srblock" in page
    assert not (tmp_path / CACHE).exists()


@pytest.mark.usefixtures("unpainted")
def test_the_page_is_of_the_data_that_was_looked_at(block: Path) -> None:
    """And not of that which the run was trained on, where these have the same classes."""
    data = load_data("digits")
    other = replace(data, name="others", test_images=255 - data.test_images)
    with pytest.warns(UserWarning, match="others is not the data that the run was trained on"):
        subject, _, _ = analyze_run(block, source=other, device=CPU, with_controls=False, per_class=1)
    assert subject.data == "others"


@pytest.mark.usefixtures("unpainted")
def test_images_of_other_classes_are_looked_at_without_accuracy(block: Path, tmp_path: Path) -> None:
    write_gray(tmp_path / "shades")
    for path in (block, block / "checkpoint.safetensors"):
        subject, found, named = analyze_run(path, source=str(tmp_path / "shades"), device=CPU)
        assert subject.classes == named == ("dark", "light")
        assert (found.figures, found.controls, found.mean_over) == ({}, (), None)
        assert found.images == 8
        for one in found.blocks:
            assert one.class_mean.shape == (2, len(one.mean))
            assert one.information is not None
            assert one.attribution is None
    done = invoke("analyze", block, "--data", tmp_path / "shades", "--out", tmp_path / "page")
    assert done.exit_code == 0, done.output
    assert "cannot be right or wrong on them" in " ".join(done.output.split())
    assert "These images have other classes" in (tmp_path / "page" / "analysis.html").read_text()


@pytest.mark.usefixtures("unpainted")
def test_a_class_with_a_comma_is_named_in_quotes(block: Path, tmp_path: Path) -> None:
    write_gray(tmp_path / "shades", ("dark, or black", "light"))
    out = tmp_path / "page"
    done = invoke("analyze", block, "--data", tmp_path / "shades", "--classes", '"dark, or black",light', "--out", out)
    assert done.exit_code == 0, done.output
    with (out / "closeups.csv").open() as file:
        assert {"dark, or black", "light"} == {line["title"] for line in csv.DictReader(file)}


def write_gray(root: Path, names: tuple[str, str] = ("dark", "light")) -> None:
    """Write 20 gray images of each of two classes."""
    random = np.random.default_rng(0)
    for name, low in zip(names, (0, 120), strict=True):
        (root / name).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(random.integers(low, low + 120, (8, 8), np.uint8)).save(root / name / f"{number}.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "3,eleven"], "there is no class 'eleven' in the data; there are 0, 1, 2"),
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--per-class", "-1"], "Must be >= 0"),
    ],
)
def test_wrong_input_is_one_clear_line(
    words: list[str], message: str, block: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = error(capsys, monkeypatch, "analyze", block, *words)
    assert text.startswith("error: ")
    assert message in text


def test_a_run_without_a_block_is_refused(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = error(capsys, monkeypatch, "analyze", runs["R8"])
    assert "R8 has no block to look into" in text
    assert "holds no finished run" in error(capsys, monkeypatch, "analyze", runs["R8"].parent)


def test_weights_alone_need_data_of_their_kind(
    block: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = block / "checkpoint.safetensors"
    assert "does not say where data is; name some with --data" in error(capsys, monkeypatch, "analyze", weights)
    write_jpegs(tmp_path / "pets", parts=("",))
    said = error(capsys, monkeypatch, "analyze", weights, "--data", tmp_path / "pets")
    assert "is for classification of images with 1 channels, and pets is for classification with 3" in said
