"""What a source of scenes finds: which files make pairs, and what the labels' values mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from srblock.data.offenders import counted, offenders
from srblock.data.scene_files import IGNORED
from srblock.data.scenes import Color
from srblock.data.sources.files import opened
from srblock.data.sources.layout import is_image

Pair = tuple[str, str]  # relative names of an image and its label


@dataclass(frozen=True)
class Meaning:
    """What label values mean.

    Attributes:
        classes, colors: names and colors, by class.
        values: of each class, its value in label files.
        ignored: values that are neither learned nor counted. Any other is an error.
    """

    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    values: tuple[int, ...]
    ignored: tuple[int, ...]

    def class_of(self) -> Tensor:
        """Return the class of each value, uint8 (256,); 255 for all that are none."""
        table = torch.full((256,), IGNORED, dtype=torch.uint8)
        table[list(self.values)] = torch.arange(len(self.classes), dtype=torch.uint8)
        return table

    def known(self) -> Tensor:
        """Return which values may occur, bool (256,)."""
        table = torch.zeros(256, dtype=torch.bool)
        table[[*self.values, *self.ignored]] = True
        return table


def folder_of(source: str, path: Path | None) -> Path:
    """Return the folder that a specification names.

    Raises: ValueError if it names none.
    """
    if path is None:
        raise ValueError(f"{source} is read from a folder: write {source}:PATH")
    if not path.is_dir():
        what = "is no folder" if path.exists() else "does not exist"
        raise ValueError(f"{source}:{path}: {path} {what}; scenes are read from folders, unpack archives first")
    return path


def listed(root: Path, folder: str) -> dict[str, int]:
    """List the files below a folder of the root: relative names and sizes in bytes.

    Raises: ValueError if there is no such folder, or it holds what must not be read.
    """
    if not (root / folder).is_dir():
        raise ValueError(f"{root}: there is no folder {folder}/ in it")
    with opened(root / folder) as files:
        files.refuse_broken()
        files.refuse_large(filter(is_image, files.names))
        return {f"{folder}/{name}": size for name, size in files.sizes.items()}


def by_stem(names: Iterable[str], folder: str, *, labels: bool = False) -> dict[str, str]:
    """Return the images, or the PNG labels, below a folder by what is left of their names without it and the suffix.

    Raises: ValueError if two share a name but for the suffix.
    """
    found: dict[str, str] = {}
    double = []
    for name in names:
        if name.startswith(f"{folder}/") and (name.lower().endswith(".png") if labels else is_image(name)):
            stem = name.removeprefix(f"{folder}/").rpartition(".")[0]
            if stem in found:
                double.append(f"{found[stem]} and {name}")
            found[stem] = name
    if double:
        raise ValueError(f"{folder}/: names that differ in their suffix only: {offenders(double)}; keep one of each")
    return found


def paired(where: str, images: Mapping[str, str], labels: Mapping[str, str]) -> list[Pair]:
    """Match images and labels by their keys, in the order of these.

    Raises: ValueError naming those that have no partner, or if there are none at all.
    """
    alone = [images[key] for key in sorted(images.keys() - labels.keys())]
    extra = [labels[key] for key in sorted(labels.keys() - images.keys())]
    faults = []
    if alone:
        faults.append(f"{counted(len(alone), 'image')} without a label: {offenders(alone)}")
    if extra:
        faults.append(f"{counted(len(extra), 'label')} without an image: {offenders(extra)}")
    if faults:
        raise ValueError(f"{where}: {'; '.join(faults)}; add the partners or remove these")
    if not images:
        raise ValueError(f"{where}: no images")
    return [(images[key], labels[key]) for key in sorted(images)]


def bytes_of(pairs: Sequence[Pair], sizes: Mapping[str, int]) -> list[tuple[int, int]]:
    """Return the file sizes of each pair."""
    return [(sizes[image], sizes[label]) for image, label in pairs]
