"""The learning rate at any point of a run."""

from __future__ import annotations

import math

from srblock.training.recipe import Recipe


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Return the rate after `progress` epochs (0 at the first step; fractions count the steps within an epoch).

    Multi-step as in Sec. IV-A: the rate is multiplied by gamma once `milestones[i]` epochs have been run.
    Poly as in DeepLab (Chen et al., arXiv 1606.00915, Sec. 4.1), there by iterations.
    """
    if progress < recipe.warmup_epochs:
        return recipe.learning_rate * progress / recipe.warmup_epochs
    if recipe.schedule == "multistep":
        return recipe.learning_rate * recipe.gamma ** sum(progress >= m for m in recipe.milestones)
    if recipe.schedule == "poly":
        return float(recipe.learning_rate * max(1 - progress / recipe.epochs, 0.0) ** recipe.power)
    share = (progress - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
