from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from srblock.data import load


def test_digits_are_the_real_ones():
    data = load("digits")
    assert (data.name, data.channels, data.size, data.flip) == ("digits", 1, (8, 8), False)
    assert data.classes == tuple("0123456789")
    assert (data.train_size, data.test_size) == (1438, 359)
    both = torch.cat([data.train_images, data.test_images])
    assert both.min() == 0
    assert both.max() == 255
    original = load_digits()
    expected = sorted(
        zip(map(bytes, np.rint(original.images * 255 / 16).astype(np.uint8)), original.target, strict=True)
    )
    labels = torch.cat([data.train_labels, data.test_labels]).tolist()
    assert sorted(zip((bytes(x) for x in both.numpy()), labels, strict=True)) == expected


def test_digits_test_set_is_fixed_and_stratified():
    data, again = load("digits"), load("digits")
    assert data.fingerprint == again.fingerprint
    assert data.fingerprint.startswith(
        "efbacc5b81c186c6"
    )  # another one means other test images, and runs not comparable
    shares = torch.bincount(data.test_labels) / (torch.bincount(data.train_labels) + torch.bincount(data.test_labels))
    assert shares.sub(0.2).abs().max() < 0.003


def test_digits_resized():
    data = load("digits", image_size=16)
    assert data.size == (16, 16)
    assert data.train_images.dtype == torch.uint8
    assert data.fingerprint != load("digits").fingerprint


def test_digits_take_no_path():
    with pytest.raises(ValueError, match="digits come with scikit-learn and take no path, got digits:somewhere"):
        load("digits:somewhere")
