"""From the bytes of an image file to pixels."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

WANTED = ("PNG", "JPEG", "MPO", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
SWAPPING_ORIENTATIONS = (5, 6, 7, 8)
ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Header:
    """What a file says about itself before it is decoded; `size` is (H, W) as it is to be seen."""

    sha256: bytes
    size: tuple[int, int]
    gray: bool


def read_header(content: bytes) -> Header:
    """Read size and kind of an image, and the SHA-256 of the file.

    Raises: ValueError if this is no image, or one that cannot be used.
    """
    with _open(content) as image:
        if image.mode == "F":
            raise ValueError("floating-point pixels")
        width, height = image.size
        # A PNG whose Exif data follow the pixels shows only when decoded that it is turned; see `decode`.
        if "exif" in image.info and image.getexif().get(ORIENTATION_TAG) in SWAPPING_ORIENTATIONS:
            width, height = height, width
        return Header(hashlib.sha256(content).digest(), (height, width), image.mode in GRAY_MODES)


def decode(content: bytes, *, gray: bool, image_size: int | None) -> NDArray[np.uint8]:
    """Decode an image: turned as its Exif data say, transparency on white, 16 bits by their high byte.

    With image_size the short side is resized to it (bilinear, antialiased) and the center square is kept. Of an
    animation the first frame counts.
    Shapes: -> (C, H, W) with C = 1 if gray, else 3.

    Raises: ValueError if the file is broken.
    """
    with _open(content) as file:
        try:
            image = _flat(_eight_bits(ImageOps.exif_transpose(file)), "L" if gray else "RGB")
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever broken bytes lead them to
            raise ValueError(str(error) or type(error).__name__) from error
    if image_size is not None:  # resize and cut in one: only the square is computed, its filter sees what is around
        short = min(image.size)
        left, top = (image.width - short) / 2, (image.height - short) / 2
        if image.size != (image_size, image_size):
            box = (left, top, left + short, top + short)
            image = image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(image)
    return pixels[None] if gray else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _open(content: bytes) -> Image.Image:
    Image.init()
    try:
        return Image.open(io.BytesIO(content), formats=[name for name in WANTED if name in Image.OPEN])
    except MemoryError:
        raise
    except Exception as error:
        known = not content or isinstance(error, UnidentifiedImageError)
        raise ValueError("empty file" if not content else "no image" if known else str(error)) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring 16-bit gray to 8 bits by its high byte, as Pillow does with 16-bit color."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit pixels")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """Convert to L or RGB; what is transparent becomes white."""
    if not image.has_transparency_data:
        return image.convert(mode)
    layered = image.convert("LA" if mode == "L" else "RGBA")
    white = Image.new(mode, image.size, "white")
    white.paste(layered.convert(mode), mask=layered.getchannel("A"))
    return white
