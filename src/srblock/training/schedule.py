"""The learning rate at any point of a run."""

from __future__ import annotations

import math

from srblock.training.recipe import Recipe

RISE, START, END = 0.23, 0.2, 0.07  # of the triangular schedule: share of the run, and of the rate


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Return the rate after `progress` epochs (0 at the first step; fractions count the steps within an epoch).

    Multi-step as in Sec. IV-A: the rate is multiplied by gamma once `milestones[i]` epochs have been run.
    Poly as in DeepLab (Chen et al., arXiv 1606.00915, Sec. 4.1), there by iterations, down to `end_lr` as in
    MMSegmentation; triangular as in airbench94 (K.
    Jordan, arXiv 2404.00498).
    """
    if progress < recipe.warmup_epochs:
        return recipe.learning_rate * progress / recipe.warmup_epochs
    if recipe.schedule == "multistep":
        return recipe.learning_rate * recipe.gamma ** sum(progress >= m for m in recipe.milestones)
    if recipe.schedule == "poly":
        share_left = max(1 - progress / recipe.epochs, 0.0)
        return float((recipe.learning_rate - recipe.end_lr) * share_left**recipe.power + recipe.end_lr)
    if recipe.schedule == "triangular":
        return recipe.learning_rate * _triangle(min(progress / recipe.epochs, 1.0))
    share = (progress - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def _triangle(share: float) -> float:
    if share < RISE:
        return START + (1 - START) * share / RISE
    return 1 - (1 - END) * (share - RISE) / (1 - RISE)
