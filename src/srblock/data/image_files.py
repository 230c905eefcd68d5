"""Images left in their files: what a streamed set holds in the place of pixels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

CHANNELS = 3  # which sets are gray only their pixels would tell
DECODING = 1  # count up when the same files would give other pixels: runs on them are then other runs
# Mean and standard deviation of ImageNet's training images, as torchvision documents them for its weights.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Names of image files and the size their images are served at; make one with `ImageFiles.below`.

    The names lie in two tensors, so that a million of them reaches worker processes without a copy for each.

    Attributes:
        root: the folder, absolute.
        text, ends: all names below it in one, uint8, and where each ends, int64 (N,).
        file_bytes: size of each file, int64 (N,).
        side: height and width that images are served at.
    """

    root: str
    text: Tensor
    ends: Tensor
    file_bytes: Tensor
    side: int

    @classmethod
    def below(cls, root: Path, names: Sequence[str], sizes: Sequence[int], side: int) -> ImageFiles:
        """Make one of relative names and file sizes."""
        return cls(str(root.resolve()), *pack(names), torch.tensor(sizes, dtype=torch.int64), side)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W), as if the images were in memory."""
        return torch.Size((len(self), CHANNELS, self.side, self.side))

    def name(self, number: int) -> str:
        """Return the relative name of a file."""
        return packed(self.text, self.ends, number)

    def read(self, number: int) -> bytes:
        """Read a file.

        Raises: OSError if it cannot be read.
        """
        with open(os.path.join(self.root, self.name(number)), "rb") as file:
            return file.read()

    def digest(self) -> bytes:
        """Return a SHA-256 of names and file sizes: of nothing that needs a file to be opened."""
        digest = hashlib.sha256(f"srblock image files {DECODING}".encode())
        for tensor in (self.ends, self.text, self.file_bytes):
            digest.update(tensor.numpy().tobytes())
        return digest.digest()


def pack(names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Pack names: all of them in one, uint8, and where each ends, int64 (N,)."""
    encoded = [os.fsencode(name) for name in names]
    ends = torch.tensor([len(name) for name in encoded], dtype=torch.int64).cumsum(0)
    return torch.frombuffer(bytearray(b"".join(encoded)), dtype=torch.uint8), ends


def packed(text: Tensor, ends: Tensor, number: int) -> str:
    """Return one of the names that `pack` packed."""
    start = int(ends[number - 1]) if number else 0
    return os.fsdecode(text[start : int(ends[number])].numpy().tobytes())
