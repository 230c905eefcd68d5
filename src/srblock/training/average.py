"""Averages of the weights over a run: Lookahead, which draws them back to it, and a moving average beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from srblock.training.recipe import Recipe

EVERY = 5
DECAY = 0.95**5


class Lookahead:
    """Slow weights beside a model's own, batch statistics included.

    After every fifth step the slow weights move towards the model's, by 1 - 0.95^5 s^3 of the way at share s of the
    run, and the model's are set to them; after the last step the model's are set to them without a move. (Zhang et al.,
    "Lookahead Optimizer", NeurIPS 2019, with the schedule of airbench94, K. Jordan, arXiv 2404.00498.)

    Args:
        model: with the weights that training starts from.

    Attributes:
        slow: the slow weights, by the names of the model's `state_dict`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._own = {key: value for key, value in model.state_dict().items() if value.is_floating_point()}
        self.slow: dict[str, Tensor] = {key: value.clone() for key, value in self._own.items()}

    @torch.no_grad()
    def follow(self, step: int, steps: int) -> None:
        """Act after so many steps (from 1) of so many in the run."""
        slow, own = list(self.slow.values()), list(self._own.values())
        if step % EVERY == 0:
            torch._foreach_lerp_(slow, own, 1 - DECAY * (step / steps) ** 3)
        if step % EVERY == 0 or step == steps:
            torch._foreach_copy_(own, slow)

    def load(self, slow: dict[str, Tensor]) -> None:
        """Put saved slow weights back.

        Raises: KeyError if one is missing.
        """
        for key, value in self.slow.items():
            value.copy_(slow[key])


class Ema:
    """An exponential moving average of a model's weights beside them, batch statistics included.

    After step t (from 1) the average moves towards the weights by 1 - min(decay, (1 + t) / (10 + t)) of the way, so
    that it forgets the start of a short run. (The form of TensorFlow's ExponentialMovingAverage with `num_updates`.)

    Args:
        model: with the weights that training starts from.

    Attributes:
        slow: the average, by the names of the model's `state_dict`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._own = {key: value for key, value in model.state_dict().items() if value.is_floating_point()}
        self.slow: dict[str, Tensor] = {key: value.clone() for key, value in self._own.items()}

    @torch.no_grad()
    def follow(self, step: int, steps: int) -> None:
        """Act after so many steps (from 1) of so many in the run."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.slow.values()), list(self._own.values()), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the model's weights."""
        kept = {key: value.clone() for key, value in self._own.items()}  # all first: a tensor may have two names
        for key, value in self._own.items():
            value.copy_(self.slow[key])
        for key, value in kept.items():
            self.slow[key].copy_(value)

    def load(self, slow: dict[str, Tensor]) -> None:
        """Put a saved average back.

        Raises: KeyError if a part of it is missing.
        """
        for key, value in self.slow.items():
            value.copy_(slow[key])


Average = Lookahead | Ema


def average_of(model: nn.Module, recipe: Recipe) -> Average | None:
    """Return the average that a recipe keeps, if it keeps one."""
    if recipe.lookahead:
        return Lookahead(model)
    return None if recipe.ema is None else Ema(model, recipe.ema)


@contextmanager
def showing(average: Average | None) -> Iterator[None]:
    """Let the model have, within the context, the weights that count: the moving average's if there is one."""
    if not isinstance(average, Ema):
        yield
        return
    average.swap()
    try:
        yield
    finally:
        average.swap()
