"""A folder or a zip with one folder per class."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from srblock.data import images
from srblock.data.images import ImageData, check_memory, decoded, too_large
from srblock.data.loading.decode import Header, decode, read_header
from srblock.data.offenders import counted, offenders
from srblock.data.progress import Progress
from srblock.data.sources import cache as stored
from srblock.data.sources import streamed
from srblock.data.sources.files import Files, opened
from srblock.data.sources.layout import Layout, labels_of, read_layout
from srblock.data.sources.threads import threads

DARK = 32  # of 255; what is brighter nowhere has less than 5 bits left
DECODING = 1  # count up when the same files would give other pixels: cached ones are then decoded again
T = TypeVar("T")


def load(path: Path | None, *, image_size: int | None, cache: Path, progress: Progress | None) -> ImageData:
    """Load a folder or a zip, decoded once and cached under a fingerprint of its content.

    Images are RGB unless all of them are gray. Without image_size they must have one size. A folder that does not fit
    into memory is streamed instead, with a warning.

    Raises: ValueError naming the first offenders and their count for everything that is wrong; see `files`, `layout`
        and `decode`.
    """
    if path is None:
        raise ValueError("expected the path of a folder or a zip")
    with opened(path) as files:
        layout = read_layout(files)
        names = [name for name, _ in (*layout.train, *layout.test)]
        name = path.resolve().name if path.is_dir() else path.stem
        beyond = _beyond_memory(files, names, image_size) if path.is_dir() else None
        if beyond:
            return _streamed(name, files, layout, image_size, beyond)
        headers = dict(zip(names, _each(files, names, read_header, "reading", progress), strict=True))
        _warn_of_copies(files.root, layout, headers)
        size = (image_size, image_size) if image_size is not None else _one_size(files.root, headers)
        gray = all(header.gray for header in headers.values())
        whole = (len(names), 1 if gray else 3, size)
        if path.is_dir() and too_large(*whole):
            return _streamed(name, files, layout, image_size, decoded(*whole))
        check_memory(files.root, *whole)
        file = stored.file_in(cache, name, _key(layout, headers, image_size))
        data = _cached(file, name, layout)
        if data is None:
            pixels = _decode(files, names, gray=gray, size=size, image_size=image_size, progress=progress)
            train = len(layout.train)
            data = _build(name, layout, pixels[:train], pixels[train:])
            stored.write(file, {"train": pixels[:train], "test": pixels[train:]}, data.fingerprint)
    assert isinstance(data.train_images, Tensor)
    _warn_of_darkness(files.root, data.train_images)
    return data


def _beyond_memory(files: Files, names: Sequence[str], image_size: int | None) -> str | None:
    """Say why a set cannot fit into memory, as far as that shows before a file is opened; None if it may."""
    if image_size is not None:
        side = (image_size, image_size)
        return decoded(len(names), 3, side) if too_large(len(names), 1, side) else None
    packed = sum(files.sizes[name] for name in names)
    return f"its files have {packed / 2**30:.1f} GiB" if packed > images.MEMORY_LIMIT_BYTES else None


def _streamed(name: str, files: Files, layout: Layout, image_size: int | None, why: str) -> ImageData:
    """Stream a set, and say so: its runs normalize otherwise, and show broken files only when they reach them."""
    data = streamed.build(name, files, layout, image_size)
    side = data.size[0]
    warnings.warn(
        f"{files.root}: {why}, more than the limit of {images.MEMORY_LIMIT_BYTES / 2**30:.0f} GiB for a set in memory; "
        f"its images are streamed from the files at {side}x{side} (a smaller --image-size may fit; to stream without "
        "this warning write stream:PATH)",
        stacklevel=4,
    )
    return data


def _build(name: str, layout: Layout, train_images: Tensor, test_images: Tensor) -> ImageData:
    return ImageData.build(
        name,
        train_images=train_images,
        train_labels=labels_of(layout.train),
        test_images=test_images,
        test_labels=labels_of(layout.test),
        classes=layout.classes,
        flip=True,
    )


def _cached(file: Path, name: str, layout: Layout) -> ImageData | None:
    """Take the images from the cache if they are there and are still those that were written."""
    entry = stored.read(file, ("train", "test"))
    if entry is None:
        return None
    tensors, fingerprint = entry
    try:
        data = _build(name, layout, tensors["train"], tensors["test"])
    except ValueError as error:
        stored.warn_damaged(file, error)
        return None
    if data.fingerprint != fingerprint:
        stored.warn_damaged(file, "its content changed")
        return None
    return data


def _key(layout: Layout, headers: dict[str, Header], image_size: int | None) -> str:
    """Fingerprint everything that decides over the pixels: names, bytes, order, image_size."""
    digest = hashlib.sha256(json.dumps(["srblock decoded", DECODING, image_size, len(layout.train)]).encode())
    for name, header in headers.items():
        digest.update(json.dumps(name).encode() + header.sha256)
    return digest.hexdigest()


def _warn_of_copies(root: str, layout: Layout, headers: dict[str, Header]) -> None:
    """Warn of a file that is in training and test both, or in two classes."""
    trained: dict[bytes, tuple[str, int]] = {headers[name].sha256: (name, label) for name, label in layout.train}
    both = [name for name, _ in layout.test if headers[name].sha256 in trained]
    if both:
        warnings.warn(
            f"{root}: {counted(len(both), 'test image')} of {len(layout.test):,} also in the training set: "
            f"{offenders(both)}; accuracy on these says little; remove copies, or links to folders",
            stacklevel=4,
        )
    labels: dict[bytes, int] = {}
    torn = [n for n, label in (*layout.train, *layout.test) if labels.setdefault(headers[n].sha256, label) != label]
    if torn:
        warnings.warn(
            f"{root}: {counted(len(torn), 'image')} also in another class: {offenders(torn)}; keep each in one",
            stacklevel=4,
        )


def _warn_of_darkness(root: str, images: Tensor) -> None:
    """Warn of pixels of which most was lost: values of 12 bits stored in 16 have hardly any high byte."""
    if (brightest := int(images.max())) < DARK:
        warnings.warn(
            f"{root}: no pixel of the training images is above {brightest} of 255, they are nearly black. Of 16-bit "
            "gray the high byte counts: scale values of fewer bits to the whole range, and labels (0, 1, ...) that "
            "were stored as images too",
            stacklevel=4,
        )


def _one_size(root: str, headers: dict[str, Header]) -> tuple[int, int]:
    (usual, _), *others = Counter(header.size for header in headers.values()).most_common()
    if others:
        odd = [f"{n} ({h.size[0]}x{h.size[1]})" for n, h in headers.items() if h.size != usual]
        raise ValueError(
            f"{root}: images of {len(others) + 1} sizes (height x width); {len(odd):,} of {len(headers):,} differ from "
            f"{usual[0]}x{usual[1]}: {offenders(sorted(odd))}; pass --image-size, for example --image-size {min(usual)}"
        )
    return usual


def _decode(
    files: Files,
    names: Sequence[str],
    *,
    gray: bool,
    size: tuple[int, int],
    image_size: int | None,
    progress: Progress | None,
) -> Tensor:
    pixels = np.empty((len(names), 1 if gray else 3, *size), np.uint8)

    def one(content: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        image = decode(content, gray=gray, image_size=image_size)
        if image.shape[1:] != size:
            raise ValueError(f"{image.shape[1]}x{image.shape[2]}, not {size[0]}x{size[1]}; pass --image-size")
        return image

    for number, image in enumerate(_each(files, names, one, "decoding", progress)):
        pixels[number] = image
    return torch.from_numpy(pixels)


def _each(
    files: Files, names: Sequence[str], work: Callable[[bytes], T], what: str, progress: Progress | None
) -> Iterator[T]:
    """Do something with the bytes of each file in threads, in order; at the end name all that failed.

    Raises: ValueError with the first offenders and the count.
    """

    def attempt(name: str) -> T | Exception:
        try:
            return work(files.read(name))
        except (ValueError, OSError) as error:
            return error

    broken: list[str] = []
    with threads() as pool:
        for number, (name, result) in enumerate(zip(names, pool.map(attempt, names), strict=True), start=1):
            if isinstance(result, Exception):
                broken.append(f"{name} ({result})")
            elif not broken:
                yield result
            if progress:
                progress(f"{what} {files.root}", number, len(names))
    if broken:
        raise ValueError(
            f"{files.root}: {counted(len(broken), 'file')} of {len(names):,} cannot be read as images: "
            f"{offenders(sorted(broken))}; repair or remove them"
        )
