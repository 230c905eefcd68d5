from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from srblock.data.loading.draws import COLUMN, ROW, _splitmix, below, bits

MASK = 2**64 - 1


def reference(seed: int, count: int) -> list[int]:
    """SplitMix64 as published: state by state, in Python integers."""
    drawn = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        drawn.append(z ^ (z >> 31))
    return drawn


def test_published_numbers():
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert _splitmix(1234567, np.arange(5)).tolist() == published == reference(1234567, 5)


@given(seed=st.integers(-(2**70), 2**70), epoch=st.integers(0, 10**6))
def test_bits_follow_the_generator_and_the_sample_alone(seed, epoch):
    key = 0
    for word in (seed, epoch, ROW):
        key = reference(key ^ (word & MASK), 1)[0]
    assert bits(seed, epoch, ROW, np.arange(9)).tolist() == reference(key, 9)
    assert bits(seed, epoch, ROW, np.array([7, 2])).tolist() == [reference(key, 9)[7], reference(key, 9)[2]]


def test_seed_epoch_and_stream_all_count():
    samples = np.arange(50)
    drawn = [bits(*key, samples).tolist() for key in ((1, 0, ROW), (0, 1, ROW), (0, 0, ROW), (0, 0, COLUMN))]
    assert len({number for row in drawn for number in row}) == 200


def test_below_is_uniform():
    counts = np.bincount(below(9, 3, 4, ROW, np.arange(90_000)), minlength=9)
    assert len(counts) == 9
    chi_squared = float(((counts - 10_000) ** 2 / 10_000).sum())
    assert chi_squared < 26.1  # 8 degrees of freedom, p = 0.001
