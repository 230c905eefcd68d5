"""Images for training: where they come from, how they are split, and how they reach the device."""

from srblock.data.image_files import ImageFiles
from srblock.data.images import ImageData
from srblock.data.load_data import load_data
from srblock.data.loading.batches import Batches
from srblock.data.loading.loader import Loader
from srblock.data.loading.scene_loader import SceneLoader
from srblock.data.loading.scenes import Augmentation
from srblock.data.scene_files import SceneFiles
from srblock.data.scenes import SceneData
from srblock.data.sources import load
from srblock.data.sources.scenes import load_scenes
from srblock.data.split import normalization, split, statistics

__all__ = [
    "Augmentation",
    "Batches",
    "ImageData",
    "ImageFiles",
    "Loader",
    "SceneData",
    "SceneFiles",
    "SceneLoader",
    "load",
    "load_data",
    "load_scenes",
    "normalization",
    "split",
    "statistics",
]
