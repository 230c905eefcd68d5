from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srblock.data import split, statistics

class_sizes = st.lists(st.integers(2, 40), min_size=1, max_size=6)


@given(sizes=class_sizes, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
def test_split_divides_every_class(sizes, fraction, seed):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    train, validation = split(labels, fraction=fraction, seed=seed)
    assert train.dtype == validation.dtype == torch.int64
    assert sorted(train.tolist() + validation.tolist()) == list(range(len(labels)))
    assert train.tolist() == sorted(train.tolist())
    assert validation.tolist() == sorted(validation.tolist())
    for label, size in enumerate(sizes):
        held_out = int((labels[validation] == label).sum())
        assert 1 <= held_out <= size - 1
        assert held_out in (1, size - 1) or abs(held_out - size * fraction) <= 0.5


def test_split_follows_the_seed():
    labels = torch.arange(10).repeat(50)
    first, again, other = split(labels, seed=1)[1], split(labels, seed=1)[1], split(labels, seed=2)[1]
    assert torch.equal(first, again)
    assert len(first) == 50
    assert len(set(first.tolist()) & set(other.tolist())) < 20
    assert first.tolist()[:8] == [10, 30, 32, 34, 35, 36, 49, 57]  # changes only if every published result does


def test_split_takes_from_everywhere():
    """A class's validation images are not its first or last ones."""
    positions = split(torch.zeros(1000, dtype=torch.int64), seed=0)[1].double()
    assert 400 < positions.mean() < 600
    assert positions.max() - positions.min() > 900


@pytest.mark.parametrize(
    ("labels", "fraction", "message"),
    [
        (
            [0, 0, 1, 2, 2, 3],
            0.1,
            r"2 classes too small to divide .*: 1 \(1 image\), 3 \(1 image\); each needs at least 2",
        ),
        ([0, 0], 0.0, "fraction must lie between 0 and 1, got 0.0"),
        ([0, 0], 1.0, "fraction must lie between 0 and 1, got 1.0"),
        ([], 0.1, r"expected integer labels \(N,\)"),
        ([0.5, 0.5], 0.1, r"expected integer labels \(N,\), got torch.float32"),
    ],
)
def test_split_refuses(labels, fraction, message):
    with pytest.raises(ValueError, match=message):
        split(torch.tensor(labels), fraction=fraction, seed=0)


def test_statistics_agree_with_numpy():
    images = torch.randint(0, 256, (700, 3, 31, 29), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 1] //= 3
    mean, std = statistics(images)
    scaled = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)


def test_statistics_of_a_constant_channel():
    images = torch.full((2, 2, 3, 3), 51, dtype=torch.uint8)
    images[0, 1] = 0
    mean, std = statistics(images)
    assert mean == (51 / 255, 51 / 2 / 255)
    assert std == (1.0, 51 / 2 / 255)


def test_statistics_refuse_scaled_images():
    with pytest.raises(ValueError, match=r"expected uint8 images .* got torch.float32"):
        statistics(torch.rand(2, 3, 4, 4))
