"""Adding sums of maps: any number of coefficients, and a basis on any grid, against the sum written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from srblock.block.compute import add, recall

FORMATS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("grid", [(6, 4), (3, 2), (1, 1), (7, 9)])
def test_a_basis_on_any_grid(grid: tuple[int, int], layout: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x, coefficients, basis = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((5, 3, 6, 4), (5, 2), (2, 3, *grid))
    )
    x = x.contiguous(memory_format=layout)
    summed = torch.einsum("nr,rchw->nchw", coefficients, basis)
    expected = F.interpolate(summed, (6, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(recall(x, coefficients, basis), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(add(x, coefficients, basis), x + expected, rtol=0, atol=1e-12)
    assert add(x, coefficients, basis).stride() == x.stride()


def test_one_position_is_a_bias_of_the_channels() -> None:
    """What a memory of channels alone, a basis (P, C, 1, 1), recalls."""
    x = torch.zeros(1, 2, 4, 4)
    added = add(x, torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 10.0], [3.0, 20.0]])[:, :, None, None])
    assert torch.equal(added, torch.tensor([7.0, 50.0])[None, :, None, None].expand(1, 2, 4, 4))
