"""Dropout, dropout2d, dropblock: what is dropped, how much, and only in training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srblock.models.regularizers import DropBlock, regularizer

ONES = torch.ones(64, 32, 8, 8)


def zeros(kind: str, p: float, size: int = 3) -> torch.Tensor:
    torch.manual_seed(0)
    layer = regularizer(kind, p, size)
    assert torch.equal(layer.eval()(ONES), ONES)
    return layer.train()(ONES) == 0


@pytest.mark.parametrize("kind", ["D", "D2D", "DB"])
@pytest.mark.parametrize("p", [0.1, 0.3])
def test_rate_and_expectation(kind: str, p: float) -> None:
    dropped = zeros(kind, p)
    # Blocks of dropblock overlap: its paper calls p the approximate share.
    assert dropped.float().mean() == pytest.approx(p, rel=0.2)
    torch.manual_seed(0)
    assert regularizer(kind, p, 3)(ONES).mean() == pytest.approx(1, abs=0.03)


def test_dropout2d_drops_whole_channels_and_dropout_does_not() -> None:
    share = zeros("D2D", 0.3).float().mean((2, 3))
    assert set(share.unique().tolist()) == {0.0, 1.0}
    assert (zeros("D", 0.3).float().mean((2, 3)) % 1).any()


def test_dropblock_drops_squares() -> None:
    dropped = zeros("DB", 0.02, size=3)
    # Where something is dropped, a whole 3x3 square around some centre is.
    squares = nn.functional.avg_pool2d(dropped.float(), 3, stride=1) == 1
    covered = nn.functional.max_pool2d(nn.functional.pad(squares.float(), (2, 2, 2, 2)), 3, stride=1) > 0
    assert dropped.any()
    assert torch.equal(covered, dropped)


@pytest.mark.parametrize(("side", "size", "fits"), [(4, 7, 3), (2, 3, 1), (1, 7, 1), (7, 7, 7), (8, 3, 3)])
def test_dropblock_is_clipped_to_the_largest_odd_side_that_fits(side: int, size: int, fits: int) -> None:
    x = torch.ones(4, 8, side, side + 1)
    layer = DropBlock(0.5, size)
    torch.manual_seed(1)
    clipped = layer(x)
    torch.manual_seed(1)
    assert torch.equal(clipped, DropBlock(0.5, fits)(x))
    assert (clipped == 0).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("SD", 0.1), "a regularizer is 'D', 'D2D' or 'DB', got 'SD'"),
        (("D", 0.0), "above 0 and below 1, got 0.0"),
        (("D2D", 1.0), "above 0 and below 1, got 1.0"),
        (("DB", 0.1, 4), "dropblock's size is odd, got 4; use 5"),
        (("DB", 0.1, 0), "dropblock's size is odd, got 0; use 1"),
    ],
)
def test_refuses(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        regularizer(*arguments)  # type: ignore[arg-type]


def test_dropblocks_rate_follows_a_linear_schedule_and_no_other() -> None:
    linear, constant = DropBlock(0.4, 3, "linear"), DropBlock(0.4, 3)
    x = torch.ones(64, 8, 12, 12)
    shares = []
    for progress in (0.0, 0.5, 1.0):
        for layer in (linear, constant):
            layer.follow(progress)
            torch.manual_seed(2)
            shares.append(float((layer(x) == 0).float().mean()))
    assert shares[0] == 0
    assert shares[2] == pytest.approx(shares[5] / 2, rel=0.2)
    assert shares[4] == shares[5] == shares[3] == shares[1] > 0.3
    assert linear.scheduled
    assert not constant.scheduled
    with pytest.raises(ValueError, match="schedule is one of constant, linear, got 'cosine'"):
        DropBlock(0.4, 3, "cosine")
