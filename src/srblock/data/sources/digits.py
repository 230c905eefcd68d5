"""Scikit-learn's handwritten digits: 1,797 real scans of 8x8 pixels that come with the package (no download).

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

from pathlib import Path

import torch

from srblock.data.images import ImageData, resize
from srblock.data.progress import Progress
from srblock.data.split import split

TEST_FRACTION, TEST_SEED = 0.2, 0


def load(path: Path | None, *, image_size: int | None, cache: Path, progress: Progress | None) -> ImageData:
    """Load the digits with a fixed stratified test set of 20%. A digit must not be mirrored: flip is False.

    Pixel values 0..16 become 0..255. Raises: ValueError if a path is given.
    """
    if path is not None:
        raise ValueError(f"digits come with scikit-learn and take no path, got digits:{path}; write digits")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    images = resize("digits", pixels, image_size)
    train, test = split(labels, fraction=TEST_FRACTION, seed=TEST_SEED)
    return ImageData.build(
        "digits",
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        classes=[str(digit) for digit in range(10)],
        flip=False,
    )
