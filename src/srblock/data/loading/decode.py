"""From the bytes of an image file to pixels."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from srblock.data.loading.crops import Box, center_box

WANTED = ("PNG", "JPEG", "MPO", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
SWAPPING_ORIENTATIONS = (5, 6, 7, 8)
TURNED_COLUMNS, TURNED_ROWS = (2, 3, 6, 7), (3, 4, 7, 8)  # orientations that are seen from the other end
ORIENTATION_TAG = 0x0112
HEIC = re.compile(rb".{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1)", re.DOTALL)  # how its files begin, ISO/IEC 23008-12
MAX_PIXELS = "SRBLOCK_MAX_PIXELS"
DEPTH_BYTE = 24  # of a PNG, where its header says how many bits a value has
SPREAD = {2: 85, 4: 17}  # Pillow multiplies gray of fewer bits by these, so that white is 255


@dataclass(frozen=True)
class Header:
    """What a file says about itself before it is decoded; `size` is (H, W) as it is to be seen."""

    sha256: bytes
    size: tuple[int, int]
    gray: bool


def read_header(content: bytes) -> Header:
    """Read size and kind of an image, and the SHA-256 of the file.

    Raises: ValueError if this is no image, one that cannot be used, or one of more pixels than the limit.
    """
    with _open(content) as image:
        _refuse_floats(image)
        return Header(hashlib.sha256(content).digest(), _seen_size(image), image.mode in GRAY_MODES)


def read_size(file: Path) -> tuple[int, int]:
    """Read (H, W) of an image, as it is to be seen, from the first bytes of its file.

    Raises: ValueError if this is no image.
    """
    with _open(file) as image:
        return _seen_size(image)


def decode(content: bytes, *, gray: bool, image_size: int | None) -> NDArray[np.uint8]:
    """Decode an image: turned as its Exif data say, transparency on white, 16 bits by their high byte.

    With image_size the short side is resized to it (bilinear, antialiased) and the center square is kept. Of an
    animation the first frame counts.
    Shapes: -> (C, H, W) with C = 1 if gray, else 3.

    Raises: ValueError if the file is broken.
    """
    with _open(content) as file:
        image = flat(file, gray=gray)
    if image_size is not None:
        square = (image_size, image_size)
        image = cut(image, center_box(image.height, image.width, square, resize=image_size), square)
    pixels = np.asarray(image)
    return pixels[None] if gray else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode_image(content: bytes, *, gray: bool = False) -> Image.Image:
    """Decode an image as `decode` does, at its own size, and leave it to Pillow.

    Raises: ValueError if the file is broken, or has floating-point pixels.
    """
    with _open(content) as file:
        return flat(file, gray=gray)


def decode_values(content: bytes) -> NDArray[np.uint8]:
    """Read the values of a label image: gray as it stands in the file, of a palette the numbers and not the colors.

    Shapes: -> (H, W).

    Raises: ValueError if the file is broken, or no PNG of one value a pixel and at most 8 bits.
    """
    with _open(content) as file:
        if file.format != "PNG":
            raise ValueError(f"{file.format}; labels must be PNG")
        if file.mode not in ("L", "P", "1"):
            what = "16-bit gray" if file.mode.startswith("I") else f"mode {file.mode}"
            raise ValueError(f"{what}; labels must be gray or palette, one value a pixel, 8 bits")
        try:
            values = np.asarray(file).astype(np.uint8, copy=False)
        except MemoryError:
            raise
        except Exception as error:  # as in `flat`
            raise ValueError(str(error) or type(error).__name__) from error
        spread = SPREAD.get(content[DEPTH_BYTE], 1) if file.mode == "L" else 1
    return values // np.uint8(spread) if spread > 1 else values


def decode_cut(
    content: bytes, side: int, place: Callable[[int, int], Box], *, reduced: bool = False
) -> NDArray[np.uint8]:
    """Decode an RGB image as `decode` does, cut the box that `place` gives for its (H, W), and resize it to a square.

    Args:
        reduced: let a JPEG be decoded at a half, a quarter or an eighth, by its frequencies, where that still leaves
            the box as many pixels as the result. Of large files that is the faster half (benchmarks/data_speed.py has
            1600x1200), and it cannot be seen: the tests ask for 38 dB.
    Shapes: -> (side, side, 3).

    Raises: ValueError if the file is broken.
    """
    with _open(content) as file:
        size, scale = _seen_size(file), 1
        if reduced and file.format == "JPEG":
            shorter = min(place(*size)[2:])
            scale = next((s for s in (8, 4, 2) if shorter >= s * side), 1)
            file.draft(None, (file.width // scale, file.height // scale))
        orientation = _orientation(file) if scale > 1 else 1
        image = flat(file)
    height, width = size if scale > 1 else (image.height, image.width)
    top, left, rows, columns = (length / scale for length in place(height, width))
    # The last row and column of a reduced image may stand for fewer pixels than the others; turned they are the first.
    top += (image.height - height / scale) * (orientation in TURNED_ROWS)
    left += (image.width - width / scale) * (orientation in TURNED_COLUMNS)
    return np.asarray(cut(image, (top, left, rows, columns), (side, side)))


def flat(file: Image.Image, *, gray: bool = False) -> Image.Image:
    """Bring an image of any kind to gray or RGB, 8 bits, as it is to be seen, see `decode`.

    Raises: ValueError if its file is broken, or has floating-point pixels.
    """
    _refuse_floats(file)
    try:
        return _opaque(_eight_bits(upright(file)), "L" if gray else "RGB")
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever broken bytes lead them to
        raise ValueError(str(error) or type(error).__name__) from error


def cut(image: Image.Image, box: Box, size: tuple[int, int]) -> Image.Image:
    """Cut a box and resize it to (H, W) in one: only the cut is computed, and its filter sees what is around."""
    top, left, rows, columns = box
    height, width = size
    if image.size == (width, height) == (columns, rows):
        return image
    right, bottom = min(left + columns, image.width), min(top + rows, image.height)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=(left, top, right, bottom))


def _open(content: bytes | Path) -> Image.Image:
    Image.init()
    _allow_pixels()
    try:
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        image = Image.open(source, formats=[name for name in WANTED if name in Image.OPEN])
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(_too_many(str(error).partition(" exceeds")[0])) from error
    except Exception as error:
        known = not content or isinstance(error, UnidentifiedImageError)
        raise ValueError(_unknown(content) if known else str(error)) from error
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
        image.close()
        raise ValueError(_too_many(f"{image.height}x{image.width}"))
    return image


def _unknown(content: bytes | Path) -> str:
    """Say what a file is that no decoder knows; iPhones write HEIC, which is whole and needs no repair."""
    if not content:
        return "empty file"
    start = content[:12] if isinstance(content, bytes) else _first_bytes(content)
    return "HEIC, which is not read; convert it to JPEG or PNG" if HEIC.fullmatch(start) else "no image"


def _first_bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(12)
    except OSError:
        return b""


def most_pixels() -> int | None:
    """Read how many pixels an image may have from $SRBLOCK_MAX_PIXELS; None leaves that to Pillow.

    Raises: ValueError if that is no number from 1 on.
    """
    text = os.environ.get(MAX_PIXELS, "")
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < 1:
        raise ValueError(f"{MAX_PIXELS} must be how many pixels an image may have, such as 200000000, got {text!r}")
    return int(text)


def _allow_pixels() -> None:
    """Raise Pillow's limit where the user says so: it is the same for a whole process."""
    most = most_pixels()
    if most is not None:
        Image.MAX_IMAGE_PIXELS = most


def _too_many(what: str) -> str:
    return (
        f"{what}, more than the limit of {Image.MAX_IMAGE_PIXELS or 0:,} pixels for one image; make it smaller, or set "
        f"{MAX_PIXELS} to as many as this machine has memory for"
    )


def _refuse_floats(image: Image.Image) -> None:
    if image.mode == "F":
        raise ValueError("floating-point pixels")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring 16-bit gray to 8 bits by its high byte, as Pillow does with 16-bit color."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit pixels")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    """Return how an image is to be turned; one with damaged Exif data stays as it is."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # as above
        return 1


def _seen_size(image: Image.Image) -> tuple[int, int]:
    """Return (H, W) as the header has them.

    A PNG whose Exif data follow the pixels shows only when decoded that it is turned. Pillow turns TIFFs itself.
    """
    known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)  # else asking would decode it
    turned = known and _orientation(image) in SWAPPING_ORIENTATIONS
    return image.size if turned else (image.height, image.width)


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its Exif data say."""
    image.load()
    return ImageOps.exif_transpose(image) if _orientation(image) != 1 else image


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    """Convert to L or RGB; what is transparent becomes white."""
    if not image.has_transparency_data:
        return image if image.mode == mode else image.convert(mode)
    layered = image.convert("LA" if mode == "L" else "RGBA")
    white = Image.new(mode, image.size, "white")
    white.paste(layered.convert(mode), mask=layered.getchannel("A"))
    return white
