"""Pairs of image and label files: what is read of a label, and that workers get them without copies."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scene_fixture import save

from srblock.data import SceneFiles
from srblock.data.loading.decode import decode_image, decode_values, read_size

VALUES = np.random.default_rng(0).integers(0, 256, (5, 9), np.uint8)
PIXELS = np.random.default_rng(1).integers(0, 256, (5, 9, 3), np.uint8)


def png(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def gray_png(values: np.ndarray, bits: int) -> bytes:
    """Write gray of few bits by the PNG specification, which Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape
    rows = []
    for row in values:
        packed = "".join(f"{value:0{bits}b}" for value in row)
        packed += "0" * (-len(packed) % 8)
        rows.append(b"\0" + bytes(int(packed[n : n + 8], 2) for n in range(0, len(packed), 8)))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"".join(rows))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_gray_labels_are_their_values() -> None:
    assert np.array_equal(decode_values(png(Image.fromarray(VALUES))), VALUES)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_labels_of_few_bits_are_not_spread_to_255(bits: int) -> None:
    values = VALUES & np.uint8(2**bits - 1)
    assert np.array_equal(decode_values(gray_png(values, bits)), values)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_palette_labels_are_numbers_and_not_colors(bits: int) -> None:
    values = VALUES & np.uint8(2**bits - 1)
    image = Image.fromarray(values, "P")
    image.putpalette(np.random.default_rng(2).integers(0, 256, 768, np.uint8).tobytes())
    assert np.array_equal(decode_values(png(image, bits=bits)), values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(Image.fromarray(VALUES.astype(np.uint16))), "16-bit gray; labels must be gray or palette"),
        (png(Image.fromarray(PIXELS)), "mode RGB; labels must be gray or palette, one value a pixel"),
        (png(Image.fromarray(VALUES), "JPEG"), "JPEG; labels must be PNG"),
        (png(Image.fromarray(VALUES))[:70], "truncated|Truncated|broken"),
        (b"", "empty file"),
        (b"no image", "no image"),
    ],
)
def test_what_is_no_label_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_values(content)


def test_sizes_are_read_from_headers(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(png(Image.fromarray(PIXELS))[:60])
    assert read_size(file) == (5, 9)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="no image"):
        read_size(file)


def files_in(root: Path, *names: str) -> SceneFiles:
    pairs = [(f"i/{name}.png", f"l/{name}.png") for name in names]
    class_of = torch.arange(256, dtype=torch.uint8).flip(0)
    sizes = torch.tensor([[5, 9]] * len(names))
    return SceneFiles.below(root, pairs, file_bytes=[(7, 8)] * len(names), sizes=sizes, class_of=class_of)


def test_pairs_are_read_and_decoded(tmp_path: Path) -> None:
    for name in ("é", "b"):
        save(tmp_path / "i" / f"{name}.png", PIXELS)
        save(tmp_path / "l" / f"{name}.png", VALUES)
    files = files_in(tmp_path, "é", "b")
    assert (len(files), files.image_name(0), files.label_name(1)) == (2, "i/é.png", "l/b.png")
    assert files.read(0) == ((tmp_path / "i/é.png").read_bytes(), (tmp_path / "l/é.png").read_bytes())
    image, classes = files.decode(1)
    assert image.flags.c_contiguous
    assert np.array_equal(image, PIXELS.transpose(2, 0, 1))
    assert np.array_equal(classes, 255 - VALUES)
    save(tmp_path / "l" / "b.png", VALUES[1:])
    with pytest.raises(ValueError, match=r"5x9, and its label l/b.png 4x9"):
        files.decode(1)
    (tmp_path / "l" / "b.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"its label l/b.png: no image"):
        files.decode(1)
    assert np.array_equal(np.asarray(decode_image(files.read(0)[0])), PIXELS)


def test_digest_sees_names_sizes_and_classes_and_not_the_place(tmp_path: Path) -> None:
    files = files_in(tmp_path, "a", "b")
    digest = files.digest()
    assert files_in(tmp_path / "elsewhere", "a", "b").digest() == digest
    assert files_in(tmp_path, "a", "c").digest() != digest
    for tensor in (files.class_of, files.file_bytes, files.sizes):
        before = tensor.clone()
        tensor.view(-1)[0] += 1
        assert files.digest() != digest
        tensor.copy_(before)


def test_many_names_are_a_few_tensors(tmp_path: Path) -> None:
    many = files_in(tmp_path, *map(str, range(3000)))
    assert len(pickle.dumps(many)) < 3000 * 120
    assert many.label_name(2999) == "l/2999.png"
