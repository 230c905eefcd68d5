"""Sets of scenes: layouts, what labels mean, and refusals that name files before anything is trained."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scene_fixture import SIZE, write_camvid, write_cityscapes, write_scenes

from srblock.data import load_scenes
from srblock.data.sources import scene_checks
from srblock.data.sources.cityscapes import MEANING


def test_cityscapes_in_its_official_layout(tmp_path: Path) -> None:
    data = load_scenes(f"cityscapes:{write_cityscapes(tmp_path)}", cache=tmp_path / "cache")
    assert (len(data.train), data.validation, len(data.test)) == (9, None, 4)
    assert (data.task, data.size, len(data.classes)) == ("segmentation", SIZE, 19)
    assert data.classes[0] == "road"
    assert data.colors[13] == (0, 0, 142), "cars are blue"
    image, classes = data.train.decode(0)
    assert image.shape == (3, *SIZE)
    assert set(np.unique(classes)) <= {10, 0, 13, 11, 2, 255}, "sky, road, car, person, building"
    assert (classes[:2] == 255).all()
    counted = sum(np.bincount(data.train.decode(n)[1].ravel(), minlength=256) for n in range(9))
    assert list(data.pixels) == [*counted[:19], counted[255]]


@pytest.mark.parametrize(("value", "expected"), [(7, 0), (8, 1), (11, 2), (26, 13), (31, 16), (33, 18)])
def test_official_ids_stand_for_official_classes(value: int, expected: int) -> None:
    assert MEANING.class_of()[value] == expected


def test_other_official_ids_are_ignored() -> None:
    ignored = [*range(7), 9, 10, 14, 15, 16, 18, 29, 30]
    assert (MEANING.class_of()[ignored] == 255).all()
    assert MEANING.known()[ignored].all()
    assert not MEANING.known()[34:].any()


@pytest.mark.parametrize("below", ["", "camvid"])
def test_camvid_has_three_parts(tmp_path: Path, below: str) -> None:
    write_camvid(tmp_path / "data" / below)
    data = load_scenes(f"camvid:{tmp_path / 'data'}", cache=tmp_path / "cache")
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 3, 4)
    assert data.classes[3] == "Road"
    assert set(np.unique(data.test.decode(3)[1])) <= {0, 3, 8, 9, 1, 255}


def test_the_real_camvid(real_data: Path, tmp_path: Path) -> None:
    """Counts and shares of the training pixels as its README has them; read as it is kept, with images in WebP."""
    data = load_scenes(f"camvid:{real_data}", cache=tmp_path / "cache")
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (367, 101, 233)
    assert data.size == (360, 480)
    shares = dict(zip([*data.classes, "void"], 100 * np.array(data.pixels) / sum(data.pixels), strict=True))
    for name, share in {"Sky": 16.9, "Building": 23.3, "Road": 31.7, "Bicyclist": 0.3, "void": 4.0}.items():
        assert abs(shares[name] - share) < 0.06


@pytest.mark.parametrize("by_kind", [True, False])
def test_ones_own_folders(tmp_path: Path, by_kind: bool) -> None:
    root = write_scenes(tmp_path / "streets", {"train": 6, "val": 2, "test": 3}, by_kind=by_kind)
    data = load_scenes(f"scenes:{root}", cache=tmp_path / "cache")
    assert data.validation is not None
    assert (data.name, len(data.train), len(data.validation), len(data.test)) == ("streets", 6, 2, 3)
    assert data.classes == ("sky", "road", "car", "person", "house")
    assert data.colors[0] == (0x40, 0x80, 0xFF)
    assert len(set(data.colors)) == 5
    assert set(np.unique(data.train.decode(0)[1])) <= {0, 1, 2, 3, 4, 255}, "line 2, the value 1, is ignored"


@pytest.mark.parametrize("by_kind", [True, False])
@pytest.mark.parametrize("called", ["valid", "validation"])
def test_other_names_of_the_validation_part(tmp_path: Path, called: str, by_kind: bool) -> None:
    root = write_scenes(tmp_path / "streets", {"train": 6, called: 2}, by_kind=by_kind)
    data = load_scenes(f"scenes:{root}", cache=tmp_path / "cache")
    assert (data.validation, len(data.train), len(data.test)) == (None, 6, 2), "without test/ it is the test set"
    write_scenes(root, {"val": 2}, by_kind=by_kind)
    with pytest.raises(ValueError, match=f"val and {called} are names of one part; keep one of them"):
        load_scenes(f"scenes:{root}", cache=tmp_path / "cache")


@pytest.mark.parametrize("by_kind", [True, False])
def test_folders_that_are_no_parts_are_named(tmp_path: Path, by_kind: bool) -> None:
    root = write_scenes(tmp_path / "streets", {"train": 6, "extra": 2}, by_kind=by_kind)
    named = "images/extra/, labels/extra/" if by_kind else "extra/"
    with pytest.warns(UserWarning, match=f"streets: not used: {named}; the parts are called test, train, val, valid"):
        assert len(load_scenes(f"scenes:{root}", cache=tmp_path / "cache").train) == 5


def test_a_line_ignore_is_a_value_that_is_no_class(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "streets", classes="sky\nland\nroad\ncar\nignore\nhouse\n")
    data = load_scenes(f"scenes:{root}", cache=tmp_path / "cache")
    number = next(n for n in range(8) if (np.asarray(Image.open(root / data.train.label_name(n))) == 4).any())
    values = np.asarray(Image.open(root / data.train.label_name(number)))
    classes = data.train.decode(number)[1]
    assert (classes[(values == 4) | (values == 255)] == 255).all()
    assert (classes[values == 5] == data.classes.index("house")).all()
    assert data.pixels[data.classes.index("land")] == 0


def test_without_a_test_part_a_fifth_is_taken_the_same_each_time(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "streets")
    first, second = (load_scenes(f"scenes:{root}", cache=tmp_path / "cache") for _ in range(2))
    assert (len(first.train), len(first.test)) == (8, 2)
    assert first.fingerprint == second.fingerprint
    names = {first.train.image_name(n) for n in range(8)} | {first.test.image_name(n) for n in range(2)}
    assert len(names) == 10


def test_scenes_in_training_and_test_both_are_warned_of(tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "camvid")
    for kind in ("", "annot"):
        shutil.copy(root / f"train{kind}" / "0003.png", root / f"test{kind}" / "0001.png")
        shutil.copy(root / f"train{kind}" / "0004.png", root / f"val{kind}" / "0001.png")
    with pytest.warns(UserWarning, match=r"1 test scene of 4 also in the training part: test/0001.png; figures on"):
        load_scenes(f"camvid:{root}", cache=tmp_path / "cache")
    image = root / "test" / "0001.png"
    content = bytearray(image.read_bytes())
    content[-9] ^= 1
    image.write_bytes(content)  # as long, and with a label that is equal
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_scenes(f"camvid:{root}", cache=tmp_path / "cache")


def test_labels_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = f"camvid:{write_camvid(tmp_path / 'camvid')}"
    first = load_scenes(spec, cache=tmp_path / "cache")
    monkeypatch.setattr(scene_checks, "decode_values", lambda _: pytest.fail("read again"))
    assert load_scenes(spec, cache=tmp_path / "cache").pixels == first.pixels


def test_labels_that_were_written_again_are_read_again(tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "camvid")
    first = load_scenes(f"camvid:{root}", cache=tmp_path / "cache")
    label = root / "trainannot" / "0002.png"
    values = np.asarray(Image.open(label))
    Image.fromarray(np.where(values == 0, 3, values).astype(np.uint8)).save(label, compress_level=0)
    size = label.stat().st_size
    assert load_scenes(f"camvid:{root}", cache=tmp_path / "cache").pixels != first.pixels
    Image.fromarray(values).save(label, compress_level=0)
    assert label.stat().st_size == size, "the case is one of equal size"
    os.utime(label, ns=(0, 1))
    assert load_scenes(f"camvid:{root}", cache=tmp_path / "cache").pixels == first.pixels


def test_progress_counts_the_pairs(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    root = write_camvid(tmp_path / "camvid")
    load_scenes(f"camvid:{root}", cache=tmp_path / "cache", progress=lambda _, done, total: seen.append((done, total)))
    assert seen == [(n, 16) for n in range(1, 17)]


def test_what_was_found_before_is_not_believed_when_damaged(tmp_path: Path) -> None:
    spec = f"camvid:{write_camvid(tmp_path / 'camvid')}"
    first = load_scenes(spec, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.warns(UserWarning, match="content changed"):
        again = load_scenes(spec, cache=tmp_path / "cache")
    assert again.pixels == first.pixels


def broken(root: Path, fault: str) -> None:
    image, label = root / "train" / "0002.png", root / "trainannot" / "0002.png"
    match fault:
        case "no label":
            label.unlink()
        case "no image":
            image.unlink()
        case "value":
            Image.fromarray(np.full(SIZE, 77, np.uint8)).save(label)
        case "size":
            Image.fromarray(np.zeros((10, 20), np.uint8)).save(label)
        case "torn":
            label.write_bytes(label.read_bytes()[:60])
        case "no folder":
            shutil.rmtree(root / "valannot")
        case "16 bits":
            Image.fromarray(np.zeros(SIZE, np.uint16)).save(label)
        case "no image inside":
            image.write_bytes(b"<html>")
        case "nothing but void":
            for file in (root / "valannot").iterdir():
                Image.fromarray(np.full(SIZE, 11, np.uint8)).save(file)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no label", r"1 image without a label: train/0002\.png; add the partners or remove these"),
        ("no image", r"1 label without an image: trainannot/0002\.png"),
        ("value", r"1 label of 16 with values that stand for no class: trainannot/0002\.png \(value 77\); .*0 to 11"),
        ("size", r"differ in size: train/0002\.png 48x96 \(trainannot/0002\.png 10x20\)"),
        ("torn", r"1 file cannot be read: trainannot/0002\.png"),
        ("no folder", r"there is no folder valannot/ in it"),
        ("no image inside", r"1 file cannot be read: train/0002\.png \(no image\); repair or remove"),
        ("nothing but void", r"no pixel of any class in the 3 labels of the val part"),
        ("16 bits", r"trainannot/0002\.png \(16-bit gray; labels must be gray or palette"),
    ],
)
def test_faults_are_named_before_any_training(tmp_path: Path, fault: str, message: str) -> None:
    broken(write_camvid(tmp_path / "camvid"), fault)
    with pytest.raises(ValueError, match=message):
        load_scenes(f"camvid:{tmp_path / 'camvid'}", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("sky\n\nroad\n", r"expected a name, or a name, a tab and a color #rrggbb, got line 2, ''"),
        ("sky\tblue\nroad\n", r"got line 1, 'sky\\tblue'"),
        ("sky\nignore\nroad\ncar\nperson\nsky\n", "class names are not unique: sky"),
        ("sky\nroad\n", "values that stand for no class"),
    ],
)
def test_a_list_of_classes_that_is_wrong(tmp_path: Path, classes: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_scenes(f"scenes:{write_scenes(tmp_path / 'streets', classes=classes)}", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("camvit:here", "did you mean camvid"),
        ("camvid", "write camvid:PATH"),
        ("camvid:nowhere", "nowhere does not exist"),
    ],
)
def test_specifications_that_are_wrong(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_scenes(spec)
