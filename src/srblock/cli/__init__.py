"""The command line: parse, call, print. Joins study, statistics and report."""

from srblock.cli.app import app, main
from srblock.cli.training import compare, evaluate, reproduce, sweep, train  # isort: split

from srblock.cli.using import export, predict  # isort: split

from srblock.cli.looking import (
    analyze,
    audit,
    overhead,
    results,
    stages,
)  # commands are listed in the order of these imports

__all__ = [
    "analyze", "app", "audit", "compare", "evaluate", "export", "main", "overhead", "predict", "reproduce", "results",
    "stages", "sweep", "train",
]  # fmt: skip
