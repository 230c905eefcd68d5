"""How much of the class is in the recall weights, against what permutations of the classes give."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from srblock.inspection.analysis import Information

PERMUTATIONS = 200


def information(weights: Tensor, labels: Tensor, *, permutations: int = PERMUTATIONS, seed: int = 0) -> Information:
    """Measure what the class tells of the recall weights; see `analysis.Information`.

    Shapes: weights (N, P), rows sum to 1; labels (N,).
    """
    weights, labels = weights.double(), torch.unique(labels, return_inverse=True)[1]
    counts = torch.bincount(labels).double()
    overall = weights.mean(0)
    spread = (weights - overall).square().sum()
    of_all = entropy(overall)

    def measure(order: Tensor) -> tuple[float, float]:
        sums = torch.zeros(len(counts), weights.shape[1], dtype=torch.float64).index_add_(0, labels[order], weights)
        means = sums / counts[:, None]
        within = (counts / counts.sum() * entropy(means)).sum()
        between = (counts[:, None] * (means - overall).square()).sum()
        return max(0.0, float(of_all - within)) / math.log(2), float(between / spread) if spread > 0 else 0.0

    bits, explained = measure(torch.arange(len(labels)))
    generator = torch.Generator().manual_seed(seed)
    chance = [measure(torch.randperm(len(labels), generator=generator)) for _ in range(permutations)]
    bits_by_chance, explained_by_chance = zip(*chance, strict=True)
    return Information(
        bits,
        sum(bits_by_chance) / permutations,
        _p(bits, bits_by_chance),
        explained,
        sum(explained_by_chance) / permutations,
        _p(explained, explained_by_chance),
    )


def entropy(weights: Tensor) -> Tensor:
    """Return the entropy of each row in nats. Shapes: (..., P) -> (...)."""
    return -torch.xlogy(weights, weights).sum(-1)


def effective(weights: Tensor) -> tuple[float, float]:
    """Return how many memory blocks are in use: of each image, averaged, and of the mean weights over the images.

    The exponential of the entropy: P if all weigh the same, 1 if one has all the weight. Shapes: weights (N, P).
    """
    weights = weights.double()
    return float(entropy(weights).exp().mean()), float(entropy(weights.mean(0)).exp())


def _p(found: float, by_chance: Sequence[float]) -> float:
    """Return the share of permutations that reach what was found, with itself among them."""
    reached = sum(value >= found - 1e-12 for value in by_chance)
    return (1 + reached) / (1 + len(by_chance))
