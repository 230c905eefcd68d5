"""Scenes left in their files: pairs of an image and a label image, which has a value for every pixel."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srblock.data.image_files import pack, packed
from srblock.data.loading.decode import decode_image, decode_values

if TYPE_CHECKING:
    from PIL import Image

IGNORED = 255  # the class of pixels that are neither learned nor counted
DECODING = 1  # count up when the same files would give other pixels or classes: runs on them are then other runs


@dataclass(frozen=True, eq=False)
class SceneFiles:
    """Names of image and label files and what the labels' values mean; make one with `SceneFiles.below`.

    The names lie in two tensors, so that all of them reach worker processes without a copy for each.

    Attributes:
        root: the folder, absolute.
        text, ends: all names below it in one, uint8, image and label in turn, and where each ends, int64 (2N,).
        file_bytes: size of each image and label file, int64 (N, 2).
        sizes: (H, W) of each image and its label, int64 (N, 2).
        class_of: the class of each value in a label file, uint8 (256,); 255 is ignored.
    """

    root: str
    text: Tensor
    ends: Tensor
    file_bytes: Tensor
    sizes: Tensor
    class_of: Tensor

    @classmethod
    def below(
        cls,
        root: Path,
        pairs: Sequence[tuple[str, str]],
        *,
        file_bytes: Sequence[tuple[int, int]],
        sizes: Tensor,
        class_of: Tensor,
    ) -> SceneFiles:
        """Make one of relative names (image, label), their file sizes and the images' sizes."""
        names = [name for pair in pairs for name in pair]
        measured = torch.tensor(file_bytes, dtype=torch.int64).view(len(pairs), 2)
        return cls(str(root.resolve()), *pack(names), measured, sizes.to(torch.int64), class_of.to(torch.uint8))

    def __len__(self) -> int:
        return len(self.file_bytes)

    def image_name(self, number: int) -> str:
        """Return the relative name of an image file."""
        return packed(self.text, self.ends, 2 * number)

    def label_name(self, number: int) -> str:
        """Return the relative name of a label file."""
        return packed(self.text, self.ends, 2 * number + 1)

    def read(self, number: int) -> tuple[bytes, bytes]:
        """Read an image file and its label file.

        Raises: OSError if one cannot be read.
        """
        contents = []
        for name in (self.image_name(number), self.label_name(number)):
            with open(os.path.join(self.root, name), "rb") as file:
                contents.append(file.read())
        return contents[0], contents[1]

    def pair(self, number: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Decode an image, RGB, for Pillow to cut and resize, and the classes of its pixels (H, W).

        Raises: ValueError if one of the files is broken or their sizes differ; OSError if one cannot be read.
        """
        content, label = self.read(number)
        image = decode_image(content)
        try:
            values = decode_values(label)
        except ValueError as error:
            raise ValueError(f"its label {self.label_name(number)}: {error}") from error
        if (image.height, image.width) != values.shape:
            size = f"{image.height}x{image.width}"
            raise ValueError(f"{size}, and its label {self.label_name(number)} {values.shape[0]}x{values.shape[1]}")
        return image, self.class_of.numpy().take(values)

    def decode(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Decode an image, uint8 (3, H, W), and the classes of its pixels, uint8 (H, W).

        Raises: as `pair`.
        """
        image, classes = self.pair(number)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)), classes

    def digest(self) -> bytes:
        """Return a SHA-256 of names, sizes and classes: of nothing that needs a file to be opened."""
        digest = hashlib.sha256(f"srblock scene files {DECODING}".encode())
        for tensor in (self.ends, self.text, self.file_bytes, self.sizes, self.class_of):
            digest.update(tensor.numpy().tobytes())
        return digest.digest()
