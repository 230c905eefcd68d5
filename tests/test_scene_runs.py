"""Runs on scenes from files to figures: recorded, tested again, stopped and resumed, refused where they cannot be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scene_fixture import write_camvid, write_cityscapes
from test_cli import invoke
from test_resume import Silent, contents

from srblock.data import SceneData, SceneLoader, load, load_scenes
from srblock.executors.execute import run_study
from srblock.runs.evaluate import evaluate_run
from srblock.runs.input import read_input
from srblock.runs.loaders import parts
from srblock.runs.records import Run, read_result
from srblock.runs.run_one import Paused, Work, train_one
from srblock.runs.study import Study, recipe_for
from srblock.training.recipe import Recipe
from srblock.variants.notation import parse

pytestmark = pytest.mark.usefixtures("decoded_here", "unpainted")

CPU = torch.device("cpu")
PLAIN, BLOCK = "FCN-R18", "FCN-R18 + SR(M=3, P=2)"
# Of nine scenes seven are trained on, in batches of 3, 3 and one that is left out: an epoch ends in mid-pass.
RECIPE = {"batch_size": 3, "crop_size": (32, 64), "epoch_steps": 3, "validation_fraction": 0.2, "precision": "float32"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cityscapes(tmp_path_factory.mktemp("scenes") / "cityscapes", {"train": 9, "val": 3})


@pytest.fixture(scope="module")
def data(root: Path) -> SceneData:
    return load_scenes(f"cityscapes:{root}")


def study(root: Path, data: SceneData, *variants: str, epochs: int = 2, **changes: Any) -> Study:
    recipe = recipe_for(data, CPU, "scenes", epochs, **(RECIPE | changes))
    return Study(tuple(map(parse, variants)), (0,), data, f"cityscapes:{root}", recipe)


@pytest.fixture(scope="module")
def finished(root: Path, data: SceneData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    """Both variants, left alone."""
    out = tmp_path_factory.mktemp("out")
    return out, run_study(Work(study(root, data, PLAIN, BLOCK), out), device=CPU, progress=Silent())


# --- what a run leaves -----------------------------------------------------------------------------------------------


def test_a_run_records_its_figures(data: SceneData, finished: tuple[Path, list[Run]]) -> None:
    labels = np.concatenate([data.test.decode(number)[1].ravel() for number in range(data.test_size)])
    counted = np.bincount(labels[labels != 255], minlength=19)
    assert (counted > 0).sum() == 5
    assert (labels == 255).any()
    for run in finished[1]:
        result = read_result(run.directory)
        confusion = np.array(result["confusion"])
        assert confusion.shape == (19, 19)
        assert confusion.sum(1).tolist() == counted.tolist(), "every labeled pixel once, at the size of its file"
        hits, union = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
        assert result["test_miou"] == pytest.approx(100 * (hits[union > 0] / union[union > 0]).mean())
        assert result["test_macc"] == pytest.approx(100 * (hits[counted > 0] / counted[counted > 0]).mean())
        assert run.figure.key == "miou"
        assert run.score == result["test_miou"]
        lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
        mious = [line["validation_miou"] for line in lines]
        assert result["best_epoch"] == 1 + mious.index(max(mious))
        assert result["validation_miou"] == max(mious)
        assert all(0 <= line[f"train_{key}"] <= 100 for line in lines for key in ("miou", "macc"))
        assert not [key for key in {*result, *lines[0]} if "top1" in key]


def test_the_block_is_looked_at(finished: tuple[Path, list[Run]]) -> None:
    plain, block = (read_result(run.directory) for run in finished[1])
    assert "controls" not in plain
    assert not (finished[1][0].directory / "recall.safetensors").exists()
    assert not [run for run in finished[1] if (run.directory / "predictions.safetensors").exists()]
    assert list(block["controls"]) == ["intact", "removed", "mean", "uniform", "shuffled", "largest", "flat"]
    for figures in block["controls"].values():
        assert figures.keys() == {"miou", "macc"}
    # In float32 without other views the test is the same pass again.
    assert block["controls"]["intact"] == {"miou": block["test_miou"], "macc": block["test_macc"]}
    recall = load_file(finished[1][1].directory / "recall.safetensors")
    assert {key: value.shape for key, value in recall.items()} == {
        "layer3/class_mean": (19, 2),
        "layer3/class_std": (19, 2),
        "layer3/mean": (2,),
        "layer3/std": (2,),
        "layer3/memory": (2, 4, 8),
    }
    there = ~np.isnan(recall["layer3/class_mean"]).any(1)
    assert there.sum() == 5, "the classes of the test part"
    assert recall["layer3/class_mean"][there].sum(1) == pytest.approx(1, abs=1e-5)
    hidden = parse(BLOCK).sr_blocks[0].options.hidden
    assert block["parameters"] - plain["parameters"] == 256 + 32 * hidden + 2 * hidden + 2 * 256 * 32, "Eq. 1 at 4x8"
    assert 0 < block["flops_per_image"] / plain["flops_per_image"] - 1 < 0.01


def test_the_weights_say_what_they_take(data: SceneData, finished: tuple[Path, list[Run]]) -> None:
    said = read_input(finished[1][1].directory / "checkpoint.safetensors")
    assert (said.task, said.size, said.scene_scale) == ("segmentation", (32, 64), 1.0)
    assert said.classes == data.classes
    assert said.mean == pytest.approx((0.485, 0.456, 0.406))


def test_a_finished_run_is_tested_again(finished: tuple[Path, list[Run]]) -> None:
    for run in finished[1]:
        again = evaluate_run(run.directory, device=CPU)
        assert again.figures[0][0].key == "miou"
        assert again.value == again.recorded == run.score
        assert again.loss == run.test_loss


def test_scenes_that_were_moved_are_the_same(tmp_path: Path, root: Path, finished: tuple[Path, list[Run]]) -> None:
    moved = shutil.copytree(root, tmp_path / "moved")
    run = finished[1][1]
    assert evaluate_run(run.directory, source=f"cityscapes:{moved}", device=CPU).value == run.score
    label = next(moved.glob("gtFine/val/*/*_labelIds.png"))
    label.write_bytes(label.read_bytes() + b"more")
    with pytest.warns(UserWarning, match="is not the data that the run was trained on"):
        evaluate_run(run.directory, source=f"cityscapes:{moved}", device=CPU)


def test_other_scenes_and_images_are_refused_in_a_test(tmp_path: Path, finished: tuple[Path, list[Run]]) -> None:
    folder = finished[1][0].directory
    for source in (f"camvid:{write_camvid(tmp_path / 'camvid')}", "digits"):
        with pytest.raises(ValueError, match="trained on 19 classes of 48x96 images"):
            evaluate_run(folder, source=source, device=CPU)


# --- stopped, resumed ------------------------------------------------------------------------------------------------


def everything(out: Path) -> dict[str, Any]:
    """All that a study leaves, without wall times, and what was recalled."""
    recalled = {file.parent.name: file.read_bytes() for file in out.glob("runs/*/recall.safetensors")}
    return contents(out) | {"recalled": recalled}


def stop_after(epoch: int) -> Callable[[dict[str, Any]], None]:
    def stop(record: dict[str, Any]) -> None:
        if record["epoch"] == epoch:
            raise Paused

    return stop


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
def test_a_stopped_run_goes_on_to_the_same_bits_with_other_workers(
    tmp_path: Path, root: Path, data: SceneData, finished: tuple[Path, list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(study(root, data, BLOCK), tmp_path)
    (config,) = work.study.runs
    assert train_one(work, config, CPU, on_epoch=stop_after(1)).ending == "paused"
    assert not (work.folder(config) / "result.json").exists()
    monkeypatch.setenv("SRBLOCK_WORKERS", "2")
    told: list[int] = []
    again = Work(study(root, data, BLOCK), tmp_path)
    assert train_one(again, config, CPU, on_epoch=lambda record: told.append(record["epoch"])).ending == "done"
    assert told == [1, 2]
    whole = everything(finished[0])
    name = config.name
    assert everything(tmp_path) == {name: whole[name], "recalled": whole["recalled"]}


# --- the parts of a set ----------------------------------------------------------------------------------------------


def test_without_a_validation_part_scenes_are_held_out(data: SceneData) -> None:
    assert data.validation is None
    recipe = recipe_for(data, CPU, "scenes", **RECIPE)
    kept, held = parts(data, recipe, 0)
    assert held is not None
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(9))
    assert len(held) == 2
    assert len({str(parts(data, recipe, seed)) for seed in range(4)}) > 1, "each seed holds out its own"
    loaders = Study((parse(PLAIN),), (0,), data, "", recipe).loaders(0, CPU)
    assert loaders.validation is not None
    assert (loaders.validation.images_per_epoch, loaders.test.images_per_epoch) == (2, 3)
    shown = list(loaders.validation.epoch(0))
    for number, (images, target) in zip(held.tolist(), shown, strict=True):
        assert images.shape == (1, 3, 48, 96)
        assert torch.equal(target[0], torch.from_numpy(data.train.decode(number)[1]).long())


def test_a_validation_part_of_the_sets_own_is_taken(tmp_path: Path) -> None:
    camvid = load_scenes(f"camvid:{write_camvid(tmp_path, {'train': 5, 'val': 3, 'test': 2})}")
    recipe = recipe_for(camvid, CPU, **RECIPE)
    loaders = Study((parse(PLAIN),), (0,), camvid, "", recipe).loaders(0, CPU)
    assert parts(camvid, recipe, 0)[0].tolist() == list(range(5)), "all of the training part is trained on"
    assert loaders.validation is not None
    assert camvid.validation is not None
    shown = [target[0] for _, target in loaders.validation.epoch(0)]
    expected = [torch.from_numpy(camvid.validation.decode(number)[1]).long() for number in range(3)]
    assert all(map(torch.equal, shown, expected))
    assert len(shown) == loaders.validation.images_per_epoch == 3


@pytest.mark.parametrize("own", [False, True])
def test_without_validation_there_is_none(tmp_path: Path, data: SceneData, own: bool) -> None:
    if own:
        data = load_scenes(f"camvid:{write_camvid(tmp_path, {'train': 5, 'val': 3, 'test': 2})}")
    recipe = recipe_for(data, CPU, "scenes", **(RECIPE | {"validation_fraction": 0.0}))
    loaders = Study((parse(PLAIN),), (0,), data, "", recipe).loaders(0, CPU)
    assert loaders.validation is None
    assert parts(data, recipe, 0)[0].tolist() == list(range(data.train_size))


# --- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "crop"),
    [
        ({}, (48, 96)),
        ({"scene_scale": 0.75}, (36, 72)),
        ({"scene_scale": 8.0}, (384, 768)),
        ({"crop_size": (32, 64)}, (32, 64)),
        ({"crop_size": (64, 128)}, (64, 128)),
    ],
)
def test_the_crop_is_no_larger_than_the_scenes_unless_asked(
    data: SceneData, given: dict[str, Any], crop: tuple[int, int]
) -> None:
    for name in ("auto", "scenes", "cityscapes"):
        assert recipe_for(data, CPU, name, **given).crop_size == crop


def test_the_recipe_follows_the_data(tmp_path: Path, data: SceneData) -> None:
    recipe = recipe_for(data, CPU)
    assert (recipe.epochs, recipe.epoch_steps, recipe.crop) == (10, 8000, "scene"), "the paper's for Cityscapes"
    assert not recipe.sync_batch_norm, "which a CPU has not"
    camvid = load_scenes(f"camvid:{write_camvid(tmp_path, {'train': 2, 'val': 1, 'test': 1})}")
    assert recipe_for(camvid, CPU).epoch_steps is None


def test_recipes_of_the_other_task_are_refused(data: SceneData) -> None:
    digits = load("digits")
    for name in ("cifar10", "imagenet", "short", "finetune", "airbench"):
        with pytest.raises(ValueError, match=f"class for every pixel; .* are cityscapes, scenes, got {name}"):
            recipe_for(data, CPU, name)
    for name in ("cityscapes", "scenes"):
        known = f"digits is images with one class each; .* short, finetune, airbench, got {name}"
        with pytest.raises(ValueError, match=known):
            recipe_for(digits, CPU, name)
    with pytest.raises(ValueError, match="got scenes with crop padded"):
        recipe_for(data, CPU, "scenes", crop="padded")
    with pytest.raises(ValueError, match="got short with crop scene"):
        recipe_for(digits, CPU, "short", crop="scene", crop_size=(8, 8))
    with pytest.raises(ValueError, match="crop_size must be"):
        recipe_for(digits, CPU, "short", crop_size=(8, 8))


def test_networks_of_the_other_task_are_refused(root: Path, data: SceneData) -> None:
    scenes = study(root, data, "R18")
    with pytest.raises(ValueError, match=r"R18 has one answer for an image, .* take a segmentation network"):
        scenes.build(parse("R18"), 0)
    digits = Study((parse(PLAIN),), (0,), load("digits"), "digits", Recipe())
    with pytest.raises(ValueError, match=r"FCN-R18 says of every pixel what it shows, and digits .* such as R18"):
        digits.build(parse(PLAIN), 0)


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((PLAIN, "--image-size", 64), "--image-size makes images square"),
        ((PLAIN, "--crop-size", "32"), "--crop-size must be height x width in pixels, such as 180x240, got 32"),
        ((PLAIN, "--crop-size", "0x64"), "crop_size must be (H, W) in pixels"),
        ((PLAIN, "--crop-size", "16x64"), "needs images of 32x32 or more, got 16x64"),
        ((PLAIN, "--tta", "flip+translate"), "tta for segmentation must be one of none, flip, multiscale"),
        ((PLAIN, "--inference", "half"), "inference must be one of slide, whole, got 'half'"),
        ((PLAIN, "--ratios", 2, 0.5), "ratios must be (low, high)"),
        ((PLAIN, "--class-share", 0), "class_share must be above 0"),
        ((PLAIN, "--padding", 8), "padding belongs to the crop padded and would do nothing here, got padding 8"),
        ((PLAIN, "--test-resize", 64), "test_resize belongs to images with one class each"),
        ((PLAIN, "--alternating-flip"), "alternating_flip belongs to images with one class each"),
        (("R8", "--data", "digits", "--scene-scale", 0.5), "scene_scale belongs to scenes"),
        ((PLAIN, "--scene-scale", 9), "scene_scale must be above 0 and at most 8"),
        ((PLAIN, "--recipe", "cifar10"), "recipes for those are cityscapes, scenes, got cifar10"),
        (("R18",), "take a segmentation network"),
        ((PLAIN, "--data", "digits"), "take a classification network"),
        (("R8", "--data", "digits", "--tta", "multiscale"), "tta for classification must be one of none, flip,"),
        (("R8", "--data", "digits", "--crop-size", "8x8"), "crop_size must be"),
    ],
)
def test_what_cannot_be_is_an_error_of_the_command(
    tmp_path: Path, root: Path, words: tuple[object, ...], message: str
) -> None:
    source = () if "--data" in words else ("--data", f"cityscapes:{root}")
    result = invoke("train", *words, *source, "--device", "cpu", "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not list(tmp_path.glob("out/runs/*")), "nothing is begun"


def test_a_command_takes_every_option_of_scenes(tmp_path: Path, root: Path) -> None:
    """The whole scene at once, at three quarters of its size, from both sides; then tested again."""
    out = tmp_path / "out"
    variant = "FCN-R18 + SR(M=3, P=2, resize=bilinear)"
    words = ["--crop-size", "32x48", "--scene-scale", 0.75, "--ratios", 0.75, 1.5, "--class-share", 0.9,
             "--no-photometric", "--inference", "whole", "--tta", "flip", "--batch-size", 4, "--recipe", "scenes",
             "--epochs", 1, "--precision", "float32"]  # fmt: skip
    result = invoke("train", variant, "--data", f"cityscapes:{root}", *words, "--device", "cpu", "--out", out)
    assert result.exit_code == 0, result.output
    assert "test mIoU" in result.output
    (folder,) = (out / "runs").iterdir()
    recipe = Recipe.from_dict(json.loads((folder / "config.json").read_text())["recipe"])
    changed = replace(
        recipe, crop_size=(32, 48), scene_scale=0.75, ratios=(0.75, 1.5), class_share=0.9, photometric=False,
        inference="whole", tta="flip",
    )  # fmt: skip
    assert recipe == changed
    found = read_result(folder)
    assert found["controls"]["intact"].keys() == {"miou", "macc"}
    assert np.array(found["confusion"]).sum() == 3 * 44 * 96, "at the labels' size, which is not scaled"
    again = invoke("evaluate", folder, "--device", "cpu")
    assert again.exit_code == 0, again.output
    assert f"test mIoU {found['test_miou']:.2f}% (recorded: {found['test_miou']:.2f}%)" in again.output


def test_a_memory_that_does_not_fit_the_whole_scene_fails_with_the_remedy(tmp_path: Path, root: Path) -> None:
    words = ["--crop-size", "32x64", "--inference", "whole", "--batch-size", 4, "--recipe", "scenes", "--epochs", 1]
    source = f"cityscapes:{root}"
    result = invoke("train", BLOCK, "--data", source, *words, "--device", "cpu", "--out", tmp_path / "out")
    assert result.exit_code != 0
    assert "bilinear" in result.output


def test_a_dry_run_plans_scenes_that_are_here_or_not(tmp_path: Path, root: Path) -> None:
    words = ["compare", PLAIN, BLOCK, "--recipe", "scenes", "--crop-size", "32x64", "--seeds", 3, "--dry-run",
             "--batch-size", 4, "--out", tmp_path / "out", "--device", "cpu"]  # fmt: skip
    for source, sizes in (
        (f"cityscapes:{root}", "9 training and 3 test"),
        ("cityscapes", "2,975 training and 500 test"),
    ):
        result = invoke(*words, "--data", source)
        assert result.exit_code == 0, result.output
        text = " ".join(result.output.split())
        assert sizes in text
        assert "6 runs" in text
    assert not list(tmp_path.iterdir())


def test_workers_are_asked_for_in_the_environment(root: Path, data: SceneData, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test of other workers above tests something."""
    for count in (0, 2):
        monkeypatch.setenv("SRBLOCK_WORKERS", str(count))
        loader = study(root, data, PLAIN).loaders(0, CPU).train
        assert isinstance(loader, SceneLoader)
        assert loader.workers == count
