from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import stat
import struct
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srblock.data import images as memory
from srblock.data import load
from srblock.data.sources import cache as stored
from srblock.data.sources import files as listing
from srblock.data.sources import folder as module
from srblock.data.sources.threads import threads


def png(value: int | np.ndarray, size: tuple[int, int] = (6, 6), **options: object) -> bytes:
    """Encode a flat RGB image of one value, or an array."""
    pixels = value if isinstance(value, np.ndarray) else np.full((*size, 3), value, np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **options)
    return stream.getvalue()


def tree(parts: tuple[str, ...] = ("",), classes: tuple[str, ...] = ("cat", "dog"), each: int = 5) -> dict[str, bytes]:
    """Lay out a set: file names and contents, every image another gray value."""
    names = [f"{part}{label}/{n}.png" for part in parts for label in classes for n in range(each)]
    return {name: png(20 + 3 * n) for n, name in enumerate(names)}


def write(root: Path, content: dict[str, bytes | None]) -> Path:
    """Write a folder; None makes an empty folder."""
    for name, data in content.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            place.mkdir()
        else:
            place.write_bytes(data)
    return root


def write_zip(path: Path, content: dict[str, bytes | None]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name + ("/" if data is None else ""), data or b"")
    return path


def make(form: str, root: Path, content: dict[str, bytes | None]) -> Path:
    if form == "folder":
        return write(root / "pets", content)
    if form == "zip with a folder around":
        content = {"README.txt": b"hello", **{f"pets-1.0/{name}": data for name, data in content.items()}}
    return write_zip(root / "pets.zip", content)


FORMS = ["folder", "zip", "zip with a folder around"]


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SRBLOCK_CACHE", str(tmp_path / "cache"))


def values(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def test_train_and_test(form, tmp_path):
    data = load(make(form, tmp_path, tree(("train/", "test/"))))
    assert (data.name, data.classes, data.flip) == ("pets", ("cat", "dog"), True)
    assert (data.train_size, data.test_size, data.channels, data.size) == (10, 10, 3, (6, 6))
    assert values(data.train_images) == list(range(20, 50, 3))
    assert values(data.test_images) == list(range(50, 80, 3))
    assert data.train_labels.tolist() == data.test_labels.tolist() == [0] * 5 + [1] * 5


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Test"])
def test_other_names_of_the_test_set(tmp_path, name):
    data = load(write(tmp_path / "pets", tree(("train/", f"{name}/"))))
    assert (data.train_size, data.test_size) == (10, 10)


def test_val_beside_test_is_not_used_and_says_so(tmp_path):
    pets = write(tmp_path / "pets", tree(("train/", "test/", "val/")))
    with pytest.warns(UserWarning, match=r"pets: not used: val/ \(beside train/\)"):
        data = load(pets)
    assert values(data.test_images) == list(range(50, 80, 3))


@pytest.mark.parametrize("part", ["", "train/"])
def test_without_test_set_a_fixed_fifth_is_held_out(form, tmp_path, part):
    data = load(make(form, tmp_path, tree((part,), each=10)))
    assert (data.train_size, data.test_size) == (16, 4)
    assert data.test_labels.tolist() == [0, 0, 1, 1]
    assert sorted(values(data.train_images) + values(data.test_images)) == list(range(20, 80, 3))
    shutil.rmtree(tmp_path / "cache")
    again = load(tmp_path / ("pets" if form == "folder" else "pets.zip"))
    assert torch.equal(again.test_images, data.test_images)


def test_all_forms_give_the_same_set(tmp_path):
    assert len({load(make(form, tmp_path, tree())).fingerprint for form in FORMS}) == 1


def test_classes_may_hold_folders_and_be_called_train(tmp_path):
    content = {**tree(classes=("bus", "train")), "bus/night/1.png": png(200)}
    data = load(write(tmp_path / "vehicles", content))
    assert data.classes == ("bus", "train")
    assert data.train_size + data.test_size == 11


def test_what_desktops_leave_behind_is_ignored(form, tmp_path):
    rubbish = {
        ".DS_Store": b"x",
        "cat/.DS_Store": b"x",
        "cat/Thumbs.db": b"x",
        "__MACOSX/cat/._0.png": b"x",
        "dog/.thumbnails/0.png": b"x",
        "README.md": b"not an image, and in no class",
    }
    data = load(make(form, tmp_path, {**tree(), **rubbish}))
    assert data.train_size + data.test_size == 10


def test_links_are_followed(tmp_path):
    write(tmp_path / "elsewhere", tree())
    pets = tmp_path / "pets"
    pets.mkdir()
    (pets / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    shutil.copytree(tmp_path / "elsewhere" / "dog", pets / "dog")
    assert load(pets).fingerprint == load(tmp_path / "elsewhere").fingerprint


# Names


def test_class_folders_that_are_no_utf_8_are_refused_before_a_file_is_read(form, tmp_path, monkeypatch):
    if form != "folder":
        pytest.skip("names in a zip are decoded, by what the zip says")
    monkeypatch.setattr(module, "read_header", refuse_decoding)
    pets = write(tmp_path / "pets", tree(classes=(os.fsdecode(b"caf\xe9"), "tea")))
    with pytest.raises(ValueError, match=r"pets: 1 class folder not in UTF-8: caf\\xe9; rename them"):
        load(pets)


def test_names_in_a_zip_from_macos_are_utf_8(tmp_path):
    """It writes UTF-8 without the flag that says so; other zips have cp437, which need not be UTF-8."""
    said = write_zip(tmp_path / "said.zip", tree(classes=("Äpfel", "Birnen")))
    data = said.read_bytes()
    unsaid = tmp_path / "unsaid.zip"
    unsaid.write_bytes(
        re.sub(rb"(PK\x01\x02.{4}|PK\x03\x04.{2})\x00\x08", lambda found: found[1] + bytes(2), data, flags=re.DOTALL)
    )
    with zipfile.ZipFile(unsaid) as archive:
        assert "├äpfel" in " ".join(archive.namelist())
    assert load(unsaid).classes == load(said).classes == ("Birnen", "Äpfel")
    old = tmp_path / "old.zip"
    old.write_bytes(unsaid.read_bytes().replace("Äpfel".encode(), "caféx".encode("cp437") + b"y"))
    assert load(old).classes == ("Birnen", "caféxy")


def test_images_may_have_any_name(tmp_path):
    pets = write(tmp_path / "pets", {**tree(), os.fsdecode(b"cat/caf\xe9.png"): png(9), "dog/\x1b[31m.png": png(8)})
    data = load(pets)
    assert data.train_size + data.test_size == 12
    assert load(pets).fingerprint == data.fingerprint


# What is refused


def broken_image(content):
    return {**content, "cat/1.png": content["cat/1.png"][:60], "cat/2.png": b"", "dog/notes.txt": b"hello"}


def several_sizes(content):
    return {**content, "cat/1.png": png(1, (8, 6)), "dog/2.png": png(1, (6, 9))}


def without_dog_images(content):
    return {**{name: data for name, data in content.items() if name.startswith("cat")}, "dog": None, "emu": None}


def only_cats(content):
    return {name: data for name, data in content.items() if name.startswith("cat")}


REFUSED = [
    (
        lambda c: {**c, "dog/notes.txt": b"hello", "cat/x.png": b"", "cat/9.png": c["cat/1.png"][:20]},
        r"pets.*: 3 files of 13 cannot be read as images: cat/9.png \(.*\), cat/x.png \(empty file\), "
        r"dog/notes.txt \(no image\); repair or remove them",
    ),
    (
        lambda c: {**c, "cat/1.png": c["cat/1.png"][:-30], "dog/3.png": c["dog/3.png"][:50]},
        r"2 files of 10 cannot be read as images: cat/1.png \(.*\), dog/3.png \(.*\); repair",
    ),
    (
        several_sizes,
        r"images of 3 sizes \(height x width\); 2 of 10 differ from 6x6: cat/1.png \(8x6\), dog/2.png \(6x9\); pass "
        r"--image-size, for example --image-size 6",
    ),
    (without_dog_images, r"2 empty classes: dog, emu; add images or remove it"),
    (only_cats, "expected at least two classes, that is two folders with images, got one: cat/$"),
    (
        lambda c: {name: d for name, d in c.items() if name[4] in "01" or name.startswith("dog")},
        r"1 class with fewer than 3 images: cat \(2\); needed to train on one, validate on another and test on a third",
    ),
    (lambda c: {**c, "a.png": png(1)}, "1 image outside of the class folders: a.png; expected one folder per class"),
    (lambda c: {f"test/{name}": data for name, data in c.items()}, "there is test/ but no train/ with one folder per"),
    (
        lambda c: {f"{part}/{number}.png": png(9 * number) for part in ("train", "test") for number in range(5)},
        r"test/ and train/ are called like parts of a set and not like classes; .* and there are 10 images: test/0.png",
    ),
    (
        lambda c: {name.replace("/", f"/{part}/"): data for part in ("train", "val") for name, data in c.items()},
        r"cat/train/ and cat/val/ are called like parts of a set; expected train/cat/ and val/cat/$",
    ),
    (
        lambda c: {f"{part}/{name}": data for part in ("training", "test_set") for name, data in c.items()},
        r"test_set/ and training/ are called like parts of a set .* no image beside these$",
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_refused(form, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load(make(form, tmp_path, change(tree())))


REFUSED_SPLITS = [
    (
        lambda c: {name: d for name, d in c.items() if not name.startswith("test/cat")},
        "1 class of train/ missing in test/: cat",
    ),
    (lambda c: {**c, "test/emu/1.png": png(1)}, "1 class of test/ unknown in train/: emu"),
    (
        lambda c: {name: d for name, d in c.items() if not name.startswith("train/cat") or "0" in name},
        r"1 class with fewer than 2 images: cat \(1\); needed to train on one and validate on another",
    ),
    (
        lambda c: {**{name: d for name, d in c.items() if name.startswith("train")}, "test/1.png": png(1)},
        "test/ has no class folders, so its labels are unknown; move it away, then a fixed 20% of train/ is the test",
    ),
    (lambda c: {**c, "test/emu": None}, "pets.*/test: 1 empty class: emu"),
    (
        lambda c: {**c, "train/stray.jpg": b"x"},
        "pets.*/train: 1 image outside of the class folders: train/stray.jpg; expected one folder per class",
    ),
    (
        lambda c: {**c, "test/overview.png": b"x"},
        "pets.*/test: 1 image outside of the class folders: test/overview.png",
    ),
    (
        lambda c: {name.replace("test/", "val/"): d for name, d in {**c, "test/overview.png": b"x"}.items()},
        "pets.*/val: 1 image outside of the class folders: val/overview.png",
    ),
    (
        lambda c: {name: d for name, d in c.items() if name.startswith("test/")},
        "there is test/ but no train/ with one folder per class",
    ),
    (
        lambda c: {
            name.replace("cat/", "cat/test/") if name[-5] == "1" else name.replace("cat/", "cat/train/"): d
            for name, d in c.items()
        },
        "pets.*: train/cat/test/ and train/cat/train/ are called like parts of a set; expected test/cat/ and train/cat",
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSED_SPLITS)
def test_refused_with_test_folder(form, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load(make(form, tmp_path, change(tree(("train/", "test/"), classes=("cat", "dog", "fox")))))


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_no_class_at_all(form, tmp_path):
    with pytest.raises(ValueError, match="expected at least two classes, that is two folders with images, got none"):
        load(make(form, tmp_path, {"README.md": b"x"}))


def test_a_folder_around_the_classes_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"got one: inner/; if the classes are the folders in it, give .*pets/inner$"):
        load(write(tmp_path / "pets", tree(("inner/",))))


def test_values_of_12_bits_in_16_are_warned_of(form, tmp_path):
    """Their high byte has 16 levels; the network sees little of the images."""
    names = [f"{label}/{n}.png" for label in ("cat", "dog") for n in range(4)]
    dark = {name: png(np.arange(36, dtype=np.uint16).reshape(6, 6) * 110 + n) for n, name in enumerate(names)}
    for _ in range(2):  # decoded, then from the cache
        with pytest.warns(UserWarning, match=r"no pixel of the training images is above 15 of 255.* the high byte"):
            assert load(str(make(form, tmp_path, dark))).train_images.max() == 15
    (tmp_path / "scaled").mkdir()
    bright = {name: png(np.arange(36, dtype=np.uint16).reshape(6, 6) * 1760 + n) for n, name in enumerate(names)}
    assert load(str(make(form, tmp_path / "scaled", bright))).train_images.max() == 240


def test_copies_in_training_and_test_are_warned_of(form, tmp_path):
    for name in ("both", "torn"):
        (tmp_path / name).mkdir()
    content = tree(("train/", "test/"))
    content["test/cat/1.png"] = content["train/cat/2.png"]
    content["train/dog/copy.png"] = content["train/dog/3.png"]  # of no harm
    with pytest.warns(UserWarning, match=r"1 test image of 10 also in the training set: test/cat/1.png; accuracy"):
        load(make(form, tmp_path / "both", content))
    content = tree(("train/", "test/"))
    content["train/dog/1.png"] = content["train/cat/2.png"]
    with pytest.warns(UserWarning, match=r"1 image also in another class: train/dog/1.png; keep each in one"):
        load(make(form, tmp_path / "torn", content))


def test_many_offenders_are_counted(tmp_path):
    bad = {f"cat/{n:02}.txt": b"no image" for n in range(40)}
    with pytest.raises(
        ValueError, match=r"40 files of 50 .*cat/00.txt \(no image\), .*cat/04.txt \(no image\) and 35 more"
    ):
        load(write(tmp_path / "pets", {**tree(), **bad}))


def test_nothing_is_cached_of_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read as images"):
        load(write(tmp_path / "pets", {**tree(), "cat/1.png": tree()["cat/1.png"][:-30]}))
    assert not (tmp_path / "cache").exists()


def test_neither_folder_nor_zip(tmp_path):
    (tmp_path / "pets.tar").write_bytes(b"x" * 1000)
    with pytest.raises(
        ValueError, match="is no folder and no zip file; expected a folder or a zip with one folder per"
    ):
        load(tmp_path / "pets.tar")


def test_broken_links_and_loops(tmp_path):
    pets = write(tmp_path / "pets", tree())
    (pets / "cat" / "gone.png").symlink_to(tmp_path / "nowhere")
    (pets / "dog" / "up").symlink_to(pets)
    with pytest.raises(
        ValueError, match=r"2 entries refused, unreadable: cat/gone.png \(a broken link.*dog/up \(a link to a fol"
    ):
        load(pets)


def test_what_is_broken_or_large_matters_where_images_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "LARGEST_FILE_BYTES", 2**20)
    pets = write(tmp_path / "pets", {**tree(("train/", "val/")), "old/a.png": b"x", "train.tar": bytes(2**21)})
    (pets / "old" / "gone.png").symlink_to(tmp_path / "nowhere")
    (pets / "notes").symlink_to(tmp_path / "nowhere")
    with pytest.warns(UserWarning, match=r"not used: old/ \(beside train/\)"):
        data = load(pets)
    assert (len(data.train_labels), len(data.test_labels)) == (10, 10)
    (pets / "test").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"1 part unreadable: test \(a broken link"):
        load(pets)


def test_a_class_that_is_a_broken_link_is_not_lost(tmp_path):
    pets = write(tmp_path / "pets", tree())
    (pets / "fox").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"1 entry refused, unreadable: fox \(a broken link"):
        load(pets)


def test_a_link_to_itself_and_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    pets = write(tmp_path / "pets", {**tree(), "cat/private/0.png": png(1)})
    (pets / "cat" / "loop").symlink_to("loop")
    scandir = os.scandir

    def refuse_one(folder):
        if Path(folder).name == "private":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse_one)
    with pytest.raises(
        ValueError, match=r"2 entries refused, unreadable: cat/loop \(Too many .*, cat/private \(Permission denied\)"
    ):
        load(pets)


def test_a_name_longer_than_names_of_cache_files(tmp_path):
    pets = write(tmp_path / ("\N{CAT FACE}" * 60), tree())
    assert load(pets).fingerprint == load(pets).fingerprint
    (file,) = (tmp_path / "cache").iterdir()
    (tmp_path / "any").touch()
    assert file.stat().st_mode == (tmp_path / "any").stat().st_mode, "whoever shares the cache may read it"


def test_an_interruption_waits_for_no_more_than_what_is_under_way(tmp_path):
    started = []

    def work(number):
        started.append(number)
        time.sleep(0.05)

    with contextlib.suppress(KeyboardInterrupt), threads() as pool:
        for number in range(1000):
            pool.submit(work, number)
        raise KeyboardInterrupt
    assert len(started) < 500


def test_links_that_double_at_every_level_end_at_once(tmp_path):
    """22 levels with two links to the next one in each are four million folders."""
    pets = write(tmp_path / "pets", {**tree(), "cat/l0/x.png": png(1)})
    for level in range(1, 23):
        (pets / f"cat/l{level}").mkdir()
        for name in ("a", "b"):
            (pets / f"cat/l{level}/{name}").symlink_to(f"../l{level - 1}")
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"links lead to one folder in more than 64 ways, .*remove links"):
        load(pets)
    assert time.monotonic() - start < 5


def test_folders_nested_1500_deep_are_read_in_seconds(tmp_path, monkeypatch):
    pets = write(tmp_path / "pets", tree())
    monkeypatch.chdir(pets / "cat")
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    Path("x.png").write_bytes(png(1))
    start = time.monotonic()
    data = load(pets)
    assert time.monotonic() - start < 10
    assert data.train_size + data.test_size == 11
    os.remove("x.png")  # what follows is too deep for those who clean up
    for _ in range(1500):
        os.chdir("..")
        os.rmdir("d")


@pytest.mark.parametrize("image_size", [None, 7])
def test_folders_larger_than_memory_are_streamed_and_say_so(tmp_path, monkeypatch, image_size):
    pets = write(tmp_path / "pets", tree())
    monkeypatch.setattr(memory, "MEMORY_LIMIT_BYTES", 400)
    monkeypatch.setattr(module, "read_header", refuse_decoding)  # not even opened
    message = r"images of 7x7 take 0.0 GiB decoded" if image_size else r"its files have 0.0 GiB"
    with pytest.warns(UserWarning, match=rf"pets: .*{message}, more than the limit .*; its images are streamed"):
        data = load(pets, image_size=image_size)
    assert data.streamed
    assert data.size == ((7, 7) if image_size else (224, 224))
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_fits_is_not_streamed(tmp_path, monkeypatch):
    pets = write(tmp_path / "pets", tree())
    monkeypatch.setattr(memory, "MEMORY_LIMIT_BYTES", 10 * 6 * 6 * 3)
    assert not load(pets, image_size=6).streamed
    gray = {name: png(np.full((6, 6), 90 + n, np.uint8)) for n, name in enumerate(tree())}
    monkeypatch.setattr(memory, "MEMORY_LIMIT_BYTES", 10 * 6 * 6)  # enough for one channel
    assert load(write(tmp_path / "gray", gray), image_size=6).channels == 1
    one_byte_less = 10 * 6 * 6 * 3 - 1  # what only the headers tell: three channels, not one
    monkeypatch.setattr(memory, "MEMORY_LIMIT_BYTES", one_byte_less)
    with pytest.warns(UserWarning, match=r"10 images of 6x6 take 0.0 GiB decoded.*streamed from the files at 6x6"):
        assert load(pets, image_size=6).streamed


def test_zips_larger_than_memory_are_refused(tmp_path, monkeypatch):
    pets = write_zip(tmp_path / "pets.zip", tree())
    monkeypatch.setattr(memory, "MEMORY_LIMIT_BYTES", 10 * 6 * 6 * 3)
    with pytest.raises(ValueError, match=r"10 images of 7x7 take 0.0 GiB decoded.*smaller --image-size, or give a fol"):
        load(pets, image_size=7)
    monkeypatch.setattr(memory, "MEMORY_LIMIT_BYTES", 500)
    with pytest.raises(ValueError, match=r"declares 0.0 GiB unpacked, more than the limit .*unpack it and give the"):
        load(pets)


def test_files_too_large_for_an_image(form, tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "LARGEST_FILE_BYTES", 2**20)
    with pytest.raises(
        ValueError, match=r"1 entry refused, larger than 1 MiB, too large for an image: .*cat/film.mp4 \(2 MiB\)"
    ):
        load(make(form, tmp_path, {**tree(), "cat/film.mp4": bytes(2**21)}))


# Zips


@pytest.mark.parametrize(
    "name", ["/etc/evil.png", "../evil.png", "cat/../../evil.png", "..\\evil.png", "C:\\evil.png", "C:x"]
)
def test_zip_members_outside(tmp_path, name):
    with pytest.raises(ValueError, match=r"1 entry refused, outside of the archive or a link: .*(evil|C:x)"):
        load(write_zip(tmp_path / "pets.zip", {**tree(), name: png(1)}))


def test_zip_links(tmp_path):
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(write_zip(tmp_path / "pets.zip", tree()), "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match=r"1 entry refused, .* link: cat/link.png \(a link\)"):
        load(tmp_path / "pets.zip")


def test_zip_with_backslashes(tmp_path):
    content = {name.replace("/", "\\"): data for name, data in tree().items()}
    assert (
        load(write_zip(tmp_path / "pets.zip", content)).fingerprint
        == load(write(tmp_path / "pets", tree())).fingerprint
    )


def test_zip_encrypted(tmp_path):
    path = write_zip(tmp_path / "pets.zip", tree())
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"1 entry refused, encrypted: cat/0.png"):
        load(path)


def test_zip_with_a_name_twice(tmp_path):
    path = write_zip(tmp_path / "pets.zip", tree())
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings(action="ignore"):
        archive.writestr("cat/0.png", png(9))
    with pytest.raises(ValueError, match=r"1 entry refused, twice in the zip: cat/0.png"):
        load(path)


@pytest.mark.parametrize("left", [0.3, 0.9, 0.999])
def test_zip_truncated(tmp_path, left):
    path = write_zip(tmp_path / "pets.zip", tree())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * left)])
    with pytest.raises(ValueError, match=r"pets.zip is no complete zip file \(truncated\?\)"):
        load(path)


def test_zip_with_damaged_members(tmp_path):
    path = write_zip(tmp_path / "pets.zip", tree())
    content = bytearray(path.read_bytes())
    content[60] ^= 255  # in the data of the first member: its CRC is wrong
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"1 file of 10 cannot be read .*: cat/0.png \(damaged in the zip: Bad CRC-32"):
        load(path)


def test_zip_with_a_damaged_directory(tmp_path):
    path = write_zip(tmp_path / "pets.zip", tree())
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x07\x07"))
    said = (
        r"pets.zip(: damaged zip: Bad magic number.*; copy or pack it again| is no complete zip file \(truncated\?\))"
    )
    with pytest.raises(ValueError, match=said):  # Python 3.14's is_zipfile looks there too
        load(path)


@pytest.mark.parametrize("kind", ["stored", "deflated", "bzip2", "lzma"])
def test_zip_with_members_damaged_in_any_compression(tmp_path, kind):
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w", getattr(zipfile, f"ZIP_{kind.upper()}")) as archive:
        for name, data in tree().items():
            archive.writestr(name, data)
    whole, refused = path.read_bytes(), 0
    for place in range(39, 100):  # in the data of the first member, behind its name; some bytes of LZMA do not matter
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with contextlib.suppress(ValueError):  # and nothing else
            load(path)
            refused -= 1
        refused += 1
    assert refused >= 50


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (6, 99, r"pets.zip: damaged zip: zip file version 9.9; copy or pack it again"),  # version needed
        (10, 77, r"cat/0.png \(damaged in the zip: That compression method is not supported"),
    ],
)
def test_zip_that_asks_for_what_is_not_there(tmp_path, place, value, message):
    path = write_zip(tmp_path / "pets.zip", tree())
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + place] = value
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_zip_with_endless_names(tmp_path):
    with pytest.raises(ValueError, match=r"1 entry refused, .*: d/d/.*\.\.\..*\(a name of 60,001 characters\)"):
        load(write_zip(tmp_path / "pets.zip", {**tree(), "d/" * 30_000 + "x": png(1)}))


def test_zip_bomb_by_what_it_declares(tmp_path):
    """A member of 3 GB of zeros, some kB in the zip: refused by its declared size, without reading it."""
    path = write_zip(tmp_path / "pets.zip", tree())
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 3_000_000_000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"too large for an image: cat/0.png \(2,861 MiB\)"):
        load(path)


# The cache


def cached(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").iterdir())


def refuse_decoding(*args: object, **options: object) -> None:
    raise AssertionError("decoded again")


def test_decoded_once(form, tmp_path, monkeypatch):
    pets = make(form, tmp_path, tree(("train/", "test/")))
    data = load(pets)
    assert [file.suffix for file in cached(tmp_path)] == [".safetensors"]
    monkeypatch.setattr(module, "decode", refuse_decoding)
    again = load(pets)
    assert again.fingerprint == data.fingerprint
    assert torch.equal(again.train_images, data.train_images)
    assert torch.equal(again.test_labels, data.test_labels)


@pytest.mark.parametrize("change", ["content", "name", "class", "image_size"])
def test_another_content_is_decoded_again(tmp_path, change):
    pets = write(tmp_path / "pets", tree())
    before = load(pets).fingerprint
    image_size = None
    if change == "content":
        (pets / "cat/3.png").write_bytes(png(255))
    elif change == "name":
        (pets / "cat/3.png").rename(pets / "dog/9.png")
    elif change == "class":
        (pets / "dog").rename(pets / "eel")
    else:
        image_size = 4
    assert load(pets, image_size=image_size).fingerprint != before
    assert len(cached(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["cut", "emptied", "bit flipped", "no safetensors"])
def test_a_damaged_cache_is_noticed_and_replaced(tmp_path, damage):
    pets = write(tmp_path / "pets", tree())
    data = load(pets)
    (file,) = cached(tmp_path)
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(
        {"cut": content[:-9], "emptied": b"", "bit flipped": content, "no safetensors": b"\xff" * 500}[damage]
    )
    with pytest.warns(UserWarning, match=r"the cache file .* is damaged .*; its images are decoded again"):
        assert load(pets).fingerprint == data.fingerprint
    with warnings.catch_warnings(action="error"):
        assert load(pets).fingerprint == data.fingerprint
    assert cached(tmp_path) == [file]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    pets = write(tmp_path / "pets", tree())
    (tmp_path / "cache").write_text("in the way")
    with pytest.warns(UserWarning, match=r"cannot write the cache folder .*; going on without it.*SRBLOCK_CACHE"):
        assert load(pets).train_size == 8


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    import safetensors.torch

    def full(tensors, file, metadata):
        Path(file).write_bytes(b"half")
        raise safetensors.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        load(write(tmp_path / "pets", tree()))
    assert cached(tmp_path) == []


def test_read_gives_nothing_for_no_file(tmp_path):
    assert stored.read(tmp_path / "none.safetensors", ("train",)) is None


# Progress and threads


def test_progress(tmp_path):
    seen = []
    load(write(tmp_path / "pets", tree()), progress=lambda *step: seen.append(step))
    assert [step[1:] for step in seen] == [(n, 10) for n in range(1, 11)] * 2
    assert [step[0].split()[0] for step in seen] == ["reading"] * 10 + ["decoding"] * 10


def test_unreadable_files_are_named(tmp_path, monkeypatch):
    pets, read = write(tmp_path / "pets", tree()), Path.read_bytes

    def refuse_one(path):
        if path.name == "1.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse_one)
    with pytest.raises(ValueError, match=r"2 files of 10 .*cat/1.png \(.*Permission denied.*dog/1.png \("):
        load(pets)
