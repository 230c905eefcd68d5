"""From images of any size and kind to a batch that a trained network takes, as the loader brings it test images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srblock.data.loading.augment import resized_crop
from srblock.data.loading.crops import Box, center_box
from srblock.data.loading.decode import cut, flat
from srblock.data.loading.normalize import Normalize
from srblock.data.loading.scene_crops import scaled

Images = Image.Image | Tensor | Sequence[Image.Image | Tensor]


class Preprocess:
    """Bring images to what a network takes, with the bits that the loader gives it in a test.

    An image is one of Pillow's, of any kind (turned as its Exif data say, transparency on white, gray or RGB as the
    network's images were), or uint8 (C, H, W). Of another size than the network's it is resized by Pillow, bilinear
    with antialiasing, so that it covers that size, and its center is cut; scenes are scaled alone.

    Args:
        channels: 1 or 3.
        size: (H, W) that the network takes; not for scenes.
        mean, std: of each channel for pixels in 0..1.
        resize, square: as `Loader` has them.
        streamed: whether the images were decoded while training: then resizing and cutting are one step from the
            file's pixels. Otherwise images were brought to `size` first.
        prepared: whether the images of the training came from a dataset with a transform of its own: then an image that
            must be resized, cut or converted here warns, as the transform would have done that in its own way.
        scale: of scenes, both sides; None for images with one class each.
        device, memory_format: of the batches.
    """

    def __init__(
        self,
        *,
        channels: int,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        resize: int | None = None,
        square: bool = False,
        streamed: bool = False,
        prepared: bool = False,
        scale: float | None = None,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        self.channels, self.size, self.mean, self.std = channels, size, tuple(mean), tuple(std)
        self.resize, self.square, self.streamed, self.scale = resize, square, streamed, scale
        self.prepared, self.device = prepared, torch.device(device)
        self._normalize = Normalize(mean, std, self.device, torch.float32, memory_format)

    def __call__(self, images: Images) -> Tensor:
        """Prepare an image, several, or a uint8 batch (N, C, H, W).

        Shapes: -> float32 (N, C, *size); of scenes all must have one size, and the batch has it, scaled.

        Raises: TypeError for anything else; ValueError for another number of channels, a broken file, pixels that are
        not whole numbers, or scenes of several sizes.
        """
        if isinstance(images, Image.Image) or (isinstance(images, Tensor) and images.dim() == 3):
            images = [images]
        pixels = [self._pixels(image) for image in images]
        if not pixels:
            return torch.empty(0, self.channels, *self.size, device=self.device)
        if len(shapes := {tuple(image.shape[1:]) for image in pixels}) > 1:
            sizes = " and ".join(f"{height}x{width}" for height, width in sorted(shapes)[:2])
            raise ValueError(f"scenes of several sizes ({sizes}) make no batch; give one at a time")
        batch = torch.stack(pixels).to(self.device)
        if self.resize is not None and not self.streamed and self.scale is None:
            box = center_box(*self.size, self.size, resize=self.resize, square=self.square)
            batch = resized_crop(batch, torch.tensor([box], device=self.device).expand(len(batch), 4))
        return self._normalize(batch)

    def _pixels(self, image: Image.Image | Tensor) -> Tensor:
        """Return uint8 (C, H, W), in memory of its own."""
        if isinstance(image, Tensor):
            if image.dtype != torch.uint8 or image.dim() != 3:
                raise TypeError(f"expected uint8 (C, H, W) with pixels 0 to 255, got {image.dtype} {_shape(image)}")
            if image.shape[0] != self.channels or image.numel() == 0:
                raise ValueError(f"expected images of {self.channels} channels (C, H, W), got {_shape(image)}")
            if tuple(image.shape[1:]) == self.size and not self.streamed and self.scale is None:
                return image
            plain = image.cpu().numpy()
            image = Image.fromarray(plain[0] if self.channels == 1 else np.ascontiguousarray(plain.transpose(1, 2, 0)))
        elif not isinstance(image, Image.Image):
            raise TypeError(
                f"expected an image of Pillow or uint8 (C, H, W), got {type(image).__name__}; an array (H, W, C) "
                "becomes one by PIL.Image.fromarray, a file by PIL.Image.open"
            )
        if self.prepared:
            self._warn_of_their_transform(image)
        seen = np.array(self._fitted(flat(image, gray=self.channels == 1)))
        return torch.from_numpy(seen[None] if self.channels == 1 else seen.transpose(2, 0, 1).copy())

    def _warn_of_their_transform(self, image: Image.Image) -> None:
        wanted = "L" if self.channels == 1 else "RGB"
        if (image.height, image.width, image.mode) != (*self.size, wanted):
            warnings.warn(
                f"the network takes images of {self.size[0]}x{self.size[1]} ({wanted}), and others are converted, "
                "resized and cut here, not by the transform of the dataset that the run was trained on, which is not "
                "known: apply that first",
                stacklevel=4,
            )

    def _fitted(self, image: Image.Image) -> Image.Image:
        size = image.height, image.width
        if self.scale is not None:
            height, width = scaled(size, self.scale)
            return image if size == (height, width) else image.resize((width, height), Image.Resampling.BILINEAR)
        if self.streamed:
            resize = self.resize or min(self.size)
            return cut(image, center_box(*size, self.size, resize=resize, square=self.square), self.size)
        return cut(image, covering_box(*size, self.size), self.size)


def covering_box(height: int, width: int, size: tuple[int, int]) -> Box:
    """Return the largest box in the center of an image with the proportions of `size` (H, W)."""
    if height * size[1] <= width * size[0]:  # the image is wider
        columns = size[1] * height / size[0]
        return 0.0, (width - columns) / 2, float(height), columns
    rows = size[0] * width / size[1]
    return (height - rows) / 2, 0.0, rows, float(width)


def _shape(image: Tensor) -> str:
    return f"({', '.join(map(str, image.shape))})"
