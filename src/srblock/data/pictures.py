"""Some images of a part as people look at them, whether they are in memory or in files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from srblock.data.image_files import ImageFiles
from srblock.data.loading.crops import center_box
from srblock.data.loading.decode import decode_cut


def pictures(images: Tensor | ImageFiles, numbers: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Return images by their numbers; of files these alone are read, and the center square of each is kept.

    Shapes: -> (H, W) of gray ones, else (H, W, 3).

    Raises: OSError or ValueError if a file cannot be read.
    """
    if isinstance(images, ImageFiles):
        side = images.side
        center = partial(center_box, size=(side, side), resize=side)
        return [decode_cut(images.read(number), side, center) for number in numbers]
    chosen = [images[number].numpy() for number in numbers]
    return [pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0) for pixels in chosen]
