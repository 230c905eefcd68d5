from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from srblock.data.loading.crops import center_box
from srblock.data.loading.decode import decode, decode_cut, read_header

GENERATOR = np.random.default_rng(0)
COLOR = GENERATOR.integers(0, 256, (5, 8, 3), np.uint8)
GRAY = COLOR[..., 0]


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def check(content: bytes, expected: np.ndarray, *, gray: bool) -> None:
    """Header and pixels both: expected is (H, W) or (H, W, 3)."""
    header = read_header(content)
    assert (header.gray, header.size) == (gray, expected.shape[:2])
    pixels = decode(content, gray=gray, image_size=None)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected[None] if gray else expected.transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_gray_and_color(kind):
    check(encode(Image.fromarray(COLOR), kind), COLOR, gray=False)
    check(encode(Image.fromarray(GRAY), kind), GRAY, gray=True)


def test_gray_in_a_colored_set():
    pixels = decode(encode(Image.fromarray(GRAY)), gray=False, image_size=None)
    np.testing.assert_array_equal(pixels, np.stack([GRAY] * 3))


def test_palette():
    palette = Image.fromarray(COLOR).quantize(4)
    check(encode(palette), np.asarray(palette.convert("RGB")), gray=False)


def test_one_bit():
    check(encode(Image.fromarray(GRAY > 99)), np.where(GRAY > 99, 255, 0).astype(np.uint8), gray=True)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_high_byte(kind):
    wide = GENERATOR.integers(0, 65536, (5, 8)).astype(np.uint16)
    check(encode(Image.fromarray(wide), kind), (wide >> 8).astype(np.uint8), gray=True)


def test_transparency_becomes_white():
    layered = np.dstack([COLOR, np.full((5, 8), 255, np.uint8)])
    layered[0, :, 3] = 0
    layered[1, 0] = (0, 0, 0, 51)
    expected = COLOR.copy()
    expected[0] = 255
    expected[1, 0] = 204
    check(encode(Image.fromarray(layered)), expected, gray=False)
    gray = np.dstack([GRAY, layered[..., 3]])
    gray[1, 0, 0] = 0
    expected_gray = GRAY.copy()
    expected_gray[0], expected_gray[1, 0] = 255, 204
    check(encode(Image.fromarray(gray)), expected_gray, gray=True)


def test_transparent_colors():
    """One color of a gray, RGB or palette PNG can be declared transparent."""
    flat = np.zeros((2, 2), np.uint8)
    flat[0, 0] = 7
    expected = np.zeros((2, 2), np.uint8)
    expected[0, 0] = 255
    check(encode(Image.fromarray(flat), transparency=7), expected, gray=True)
    check(encode(Image.fromarray(np.dstack([flat] * 3)), transparency=(7, 7, 7)), np.dstack([expected] * 3), gray=False)
    palette = Image.fromarray(flat).convert("P")
    check(encode(palette, transparency=palette.getpixel((0, 0))), np.dstack([expected] * 3), gray=False)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_exif_orientation(kind, orientation):
    picture = Image.new("RGB", (16, 8), "black")
    picture.paste("white", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(picture, kind, exif=exif.tobytes())
    height, width = (8, 16) if orientation < 5 else (16, 8)
    assert read_header(content).size == (height, width)
    pixels = decode(content, gray=False, image_size=None)
    assert pixels.shape == (3, height, width)
    bright = pixels.mean(axis=0) > 128
    first = bright[:4, :4].all()  # where row 0, column 0 of the file has come to lie
    assert first == (orientation in (1, 4, 5, 6))
    assert bright[-4:, -4:].all() != first


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    picture = Image.fromarray(COLOR).convert("CMYK")
    content = encode(picture, kind)
    with Image.open(io.BytesIO(content)) as image:
        check(content, np.asarray(image.convert("RGB")), gray=False)


def test_first_frame_of_an_animation():
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content, gray=False, image_size=None).max() == 10


@pytest.mark.parametrize("size", [(40, 40), (40, 64), (64, 40), (90, 40)])
def test_image_size_cuts_the_center_and_averages(size):
    """Stripes at both ends of the long side are cut off; a fine checkerboard becomes even gray."""
    height, width = size
    pixels = ((np.indices(size).sum(axis=0) % 2) * 255).astype(np.uint8)
    cut = (max(size) - min(size)) // 2
    if height > width:
        pixels[:cut] = pixels[-cut:] = 255
    elif width > height:
        pixels[:, :cut] = pixels[:, -cut:] = 255
    small = decode(encode(Image.fromarray(pixels)), gray=True, image_size=10)
    assert small.shape == (1, 10, 10)
    assert np.abs(small[:, 1:-1, 1:-1].astype(int) - 127).max() <= 1
    assert np.abs(small.astype(int) - 127).max() <= 20  # the filter at the border sees a little of what was cut off


def test_image_size_enlarges():
    assert decode(encode(Image.fromarray(COLOR)), gray=False, image_size=31).shape == (3, 31, 31)


def test_image_size_of_an_extreme_shape_stays_cheap():
    assert decode(encode(Image.new("L", (20_000, 1), 9)), gray=True, image_size=512).tolist() == [[[9] * 512] * 512]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"hello", "no image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC, which is not read; convert it to JPEG or PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),  # would start an interpreter
        (encode(Image.fromarray(COLOR.astype(np.float32)[..., 0]), "TIFF"), "floating-point pixels"),
    ],
)
def test_refused_by_the_header(content, message):
    with pytest.raises(ValueError, match=message):
        read_header(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_anywhere(kind):
    """Every beginning of a file is refused, or is the whole picture already."""
    content = encode(Image.fromarray(COLOR.repeat(4, 0).repeat(4, 1)), kind)
    whole = decode(content, gray=False, image_size=None)
    for length in range(0, len(content), max(1, len(content) // 40)):
        try:
            pixels = decode(content[:length], gray=False, image_size=None)
        except ValueError:
            continue
        assert length > len(content) * 0.9
        np.testing.assert_array_equal(pixels, whole)


def test_32_bit_pixels_are_refused():
    content = encode(Image.fromarray(np.full((3, 3), 70_000, np.int32)), "TIFF")
    with pytest.raises(ValueError, match="32-bit pixels"):
        decode(content, gray=True, image_size=None)


# Cuts


def waves(height: int, width: int) -> Image.Image:
    """A picture with detail at every scale down to five pixels."""
    y, x = np.mgrid[:height, :width]
    layers = [np.sin(x / n + 1) + np.cos(y / n) + np.sin((x + y) / n) for n in (0.8, 2, 5, 13, 40)]
    pixels = 128 + 15 * np.stack([sum(layers), sum(layers[1:]), sum(layers[::2])], axis=2)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("size", [(60, 90), (90, 60)])
def test_the_center_is_torchvision_s_resize_and_center_crop(size, square):
    """Where its resized sides are whole and even, so that it rounds no place."""
    image = waves(*size)
    theirs = v2.Compose([v2.Resize([36, 36] if square else 36), v2.CenterCrop(32)])(image)
    ours = decode_cut(encode(image), 32, lambda h, w: center_box(h, w, (32, 32), resize=36, square=square))
    assert ours.shape == (32, 32, 3)
    np.testing.assert_allclose(ours.astype(int), np.asarray(theirs).astype(int), atol=1)


def test_the_center_square_is_what_decode_gives():
    content = encode(waves(41, 67), "JPEG", quality=90)
    cut = decode_cut(content, 24, lambda h, w: center_box(h, w, (24, 24), resize=24))
    np.testing.assert_array_equal(cut.transpose(2, 0, 1), decode(content, gray=False, image_size=24))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("reduced", [False, True])
def test_a_cut_is_of_the_image_as_it_is_seen(orientation, kind, reduced):
    """The box is asked for the turned size and cut from the turned image, reduced or not."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(waves(200, 301), kind, exif=exif)
    seen = decode(content, gray=False, image_size=None)
    asked = []

    def place(height: int, width: int) -> tuple[float, float, float, float]:
        asked.append((height, width))
        return 20, 30, 150, 140

    cut = decode_cut(content, 32, place, reduced=reduced)
    assert set(asked) == {seen.shape[1:]}
    expected = Image.fromarray(seen.transpose(1, 2, 0)).resize((32, 32), Image.Resampling.BILINEAR, (30, 20, 170, 170))
    error = np.abs(cut.astype(int) - np.asarray(expected))
    assert error.max() <= (16 if reduced and kind == "JPEG" else 0)
    assert error.mean() < 3


@pytest.mark.parametrize(("box", "rows"), [((0, 0, 480, 640), 120), ((0, 0, 250, 255), 240), ((9, 9, 100, 90), 480)])
def test_reduced_decoding_leaves_enough_pixels_and_no_visible_loss(box, rows, monkeypatch):
    """480 rows are decoded as 120, a quarter, where the box still has the 100 of the result; 38 dB are not seen."""
    content, seen, resize = encode(waves(480, 640), "JPEG", quality=90), [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda image, *args, **options: seen.append(image) or resize(image, *args, **options)
    )
    full, reduced = (decode_cut(content, 100, lambda h, w: box, reduced=r).astype(float) for r in (False, True))
    assert [image.height for image in seen] == [480, rows]
    assert 10 * np.log10(255**2 / max(((full - reduced) ** 2).mean(), 1e-9)) > 38


def test_damaged_exif_data_leave_the_image_as_it_is():
    content = encode(Image.fromarray(COLOR.repeat(4, 0).repeat(4, 1)), "JPEG", exif=b"Exif\0\0nonsense")
    assert decode(content, gray=False, image_size=None).shape == (3, 20, 32)
    assert read_header(content).size == (20, 32)


def test_a_broken_file_is_refused_by_the_cut():
    with pytest.raises(ValueError, match="truncated"):
        decode_cut(encode(waves(50, 50), "JPEG")[:-200], 16, lambda h, w: (0, 0, h, w), reduced=True)


# How many pixels


def huge(side: int = 13_300) -> bytes:
    return encode(Image.new("1", (side, side)))


@pytest.mark.parametrize(("side", "said"), [(13_300, "13300x13300|176890000"), (20_000, "400000000")])
@pytest.mark.filterwarnings("ignore:Image size")
def test_images_of_too_many_pixels_are_refused_by_their_header(side: int, said: str) -> None:
    message = rf"({said}).*, more than the limit of 89,478,485 pixels for one image; .*set SRBLOCK_MAX_PIXELS"
    for read in (read_header, lambda content: decode(content, gray=True, image_size=8)):
        with pytest.raises(ValueError, match=message):
            read(huge(side))


def test_the_limit_of_pixels_can_be_set(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # put back at the end
    monkeypatch.setenv("SRBLOCK_MAX_PIXELS", "200000000")
    assert read_header(huge()).size == (13_300, 13_300)
    monkeypatch.setenv("SRBLOCK_MAX_PIXELS", "39")
    with pytest.raises(ValueError, match=r"5x8, more than the limit of 39 pixels|40 pixels.*limit of 39 pixels"):
        read_header(encode(Image.fromarray(COLOR)))
    monkeypatch.setenv("SRBLOCK_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match=r"SRBLOCK_MAX_PIXELS must be how many pixels .* got 'many'"):
        read_header(encode(Image.fromarray(COLOR)))
