"""Which file of a folder tree belongs to which class, and to training or test."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from srblock.data.images import refuse_small
from srblock.data.offenders import counted, offenders, refuse_unencodable
from srblock.data.sources.files import SPLIT_NAMES, Files
from srblock.data.split import split

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".avif",
)  # fmt: skip
TEST_FRACTION, TEST_SEED = 0.2, 0

Labeled = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Layout:
    """Class names, sorted, and (file name, label) of each image, in the order of the names."""

    classes: tuple[str, ...]
    train: Labeled
    test: Labeled


def read_layout(files: Files) -> Layout:
    """Sort the files into classes, and into training and test set.

    With train/: the test set is test/, else val/ or valid/. Without a test folder: a fixed stratified 20% of all.
    A class folder may have folders in it. Files beside the class folders are ignored unless they are images.

    Raises: ValueError if classes are empty, single, missing in the test set or unknown in the training set, or too
        small to be split.
    """
    top = below(files.folders, "")
    split_names = {name.lower(): name for name in _parts(files, top)}
    train, test = split_names.get("train"), next((split_names[n] for n in SPLIT_NAMES[1:] if n in split_names), None)
    lost = [f"{name} ({why})" for name, why in sorted(files.broken.items()) if name.lower() in SPLIT_NAMES]
    if lost:
        raise ValueError(f"{files.root}: {counted(len(lost), 'part')} unreadable: {offenders(lost)}")
    if train is None:
        if split_names:
            raise ValueError(f"{files.root}: there is {test}/ but no train/ with one folder per class")
        _refuse_parts(files, top)
        return _fixed_test(files.root, *_classes(files, ""))
    _refuse_unlabeled(files, top, test)
    unused = [f"{name}/" for name in top if name not in (train, test)]
    if unused:
        warnings.warn(f"{files.root}: not used: {offenders(unused)} (beside {train}/)", stacklevel=3)
    classes, labeled = _classes(files, f"{train}/")
    if test is None:
        return _fixed_test(files.root, classes, labeled)
    test_classes, test_labeled = _classes(files, f"{test}/")
    _compare(files.root, classes, test_classes, train, test)
    refuse_small(files.root, labels_of(labeled), classes, 2, "; needed to train on one and validate on another")
    return Layout(classes, labeled, test_labeled)


def labels_of(labeled: Labeled) -> Tensor:
    """Return the labels, int64 (N,)."""
    return torch.tensor([label for _, label in labeled], dtype=torch.int64)


def below(folders: Iterable[str], prefix: str) -> list[str]:
    """Name the folders directly in a folder, "" or "folder/", sorted."""
    rest = (name.removeprefix(prefix) for name in folders if name.startswith(prefix))
    return sorted(name for name in rest if name and "/" not in name)


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def direct_images(files: Files, prefix: str) -> list[str]:
    """List the images directly in a folder, "" or "folder/"."""
    return [n for n in files.names if n.startswith(prefix) and "/" not in n.removeprefix(prefix) and is_image(n)]


def _parts(files: Files, top: list[str]) -> list[str]:
    """Tell train/ and test/ from classes that happen to be called so: they hold folders and no images.

    One with images beside its folders is still meant as a part if another part has a folder of the same name.
    """
    inside = {name: set(below(files.folders, f"{name}/")) for name in top if name.lower() in SPLIT_NAMES}
    clean = {name for name, found in inside.items() if found and not direct_images(files, f"{name}/")}
    classes = set().union(*(inside[name] for name in clean))
    return [name for name, found in inside.items() if name in clean or found & classes]


def _refuse_parts(files: Files, top: list[str]) -> None:
    """Refuse folders that are called like parts of a set and would be taken for its classes."""
    parts = [name for name in top if re.sub("[-_ ]?(ing|set|data|images)?$", "", name.lower()) in SPLIT_NAMES]
    if len(parts) > 1:
        stray = [image for name in parts for image in direct_images(files, f"{name}/")]
        raise ValueError(
            f"{files.root}: {' and '.join(f'{name}/' for name in parts)} are called like parts of a set and not like "
            f"classes; expected train/ and test/, each with one folder per class and no image beside these"
            + (f", and there are {counted(len(stray), 'image')}: {offenders(stray)}" if stray else "")
        )


def _refuse_unlabeled(files: Files, top: list[str], test: str | None) -> None:
    """Refuse a test/ without class folders beside a train/ with them: its labels are unknown."""
    for name in top:
        if name.lower() == "test" and name != test:
            raise ValueError(
                f"{files.root}: {name}/ has no class folders, so its labels are unknown; move it away, then "
                f"{'another folder' if test else 'a fixed 20% of train/'} is the test set"
            )


def _refuse_split_classes(files: Files, prefix: str, classes: tuple[str, ...]) -> None:
    """Refuse classes that are split each in itself: taken for one, what was to be tested on would be trained on."""
    for label in classes:
        parts = [name for name in below(files.folders, f"{prefix}{label}/") if name.lower() in SPLIT_NAMES]
        if len(parts) > 1:
            found, expected = (
                " and ".join(f"{form.format(label=label, part=part)}" for part in parts)
                for form in (prefix + "{label}/{part}/", "{part}/{label}/")
            )
            raise ValueError(f"{files.root}: {found} are called like parts of a set; expected {expected}")


def _classes(files: Files, prefix: str) -> tuple[tuple[str, ...], Labeled]:
    where = f"{files.root}/{prefix}".rstrip("/")
    classes = tuple(below(files.folders, prefix))
    files.refuse_broken(prefix)
    stray = direct_images(files, prefix)
    if stray:
        raise ValueError(
            f"{where}: {counted(len(stray), 'image')} outside of the class folders: {offenders(stray)}; expected one "
            "folder per class"
        )
    if len(classes) < 2:
        nested = classes and below(files.folders, f"{prefix}{classes[0]}/")
        raise ValueError(
            f"{where}: expected at least two classes, that is two folders with images, got "
            + (f"one: {classes[0]}/" if classes else "none")
            + (f"; if the classes are the folders in it, give {where}/{classes[0]}" if nested else "")
        )
    refuse_unencodable(where, "class folder", classes, "rename them")
    _refuse_split_classes(files, prefix, classes)
    numbers = {name: label for label, name in enumerate(classes)}
    labeled = tuple(
        (name, numbers[name.removeprefix(prefix).split("/", 1)[0]])
        for name in files.names
        if name.startswith(prefix) and "/" in name.removeprefix(prefix)
    )
    files.refuse_large(name for name, _ in labeled)
    filled = {label for _, label in labeled}
    empty = [name for name, label in numbers.items() if label not in filled]
    if empty:
        raise ValueError(f"{where}: {counted(len(empty), 'empty class')}: {offenders(empty)}; add images or remove it")
    return classes, labeled


def _compare(root: str, classes: tuple[str, ...], test_classes: tuple[str, ...], train: str, test: str) -> None:
    missing = [name for name in classes if name not in test_classes]
    unknown = [name for name in test_classes if name not in classes]
    faults = []
    if missing:
        faults.append(f"{counted(len(missing), 'class')} of {train}/ missing in {test}/: {offenders(missing)}")
    if unknown:
        faults.append(f"{counted(len(unknown), 'class')} of {test}/ unknown in {train}/: {offenders(unknown)}")
    if faults:
        raise ValueError(f"{root}: {'; '.join(faults)}; both need the same class folders")


def _fixed_test(root: str, classes: tuple[str, ...], labeled: Labeled) -> Layout:
    labels, why = labels_of(labeled), "; needed to train on one, validate on another and test on a third"
    refuse_small(root, labels, classes, 3, why)
    parts = split(labels, fraction=TEST_FRACTION, seed=TEST_SEED)
    train, test = (tuple(labeled[n] for n in part.tolist()) for part in parts)
    return Layout(classes, train, test)
