"""Squeeze-and-excitation and CBAM as the paper combines them with the block (Table II).

Both are timm's modules. The paper states no setting; reduction 16, biases in SE but not in CBAM, and a 3x3 spatial
kernel in CBAM (7x7 in the CBAM paper) are what its parameter overheads imply. timm's CBAM, like its authors', has a
batch norm after the spatial convolution: 2 parameters more per module than the overheads need, below their last digit.

A module draws its weights from a random stream of its own: layers built after it get the weights they get without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

REDUCTION = 16
CBAM_KERNEL = 3


def attention(kind: str, channels: int) -> nn.Module:
    """Build the attention module that ends the residual branch of a block with `channels` C.

    Shapes: of the module, (N, C, H, W) -> (N, C, H, W).

    Raises: ValueError for another kind than "SE" and "CBAM", or fewer channels than the reduction.
    """
    from timm.layers.cbam import CbamModule
    from timm.layers.squeeze_excite import SEModule

    if channels < REDUCTION:
        raise ValueError(
            f"attention reduces channels {REDUCTION} times, got {channels} channels; use at least {REDUCTION}"
        )
    with _own_stream():
        match kind:
            case "SE":
                module: nn.Module = SEModule(channels, rd_channels=channels // REDUCTION)
            case "CBAM":
                module = CbamModule(channels, rd_channels=channels // REDUCTION, spatial_kernel_size=CBAM_KERNEL)
            case _:
                raise ValueError(f"attention must be 'SE' or 'CBAM', got {kind!r}")
    return module


@contextmanager
def _own_stream() -> Iterator[None]:
    """Draw from a stream that follows the global random state and leaves it as it is (CPU)."""
    with torch.random.fork_rng(devices=[]):
        # Seeded anew, as layers built later will draw the very numbers that come next here.
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), device="cpu")))
        yield
