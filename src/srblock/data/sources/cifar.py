"""CIFAR-10 and CIFAR-100, the official binary version: records of label bytes and 3,072 pixel bytes, RGB planes.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srblock.data.images import ImageData, resize
from srblock.data.offenders import counted, offenders
from srblock.data.progress import Progress
from srblock.data.sources.download import download, writing

SIDE = 32
PIXELS = 3 * SIDE * SIDE

Parts = tuple[Tensor, Tensor, Tensor, Tensor, list[str]]  # train images, labels, test images, labels, class names


@dataclass(frozen=True)
class Cifar:
    """Where a set is published and how its files look. `labels` holds how many values each label byte may take."""

    name: str
    url: str
    md5: str
    folder: str
    train_files: tuple[str, ...]
    test_file: str
    names_file: str
    labels: tuple[int, ...]
    train_per_class: int
    test_per_class: int

    def load(self, path: Path | None, *, image_size: int | None, cache: Path, progress: Progress | None) -> ImageData:
        """Load the set from a folder, or download it into the cache once.

        Raises: ValueError if files are missing, truncated or hold labels that cannot be; as `download` otherwise.
        """
        if path is not None:
            parts = self._parts(self._find(path))
        else:
            parts = self._cached(cache) or self._downloaded(cache, progress)
        train_images, train_labels, test_images, test_labels, classes = parts
        return ImageData.build(
            self.name,
            train_images=resize(self.name, train_images, image_size),
            train_labels=train_labels,
            test_images=resize(self.name, test_images, image_size),
            test_labels=test_labels,
            classes=classes,
            flip=True,
        )

    def at_hand(self, cache: Path) -> bool:
        """Tell whether the set was downloaded before."""
        return all((cache / self.folder / file).is_file() for file in self.files)

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train_files, self.test_file, self.names_file)

    def _find(self, path: Path) -> Path:
        """Accept the folder of the .bin files or the one that holds it."""
        for folder in (path, path / self.folder):
            if any((folder / file).exists() for file in self.files):
                return folder
        raise ValueError(
            f"{self.name}:{path}: expected a folder with {self.test_file}, or one that holds {self.folder}/; unpack "
            f"{self.url.rsplit('/', 1)[-1]} there"
        )

    def _parts(self, folder: Path) -> Parts:
        """Read and check all files of a folder."""
        train = self._read(folder, self.train_files, self.train_per_class)
        test = self._read(folder, (self.test_file,), self.test_per_class)
        return *train, *test, self._names(folder)

    def _read(self, folder: Path, files: tuple[str, ...], per_class: int) -> tuple[Tensor, Tensor]:
        """Read the records of some files: images (N, 3, 32, 32) and labels (N,)."""
        width, per_file = len(self.labels), per_class * self.labels[-1] // len(files)
        self._check_sizes(folder, files, per_file * (width + PIXELS))
        pixels = np.empty((per_file * len(files), 3, SIDE, SIDE), np.uint8)
        labels = np.empty((per_file * len(files), width), np.uint8)
        for number, file in enumerate(files):
            records = np.fromfile(folder / file, np.uint8).reshape(per_file, width + PIXELS)
            here = slice(number * per_file, (number + 1) * per_file)
            labels[here] = records[:, :width]
            pixels[here] = records[:, width:].reshape(per_file, 3, SIDE, SIDE)
        self._check_labels(labels, per_class, f"{', '.join(files)} in {folder}")
        return torch.from_numpy(pixels), torch.from_numpy(labels[:, -1].astype(np.int64))

    def _check_sizes(self, folder: Path, files: tuple[str, ...], expected: int) -> None:
        wrong = []
        for file in files:
            size = (folder / file).stat().st_size if (folder / file).is_file() else None
            if size != expected:
                what = "is missing" if size is None else f"has {size:,}" + (" (truncated)" if size < expected else "")
                wrong.append(f"{file} {what}")
        if wrong:
            raise ValueError(f"{self.name}: expected files of {expected:,} bytes in {folder}, but {offenders(wrong)}")

    def _check_labels(self, labels: NDArray[np.uint8], per_class: int, where: str) -> None:
        wrong = np.flatnonzero((labels >= np.array(self.labels)).any(axis=1)).tolist()
        if wrong:
            named = offenders([f"record {n} ({' and '.join(map(str, labels[n]))})" for n in wrong])
            raise ValueError(
                f"{self.name}: {counted(len(wrong), 'record')} with impossible labels in {where}: {named}; expected "
                f"values below {' and '.join(map(str, self.labels))}"
            )
        sizes = np.bincount(labels[:, -1], minlength=self.labels[-1])
        uneven = [f"label {n} ({sizes[n]})" for n in np.flatnonzero(sizes != per_class)]
        if uneven:
            raise ValueError(
                f"{self.name}: expected {per_class} images of each class in {where}; another number for "
                f"{counted(len(uneven), 'class')}: {offenders(uneven)}"
            )

    def _names(self, folder: Path) -> list[str]:
        file = folder / self.names_file
        names = file.read_text(encoding="utf-8").split() if file.is_file() else []
        if len(names) != self.labels[-1]:
            raise ValueError(f"{self.name}: expected {self.labels[-1]} class names in {file}, got {len(names)}")
        return names

    def _cached(self, cache: Path) -> Parts | None:
        """Read what was downloaded before; None if there is nothing, or nothing whole."""
        if not (cache / self.folder).is_dir():
            return None
        try:
            return self._parts(cache / self.folder)
        except ValueError as error:
            warnings.warn(f"the cache is damaged, the set is downloaded again: {error}", stacklevel=2)
            return None

    def _downloaded(self, cache: Path, progress: Progress | None) -> Parts:
        """Download and unpack the set into the cache, or wait for another process that does."""
        from filelock import FileLock

        lock = FileLock(cache / f"{self.folder}.lock")
        with writing(cache):
            cache.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            parts = self._cached(cache)
            if parts is None:
                archive = download(self.url, cache / self.url.rsplit("/", 1)[-1], md5=self.md5, progress=progress)
                with writing(cache):
                    self._unpack(archive, cache / self.folder)
                    archive.unlink()
                parts = self._parts(cache / self.folder)
        finally:
            lock.release()
        return parts

    def _unpack(self, archive: Path, folder: Path) -> None:
        """Take the files that are read from the archive; they appear all at once."""
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            fresh = Path(scratch) / folder.name
            fresh.mkdir()
            wanted = {f"{self.folder}/{file}": file for file in self.files}
            with tarfile.open(archive, "r:gz") as tar:
                for member in tar:  # in the archive's order: going back would mean to decompress it again
                    source = tar.extractfile(member) if member.name in wanted else None
                    if source is not None:
                        with source, (fresh / wanted.pop(member.name)).open("wb") as sink:
                            shutil.copyfileobj(source, sink)
            if wanted:
                raise ValueError(f"{self.name}: {archive} lacks {offenders(list(wanted))}")
            if folder.exists():
                shutil.rmtree(folder)
            fresh.replace(folder)


CIFAR10 = Cifar(
    name="cifar10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    folder="cifar-10-batches-bin",
    train_files=tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
    test_file="test_batch.bin",
    names_file="batches.meta.txt",
    labels=(10,),
    train_per_class=5000,
    test_per_class=1000,
)
CIFAR100 = Cifar(
    name="cifar100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    folder="cifar-100-binary",
    train_files=("train.bin",),
    test_file="test.bin",
    names_file="fine_label_names.txt",
    labels=(20, 100),
    train_per_class=500,
    test_per_class=100,
)
