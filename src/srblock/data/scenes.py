"""A set of scenes with a class for every pixel, with a fingerprint of what can change a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from srblock.data.offenders import counted, offenders, refuse_unencodable
from srblock.data.scene_files import SceneFiles

Color = tuple[int, int, int]  # red, green, blue, 0 to 255


@dataclass(frozen=True, eq=False)
class SceneData:
    """Scenes to train, validate and test on. Make one with `SceneData.build`, or `load_scenes`.

    Attributes:
        name: "cityscapes", "camvid", or the folder's name.
        train, validation, test: the files; without a validation part the caller takes some of the training part
            (`srblock.data.split` of as many zeros as there are images).
        classes: names, by class.
        colors: of each class, for pictures.
        pixels: pixels of each class in the training part, and at the end the ignored ones.
        fingerprint: SHA-256 of file names, file and image sizes, class names, what the labels' values mean, and the
            split. A file that changes and keeps its size is not noticed.
        task: what is predicted, by the name that `srblock.training.task` knows it by.
    """

    channels: ClassVar[int] = 3
    streamed: ClassVar[bool] = True

    name: str
    train: SceneFiles
    validation: SceneFiles | None
    test: SceneFiles
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    pixels: tuple[int, ...]
    fingerprint: str
    task: str = "segmentation"

    @classmethod
    def build(
        cls,
        name: str,
        *,
        train: SceneFiles,
        validation: SceneFiles | None,
        test: SceneFiles,
        classes: Sequence[str],
        colors: Sequence[Color],
        pixels: Sequence[int],
    ) -> SceneData:
        """Check a set, whatever its source, and take its fingerprint.

        Raises: ValueError if there are fewer than two classes, two of one name, a name not in UTF-8, no color for each,
            fewer than two images to train on or none in another part.
        """
        if len(classes) < 2:
            raise ValueError(f"{name}: expected at least two classes, got {len(classes)}: {offenders(list(classes))}")
        if len(set(classes)) < len(classes):
            double = sorted({c for c in classes if list(classes).count(c) > 1})
            raise ValueError(f"{name}: class names are not unique: {offenders(double)}")
        refuse_unencodable("the data", "name", [name], "rename its folder")
        refuse_unencodable(name, "class name", classes, "rename them")
        if len(colors) != len(classes) or len(pixels) != len(classes) + 1:
            got = f"{counted(len(colors), 'color')} and {counted(len(pixels), 'pixel count')}"
            raise ValueError(f"{name}: expected a color for each of {len(classes)} classes and a count more, got {got}")
        for part, files, least in (("train", train, 2), ("validation", validation, 1), ("test", test, 1)):
            if files is not None and len(files) < least:
                raise ValueError(f"{name}, {part} part: expected {counted(least, 'image')} or more, got {len(files)}")
        digest = hashlib.sha256(json.dumps(["srblock scene data 1", list(classes)]).encode())
        for files in (train, validation, test):
            digest.update(b"none" if files is None else files.digest())
        fingerprint = digest.hexdigest()
        return cls(name, train, validation, test, tuple(classes), tuple(colors), tuple(pixels), fingerprint)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) that every image of every part fits into."""
        parts = [part.sizes for part in (self.train, self.validation, self.test) if part is not None]
        height, width = (max(int(sizes[:, side].max()) for sizes in parts) for side in (0, 1))
        return height, width

    @property
    def train_size(self) -> int:
        """Number of images to train on."""
        return len(self.train)

    @property
    def test_size(self) -> int:
        return len(self.test)
