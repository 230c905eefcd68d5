"""Sets whose images stay in their files: "stream:PATH" and "imagenet:PATH", and folders larger than memory."""

from __future__ import annotations

import re
from pathlib import Path

from srblock.data.image_files import ImageFiles
from srblock.data.images import ImageData
from srblock.data.offenders import counted, offenders
from srblock.data.progress import Progress
from srblock.data.sources.files import Files, opened
from srblock.data.sources.layout import Labeled, Layout, below, direct_images, is_image, labels_of, read_layout

SIDE = 224
WORDNET_ID = re.compile(r"n\d{8}")


def load(path: Path | None, *, image_size: int | None, cache: Path, progress: Progress | None) -> ImageData:
    """Load a folder with one folder per class, or with train/ and test/, without decoding or opening a file of it.

    Images are served as RGB at image_size, 224 without one.

    Raises: ValueError as `folder.load` does, but for what only decoding shows.
    """
    root = _folder("stream", path)
    with opened(root) as files:
        return build(root.resolve().name, files, read_layout(files), image_size)


def load_imagenet(path: Path | None, *, image_size: int | None, cache: Path, progress: Progress | None) -> ImageData:
    """Load ImageNet from a folder with train/ and val/, one folder per class in each, named by its WordNet id.

    val/ is the test set, as in the literature; other folders are not looked at.

    Raises: ValueError as `load`, and for another layout.
    """
    root = _folder("imagenet", path)
    with opened(root, only=("train", "val")) as files:
        for part in ("train/", "val/"):
            classes, loose = below(files.folders, part), direct_images(files, part)
            if not classes or loose:
                raise ValueError(
                    f"imagenet:{root}: {part} has {counted(len(classes), 'class folder')} and "
                    f"{counted(len(loose), 'image')} beside them; expected one folder per class in train/ and in val/ "
                    "(the PyTorch ImageNet example names a script that sorts val/)"
                )
            foreign = [f"{part}{name}" for name in classes if not WORDNET_ID.fullmatch(name)]
            if foreign:
                raise ValueError(
                    f"imagenet:{root}: {counted(len(foreign), 'folder')} not named by a WordNet id such as n01440764: "
                    f"{offenders(foreign)}; for other classes write stream:{root}"
                )
        return build("imagenet", files, read_layout(files), image_size)


def build(name: str, files: Files, layout: Layout, image_size: int | None) -> ImageData:
    """Make a streamed set of a folder's files.

    Raises: ValueError if a file cannot be an image by its name or is empty; what else is broken shows when it is
        decoded.
    """
    labeled = (*layout.train, *layout.test)
    wrong = [f"{n} (no image by its name)" for n, _ in labeled if not is_image(n)]
    wrong += [f"{n} (empty file)" for n, _ in labeled if files.sizes[n] == 0]
    if wrong:
        raise ValueError(
            f"{files.root}: {counted(len(wrong), 'file')} of {len(labeled):,} cannot be images: "
            f"{offenders(sorted(wrong))}; repair or remove them"
        )
    side = SIDE if image_size is None else image_size
    return ImageData.build(
        name,
        train_images=_images(files, layout.train, side),
        train_labels=labels_of(layout.train),
        test_images=_images(files, layout.test, side),
        test_labels=labels_of(layout.test),
        classes=layout.classes,
        flip=True,
    )


def _images(files: Files, part: Labeled, side: int) -> ImageFiles:
    names = [name for name, _ in part]
    return ImageFiles.below(Path(files.root), names, [files.sizes[name] for name in names], side)


def _folder(source: str, path: Path | None) -> Path:
    if path is None:
        raise ValueError(f"{source} is read from a folder: write {source}:PATH")
    if not path.is_dir():
        what = "is no folder" if path.exists() else "does not exist"
        raise ValueError(f"{source}:{path}: {path} {what}; streamed images lie in folders, unpack archives first")
    return path
