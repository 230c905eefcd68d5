"""Sets of scenes by name, and anyone's own: two folders of images and labels, and a list of classes."""

from __future__ import annotations

import colorsys
import difflib
import os
import re
import warnings
from pathlib import Path
from typing import Protocol

import torch

from srblock.data.offenders import counted, offenders
from srblock.data.progress import Progress
from srblock.data.scene_files import IGNORED
from srblock.data.scenes import Color, SceneData
from srblock.data.sources import camvid, cityscapes
from srblock.data.sources.cache import cache_folder
from srblock.data.sources.files import hidden
from srblock.data.sources.layout import TEST_FRACTION, TEST_SEED
from srblock.data.sources.scene_checks import build
from srblock.data.sources.scene_parts import Meaning, Pair, by_stem, folder_of, listed, paired
from srblock.data.split import split

PARTS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}  # and what they are called
IGNORE = "ignore"  # the line of a value that is no class
HEX_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


class SceneSource(Protocol):
    """Load a set of scenes from a path; `cache` is a folder that may not exist yet."""

    def __call__(self, path: Path | None, *, cache: Path, progress: Progress | None) -> SceneData: ...


def load_scenes(
    spec: str | os.PathLike[str], *, cache: Path | None = None, progress: Progress | None = None
) -> SceneData:
    """Load a set of scenes: the names of its files, after every label has been checked.

    Args:
        spec: "cityscapes:PATH", "camvid:PATH", or "scenes:PATH" for a folder with classes.txt, see `load`.
        cache: where it is kept what the labels hold; see `cache_folder` for the default.
        progress: is called as progress(what, done, total) now and then.

    Raises:
        ValueError: an unknown name, or something wrong in the data (first offenders and count).
        OSError: a file that cannot be read.
    """
    text = os.fspath(spec)
    name, colon, path = text.partition(":")
    if name not in SCENE_SOURCES:
        near = difflib.get_close_matches(name.lower(), SCENE_SOURCES, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        known = ", ".join(f"{known}:PATH" for known in SCENE_SOURCES)
        raise ValueError(f"no set of scenes: {text!r}; {hint}there are {known}")
    place = Path(path).expanduser() if colon and path else None
    return SCENE_SOURCES[name](place, cache=cache_folder(cache), progress=progress)


def load(path: Path | None, *, cache: Path, progress: Progress | None) -> SceneData:
    """Load PATH/images/train/, PATH/labels/train/ or PATH/train/images/, PATH/train/labels/, with PATH/classes.txt.

    Partners have one name but for the suffix; labels are PNG. Beside train/ there may be test/ and val/, valid/ or
    validation/. Without test/, val/ is the test set; without both, the same 20% of the scenes each time.

    Raises: ValueError as `build`, for another layout, and for classes.txt as `read_classes`.
    """
    root = folder_of("scenes", path)
    meaning = read_classes(root / "classes.txt")
    by_kind = (root / "images").is_dir()
    sizes: dict[str, int] = {}
    parts: dict[str, list[Pair]] = {}
    for part, called in PARTS.items():
        there = [name for name in called if any((root / folder).is_dir() for folder in _folders(name, by_kind))]
        if len(there) > 1:
            raise ValueError(f"scenes:{root}: {' and '.join(there)} are names of one part; keep one of them")
        if part != "train" and not there:
            continue
        folders = _folders(there[0] if there else part, by_kind)
        names = listed(root, folders[0]) | listed(root, folders[1])
        sizes |= names
        images, labels = by_stem(names, folders[0]), by_stem(names, folders[1], labels=True)
        parts[part] = paired(f"scenes:{root}, {part}", images, labels)
    _warn_of_others(root, by_kind)
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    elif "test" not in parts:
        everything = parts["train"]
        if len(everything) < 3:
            few = f"got {counted(len(everything), 'scene')}"
            raise ValueError(f"scenes:{root}: expected 3 or more to train on two and test on another, {few}")
        one_class = torch.zeros(len(everything), dtype=torch.int64)
        train, test = split(one_class, fraction=TEST_FRACTION, seed=TEST_SEED)
        parts = {"train": [everything[n] for n in train.tolist()], "test": [everything[n] for n in test.tolist()]}
    return build(root.resolve().name, root, parts, sizes, meaning, cache=cache, progress=progress)


def _folders(part: str, by_kind: bool) -> list[str]:
    return [f"{kind}/{part}" if by_kind else f"{part}/{kind}" for kind in ("images", "labels")]


def _warn_of_others(root: Path, by_kind: bool) -> None:
    """Say which folders beside the parts are not looked at."""
    known = {name for called in PARTS.values() for name in called}
    places = [root / "images", root / "labels"] if by_kind else [root]
    others = [
        f"{entry.relative_to(root).as_posix()}/"
        for place in places
        if place.is_dir()
        for entry in sorted(place.iterdir())
        if entry.is_dir() and not hidden(entry.name) and entry.name not in known
    ]
    if others:
        warnings.warn(
            f"scenes:{root}: not used: {', '.join(others)}; the parts are called {', '.join(sorted(known))}",
            stacklevel=2,
        )


def read_classes(file: Path) -> Meaning:
    """Read a class a line: line n, counted from 0, names what the value n stands for.

    After a tab a color may follow, #rrggbb; a class without one gets one. A line "ignore" stands for a value that is
    neither learned nor counted, as 255 always is.

    Raises: ValueError naming the lines that are wrong, or if there is no such file.
    """
    if not file.is_file():
        raise ValueError(
            f"{file} is missing: it names the classes, one a line; line n, from 0, is the value n in labels"
        )
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8: {error}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) > IGNORED:
        raise ValueError(
            f"{file}: {len(lines)} lines; a label file has room for {IGNORED} values, and {IGNORED} is ignored"
        )
    classes, colors, values, ignored, wrong = [], [], [], [IGNORED], []
    for value, line in enumerate(lines):
        name, _, color = (part.strip() for part in line.partition("\t"))
        if name == IGNORE:
            ignored.append(value)
        elif not name or (color and not HEX_COLOR.fullmatch(color)):
            wrong.append(f"line {value + 1}, {line!r}")
        else:
            classes.append(name)
            colors.append(_parsed(color) if color else _invented(len(classes) - 1))
            values.append(value)
    if wrong:
        raise ValueError(f"{file}: expected a name, or a name, a tab and a color #rrggbb, got {offenders(wrong)}")
    return Meaning(tuple(classes), tuple(colors), tuple(values), tuple(ignored))


def _parsed(color: str) -> Color:
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def _invented(number: int) -> Color:
    """Choose a color unlike those of the numbers before: hues a golden ratio apart, alternating in brightness."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.65, 0.95 if number % 2 else 0.7)
    return round(255 * red), round(255 * green), round(255 * blue)


SCENE_SOURCES: dict[str, SceneSource] = {"cityscapes": cityscapes.load, "camvid": camvid.load, "scenes": load}
