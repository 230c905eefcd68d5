"""The Squeeze-and-Remember block; needs torch alone."""

from srblock.block.block import SqueezeRemember2d
from srblock.block.geometry import as_size, parameter_count
from srblock.block.options import Options

__all__ = ["Options", "SqueezeRemember2d", "as_size", "parameter_count"]
