"""The Squeeze-and-Remember block; needs torch alone."""

from srblock.block.block import SqueezeRemember2d, as_size, parameter_count

__all__ = ["SqueezeRemember2d", "as_size", "parameter_count"]
