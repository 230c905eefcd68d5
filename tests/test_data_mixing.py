"""Mixup and CutMix: shares of images and targets that agree, drawn as published."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from srblock.data import Loader
from srblock.data.loading.mixing import Mixing, beta

IMAGES = torch.rand(8, 3, 16, 12, generator=torch.Generator().manual_seed(0)) + torch.arange(8).view(8, 1, 1, 1)
LABELS = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])


def test_mixup_averages_images_and_targets_with_one_weight() -> None:
    images, target = Mixing(1.0, 0.0, 5)(IMAGES, LABELS, 1, 2, 3)
    own = float(target[0, 0])  # its neighbor, the last image, has label 0 too
    assert own == 1
    own = float(target[1, 1])
    assert 0 < own < 1
    assert torch.allclose(images, own * IMAGES + (1 - own) * IMAGES.roll(1, 0), atol=1e-5)
    assert torch.allclose(target.sum(1), torch.ones(8))
    assert float(target[1, 0]) == pytest.approx(1 - own)


def test_cutmix_gives_the_target_the_share_of_the_pixels() -> None:
    seen = set()
    for batch in range(200):
        images, target = Mixing(0.0, 1.0, 4)(IMAGES, LABELS, 0, 0, batch)
        foreign = (images == IMAGES.roll(1, 0)).all(1)  # (N, H, W)
        assert ((images == IMAGES).all(1) | foreign).all()
        assert (foreign == foreign[:1]).all(), "the same box for all"
        share = float(foreign[0].float().mean())
        assert float(target[1, 0]) == pytest.approx(share, abs=1e-6)
        rows, columns = foreign[0].any(1), foreign[0].any(0)
        assert int(rows.sum() * columns.sum()) == int(foreign[0].sum()), "one box"
        seen.add(round(share, 2))
    assert len(seen) > 40


def test_with_both_a_coin_decides() -> None:
    """Mixup makes values that neither image has."""
    both = Mixing(1.0, 1.0, 4)
    kinds = []
    for batch in range(400):
        images, _ = both(IMAGES, LABELS, 0, 0, batch)
        foreign = (images == IMAGES.roll(1, 0)) | (images == IMAGES)
        kinds.append(bool(foreign.all()))
    assert sum(kinds) == pytest.approx(200, abs=40)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.8, 1.0])
def test_the_weight_is_beta_distributed(alpha: float) -> None:
    drawn = np.array([beta(alpha, 7, 0, batch) for batch in range(4000)])
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 0.001
    assert ((drawn >= 0) & (drawn <= 1)).all()


def test_a_batch_is_mixed_by_its_number_in_the_epoch_wherever_serving_begins() -> None:
    pixels = torch.randint(0, 256, (23, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    loader = Loader(
        pixels, torch.arange(23) % 4, batch_size=6, mean=[0.5] * 3, std=[0.2] * 3, shuffle=True, seed=1,
        mixing=Mixing(0.4, 0.4, 4),
    )  # fmt: skip
    whole = list(loader.epoch(1))
    rest = list(loader.epoch(1, slice(2, 4)))
    assert len(whole) == 4
    for (images, target), (again, once_more) in zip(whole[2:], rest, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(target, once_more)
    other = list(loader.epoch(2))
    assert not torch.equal(whole[0][0], other[0][0])


def test_refuses_alphas_that_are_none() -> None:
    with pytest.raises(ValueError, match=r"mixup, the alpha of a beta distribution, must be in 0\.\.1, got 8"):
        Mixing(8.0, 0.0, 2)
    with pytest.raises(ValueError, match="needs an alpha above 0"):
        Mixing(0.0, 0.0, 2)
