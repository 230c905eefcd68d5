"""The Squeeze-and-Remember block for convolutional networks (Cakaj, Mehnert, Yang, ICMLA 2024)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srblock.block import SqueezeRemember2d, parameter_count
    from srblock.checkpoints import LoadReport, load_state
    from srblock.experiments.compare import Comparison as Comparison
    from srblock.experiments.compare import compare as compare
    from srblock.features import init_memory
    from srblock.folding import FoldedBlock, Folding, fold
    from srblock.runs.hub import from_pretrained as from_pretrained
    from srblock.runs.hub import push_to_hub as push_to_hub
    from srblock.runs.hub import save_pretrained as save_pretrained
    from srblock.runs.trained import Prediction as Prediction
    from srblock.runs.trained import TrainedRun as TrainedRun
    from srblock.runs.trained import load_run as load_run
    from srblock.surgery import Insertion, Stage, blocks, bypassed, insert, param_groups, remove, stages

__version__ = "0.2.0"

__all__ = [
    "FoldedBlock",
    "Folding",
    "Insertion",
    "LoadReport",
    "SqueezeRemember2d",
    "Stage",
    "blocks",
    "bypassed",
    "fold",
    "init_memory",
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
    "FoldedBlock": "folding",
    "Folding": "folding",
    "fold": "folding",
    "init_memory": "features",
    "LoadReport": "checkpoints",
    "load_state": "checkpoints",
}
# Names that need the extra `experiments`, so `from srblock import *` leaves them out.
_EXPERIMENTS = {
    "Comparison": "experiments.compare",
    "compare": "experiments.compare",
    "Prediction": "runs.trained",
    "TrainedRun": "runs.trained",
    "from_pretrained": "runs.hub",
    "load_run": "runs.trained",
    "push_to_hub": "runs.hub",
    "save_pretrained": "runs.hub",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `srblock --help` need not wait for torch."""
    if name in _EXPERIMENTS:
        try:
            home = import_module(f"srblock.{_EXPERIMENTS[name]}")
        except ModuleNotFoundError as error:
            extra = "hub" if _EXPERIMENTS[name] == "runs.hub" else "experiments"
            raise ImportError(f'srblock.{name} needs {error.name}; pip install "srblock[{extra}]"') from error
    elif name in __all__:
        home = import_module(f"srblock.{_HOMES.get(name, 'surgery')}")
    else:
        raise AttributeError(f"module 'srblock' has no attribute {name!r}")
    globals()[name] = getattr(home, name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_EXPERIMENTS})
