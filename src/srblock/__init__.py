"""The Squeeze-and-Remember block for convolutional networks (Cakaj, Mehnert, Yang, ICMLA 2024)."""

from srblock.block import SqueezeRemember2d, parameter_count

__version__ = "0.1.0"

__all__ = ["SqueezeRemember2d", "parameter_count"]
