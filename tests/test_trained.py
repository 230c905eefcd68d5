"""A finished run in use: the loader's bits, the recorded figure, every image of a folder, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scene_fixture import write_camvid
from streamed_fixture import write_jpegs
from test_cli import error, invoke

import srblock
from srblock.data import ImageData, SceneData, load_data
from srblock.data.loading.preprocess import Preprocess, covering_box
from srblock.data.sources.files import opened
from srblock.data.sources.layout import read_layout
from srblock.runs.input import describe_input
from srblock.runs.predict import predict_files
from srblock.runs.study import Study, recipe_for
from srblock.runs.trained import preprocess_for
from srblock.variants.notation import parse

pytestmark = pytest.mark.usefixtures("decoded_here")

CPU = torch.device("cpu")
PLAIN, BLOCK = "R8", "R8 + SR(M=2, P=3)"


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jpegs(tmp_path_factory.mktemp("images") / "pets")


@pytest.fixture(scope="module")
def studied(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants, two seeds, on images of several sizes."""
    out = tmp_path_factory.mktemp("studied")
    words = ["--data", pets, "--image-size", 16, "--epochs", 4, "--batch-size", 8, "--validation-fraction", 0.2]
    assert invoke("compare", PLAIN, BLOCK, *words, "--seeds", 2, "--tta", "flip", "--out", out).exit_code == 0
    return out


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on scenes at another scale than theirs, and the scenes."""
    root = write_camvid(tmp_path_factory.mktemp("scenes") / "camvid")
    out = tmp_path_factory.mktemp("segmented")
    words = [
        "--data",
        f"camvid:{root}",
        "--crop-size",
        "32x32",
        "--scene-scale",
        0.75,
        "--batch-size",
        3,
        "--epochs",
        2,
    ]
    assert invoke("train", "FCN-R18 + SR(M=3, P=2)", *words, "--out", out).exit_code == 0
    return out, root


def run_folder(out: Path, words: str) -> Path:
    return next((out / "runs").glob(f"{words}*"))


def read_table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


# --- preprocessing ---------------------------------------------------------------------------------------------------


def served(data: ImageData | SceneData, source: str, **changes: object) -> tuple[Preprocess, list[torch.Tensor]]:
    """Return what is made from the words of a run's input, and the batches of its loader."""
    network = "FCN-R18" if data.task == "segmentation" else PLAIN
    recipe = recipe_for(data, CPU, epochs=1, **changes)
    study = Study((parse(network),), (0,), data, source, recipe)
    test = study.loaders(0, CPU).test
    said = describe_input(study.variants[0], data, recipe, test)
    return preprocess_for(said, CPU), [images for images, _ in test.epoch(0)]


@pytest.mark.parametrize("changes", [{}, {"test_resize": 20}, {"test_resize": 20, "test_square": True}])
@pytest.mark.parametrize("kind", ["", "stream:"])
def test_files_come_to_the_loaders_bits(pets: Path, kind: str, changes: dict[str, object]) -> None:
    """JPEGs of several sizes, turned by Exif data or not, once decoded in memory, once streamed."""
    source = f"{kind}{pets}"
    preprocess, batches = served(load_data(source, image_size=16), source, **changes)
    with opened(pets) as files:
        images = [Image.open(pets / name) for name, _ in read_layout(files).test]
    assert len({image.size for image in images}) > 5
    assert torch.equal(preprocess(images), torch.cat(batches))
    assert preprocess(images).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("changes", [{}, {"test_resize": 9}])
def test_tensors_come_to_the_loaders_bits(changes: dict[str, object]) -> None:
    data = load_data("digits")
    preprocess, batches = served(data, "digits", **changes)
    assert isinstance(data, ImageData)
    assert torch.equal(preprocess(data.test_images), torch.cat(batches))
    assert torch.equal(preprocess(list(data.test_images)), torch.cat(batches))
    assert torch.equal(preprocess(data.test_images[3]), batches[0][3:4])
    pictures = [Image.fromarray(image[0].numpy()) for image in data.test_images[:9]]
    assert torch.equal(preprocess(pictures), batches[0][:9])


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_scenes_come_to_the_loaders_bits(tmp_path: Path, scale: float) -> None:
    root = write_camvid(tmp_path / "camvid")
    source = f"camvid:{root}"
    preprocess, batches = served(load_data(source), source, scene_scale=scale, crop_size=(32, 32))
    for file, batch in zip(sorted((root / "test").iterdir()), batches, strict=True):
        image = Image.open(file)
        assert torch.equal(preprocess(image), batch)
        assert torch.equal(preprocess(torch.from_numpy(np.array(image)).permute(2, 0, 1)), batch)


def test_kinds_of_images_are_read_as_files_of_them_are() -> None:
    preprocess = Preprocess(channels=3, size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))
    gray = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    assert torch.equal((preprocess(gray)[0, 1] * 255).round(), torch.arange(64.0).view(8, 8))
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    assert torch.equal(preprocess(clear), torch.ones(1, 3, 8, 8)), "transparency is white"
    one = Preprocess(channels=1, size=(8, 8), mean=(0,), std=(1,))
    deep = Image.fromarray((np.arange(64, dtype=np.uint16) * 256 + 7).reshape(8, 8))
    assert torch.equal((one(deep)[0, 0] * 255).round(), torch.arange(64.0).view(8, 8)), "16 bits by their high byte"
    turned = Image.fromarray(np.zeros((4, 8), np.uint8))
    turned.getexif()[0x0112] = 6
    assert Preprocess(channels=1, size=(8, 4), mean=(0,), std=(1,))(turned).shape == (1, 1, 8, 4)


def test_an_image_of_another_shape_covers_the_networks() -> None:
    assert covering_box(10, 20, (5, 5)) == (0, 5, 10, 10)
    assert covering_box(20, 10, (5, 5)) == (5, 0, 10, 10)
    assert covering_box(12, 10, (4, 8)) == (3.5, 0, 5, 10)
    assert covering_box(9, 30, (4, 8)) == (0, 6, 9, 18)
    preprocess = Preprocess(channels=1, size=(4, 8), mean=(0,), std=(1,))
    wide = torch.zeros(1, 4, 12, dtype=torch.uint8)
    wide[:, :, 2:10] = 255
    assert torch.equal(preprocess(wide), torch.ones(1, 1, 4, 8))


def test_what_is_no_image_is_refused() -> None:
    preprocess = Preprocess(channels=3, size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(TypeError, match=r"expected an image of Pillow or uint8 \(C, H, W\), got ndarray; an array"):
        preprocess([np.zeros((8, 8, 3), np.uint8)])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"expected uint8 .* got torch.float32 \(3, 8, 8\)"):
        preprocess(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match=r"expected images of 3 channels .* got \(1, 8, 8\)"):
        preprocess(torch.zeros(1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="floating-point pixels"):
        preprocess(Image.fromarray(np.zeros((8, 8), np.float32)))
    whole = Preprocess(channels=3, size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1), scale=0.5)
    with pytest.raises(ValueError, match=r"several sizes \(4x4 and 5x4\) make no batch"):
        whole([Image.new("RGB", (8, 8)), Image.new("RGB", (8, 10))])
    assert preprocess([]).shape == (0, 3, 8, 8)


# --- load_run --------------------------------------------------------------------------------------------------------


def test_a_loaded_run_gives_the_recorded_figure(studied: Path, pets: Path, tmp_path: Path) -> None:
    """From the folder, from the weights alone, and of a study by variant and seed; over both sides of each image."""
    folder = run_folder(studied, "r8-sr-m2-p3-s1")
    alone = tmp_path / "weights.safetensors"
    shutil.copy(folder / "checkpoint.safetensors", alone)
    with opened(pets) as files:
        test = read_layout(files).test
    for loaded in (
        srblock.load_run(folder),
        srblock.load_run(str(alone), device="cpu"),
        srblock.load_run(studied, variant="R8+SR(M=2,P=3)", seed=1),
        srblock.load_run(folder.parent, variant=BLOCK, seed=1),
    ):
        assert (loaded.variant, loaded.classes, loaded.input.tta) == (BLOCK, ("cat", "dog"), "flip")
        assert not loaded.model.training
        assert list(srblock.blocks(loaded.model)) == ["layer2"]
        found = loaded.predict([Image.open(pets / name) for name, _ in test], top=1)
        hits = [p.classes[0] == loaded.classes[label] for p, (_, label) in zip(found, test, strict=True)]
        assert 100 * sum(hits) / len(hits) == pytest.approx(
            json.loads((folder / "result.json").read_text())["test_top1"]
        )


def test_predictions_are_sorted_and_sum_to_one(studied: Path, pets: Path) -> None:
    loaded = srblock.load_run(run_folder(studied, "r8-s0"))
    images = [Image.open(file) for file in sorted((pets / "val" / "cat").iterdir())] * 4  # more than a batch
    found = loaded.predict(images)
    assert len(found) == 44
    for one in found:
        assert sorted(one.classes) == ["cat", "dog"]
        assert one.shares[0] >= one.shares[1]
        assert sum(one.shares) == pytest.approx(1, abs=1e-6)
    single = loaded.predict(images[2], top=1)
    assert len(single) == 1
    assert single[0].classes == found[2].classes[:1]
    assert str(single[0]) == f"{found[2].classes[0]} {100 * found[2].shares[0]:.1f}%"
    with pytest.raises(ValueError, match="top of at least 1 class, got 0"):
        loaded.predict(images, top=0)


def test_a_study_says_which_runs_there_are(studied: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"4 runs in .* fit; name variant and seed, .* 'R8', seed 0 \(r8-s0-"):
        srblock.load_run(studied)
    with pytest.raises(ValueError, match=r"2 runs in .* fit.*'R8', seed 0 .*'R8', seed 1"):
        srblock.load_run(studied, variant="R8")
    with pytest.raises(ValueError, match=r"no finished run in .* is R20, seed 1; there are 'R8', seed 0"):
        srblock.load_run(studied, variant="R20", seed=1)
    with pytest.raises(ValueError, match=r"is any variant, seed 3; there are 'R8', seed 0 \(r8-s0-\w+\)$"):
        srblock.load_run(run_folder(studied, "r8-s0"), seed=3)
    file = run_folder(studied, "r8-s0") / "checkpoint.safetensors"
    for choice in ({"variant": "R20"}, {"seed": 1}):
        with pytest.raises(ValueError, match="is one network's file, and variant and seed choose among a study's"):
            srblock.load_run(file, **choice)
    with pytest.raises(FileNotFoundError, match=r"there is no run .*nowhere; give a run's folder"):
        srblock.load_run(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"is no run, and no study with finished runs"):
        srblock.load_run(tmp_path)


def test_an_unfinished_run_is_refused_and_left_out(studied: Path, tmp_path: Path) -> None:
    shutil.copytree(studied / "runs", tmp_path / "runs")
    for name in ("r8-s0", "r8-s1", "r8-sr-m2-p3-s0"):
        (run_folder(tmp_path, name) / "result.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no finished run \(no result.json\); train it to the end"):
        srblock.load_run(run_folder(tmp_path, "r8-s0"))
    assert srblock.load_run(tmp_path).variant == BLOCK
    (run_folder(tmp_path, "r8-sr-m2-p3-s1") / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"damaged \(config.json"):
        srblock.load_run(tmp_path)


def test_headers_that_say_less_are_read_by_what_is_beside_them(studied: Path, tmp_path: Path) -> None:
    """The first headers lacked how the network was tested, and whether it was streamed."""
    folder = run_folder(studied, "r8-s0")
    weights = folder / "checkpoint.safetensors"
    with safe_open(weights, framework="pt") as file:
        said = json.loads(file.metadata()["input"])
    for name in ("streamed", "tta", "inference", "colors"):
        del said[name]
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "result.json").write_text("{}")
    save_file(load_file(weights), tmp_path / "checkpoint.safetensors", {"input": json.dumps(said)})
    found = srblock.load_run(tmp_path)
    assert (found.input.tta, found.input.streamed) == ("flip", False)
    (tmp_path / "config.json").unlink()
    assert srblock.load_run(tmp_path / "checkpoint.safetensors").input.tta == "none"
    said |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    save_file(load_file(weights), tmp_path / "checkpoint.safetensors", {"input": json.dumps(said)})
    assert srblock.load_run(tmp_path / "checkpoint.safetensors").input.streamed


def test_weights_that_do_not_fit_are_refused(studied: Path, tmp_path: Path) -> None:
    weights = run_folder(studied, "r8-s0") / "checkpoint.safetensors"
    with safe_open(weights, framework="pt") as file:
        header = file.metadata()
    state = load_file(weights)
    state.pop("fc.bias")
    save_file(state, tmp_path / "w.safetensors", header)
    with pytest.raises(ValueError, match=r"(?s)w.safetensors does not fit R8: .*fc.bias"):
        srblock.load_run(tmp_path / "w.safetensors")


def test_every_pixel_of_a_scene_gets_a_class(scenes: tuple[Path, Path]) -> None:
    """At the scene's own size, with the recorded confusion of the whole test part."""
    out, root = scenes
    folder = run_folder(out, "fcn-r18")
    loaded = srblock.load_run(folder)
    data = load_data(f"camvid:{root}")
    assert isinstance(data, SceneData)
    confusion = torch.zeros(11, 11, dtype=torch.int64)
    for number in range(len(data.test)):
        image, classes = data.test.pair(number)
        (found,) = loaded.predict(image, top=2)
        assert found.pixels is not None
        assert (found.pixels.dtype, tuple(found.pixels.shape)) == (torch.uint8, (image.height, image.width))
        assert found.shares[0] == pytest.approx((found.pixels == loaded.classes.index(found.classes[0])).float().mean())
        counted = torch.from_numpy(classes) != 255
        pairs = torch.from_numpy(classes)[counted].long() * 11 + found.pixels[counted].long()
        confusion += torch.bincount(pairs, minlength=121).view(11, 11)
    assert confusion.tolist() == json.loads((folder / "result.json").read_text())["confusion"]


def test_a_scene_on_its_side_is_seen_upright(scenes: tuple[Path, Path]) -> None:
    """As a phone stores a photo that was taken with it held upright."""
    out, root = scenes
    loaded = srblock.load_run(run_folder(out, "fcn-r18"))
    data = load_data(f"camvid:{root}")
    assert isinstance(data, SceneData)
    image, _ = data.test.pair(0)
    stored = image.transpose(Image.Transpose.ROTATE_90)
    stored.getexif()[0x0112] = 6
    (seen,), (expected,) = loaded.predict(stored), loaded.predict(image)
    assert seen.pixels is not None
    assert expected.pixels is not None
    assert torch.equal(seen.pixels, expected.pixels)


def test_a_network_in_training_is_asked_in_evaluation(studied: Path, pets: Path) -> None:
    """Its batch norms would take the batch's statistics, and move."""
    loaded = srblock.load_run(run_folder(studied, "r8-s0"))
    images = [Image.open(path) for path in sorted((pets / "val" / "dog").iterdir())[:4]]
    expected = loaded.predict(images)
    state = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    loaded.model.train()
    loaded.model.bn1.eval()
    assert loaded.predict(images) == expected
    assert all(torch.equal(value, state[name]) for name, value in loaded.model.state_dict().items())
    assert loaded.model.training
    assert not loaded.model.bn1.training


# --- srblock predict -------------------------------------------------------------------------------------------------


def test_predict_names_files_folders_and_zips(studied: Path, pets: Path, tmp_path: Path) -> None:
    folder = run_folder(studied, "r8-s0")
    packed = tmp_path / "more.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(pets / "val" / "dog" / "00.jpg", "inside/dog.jpg")
        archive.writestr("inside/notes.txt", "no image")
    table = tmp_path / "said.csv"
    done = invoke(
        "predict", folder, pets / "val", pets / "train" / "cat" / "03.jpg", packed, "--csv", table, "--top", 1
    )
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert len(lines) == 24
    rows = read_table(table)
    assert [f"{row['file']}: {row['class_1']} {100 * float(row['share_1']):.1f}%" for row in rows] == lines
    assert list(rows[0]) == ["file", "error", "class_1", "share_1"]
    assert [row["file"] for row in rows[-2:]] == [
        str(pets / "train" / "cat" / "03.jpg"),
        str(packed / "inside" / "dog.jpg"),
    ]
    expected = srblock.load_run(folder).predict(Image.open(pets / "val" / "dog" / "00.jpg"), top=1)[0]
    assert lines[-1] == f"{packed / 'inside' / 'dog.jpg'}: {expected}"


def test_files_that_are_no_images_by_their_names_are_said(studied: Path, pets: Path, tmp_path: Path) -> None:
    for name in ("a.jfif", "b.JPE", "phone.heic", "scan", "notes.txt"):
        shutil.copy(pets / "val" / "dog" / "00.jpg", tmp_path / name)
    with pytest.warns(UserWarning, match=r"left out, by their names no images: phone.heic, scan$"):
        found = list(predict_files(srblock.load_run(run_folder(studied, "r8-s0")), [tmp_path]))
    assert [Path(name).name for name, _ in found] == ["a.jfif", "b.JPE"]


def test_a_broken_file_is_a_line_and_the_others_are_done(studied: Path, pets: Path, tmp_path: Path) -> None:
    good = (pets / "val" / "cat" / "00.jpg").read_bytes()
    for name, content in (("a.jpg", good), ("b.jpg", good[:300]), ("c.jpg", b""), ("d.png", b"words"), ("e.jpg", good)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty").mkdir()
    folder, table = run_folder(studied, "r8-s0"), tmp_path / "said.csv"
    done = invoke("predict", folder, tmp_path, tmp_path / "empty", tmp_path / "no\x1b[31m.jpg", "--csv", table)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert [line.split(": ")[1] == "error" for line in lines] == [False, True, True, True, False, True, True]
    assert "empty file" in lines[2]
    assert "no image" in lines[3]
    assert lines[5].endswith("error: no images in it")
    assert lines[6].endswith("no\\x1b[31m.jpg: error: there is no such file or folder")
    rows = read_table(table)
    assert [bool(row["error"]) for row in rows] == [False, True, True, True, False, True, True]
    assert rows[0]["class_1"] == rows[4]["class_1"] != ""
    with table.open(newline="") as file:
        assert len({len(row) for row in csv.reader(file)}) == 1, "broken files have as many columns"


def test_masks_are_the_classes_of_the_pixels(scenes: tuple[Path, Path], tmp_path: Path) -> None:
    out, root = scenes
    done = invoke("predict", out, root / "test", root / "test" / "0000.png", "--masks", tmp_path / "masks", "--top", 1)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert "its mask would overwrite another one" in lines[4]
    loaded = srblock.load_run(out)
    for line, file in zip(lines, sorted((root / "test").iterdir()), strict=False):
        (found,) = loaded.predict(Image.open(file), top=1)
        assert line == f"{file}: {found}"
        mask = Image.open(tmp_path / "masks" / file.relative_to(file.anchor))
        assert np.array_equal(np.asarray(mask), found.pixels)
        assert tuple(mask.getpalette()[:3]) == loaded.input.colors[0]


def test_no_mask_takes_the_place_of_an_image(
    scenes: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, root = scenes
    shutil.copytree(root / "test", tmp_path / "test")
    monkeypatch.chdir(tmp_path / "test")
    before = {file: file.read_bytes() for file in (tmp_path / "test").iterdir()}
    for given in ("0000.png", "."):
        done = invoke("predict", out, given, "--masks", ".", "--top", 1)
        assert done.exit_code == 1
        assert "0000.png: error: its mask, 0000.png, would take the place of a file given; name another" in done.output
    monkeypatch.chdir(tmp_path)
    assert invoke("predict", out, "test", "--masks", ".", "--top", 1).exit_code == 1
    assert {file: file.read_bytes() for file in (tmp_path / "test").iterdir()} == before
    assert invoke("predict", out, "test", "--masks", "masks", "--top", 1).exit_code == 0
    assert invoke("predict", out, "test", "--masks", "masks", "--top", 1).exit_code == 0, "masks may be written anew"


def test_a_run_among_the_images_is_refused(
    studied: Path, pets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the shell makes of `predict out/runs/r8-* photos/` where two runs fit."""
    runs = sorted((studied / "runs").iterdir())[:2]
    said = error(capsys, monkeypatch, "predict", *runs, "photos")
    assert said == f"error: {runs[1]} is a run and no images; name one run (does a * stand for several?)\n"
    (pets / "config.json").write_text("{}")
    assert invoke("predict", runs[0], pets, "--top", 1).exit_code == 0


def test_masks_of_images_with_one_class_are_refused(
    studied: Path, pets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = error(capsys, monkeypatch, "predict", run_folder(studied, "r8-s0"), pets, "--masks", "masks")
    assert said == "error: --masks is for scenes, and R8 says one class of an image; leave it out\n"
    said = error(capsys, monkeypatch, "predict", run_folder(studied, "r8-s0"), pets, "--csv", pets / "no" / "said.csv")
    assert "--csv: there is no folder" in said
    said = error(capsys, monkeypatch, "predict", studied, pets)
    assert said.startswith("error: 4 runs in ")
