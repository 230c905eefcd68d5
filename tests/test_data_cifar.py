from __future__ import annotations

import hashlib
import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srblock.data import load, statistics
from srblock.data.sources import cifar as module
from srblock.data.sources.cifar import CIFAR10, CIFAR100, Cifar

SMALL = replace(CIFAR100, labels=(2, 4), train_per_class=5, test_per_class=2)  # 4 classes, 20 and 8 images


def write_small(folder: Path, layout: Cifar = SMALL) -> Path:
    """Write a small set of noise in the official layout; coarse labels are fine labels modulo 2."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for files, per_class in (
        (layout.train_files, layout.train_per_class),
        ((layout.test_file,), layout.test_per_class),
    ):
        fine = generator.permutation(np.repeat(np.arange(layout.labels[-1]), per_class)).astype(np.uint8)
        labels = np.stack([fine % 2, fine], axis=1)[:, -len(layout.labels) :]
        records = np.hstack([labels, generator.integers(0, 256, (len(fine), 3072), np.uint8)])
        for file, part in zip(files, np.split(records, len(files)), strict=True):
            (folder / file).write_bytes(part.tobytes())
    (folder / layout.names_file).write_text("ant\nbee\ncat\ndog\n\n")
    return folder


def read(path: Path | None, layout: Cifar = SMALL, *, image_size: int | None = None, cache: Path = Path("unused")):
    return layout.load(path, image_size=image_size, cache=cache, progress=None)


@pytest.mark.parametrize("inside", [True, False])
def test_records(tmp_path, inside):
    folder = write_small(tmp_path / SMALL.folder)
    data = read(folder if inside else tmp_path)
    records = np.frombuffer((folder / "train.bin").read_bytes(), np.uint8).reshape(20, 3074)
    assert data.train_labels.tolist() == records[:, 1].tolist()
    assert data.train_images[7, 2, 3, 4] == records[7, 2 + 2 * 1024 + 3 * 32 + 4]
    assert (data.train_size, data.test_size, data.size, data.channels) == (20, 8, (32, 32), 3)
    assert (data.name, data.flip, data.classes) == ("cifar100", True, ("ant", "bee", "cat", "dog"))
    assert read(folder, image_size=48).size == (48, 48)


def test_cifar10_reads_its_five_files_in_order(tmp_path):
    layout = replace(CIFAR10, labels=(4,), train_per_class=5, test_per_class=2)
    folder = write_small(tmp_path, layout)
    data = read(folder, layout)
    parts = [np.frombuffer((folder / f"data_batch_{n}.bin").read_bytes(), np.uint8) for n in range(1, 6)]
    records = np.concatenate(parts).reshape(20, 3073)
    assert data.train_labels.tolist() == records[:, 0].tolist()
    assert (data.train_images.numpy().reshape(20, -1) == records[:, 1:]).all()


def cut(folder):
    (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-100])


def lengthen(folder):
    (folder / "test.bin").write_bytes((folder / "test.bin").read_bytes() + b"1")


def remove(folder):
    (folder / "test.bin").unlink()


def mislabel(folder):
    content = bytearray((folder / "train.bin").read_bytes())
    for record in range(3, 10):
        content[record * 3074 + 1] = 4
    (folder / "train.bin").write_bytes(content)


def miscoarse(folder):
    content = bytearray((folder / "train.bin").read_bytes())
    content[0] = 2
    (folder / "train.bin").write_bytes(content)


def unbalance(folder):
    content = bytearray((folder / "test.bin").read_bytes())
    content[1::3074] = bytes([0, 0, 0, 1, 2, 2, 3, 3])
    (folder / "test.bin").write_bytes(content)


def forget_names(folder):
    (folder / SMALL.names_file).unlink()


FAULTS = [
    (cut, r"cifar100: expected files of 61,480 bytes in .*, but train.bin has 61,380 \(truncated\)$"),
    (lengthen, r"expected files of 24,592 bytes in .*, but test.bin has 24,593$"),
    (remove, "but test.bin is missing$"),
    (
        mislabel,
        r"7 records with impossible labels in train.bin in .*: record 3 \(\d and 4\), .* and 2 more; .* 2 and 4$",
    ),
    (
        miscoarse,
        r"1 record with impossible labels in train.bin in .*: record 0 \(2 and \d\); expected values below 2 and 4",
    ),
    (
        unbalance,
        r"expected 2 images of each class in test.bin .*; another number for 2 classes: label 0 \(3\), label 1 \(1\)",
    ),
    (forget_names, "expected 4 class names in .*fine_label_names.txt, got 0"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_faults(tmp_path, fault, message):
    folder = write_small(tmp_path)
    fault(folder)
    with pytest.raises(ValueError, match=message):
        read(folder)


def test_wrong_folder(tmp_path):
    with pytest.raises(
        ValueError, match=r"expected a folder with test.bin, or one that holds cifar-100-binary/; unpack"
    ):
        load(f"cifar100:{tmp_path}")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A published archive of the small set; the download is a copy, and counted."""
    write_small(tmp_path / "source" / SMALL.folder)
    archive = tmp_path / "published.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "source" / SMALL.folder, SMALL.folder)
        tar.addfile(evil := tarfile.TarInfo("../evil"), io.BytesIO(b""))
        assert evil.name == "../evil"
    fetched = []

    def fake(url, file, *, md5, progress):
        fetched.append((url, md5))
        file.write_bytes(archive.read_bytes())
        return file

    monkeypatch.setattr(module, "download", fake)
    return fetched


def test_downloaded_once(tmp_path, published):
    cache = tmp_path / "new" / "cache"
    data, again = read(None, cache=cache), read(None, cache=cache)
    assert published == [(SMALL.url, SMALL.md5)]
    assert data.fingerprint == again.fingerprint == read(tmp_path / "source").fingerprint
    kept = sorted(str(file.relative_to(cache)) for file in cache.rglob("*") if file.is_file())
    assert [file for file in kept if not file.endswith(".lock")] == [
        f"{SMALL.folder}/{file}" for file in sorted(SMALL.files)
    ]


@pytest.mark.parametrize("fault", [fault for fault, _ in FAULTS])
def test_damaged_cache_is_downloaded_again(tmp_path, published, fault):
    whole = read(None, cache=tmp_path)
    fault(tmp_path / SMALL.folder)
    with pytest.warns(UserWarning, match="the cache is damaged, the set is downloaded again: cifar100: "):
        assert read(None, cache=tmp_path).fingerprint == whole.fingerprint
    assert len(published) == 2


def test_archive_without_the_files(tmp_path, published):
    other = replace(SMALL, folder="cifar-1000-binary")
    with pytest.raises(ValueError, match=r"lacks cifar-1000-binary/train.bin, .*test.bin, .*names.txt"):
        read(None, other, cache=tmp_path)
    assert not (tmp_path / other.folder).exists()


def test_cache_that_cannot_be_written(tmp_path, published):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write to .*file/cache: .*; free some space there, or set SRBLOCK_CACHE"):
        read(None, cache=tmp_path / "file" / "cache")


def test_published_sizes():
    assert CIFAR100.train_per_class * CIFAR100.labels[-1] == CIFAR10.train_per_class * CIFAR10.labels[-1] == 50_000
    assert CIFAR10.md5 == "c32a1d4ab5d03f1284b67883e8d87530"
    assert CIFAR100.md5 == "03b5dce01913d631647c71ecec9e9cb8"
    assert all(len(bytes.fromhex(layout.md5)) == hashlib.md5().digest_size for layout in (CIFAR10, CIFAR100))


def test_the_real_cifar100(cifar100_path):
    data = load(f"cifar100:{cifar100_path}")
    assert (data.train_size, data.test_size, data.size, data.channels) == (50_000, 10_000, (32, 32), 3)
    assert len(data.classes) == 100
    assert (data.classes[0], data.classes[99]) == ("apple", "worm")
    assert data.train_labels[:10].tolist() == [19, 29, 0, 11, 1, 86, 90, 28, 23, 31]  # the official order
    mean, std = statistics(data.train_images)
    assert [round(value, 5) for value in mean] == [0.50708, 0.48655, 0.44092]
    assert [round(value, 5) for value in std] == [0.26733, 0.25644, 0.27615]
    assert data.fingerprint == load(f"cifar100:{os.fspath(cifar100_path / 'cifar-100-binary')}").fingerprint
