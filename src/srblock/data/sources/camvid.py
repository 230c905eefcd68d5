"""CamVid in the version of SegNet: 360x480, 11 classes, 367 scenes to train, 101 to validate, 233 to test.

Brostow, Fauqueur, Cipolla, "Semantic Object Classes in Video", 2009; Badrinarayanan, Kendall, Cipolla, "SegNet", 2017.
"""

from __future__ import annotations

from pathlib import Path

from srblock.data.progress import Progress
from srblock.data.scenes import SceneData
from srblock.data.sources.scene_checks import build
from srblock.data.sources.scene_parts import Meaning, by_stem, folder_of, listed, paired

PARTS = ("train", "val", "test")
VOID = 11

# Of each class, in the order of SegNet's label values: name, color.
TABLE = (
    ("Sky", (128, 128, 128)),
    ("Building", (128, 0, 0)),
    ("Pole", (192, 192, 128)),
    ("Road", (128, 64, 128)),
    ("Pavement", (60, 40, 222)),
    ("Tree", (128, 128, 0)),
    ("SignSymbol", (192, 128, 128)),
    ("Fence", (64, 64, 128)),
    ("Car", (64, 0, 128)),
    ("Pedestrian", (64, 64, 0)),
    ("Bicyclist", (0, 128, 192)),
)
CLASSES, COLORS = zip(*TABLE, strict=True)
MEANING = Meaning(CLASSES, COLORS, tuple(range(len(TABLE))), (VOID,))


def load(path: Path | None, *, cache: Path, progress: Progress | None) -> SceneData:
    """Load train/, val/ and test/ with their trainannot/, valannot/ and testannot/, in the folder or in camvid/ in it.

    Raises: ValueError as `build`, and for another layout.
    """
    root = folder_of("camvid", path)
    if not (root / "train").is_dir() and (root / "camvid").is_dir():
        root = root / "camvid"
    sizes: dict[str, int] = {}
    parts = {}
    for part in PARTS:
        names = listed(root, part) | listed(root, f"{part}annot")
        sizes |= names
        images, labels = by_stem(names, part), by_stem(names, f"{part}annot", labels=True)
        parts[part] = paired(f"camvid:{root}, {part}", images, labels)
    return build("camvid", root, parts, sizes, MEANING, cache=cache, progress=progress)
