"""The streams of random numbers that a block's parameters start from."""

from __future__ import annotations

import torch


def stream(salt: int) -> torch.Generator:
    """Return a stream that follows the global random state but leaves it as it is, and draws other numbers than it.

    Args: salt: other streams from the same state have others, so that no two draw the same numbers.
    """
    peek = torch.Generator().set_state(torch.get_rng_state())
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=peek, device="cpu")) ^ salt)
