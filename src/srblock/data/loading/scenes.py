"""Augmentation of a scene: resized, cropped, mirrored, distorted; a function of (seed, epoch, sample) alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srblock.data.loading.draws import MIRROR, SCALE, SCENE_LEFT, SCENE_TOP, below, uniform
from srblock.data.loading.photometric import Distortion, distorted, draw_distortions
from srblock.data.loading.scene_crops import TRIES, choose, cut_classes, cut_image, scaled


@dataclass(frozen=True)
class Augmentation:
    """What is done to training scenes, in this order; the defaults are MMSegmentation's for Cityscapes.

    Attributes:
        crop: (H, W) of what is trained on.
        scale: both sides are multiplied by it,
        ratios: and by a number drawn between these, uniformly; (1, 1) leaves them.
        most: a crop in which one class has this share of the pixels or more is taken again, see `scene_crops.choose`;
            1 takes any.
        flip: mirror half of the scenes.
        photometric: distort brightness, contrast, saturation and hue, see `photometric`.

    Raises: ValueError for what cannot be.
    """

    crop: tuple[int, int]
    scale: float = 1.0
    ratios: tuple[float, float] = (0.5, 2.0)
    most: float = 0.75
    flip: bool = True
    photometric: bool = True

    def __post_init__(self) -> None:
        if len(self.crop) != 2 or min(self.crop) < 1:
            raise ValueError(f"expected a crop (H, W) of at least a pixel, got {self.crop}")
        if not 0 < self.scale <= 8:
            raise ValueError(f"expected a scale above 0 and at most 8, got {self.scale}")
        if not 0 < self.ratios[0] <= self.ratios[1] <= 8:
            raise ValueError(f"expected ratios (low, high) above 0 and at most 8, got {self.ratios}")
        if not 0 < self.most <= 1:
            raise ValueError(f"expected `most`, a share of the pixels, above 0 and at most 1, got {self.most}")


@dataclass(frozen=True, eq=False)
class Drawn:
    """What is drawn for a scene: the ratio in [0, 1), the places to try (11, 2), and the rest as it is applied."""

    ratio: float
    places: NDArray[np.float64]
    mirror: bool
    distortion: Distortion


def draw(seed: int, epoch: int, samples: NDArray[np.int64]) -> Iterator[Drawn]:
    """Draw what `augmented` needs, for each sample number."""
    tries = samples[:, None] * (TRIES + 1) + np.arange(TRIES + 1)
    places = [uniform(seed, epoch, stream, tries.ravel()).reshape(tries.shape) for stream in (SCENE_TOP, SCENE_LEFT)]
    ratios = uniform(seed, epoch, SCALE, samples).tolist()
    mirror = below(2, seed, epoch, MIRROR, samples).tolist()
    distortions = draw_distortions(seed, epoch, samples)
    for ratio, place, side, distortion in zip(ratios, np.stack(places, 2), mirror, distortions, strict=True):
        yield Drawn(ratio, place, bool(side), distortion)


def augmented(
    image: Image.Image, classes: NDArray[np.uint8], augmentation: Augmentation, drawn: Drawn
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Augment a scene; the result is smaller than the crop where the resized scene is.

    Shapes: an RGB image and its classes (H, W) -> (h, w, 3) and (h, w), at most the crop's size.
    """
    low, high = augmentation.ratios
    size = scaled((image.height, image.width), augmentation.scale * (low + (high - low) * drawn.ratio))
    window = choose(classes, size, augmentation.crop, drawn.places, augmentation.most)
    pixels, cut = cut_image(image, window), cut_classes(classes, window)
    if augmentation.flip and drawn.mirror:
        pixels, cut = np.ascontiguousarray(pixels[:, ::-1]), cut[:, ::-1]
    return distorted(pixels, drawn.distortion) if augmentation.photometric else pixels, cut
