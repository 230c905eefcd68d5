"""Run folders edited by hand: one message that names the field, from every command that reads them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_fixture import BASELINE, WITH_SR, write_run, write_runs
from safetensors.numpy import load_file, save_file
from test_archive import edit
from test_compatibility import OLD_RUN

from srblock.report.blocks import block_views
from srblock.report.scenes import scene_views
from srblock.runs.evaluate import evaluate_run
from srblock.runs.records import read_run, read_scenes
from srblock.runs.trained import load_run

CPU = torch.device("cpu")
ANEW = "delete the folder to train it anew"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": 7}, "recipe is 7, expected fields by name"),
        ({"variant": 5}, "variant is 5, expected a text such as"),
        ({"data__classes": None}, "data classes is None, expected a list of names"),
        ({"data__size": [3, 32]}, r"data size is \[3, 32\], expected channels, height and width"),
        ({"data": []}, r"data is \[\], expected fields by name"),
        ({"environment": 3}, "environment is 3, expected fields by name"),
        ({"recipe__batch_size": "64"}, "recipe batch_size is '64', expected a whole number"),
        ({"recipe__crop": "scene"}, 'crop_size must be .* got None'),
        ({"controls": {"mean": 3}}, "controls is {'mean': 3}, expected numbers by name"),
        ({"parameters": 1.5}, "parameters is 1.5, expected a whole number"),
        ({"test_flops_per_image": 5}, "test_flops_per_image is 5, expected no such figure of this run"),
        ({"wall_s": -1}, "wall_s is -1, expected a number, not below 0"),
    ],
)  # fmt: skip
def test_a_result_names_the_field(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run = write_run(tmp_path, WITH_SR, 0)
    edit(run.directory / "result.json", **change)
    with pytest.raises(ValueError, match=rf"the run in .* is damaged \({message}.*\); {ANEW}"):
        read_run(run.directory)


@pytest.mark.parametrize("text", ['{"a": NaN}', "[" * 100_000, "7", '{"variant": "R8"}', '{"seed": 1e999}', ""])
def test_a_result_that_is_none_is_said(tmp_path: Path, text: str) -> None:
    run = write_run(tmp_path, BASELINE, 0)
    (run.directory / "result.json").write_text(text)
    with pytest.raises(ValueError, match=rf"the run in .* is damaged \(.*\); {ANEW}"):
        read_run(run.directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": 7}, "config.json: recipe is 7, expected fields by name"),
        ({"variant": 5}, "config.json: variant is 5, expected a text"),
        ({"data__classes": None}, "config.json: data classes is None"),
        ({"source": None}, "config.json: source is None, expected a text"),
        ({"image_size": "16"}, "config.json: image_size is '16', expected a side in pixels"),
        ({"image_size": 2**30}, r"config.json: image_size is 1073741824, expected a side of \[16, 16\]"),
        ({"seed": 1}, r"config.json: it is 'r8-sr-m2-p8-s1-\w+', expected r8-sr-m2-p8-s0-\w+, as result.json"),
    ],
)
def test_a_config_names_the_field(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = shutil.copytree(OLD_RUN, tmp_path / OLD_RUN.name)
    edit(folder / "config.json", **change)
    with pytest.raises(ValueError, match=rf"the run in .* is damaged \({message}.*\); {ANEW}"):
        evaluate_run(folder, device=CPU)


def test_a_study_with_a_config_that_was_edited_names_it(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, seeds=(0,))
    edit(runs[0].directory / "config.json", variant=5)
    with pytest.raises(ValueError, match=rf"the run in .* is damaged \(config.json: variant is 5.*\); {ANEW}"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"foreign": np.ones((2, 3), np.float32)}, r"recall.safetensors blocks is \['', 'layer3'\], expected layer3"),
        ({"layer3/mean": np.ones(3, np.float32)}, r"recall.safetensors layer3/mean is \(3,\), expected the shape"),
        ({"layer3/memory": np.ones((2, 2), np.float32)}, r"layer3/memory is \(2, 2\), expected \(P, H, W\)"),
        ({"layer3/memory": np.ones((5, 2, 2), np.float32)}, r"layer3/memory is \(5, 2, 2\), expected P of R8 \+ SR"),
        ({"layer3/std": np.full(8, np.nan, np.float32)}, r"layer3/std is 'not finite', expected finite numbers"),
        ({"layer3/std": np.ones(8, np.int64)}, r"layer3/std is dtype\('int64'\), expected floating-point numbers"),
        ({"layer3/std": None}, r"recall.safetensors is \['layer3/class_mean'"),
    ],
)  # fmt: skip
def test_recall_of_another_run_is_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run = write_run(tmp_path, WITH_SR, 0)
    file = run.directory / "recall.safetensors"
    found = load_file(file) | change
    save_file({key: value for key, value in found.items() if value is not None}, file)
    with pytest.raises(ValueError, match=rf"the run in .* is damaged \(.*{message}.*\); {ANEW}"):
        read_run(run.directory)


def test_seeds_with_other_blocks_are_told(tmp_path: Path) -> None:
    """Each is right by itself, and one page cannot show both."""
    runs = [write_run(tmp_path, WITH_SR, 0), write_run(tmp_path, WITH_SR, 1, size=(4, 4))]
    with pytest.raises(ValueError, match=r"recall.safetensors of .*-s1-\w+ has other blocks than that of .*-s0-"):
        block_views([(WITH_SR, runs)], list("0123456789"))


@pytest.mark.parametrize(
    ("said", "true", "message"),
    [
        (np.zeros(3, np.uint8), np.zeros(3, np.uint8), r"predictions is \(3,\), expected the shape \(360,\)"),
        (np.zeros(360, np.float32), np.zeros(360, np.uint8), r"predictions is dtype\('float32'\), expected whole"),
        (np.full(360, 10, np.uint8), np.zeros(360, np.uint8), r"predictions is 10, expected numbers of 10 classes"),
        (np.zeros(360, np.uint8), np.full(360, -1), r"labels is -1, expected numbers of 10 classes"),
        (np.zeros(360, np.uint8), np.ones(360, np.uint8), r"test_top1 is \S+, expected 0, as predictions.safetensors"),
    ],
)
def test_predictions_of_another_run_are_told(
    tmp_path: Path, said: np.ndarray[Any, Any], true: np.ndarray[Any, Any], message: str
) -> None:
    run = write_run(tmp_path, BASELINE, 0)
    save_file({"predictions": said, "labels": true}, run.directory / "predictions.safetensors")
    with pytest.raises(ValueError, match=rf"the run in .* is damaged \(.*{message}.*\); {ANEW}"):
        read_run(run.directory)


def test_scenes_of_other_shapes_are_told(tmp_path: Path) -> None:
    flat = np.zeros((4, 6), np.uint8)
    whole = {"0/image": np.zeros((3, 4, 6), np.uint8), "0/truth": flat, "0/said": flat.copy()}
    for change, message in (
        ({"0/said": flat[:2].copy()}, r"0/said is \(2, 6\), expected the shape \(4, 6\)"),
        ({"0/image": flat.copy()}, r"0/image is \(4, 6\), expected the shape \(3, 4, 6\)"),
        ({"1/truth": flat.copy()}, r"scene 1 is \['image', 'said'\], expected image, truth and said"),
        ({"x/truth": flat.copy()}, r"a scene is 'x', expected a number"),
        ({"0/said": flat.astype(np.float32)}, r"scene 0 is dtype\('float32'\), expected uint8"),
    ):
        save_file(whole | change, tmp_path / "scenes.safetensors")
        with pytest.raises(ValueError, match=rf"scenes.safetensors is damaged \({message}\); delete it"):
            read_scenes(tmp_path)
    save_file(whole, tmp_path / "scenes.safetensors")
    assert read_scenes(tmp_path).keys() == whole.keys()


def test_variants_with_other_scenes_are_told(tmp_path: Path) -> None:
    """Each is right by itself, and one picture cannot compare them."""
    runs = [write_run(tmp_path, BASELINE, 0), write_run(tmp_path, WITH_SR, 0)]
    for run, width in zip(runs, (6, 8), strict=True):
        flat = np.zeros((4, width), np.uint8)
        whole = {"0/image": np.zeros((3, 4, width), np.uint8), "0/truth": flat, "0/said": flat.copy()}
        save_file(whole, run.directory / "scenes.safetensors")
    groups = [(BASELINE, runs[:1]), (WITH_SR, runs[1:])]
    with pytest.raises(ValueError, match=r"of R8 \+ SR.* has scenes of \[\(4, 8\)\], that of R8 of \[\(4, 6\)\]"):
        scene_views(groups, [(0, 0, 0)])
