"""TrivialAugment and RandAugment against torchvision's own, operation by operation; random erasing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from srblock.data import Loader
from srblock.data.loading.erasing import draw_erased, erased
from srblock.data.loading.policies import BINS, OPERATIONS, Policy, sort

TRIVIAL, RANDOM = Policy("trivialaugment"), Policy("randaugment")
SIZE = (30, 36)


def smooth(count: int, channels: int = 3) -> Tensor:
    """Images with gradients and flat parts, as photographs have."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 6, 7, generator=generator)
    return F.interpolate(coarse, SIZE, mode="bicubic").clamp(0.1, 0.9).mul(250).to(torch.uint8)


def by_torchvision(policy: Policy, image: Tensor, operation: int, level: int, sign: int) -> Tensor:
    """What torchvision makes of an image, its random choices replaced by ours."""
    theirs: Any = v2.TrivialAugmentWide() if policy is TRIVIAL else v2.RandAugment()
    name, (magnitudes, signed) = list(theirs._AUGMENTATION_SPACE.items())[operation]
    table = magnitudes(BINS, *SIZE)
    amount = 0.0 if table is None else float(table[level]) * (-1 if signed and sign else 1)
    done: Tensor = theirs._apply_image_or_video_transform(image, name, amount, theirs.interpolation, theirs._fill)
    return done


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", [TRIVIAL, RANDOM], ids=["trivialaugment", "randaugment"])
def test_every_operation_is_torchvisions(policy: Policy, channels: int) -> None:
    """All 14 operations, 31 magnitudes and both signs: equal but for a level where a float rounds otherwise."""
    operations = np.repeat(np.arange(OPERATIONS), 2 * BINS)
    levels, signs = np.tile(np.arange(BINS), 2 * OPERATIONS), np.tile(np.repeat([0, 1], BINS), OPERATIONS)
    images = smooth(len(operations), channels)
    drawn = np.stack([operations, levels, signs])[None]
    rows, counts = sort(drawn, [len(operations)])
    ours = policy(images, torch.from_numpy(rows), counts[0])
    changed = set()
    for number, (operation, level, sign) in enumerate(zip(operations, levels, signs, strict=True)):
        expected = by_torchvision(policy, images[number], operation, level, sign).int()
        off = (ours[number].int() - expected).abs()
        if 1 <= operation <= 5:  # a pixel half way between two may be taken from either
            assert (off > 0).float().mean() < 0.04, (operation, level, sign)
        else:
            assert off.max() <= 1, (operation, level, sign)
            assert off.float().mean() < 0.25, (operation, level, sign)
        if not torch.equal(ours[number], images[number]):
            changed.add(int(operation))
    assert changed == set(range(1, OPERATIONS)) - ({7} if channels == 1 else set()), "gray has no colors to change"


def test_randaugment_goes_through_two_operations_one_after_the_other() -> None:
    images = smooth(40)
    drawn = RANDOM.draw(3, 1, np.arange(40))
    rows, counts = sort(drawn, [16, 16, 8])
    ours = torch.cat([
        RANDOM(part, torch.from_numpy(row), count)
        for part, row, count in zip(images.split((16, 16, 8)), np.split(rows, (16, 32), axis=1), counts, strict=True)
    ])  # fmt: skip
    for number in range(40):
        image = images[number]
        for operation, level, sign in drawn[:, :, number]:
            image = by_torchvision(RANDOM, image, operation, level, sign)
        assert (ours[number].int() - image.int()).abs().float().mean() < 2
    assert set(drawn[:, 1].ravel()) == {9}
    assert not np.array_equal(drawn[0, 0], drawn[1, 0])


def test_operations_magnitudes_and_signs_are_uniform() -> None:
    ((operations, levels, signs),) = TRIVIAL.draw(0, 0, np.arange(100_000))
    for values, count in ((operations, OPERATIONS), (levels, BINS), (signs, 2)):
        seen = np.bincount(values, minlength=count)
        assert len(seen) == count
        assert seen == pytest.approx(100_000 / count, rel=0.06)
    together = np.histogram2d(operations, levels, bins=(OPERATIONS, BINS))[0]
    assert together.min() > 150, "of 230 expected: an operation comes with every magnitude"


@pytest.mark.parametrize("extra", [{"policy": TRIVIAL}, {"policy": RANDOM}, {"erasing": 0.5}])
def test_depends_on_seed_epoch_and_sample_alone(extra: dict[str, Any]) -> None:
    """Whatever the batch size and however many processes share a batch."""
    images, labels = smooth(23), torch.arange(23)

    def served(epoch: int, **options: Any) -> dict[int, Tensor]:
        common: dict[str, Any] = {"mean": (0.2, 0.5, 0.7), "std": (0.1, 0.2, 0.3), "seed": 4, "batch_size": 23, **extra}
        loader = Loader(images, labels, shuffle=True, **common | options)
        return {int(y): x for batch, said in loader.epoch(epoch) for x, y in zip(batch, said, strict=True)}

    whole = served(2)
    parts = served(2, batch_size=7)
    halves = served(2, rank=0, world_size=2) | served(2, rank=1, world_size=2)
    for other in (parts, halves):
        assert all(torch.allclose(whole[label], other[label], atol=1e-5) for label in other)
    plain = served(2, policy=None, erasing=0.0)
    assert sum(not torch.equal(whole[label], plain[label]) for label in whole) > 5
    assert any(not torch.equal(whole[label], image) for label, image in served(3).items())
    assert any(not torch.equal(whole[label], image) for label, image in served(2, seed=5).items())


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="auto_augment must be one of none, trivialaugment, randaugment, got 'auto'"):
        Policy("auto")
    with pytest.raises(ValueError, match=r"augment_magnitude must be in 0\.\.30, got 31"):
        Policy("randaugment", 31)
    with pytest.raises(ValueError, match="gray or color images, got 4 channels"):
        Loader(torch.zeros(4, 4, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), batch_size=2,
               mean=[0.0] * 4, std=[1.0] * 4, shuffle=True, policy=TRIVIAL)  # fmt: skip


def test_boxes_are_as_many_and_as_large_as_published() -> None:
    """2% to 33% of the area, sides 0.3 to 3.3, inside of the image, in so many of them."""
    top, left, height, width = draw_erased(0.25, 0, 0, np.arange(20_000), 64, 48)
    there = height > 0
    assert there.mean() == pytest.approx(0.25, abs=0.01)
    area, ratio = (height * width / (64 * 48))[there], (height / np.maximum(width, 1))[there]
    assert 0.015 < area.min() < 0.03
    assert 0.31 < area.max() < 0.35
    assert 0.25 < ratio.min() < 0.35
    assert 2.9 < ratio.max() < 3.6
    assert ((top + height <= 64) & (left + width <= 48) & (top >= 0) & (left >= 0)).all()
    assert not draw_erased(0.0, 0, 0, np.arange(100), 64, 48).any()
    assert (draw_erased(1.0, 0, 0, np.arange(100), 64, 48)[2] > 0).all()
    assert not draw_erased(1.0, 0, 0, np.arange(100), 1, 1)[2:].prod(axis=0).any(), "no box is smaller than one pixel"


def test_a_box_loses_its_content_and_nothing_else_does() -> None:
    images = torch.rand(3, 2, 5, 6) + 1
    boxes = torch.tensor([[1, 0, 4], [2, 0, 0], [3, 0, 1], [2, 0, 6]])
    expected = images.clone()
    expected[0, :, 1:4, 2:4] = 0
    expected[2, :, 4:5, 0:6] = 0
    assert torch.equal(erased(images, boxes), expected)
