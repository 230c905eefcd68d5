"""Damaged files end in the errors that are documented, and soon: mutations by a seed, the same every time.

`make fuzz` tries SRBLOCK_FUZZ mutations of each kind of file; without it a second's worth of each is tried.
"""

from __future__ import annotations

import io
import random
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fuzz.bounds import Record, tries
from srblock.data import load
from srblock.data.loading.decode import decode, decode_values, read_header
from srblock.data.sources.cifar import CIFAR100
from srblock.variants.build import build
from srblock.variants.notation import parse

SECONDS = 0.5  # for each kind of file, where no number is asked for
KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


def image(kind: str = "PNG", value: int = 7) -> bytes:
    pixels = np.random.default_rng(value).integers(0, 256, (9, 8, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def zipped(method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for label in ("cat", "dog"):
            for number in range(3):
                archive.writestr(f"{label}/{number}.png", image(value=10 * len(archive.namelist())))
    return stream.getvalue()


def mutated(whole: bytes, chance: random.Random) -> bytes:
    """Flip, cut, double or overwrite a few places."""
    found = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place, length = chance.randrange(len(found)), chance.randrange(1, 9)
        match chance.randrange(5):
            case 0 | 1:
                found[place] = chance.randrange(256)
            case 2:
                found[place : place + length] = chance.choice((b"\x00", b"\xff", b"\x7f")) * length
            case 3:
                found[place:place] = found[place : place + length]
            case 4:
                del found[place : place + chance.choice((length, len(found) // 2))]
        found = found or bytearray(b"\x00")
    return bytes(found)


def survive(kind: str, record: Record, whole: bytes, read: Callable[[bytes], object], *, sound: bool = True) -> None:
    """Read mutations of a file: each gives something, or raises ValueError or OSError, within seconds.

    Args: sound: whether the file can be read as it is; mutations of one that cannot would prove little.
    """
    if sound:
        read(whole)
    number = 0
    for number in tries(kind, record, SECONDS):
        content = mutated(whole, random.Random(number))
        with warnings.catch_warnings(action="ignore"):
            try:
                read(content)
            except (ValueError, OSError):
                pass
            except BaseException as error:
                raise AssertionError(f"mutation {number}: {type(error).__name__}: {error}") from error
    assert number > 0


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRBLOCK_CACHE", str(tmp_path / "cache"))


@pytest.mark.filterwarnings("ignore:.* also in (the training set|another class)")  # entries may be made to share bytes
@pytest.mark.parametrize("method", ["STORED", "DEFLATED", "BZIP2", "LZMA"])
def test_zips(method: str, tmp_path: Path, record_property: Record) -> None:
    file = tmp_path / "pets.zip"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        load(file, image_size=8)

    survive(f"zip, {method}", record_property, zipped(getattr(zipfile, f"ZIP_{method}")), read)


@pytest.mark.parametrize("kind", KINDS)
def test_images(kind: str, record_property: Record) -> None:
    def read(content: bytes) -> None:
        read_header(content)
        decode(content, gray=False, image_size=8)

    survive(f"image, {kind}", record_property, image(kind), read)


def test_label_images(record_property: Record) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(stream, "PNG")
    survive("label image, PNG", record_property, stream.getvalue(), decode_values)


def test_cifar_binary_files(tmp_path: Path, record_property: Record) -> None:
    """Two images of each of 100 classes in training, one in testing: the published sizes take too long to mutate."""
    small = replace(CIFAR100, train_per_class=2, test_per_class=1)
    (tmp_path / small.names_file).write_text("\n".join(f"class{n}" for n in range(100)))
    parts = {}
    for file, each in ((small.train_files[0], 2), (small.test_file, 1)):
        records = np.zeros((100 * each, 2 + 3072), np.uint8)
        records[:, 1] = np.arange(100 * each) % 100
        parts[file] = records.tobytes()
        (tmp_path / file).write_bytes(parts[file])

    def read(content: bytes) -> None:
        (tmp_path / small.train_files[0]).write_bytes(content)
        small.load(tmp_path, image_size=None, cache=tmp_path, progress=None)

    survive("CIFAR binary file", record_property, parts[small.train_files[0]], read)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights(ending: str, tmp_path: Path, record_property: Record) -> None:
    file = tmp_path / f"weights.{ending}"
    options = {"classes": 2, "channels": 3, "image_size": (8, 8), "seed": 0}
    state = build(parse("R8"), **options).state_dict()  # type: ignore[arg-type]
    if ending == "pth":
        torch.save(state, file)
    else:
        save_file(state, file)

    def read(content: bytes) -> None:
        file.write_bytes(content)
        build(parse("R8"), weights=file, **options)  # type: ignore[arg-type]

    whole = file.read_bytes()
    survive(f"weights, {ending}", record_property, whole, read)
    survive(f"weights, {ending}, the first bytes", record_property, whole[:2000], read, sound=False)  # the header
