"""Folders of JPEGs of several sizes, for tests of everything that streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_jpegs(
    root: Path, parts: tuple[str, ...] = ("train", "val"), classes: tuple[str, ...] = ("cat", "dog"), each: int = 11
) -> Path:
    """Write parts/class/n.jpg: smooth waves with noise, of another size, phase and direction each.

    The first class is reddish with waves across, the second bluish with waves down.
    """
    random = np.random.default_rng(0)
    for part in parts:
        for label, name in enumerate(classes):
            (root / part / name).mkdir(parents=True)
            for number in range(each):
                height, width = random.integers(40, 90, 2)
                y, x = np.mgrid[:height, :width]
                wave = 90 * np.sin((x if label else y) / 5 + random.uniform(0, 6))
                color = np.array([150, 110, 80]) if label == 0 else np.array([80, 110, 150])
                pixels = color + wave[..., None] + random.normal(0, 8, (height, width, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(root / part / name / f"{number:02}.jpg", quality=90)
    return root
