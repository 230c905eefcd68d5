"""Random numbers that are a function of (seed, epoch, stream, sample) and of nothing else.

Sample n gets the (n+1)-th output of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) started from a key made of the other
three. So a crop does not depend on how many images there are, on the batch size, the subset, the device or the version
of a library, and an epoch can be drawn without those before it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Streams. New ones go to the end: a stream's number is part of what is drawn.
SPLIT, ORDER, ROW, COLUMN, MIRROR, AREA, RATIO, TOP, LEFT = range(9)
SCALE, SCENE_TOP, SCENE_LEFT, BRIGHTNESS, CONTRAST, CONTRAST_LAST, SATURATION, HUE = range(9, 17)
OPERATION, MAGNITUDE, SIGN, ERASED, ERASED_AREA, ERASED_RATIO, ERASED_TOP, ERASED_LEFT = range(17, 25)
MIX_KIND, MIX_FIRST, MIX_SECOND, MIX_TOP, MIX_LEFT = range(25, 30)

_GOLDEN, _FIRST, _SECOND, _MASK = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 2**64 - 1


def bits(seed: int, epoch: int, stream: int, samples: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Draw 64 random bits for each sample number.

    Shapes: samples (N,) -> (N,).
    """
    key = 0
    for word in (seed, epoch, stream):
        key = int(_splitmix(key ^ (word & _MASK), np.zeros(1, np.int64))[0])
    return _splitmix(key, samples)


def below(limit: int, seed: int, epoch: int, stream: int, samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Draw an integer in 0..limit-1 for each sample number (limit below 2^32).

    Shapes: samples (N,) -> (N,).
    """
    high = bits(seed, epoch, stream, samples) >> np.uint64(32)
    return ((high * np.uint64(limit)) >> np.uint64(32)).astype(np.int64)


def uniform(seed: int, epoch: int, stream: int, samples: NDArray[np.int64]) -> NDArray[np.float64]:
    """Draw a number in [0, 1) for each sample number, a multiple of 2^-53.

    Shapes: samples (N,) -> (N,).
    """
    return (bits(seed, epoch, stream, samples) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _splitmix(key: int, samples: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return for each n the (n+1)-th output of SplitMix64 seeded with the key."""
    state = np.uint64(key) + (samples.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_FIRST)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_SECOND)
    return state ^ (state >> np.uint64(31))
