"""The Squeeze-and-Remember block; needs torch alone."""

from srblock.block.block import SqueezeRemember2d
from srblock.block.checks import as_size
from srblock.block.geometry import parameter_count
from srblock.block.options import Options

__all__ = ["Options", "SqueezeRemember2d", "as_size", "parameter_count"]
