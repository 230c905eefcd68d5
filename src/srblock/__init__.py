"""The Squeeze-and-Remember block for convolutional networks (Cakaj, Mehnert, Yang, ICMLA 2024)."""

from srblock.block import SqueezeRemember2d, parameter_count
from srblock.checkpoints import LoadReport, load_state
from srblock.surgery import Insertion, Stage, blocks, bypassed, insert, param_groups, remove, stages

__version__ = "0.1.0"

__all__ = [
    "Insertion",
    "LoadReport",
    "SqueezeRemember2d",
    "Stage",
    "blocks",
    "bypassed",
    "insert",
    "load_state",
    "param_groups",
    "parameter_count",
    "remove",
    "stages",
]
