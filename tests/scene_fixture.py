"""Generated scenes with a class for every pixel, in the layouts that are read: real PNGs that a network could learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 96)
CITYSCAPES_IDS = (23, 7, 26, 24, 11)  # sky, road, car, person, building; 0 and 3 are ignored
CAMVID_VALUES = (0, 3, 8, 9, 1)


def scene(number: int, values: Sequence[int], ignored: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, ...]:
    """Make a scene: sky over road, three things in front, a border that is ignored; a color for each, and noise.

    Shapes: -> uint8 (H, W, 3) and (H, W).
    """
    random = np.random.default_rng(number)
    height, width = size
    kind = np.zeros(size, np.int64)
    kind[int(height * random.uniform(0.4, 0.6)) :] = 1
    for thing in (2, 3, 4):
        top, left = random.integers(0, (height * 2 // 3, width * 3 // 4))
        kind[top : top + height // 3, left : left + width // 4] = thing
    colors = np.array([[90, 150, 220], [110, 90, 100], [180, 30, 40], [230, 190, 60], [60, 120, 70]])
    y, x = np.mgrid[:height, :width]
    wave = 15 * np.sin(x / 5 + random.uniform(0, 6)) + 15 * np.cos(y / 4)
    pixels = colors[kind] + wave[..., None] + random.normal(0, 6, (*size, 3))
    labels = np.array(values, np.uint8)[kind]
    labels[:2] = labels[-2:] = ignored
    return pixels.clip(0, 255).astype(np.uint8), labels


def save(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, compress_level=1)


def write_cityscapes(root: Path, counts: Mapping[str, int] | None = None, size: tuple[int, int] = SIZE) -> Path:
    """Write leftImg8bit/ and gtFine/ of two cities a part, with the files beside the labels that nobody asked for."""
    for part, count in (counts or {"train": 9, "val": 4}).items():
        for number in range(count):
            city = f"{part}{'ab'[number % 2]}"
            name = f"{city}_{number:06}_000019"
            pixels, labels = scene(100 * len(part) + number, CITYSCAPES_IDS, 3, size)
            save(root / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png", pixels)
            folder = root / "gtFine" / part / city
            save(folder / f"{name}_gtFine_labelIds.png", labels)
            save(folder / f"{name}_gtFine_instanceIds.png", labels.astype(np.uint16) * 1000)
            save(folder / f"{name}_gtFine_color.png", pixels)
            (folder / f"{name}_gtFine_polygons.json").write_text("{}")
    return root


def write_camvid(root: Path, counts: Mapping[str, int] | None = None, size: tuple[int, int] = SIZE) -> Path:
    """Write train/, val/, test/ and their annot/ folders."""
    for part, count in (counts or {"train": 9, "val": 3, "test": 4}).items():
        for number in range(count):
            pixels, labels = scene(100 * len(part) + number, CAMVID_VALUES, 11, size)
            save(root / part / f"{number:04}.png", pixels)
            save(root / f"{part}annot" / f"{number:04}.png", labels)
    return root


def write_scenes(
    root: Path,
    counts: Mapping[str, int] | None = None,
    classes: str = "sky\t#4080ff\nignore\nroad\ncar\nperson\nhouse\n",
    *,
    by_kind: bool = True,
) -> Path:
    """Write a folder of one's own: images/train/ and labels/train/, or train/images/ and train/labels/."""
    for part, count in (counts or {"train": 10}).items():
        for number in range(count):
            seed = 100 * len(part) + number + (50 if part == "valid" else 0)  # "train" has as many letters
            pixels, labels = scene(seed, (0, 2, 3, 4, 5), 255)
            folders = [root / (f"{kind}/{part}" if by_kind else f"{part}/{kind}") for kind in ("images", "labels")]
            save(folders[0] / f"{number}.png", pixels)
            save(folders[1] / f"{number}.png", labels)
    (root / "classes.txt").write_text(classes)
    return root
