"""The Squeeze-and-Remember block for convolutional networks (Cakaj, Mehnert, Yang, ICMLA 2024)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "SqueezeRemember2d": "block",
    "parameter_count": "block",
    "LoadReport": "checkpoints",
    "load_state": "checkpoints",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `srblock --help` need not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'srblock' has no attribute {name!r}")
    value = getattr(import_module(f"srblock.{_HOMES.get(name, 'surgery')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
