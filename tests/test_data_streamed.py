"""Streamed sets: what is found without opening a file, what a run on one is."""

from __future__ import annotations

import builtins
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from streamed_fixture import write_jpegs
from test_resume import Silent, nothing

from srblock.data import ImageData, load, normalization
from srblock.data.image_files import ImageFiles
from srblock.executors.execute import Executor, run_study
from srblock.runs.evaluate import evaluate_run
from srblock.runs.records import read_result
from srblock.runs.run_one import Work
from srblock.runs.study import Study, describe_data, recipe_for
from srblock.variants.notation import parse

CPU = torch.device("cpu")
WORDNET = ("n01440764", "n01443537")


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file may be opened."""

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("opened a file")

    for owner, name in ((Image, "open"), (Path, "read_bytes"), (ImageFiles, "read"), (builtins, "open")):
        monkeypatch.setattr(owner, name, refuse)


def named(files: Any) -> list[str]:
    return [files.name(number) for number in range(len(files))]


def test_a_folder_is_streamed_on_demand(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    write_jpegs(tmp_path / "pets", each=3)
    request.getfixturevalue("sealed")
    data = load(f"stream:{tmp_path / 'pets'}")
    assert (data.name, data.classes, data.flip, data.streamed) == ("pets", ("cat", "dog"), True, True)
    assert (data.channels, data.size, data.train_size, data.test_size) == (3, (224, 224), 6, 6)
    assert data.train_labels.tolist() == data.test_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert named(data.train_images) == [f"train/{name}/0{n}.jpg" for name in ("cat", "dog") for n in range(3)]
    assert named(data.test_images) == [f"val/{name}/0{n}.jpg" for name in ("cat", "dog") for n in range(3)]
    assert data.train_images.shape == (6, 3, 224, 224)
    assert load(f"stream:{tmp_path / 'pets'}", image_size=64).size == (64, 64)


def test_without_test_folder_the_same_fifth_is_held_out_as_in_memory(tmp_path: Path) -> None:
    root = write_jpegs(tmp_path / "pets", parts=("",), each=10)
    data = load(f"stream:{root}", image_size=8)
    assert (data.train_size, data.test_size) == (16, 4)
    assert sorted(named(data.train_images) + named(data.test_images)) == sorted(
        str(file.relative_to(root)) for file in root.glob("*/*")
    )


def test_the_fingerprint_sees_names_labels_sizes_and_side_but_not_the_place(tmp_path: Path) -> None:
    root = write_jpegs(tmp_path / "pets", each=3)
    original = load(f"stream:{root}").fingerprint
    moved = Path(shutil.copytree(root, tmp_path / "elsewhere" / "animals"))
    assert load(f"stream:{moved}").fingerprint == original
    assert len(original) == 64
    seen = {original, load(f"stream:{root}", image_size=64).fingerprint}
    with (moved / "train/cat/00.jpg").open("ab") as file:
        file.write(b"x")
    seen.add(load(f"stream:{moved}").fingerprint)
    (moved / "val/dog/02.jpg").rename(moved / "val/dog/03.jpg")
    seen.add(load(f"stream:{moved}").fingerprint)
    for part in ("train", "val"):
        (moved / part / "dog").rename(moved / part / "eel")
    seen.add(load(f"stream:{moved}").fingerprint)
    (moved / "train/cat/01.jpg").rename(moved / "train/eel/01b.jpg")
    seen.add(load(f"stream:{moved}").fingerprint)
    assert len(seen) == 6


@pytest.mark.parametrize("name", ["Ä ö/ü.jpg", "a\udcff/b.jpg", "x/" + "long" * 40 + ".png"])
def test_names_of_all_kinds(tmp_path: Path, name: str) -> None:
    names = ["a.png", name, "c/d.gif"]
    files = ImageFiles.below(tmp_path, names, [1, 2, 3], 32)
    assert named(files) == names
    assert (len(files), files.shape) == (3, (3, 3, 32, 32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: (root / "train/cat/notes.txt").write_text("hello"),
            r"pets: 1 file of 13 cannot be images: train/cat/notes.txt \(no image by its name\); repair or remove",
        ),
        (
            lambda root: (root / "val/dog/9.jpg").write_bytes(b""),
            r"pets: 1 file of 13 cannot be images: val/dog/9.jpg \(empty file\); repair or remove them",
        ),
        (lambda root: (root / "val/cat").rename(root / "val/emu"), "1 class of train/ missing in val/: cat"),
        (lambda root: shutil.rmtree(root), "stream:.*pets does not exist; streamed images lie in folders"),
    ],
)
def test_what_shows_without_decoding_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    root = write_jpegs(tmp_path / "pets", each=3)
    change(root)
    with pytest.raises(ValueError, match=message):
        load(f"stream:{root}")


@pytest.mark.parametrize("source", ["stream", "imagenet"])
def test_a_path_to_a_folder_is_needed(tmp_path: Path, source: str) -> None:
    with pytest.raises(ValueError, match=f"{source} is read from a folder: write {source}:PATH"):
        load(source)
    (tmp_path / "pets.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"pets.zip is no folder; streamed images lie in folders, unpack archives"):
        load(f"{source}:{tmp_path / 'pets.zip'}")


# ImageNet


def test_imagenet(tmp_path: Path) -> None:
    root = write_jpegs(tmp_path / "ILSVRC", classes=WORDNET, each=2)
    (root / "test").mkdir()  # without labels, as it is published
    (root / "test" / "ILSVRC2012_test_00000001.JPEG").symlink_to(root / "nowhere")
    (root / "ILSVRC2012_img_train.tar").touch()
    os.truncate(root / "ILSVRC2012_img_train.tar", 2**29)  # as torchvision leaves it there
    data = load(f"imagenet:{root}")
    assert (data.name, data.classes, data.size) == ("imagenet", WORDNET, (224, 224))
    assert named(data.test_images)[0] == "val/n01440764/00.jpg"
    assert (
        data.fingerprint == load(f"imagenet:{root}").fingerprint != load(f"imagenet:{root}", image_size=64).fingerprint
    )


def flat_validation(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").mkdir()
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            flat_validation,
            "val/ has 0 class folders and 1 image beside them; expected one folder per class",
        ),
        (lambda root: shutil.rmtree(root / "train"), "train/ has 0 class folders and 0 images beside them"),
        (
            lambda root: (root / "train/stray.jpg").write_bytes(b"x"),
            "train/ has 2 class folders and 1 image beside them",
        ),
        (
            lambda root: (root / "train/n01440764").rename(root / "train/tench"),
            "1 folder not named by a WordNet id such as n01440764: train/tench; for other classes write stream:",
        ),
        (
            lambda root: (root / "val/n01440764").rename(root / "val/n99999999"),
            "1 class of train/ missing in val/: n01440764",
        ),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    root = write_jpegs(tmp_path / "ILSVRC", classes=WORDNET, each=2)
    change(root)
    with pytest.raises(ValueError, match=message):
        load(f"imagenet:{root}")


# What a study makes of it


def test_the_normalization_is_imagenet_s_and_recorded(tmp_path: Path) -> None:
    data = load(f"stream:{write_jpegs(tmp_path / 'pets', each=2)}", image_size=64)
    mean, std = normalization(data.train_images, torch.arange(2))
    assert (mean, std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    described = describe_data(data)
    assert (described["streamed"], described["mean"], described["std"]) == (True, list(mean), list(std))
    assert described["size"] == [3, 64, 64]
    in_memory = ImageData.build(
        "pets", train_images=torch.zeros(4, 3, 2, 2, dtype=torch.uint8), train_labels=torch.tensor([0, 0, 1, 1]),
        test_images=torch.zeros(2, 3, 2, 2, dtype=torch.uint8), test_labels=torch.tensor([0, 1]),
        classes=["a", "b"], flip=True,
    )  # fmt: skip
    assert not {"streamed", "mean", "std"} & set(describe_data(in_memory))


def test_recipes(tmp_path: Path) -> None:
    root = write_jpegs(tmp_path / "ILSVRC", classes=WORDNET, each=2)
    recipe = recipe_for(load(f"imagenet:{root}"), CPU)
    assert (recipe.epochs, recipe.crop, recipe.padding, recipe.test_resize, recipe.flip) == (
        450,
        "resized",
        0,
        256,
        True,
    )
    small = load(f"imagenet:{root}", image_size=112)
    assert recipe_for(small, CPU).test_resize == 128
    assert recipe_for(small, CPU, test_resize=150).test_resize == 150
    other = recipe_for(load(f"stream:{root}"), CPU)
    assert (other.crop, other.padding, other.test_resize) == ("padded", 28, None)
    assert recipe_for(load(f"stream:{root}"), CPU, crop="resized").padding == 0


def test_every_part_is_cut_as_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRBLOCK_WORKERS", "0")
    data = load(f"imagenet:{write_jpegs(tmp_path / 'ILSVRC', classes=WORDNET)}", image_size=32)
    recipe = recipe_for(data, CPU, test_square=True, validation_fraction=0.2)
    loaders = Study((), (0,), data, "", recipe).loaders(0, CPU)
    assert [part.images_per_epoch for part in (loaders.train, loaders.validation, loaders.test)] == [18, 4, 22]
    assert [part.crop for part in (loaders.train, loaders.validation, loaders.test)] == ["resized", "padded", "padded"]
    assert [part.flip for part in (loaders.train, loaders.validation, loaders.test)] == [True, False, False]
    for part in (loaders.validation, loaders.test):
        decoder = part._images._loader.dataset
        assert (decoder.random, decoder.resize, decoder.square) == (False, 37, True)


def test_a_study_trains_on_a_streamed_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRBLOCK_WORKERS", "1")
    root = write_jpegs(tmp_path / "ILSVRC", classes=WORDNET, each=40)
    source = f"imagenet:{root}"
    data = load(source, image_size=32)
    recipe = recipe_for(data, CPU, epochs=2, batch_size=8, learning_rate=0.02)
    study = Study((parse("R8"),), (0,), data, source, recipe, image_size=32)
    (run,) = run_study(Work(study, tmp_path / "out"), device=CPU, progress=Silent())
    first, last = (record["train_loss"] for record in run.metrics)
    assert last < first < np.log(2) * 2
    assert run.config.data["mean"] == [0.485, 0.456, 0.406]
    found = evaluate_run(run.directory, device=CPU)
    assert found.value == found.recorded


def decoders(model: Any, test: Any, *_: Any) -> dict[str, int]:
    """Inspect how many processes decode, in a worker."""
    return {"decoders": test._images.workers}


def test_runs_side_by_side_share_the_processes_that_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes its share, not all cores."""
    root = write_jpegs(tmp_path / "ILSVRC", classes=WORDNET)
    source = f"imagenet:{root}"
    data = load(source, image_size=32)
    recipe = recipe_for(data, CPU, epochs=1, batch_size=8, learning_rate=0.02, validation_fraction=0.2)
    monkeypatch.delenv("SRBLOCK_WORKERS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    study = Study((parse("R8"),), (0, 1), data, source, recipe, image_size=32)
    work = Work(study, tmp_path / "out", nothing, decoders)
    runs = run_study(work, device=CPU, progress=Silent(), executor=Executor(workers=2))
    assert [read_result(run.directory)["decoders"] for run in runs] == [1, 1]
