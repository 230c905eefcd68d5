"""Lookahead: weights that are drawn back to a slow average of themselves every few steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
