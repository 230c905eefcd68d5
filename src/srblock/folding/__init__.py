"""Exact simplifications of a trained network's blocks for inference at the size they belong to."""

from srblock.folding.fold import fold
from srblock.folding.report import FoldedBlock, Folding

__all__ = ["FoldedBlock", "Folding", "fold"]
