"""Images for training: where they come from, how they are split, and how they reach the device."""

from srblock.data.image_files import ImageFiles
from srblock.data.images import ImageData
from srblock.data.loading.loader import Loader
from srblock.data.sources import load
from srblock.data.split import normalization, split, statistics

__all__ = ["ImageData", "ImageFiles", "Loader", "load", "normalization", "split", "statistics"]
