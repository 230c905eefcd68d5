"""Ask a finished run about image files, one after another, however many there are."""

from __future__ import annotations

import mimetypes
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from srblock.data.loading.decode import decode_image
from srblock.data.offenders import offenders
from srblock.data.sources.files import Files, identity, opened
from srblock.data.sources.layout import is_image
from srblock.runs.trained import BATCH, Prediction, TrainedRun

MOST_PIXELS = 2**26  # that are held decoded, of one image more
Decoded = tuple[str, Image.Image | str]


def predict_files(run: TrainedRun, paths: Sequence[Path], *, top: int = 5) -> Iterator[tuple[str, Prediction | str]]:
    """Yield the name of each image and what the network says of it, or what is wrong with the file.

    Args:
        paths: files, and folders and zips, of which all images are taken, by their names.
    """
    for part in _parts(paths, gray=run.input.channels == 1):
        said = iter(run.predict([image for _, image in part if isinstance(image, Image.Image)], top=top))
        for name, image in part:
            yield name, next(said) if isinstance(image, Image.Image) else image


def read_images(paths: Sequence[Path], *, gray: bool) -> Iterator[Image.Image]:
    """Yield all images of files, folders and zips.

    Raises: ValueError for the first that cannot be read, and if there are none.
    """
    for name, content in _contents(paths):
        image = _decoded(content, gray)
        if isinstance(image, str):
            raise ValueError(f"{name}: {image}; leave it out: nothing was written")
        yield image


def write_mask(run: TrainedRun, found: Prediction, file: Path) -> None:
    """Write the class of each pixel of a scene as a PNG: its values are the classes' numbers, shown in their colors.

    Raises: OSError if the file cannot be written.
    """
    assert found.pixels is not None
    image = Image.fromarray(found.pixels.numpy())
    if run.input.colors:
        image.putpalette([value for color in run.input.colors for value in color])
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def mask_file(folder: Path, name: str) -> Path:
    """Name the mask of an image: as the image, in `folder`."""
    path = PurePosixPath(Path(name).as_posix())
    inside = [part for part in path.parts if part not in ("..", path.anchor)]
    return folder.joinpath(*inside).with_suffix(".png")


def identities(paths: Sequence[Path]) -> frozenset[tuple[int, int]]:
    """Tell files and folders by what no name or link changes."""
    return frozenset(identity(path) for path in paths if path.exists())


def overwrites(mask: Path, given: frozenset[tuple[int, int]]) -> bool:
    """Tell whether a mask would take the place of one of the files given, or of a file in one of the folders."""
    return mask.exists() and not given.isdisjoint(identities([mask, *mask.resolve().parents]))


def _parts(paths: Sequence[Path], *, gray: bool) -> Iterator[list[Decoded]]:
    """Decode a few images at a time."""
    part: list[Decoded] = []
    pixels = 0
    for name, content in _contents(paths):
        image = _decoded(content, gray)
        part.append((name, image))
        pixels += image.width * image.height if isinstance(image, Image.Image) else 0
        if len(part) == BATCH or pixels > MOST_PIXELS:
            yield part
            part, pixels = [], 0
    yield part


def _contents(paths: Sequence[Path]) -> Iterator[tuple[str, bytes | str]]:
    """Yield the name and the bytes of each file, or what is wrong with it."""
    for path in paths:
        try:
            if not path.is_dir() and path.suffix.lower() != ".zip":
                yield str(path), path.read_bytes()
                continue
            with opened(path) as files:
                lost = [name for name in files.broken if is_image(name) or _may_be_one(name)]
                images = sorted([*filter(is_image, files.names), *lost])
                if not images:
                    yield str(path), "no images in it"
                if others := [name for name in files.names if _may_be_one(name)]:
                    warnings.warn(f"{path}: left out, by their names no images: {offenders(others)}", stacklevel=2)
                for name in images:
                    yield str(path / name), _read(files, name)
        except FileNotFoundError:
            yield str(path), "there is no such file or folder"
        except (ValueError, OSError) as error:
            yield str(path), str(error)


def _may_be_one(name: str) -> bool:
    """Tell whether a file that is no image by its name may be one: of another format, or of no known kind."""
    kind = mimetypes.guess_type(name)[0]
    return not is_image(name) and (kind is None or kind.startswith("image/"))


def _read(files: Files, name: str) -> bytes | str:
    if name in files.broken or files.too_large(name):
        return files.broken.get(name) or "too large for an image"
    try:
        return files.read(name)
    except (ValueError, OSError) as error:
        return str(error)


def _decoded(content: bytes | str, gray: bool) -> Image.Image | str:
    if isinstance(content, str):
        return content
    try:
        return decode_image(content, gray=gray)
    except ValueError as error:
        return str(error)
