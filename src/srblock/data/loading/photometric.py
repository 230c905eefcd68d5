"""Photometric distortion: brightness, contrast, saturation and hue of a training image.

As MMSegmentation's PhotoMetricDistortion defines it (after SSD, Liu et al., ECCV 2016): each with probability one half,
contrast before or after the two that need a hue. What differs: values are rounded once at the end, not after each of
the four, and the hue is any number of degrees, not an even one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srblock.data.loading.draws import BRIGHTNESS, CONTRAST, CONTRAST_LAST, HUE, SATURATION, below, uniform

BRIGHTER, CONTRASTS, SATURATIONS = (-32.0, 32.0), (0.5, 1.5), (0.5, 1.5)
TURNS = (-36.0, 36.0)  # degrees: the framework's 18 are of OpenCV's 180 for a full turn
AT_ONCE = 2**15  # pixels: as many as stay in the processor's cache with all that is computed of them

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Distortion:
    """What is done to the pixels of an image; without arguments nothing.

    Attributes:
        brightness: is added to each value, 0 to 255.
        contrast: each value is multiplied by it.
        contrast_last: whether that comes after the hue, not before the saturation.
        saturation: the saturation (HSV) is multiplied by it.
        hue: is added to the hue (HSV), degrees.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    contrast_last: bool = False
    saturation: float = 1.0
    hue: float = 0.0


def draw_distortions(seed: int, epoch: int, samples: NDArray[np.int64]) -> Iterator[Distortion]:
    """Draw a distortion for each sample: one number says whether, in its lower half, and how much."""

    def drawn(stream: int, low: float, high: float, neutral: float) -> list[float]:
        chance = uniform(seed, epoch, stream, samples)
        amounts: list[float] = np.where(chance < 0.5, low + (high - low) * 2 * chance, neutral).tolist()
        return amounts

    rows = zip(
        drawn(BRIGHTNESS, *BRIGHTER, 0.0),
        drawn(CONTRAST, *CONTRASTS, 1.0),
        below(2, seed, epoch, CONTRAST_LAST, samples).tolist(),
        drawn(SATURATION, *SATURATIONS, 1.0),
        drawn(HUE, *TURNS, 0.0),
        strict=True,
    )
    for brightness, contrast, last, saturation, hue in rows:
        yield Distortion(brightness, contrast, bool(last), saturation, hue)


def distorted(pixels: NDArray[np.uint8], distortion: Distortion) -> NDArray[np.uint8]:
    """Distort an image, each step kept in 0..255. Shapes: (H, W, 3) -> (H, W, 3)."""
    values = np.clip(np.arange(256, dtype=np.float32) + distortion.brightness, 0, 255, dtype=np.float32)
    if not distortion.contrast_last:
        values = _contrasted(values, distortion.contrast)
    colored = distortion.saturation != 1 or distortion.hue != 0
    if not colored:
        if distortion.contrast_last:
            values = _contrasted(values, distortion.contrast)
        return _rounded(values).take(pixels)
    flat = pixels.reshape(-1, 3)
    done = np.empty_like(flat)
    for start in range(0, len(flat), AT_ONCE):
        chunk = flat[start : start + AT_ONCE]
        planes = _recolored(values.take(chunk.T), distortion.saturation, distortion.hue)
        if distortion.contrast_last:
            planes = _contrasted(planes, distortion.contrast)
        done[start : start + AT_ONCE] = _rounded(planes).T
    return done.reshape(pixels.shape)


def _contrasted(values: Floats, contrast: float) -> Floats:
    brighter: Floats = np.minimum(values * np.float32(contrast), np.float32(255))
    return brighter


def _rounded(values: Floats) -> NDArray[np.uint8]:
    return (values + np.float32(0.5)).astype(np.uint8)


def _recolored(planes: Floats, saturation: float, hue: float) -> Floats:
    """Scale the saturation and turn the hue, the value of HSV kept.

    With the largest channel V and the chroma D = V - smallest, the saturation is D / V; to scale it by k is to move
    every channel to V - (V - channel) k, where k D / V stays at most 1. Only a turned hue needs the hue itself.
    Shapes: red, green and blue (3, K), 0 to 255 -> the same.
    """
    value = planes.max(axis=0)
    chroma = value - planes.min(axis=0)
    divisor = np.maximum(chroma, np.float32(1e-6))  # gray has no hue, and any will do
    factor = np.minimum(np.float32(saturation), value / divisor) if saturation > 1 else np.float32(saturation)
    if hue == 0:
        faded: Floats = value - (value - planes) * factor
        return faded
    red, green, blue = planes
    sextant = np.where(
        value == red,
        (green - blue) / divisor,
        np.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sextant += np.float32(hue / 60)
    chroma = chroma * factor
    turned = np.empty_like(planes)
    for channel, offset in enumerate((5, 3, 1)):  # how far a channel is below V, by its distance from its own hue
        place = sextant + np.float32(offset)
        place -= 6 * np.floor(place / 6)
        turned[channel] = value - chroma * np.clip(np.minimum(place, 4 - place), 0, 1)
    return turned
