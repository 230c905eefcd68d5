"""Cityscapes: street scenes of 50 cities, 1024x2048, 19 classes (Cordts et al., CVPR 2016)."""

from __future__ import annotations

from pathlib import Path

from srblock.data.progress import Progress
from srblock.data.scenes import SceneData
from srblock.data.sources.scene_checks import build
from srblock.data.sources.scene_parts import Meaning, folder_of, listed, paired

IMAGES, LABELS = "leftImg8bit", "gtFine"
IDS = 34  # label files have 0 to 33; those that are not in the table below are ignored

# Of each class, in the order of the official train ids: name, id in the label files, color.
TABLE = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
CLASSES, VALUES, COLORS = zip(*TABLE, strict=True)
MEANING = Meaning(CLASSES, COLORS, VALUES, tuple(value for value in range(IDS) if value not in VALUES))


def load(path: Path | None, *, cache: Path, progress: Progress | None) -> SceneData:
    """Load leftImg8bit/ and gtFine/ as they are published; val/ is the test set, as in the literature.

    The labels of the official test set are not public: test/ is not looked at, and neither is anything else.

    Raises: ValueError as `build`, and for another layout.
    """
    root = folder_of("cityscapes", path)
    sizes: dict[str, int] = {}
    parts = {}
    for part, folder in (("train", "train"), ("test", "val")):
        found = []
        for kind, ending in ((IMAGES, f"_{IMAGES}.png"), (LABELS, f"_{LABELS}_labelIds.png")):
            below = f"{kind}/{folder}"
            names = listed(root, below)
            found.append({n.removeprefix(below).removesuffix(ending): n for n in names if n.endswith(ending)})
            sizes |= names
        parts[part] = paired(f"cityscapes:{root}, {folder}", *found)
    return build("cityscapes", root, parts, sizes, MEANING, cache=cache, progress=progress)
