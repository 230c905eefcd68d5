"""From pairs of files to a set: every header and every label is read before any training, once."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from srblock.data.loading.decode import decode_values, read_size
from srblock.data.offenders import counted, offenders
from srblock.data.progress import Progress
from srblock.data.scene_files import SceneFiles
from srblock.data.scenes import SceneData
from srblock.data.sources import cache as stored
from srblock.data.sources.scene_parts import Meaning, Pair, bytes_of
from srblock.data.sources.threads import threads

READING = 2  # count up when the same files would give other sizes or values: they are then read again


def build(
    name: str,
    root: Path,
    parts: Mapping[str, Sequence[Pair]],
    sizes: Mapping[str, int],
    meaning: Meaning,
    *,
    cache: Path,
    progress: Progress | None,
) -> SceneData:
    """Make a set of the parts "train", "test" and perhaps "val", checked.

    Labels are decoded once, and what was found is kept in the cache folder under their names, sizes and times. Of
    images only the headers are read.

    Raises: ValueError naming files that cannot be read, pairs of two sizes, labels with unknown values, or a part
        without a pixel of any class.
    """
    pairs = [pair for part in parts.values() for pair in part]
    key = _key(root, pairs, sizes)
    file = stored.file_in(cache, f"{name[:33]}-labels", key)
    found = _cached(file, key, len(pairs))
    if found is None:
        found = _examined(root, pairs, progress)
        stored.write(file, {"shapes": found[0], "counts": found[1]}, _seal(key, *found))
    shapes, counts = found
    known = meaning.known()
    strange = [
        f"{label} ({_values(row[~known], (~known).nonzero()[:, 0])})"
        for (_, label), row in zip(pairs, counts, strict=True)
        if row[~known].any()
    ]
    if strange:
        raise ValueError(
            f"{root}: {counted(len(strange), 'label')} of {len(pairs):,} with values that stand for no class: "
            f"{offenders(strange)}; expected {_values(known, torch.arange(256))}"
        )
    _warn_of_copies(root, parts, sizes, counts)
    files, start, pixels = {}, 0, torch.zeros(0)
    for part, own in parts.items():
        rows = slice(start, start + len(own))
        start += len(own)
        pixels_here = _by_class(counts[rows], meaning)
        if not pixels_here[:-1].any():
            raise ValueError(f"{root}: no pixel of any class in the {counted(len(own), 'label')} of the {part} part")
        pixels = pixels_here if part == "train" else pixels
        measured = bytes_of(own, sizes)
        files[part] = SceneFiles.below(root, own, file_bytes=measured, sizes=shapes[rows], class_of=meaning.class_of())
    return SceneData.build(
        name,
        train=files["train"],
        validation=files.get("val"),
        test=files["test"],
        classes=meaning.classes,
        colors=meaning.colors,
        pixels=pixels.tolist(),
    )


def _warn_of_copies(root: Path, parts: Mapping[str, Sequence[Pair]], sizes: Mapping[str, int], counts: Tensor) -> None:
    """Warn of scenes that are in training and test both. Only images whose sizes and labels agree are read for that."""
    rows = iter(counts)
    keys = {
        part: [(sizes[image], sizes[label], next(rows).numpy().tobytes()) for image, label in own]
        for part, own in parts.items()
    }
    alike = {*keys["train"]} & {*keys["test"]}
    contents = {
        part: {
            image: hashlib.sha256((root / image).read_bytes()).digest()
            for key, (image, _) in zip(keys[part], parts[part], strict=True)
            if key in alike
        }
        for part in ("train", "test")
    }
    trained = {*contents["train"].values()}
    both = [image for image, content in contents["test"].items() if content in trained]
    if both:
        warnings.warn(
            f"{root}: {counted(len(both), 'test scene')} of {len(parts['test']):,} also in the training part: "
            f"{offenders(both)}; figures on these say little; remove copies",
            stacklevel=5,
        )


def _examined(root: Path, pairs: Sequence[Pair], progress: Progress | None) -> tuple[Tensor, Tensor]:
    """Read (H, W) of each image from its header and count the values in its label: int32 (N, 2) and (N, 256)."""

    def attempt(pair: Pair) -> tuple[tuple[int, int], tuple[int, int], np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
        image, label = pair
        try:
            size = read_size(root / image)
        except (ValueError, OSError) as error:
            raise ValueError(f"{image} ({error})") from error
        try:
            values = decode_values((root / label).read_bytes())
        except (ValueError, OSError) as error:
            raise ValueError(f"{label} ({error})") from error
        return size, (values.shape[0], values.shape[1]), np.bincount(values.ravel(), minlength=256)

    shapes, counts = torch.zeros(len(pairs), 2, dtype=torch.int32), torch.zeros(len(pairs), 256, dtype=torch.int32)
    broken, unequal = [], []
    with threads() as pool:
        tasks = [pool.submit(attempt, pair) for pair in pairs]
        for number, (task, (image, label)) in enumerate(zip(tasks, pairs, strict=True)):
            try:
                size, labeled, row = task.result()
            except ValueError as error:
                broken.append(str(error))
            else:
                if size != labeled:
                    unequal.append(f"{image} {size[0]}x{size[1]} ({label} {labeled[0]}x{labeled[1]})")
                shapes[number], counts[number] = torch.tensor(size), torch.from_numpy(row)
            if progress:
                progress(f"checking {root}", number + 1, len(pairs))
    if broken:
        raise ValueError(
            f"{root}: {counted(len(broken), 'file')} cannot be read: {offenders(sorted(broken))}; repair or remove them"
        )
    if unequal:
        raise ValueError(
            f"{root}: {counted(len(unequal), 'image')} of {len(pairs):,} and their labels differ in size: "
            f"{offenders(sorted(unequal))} (height x width)"
        )
    return shapes, counts


def _by_class(counts: Tensor, meaning: Meaning) -> Tensor:
    """Count the pixels of each class, and at the end the ignored ones, int64 (classes + 1,)."""
    total = counts.sum(0, dtype=torch.int64)
    pixels = total[list(meaning.values)]
    return torch.cat([pixels, (total.sum() - pixels.sum())[None]])


def _values(present: Tensor, values: Tensor) -> str:
    """Write the values that are present as ranges: "values 0 to 11", "value 255"."""
    there = values[present > 0].tolist()
    ranges: list[list[int]] = []
    for value in there:
        if ranges and ranges[-1][1] == value - 1:
            ranges[-1][1] = value
        else:
            ranges.append([value, value])
    words = [str(low) if low == high else f"{low} to {high}" for low, high in ranges]
    return f"value{'s' if len(there) > 1 else ''} {', '.join(words)}"


def _key(root: Path, pairs: Sequence[Pair], sizes: Mapping[str, int]) -> str:
    """Fingerprint names, file sizes, and when labels were written; where the folder is does not matter."""
    written = [os.stat(root / label).st_mtime_ns for _, label in pairs]
    listing = [
        [image, sizes[image], label, sizes[label], at] for (image, label), at in zip(pairs, written, strict=True)
    ]
    return hashlib.sha256(json.dumps(["srblock labels", READING, listing]).encode()).hexdigest()


def _seal(key: str, shapes: Tensor, counts: Tensor) -> str:
    digest = hashlib.sha256(key.encode())
    for tensor in (shapes, counts):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _cached(file: Path, key: str, count: int) -> tuple[Tensor, Tensor] | None:
    """Take what was found before, if it is still what was written."""
    entry = stored.read(file, ("shapes", "counts"))
    if entry is None:
        return None
    shapes, counts = entry[0]["shapes"], entry[0]["counts"]
    if shapes.shape != (count, 2) or counts.shape != (count, 256) or _seal(key, shapes, counts) != entry[1]:
        stored.warn_damaged(file, "its content changed")
        return None
    return shapes, counts
