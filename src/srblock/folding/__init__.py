"""Exact simplifications of a trained network's blocks for inference at the size they belong to."""

from srblock.folding.fold import FoldedBlock, Folding, fold

__all__ = ["FoldedBlock", "Folding", "fold"]
