"""Epochs of so many steps: they serve the batches of the passes, one after the other, and none twice."""

import time
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srblock.data import Loader
from srblock.training.epochs import images_in, serve, steps, stretches
from srblock.training.recipe import Recipe


def loader() -> Loader:
    """Batches of 8, 8 and 3 images, each pass in its own order, mirrored and padded."""
    pixels = torch.randint(0, 256, (19, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Loader(
        pixels, torch.arange(19), batch_size=8, mean=[0.5], std=[0.25], padding=1, flip=True, shuffle=True, seed=3
    )


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 8))
def test_epochs_are_the_passes_cut_anew(steps: int, batches: int, epochs: int) -> None:
    served = [
        [(number, batch) for number, part in stretches(epoch, steps, batches) for batch in range(batches)[part]]
        for epoch in range(epochs)
    ]
    assert all(len(epoch) == steps for epoch in served)
    assert list(chain(*served)) == [divmod(step, batches) for step in range(epochs * steps)]


@pytest.mark.parametrize("epoch_steps", [1, 2, 3, 7])
def test_an_epoch_goes_on_with_the_following_batch_of_the_pass(epoch_steps: int) -> None:
    recipe, source = Recipe(epoch_steps=epoch_steps), loader()
    passes = list(chain(*(source.epoch(number) for number in range(7))))
    served = [list(serve(recipe, source, epoch)) for epoch in range(3)]
    assert [len(epoch) for epoch in served] == [steps(recipe, source)] * 3
    for (images, target, size), (expected_images, expected_target) in zip(chain(*served), passes, strict=False):
        assert torch.equal(images, expected_images)
        assert torch.equal(target, expected_target)
        assert size == len(target)
    for epoch, batches in enumerate(served):
        assert images_in(recipe, source, epoch) == sum(size for _, _, size in batches)


def test_without_steps_an_epoch_is_a_pass() -> None:
    source = loader()
    assert steps(Recipe(), source) == 3
    assert images_in(Recipe(), source, 5) == 19
    for (images, _, _), (expected, _) in zip(serve(Recipe(), source, 5), source.epoch(5), strict=True):
        assert torch.equal(images, expected)


def test_long_epochs_take_no_time_to_begin_and_to_count() -> None:
    """A plan of 10,000,000 steps an epoch took half a minute: all passes were listed for its first batch."""
    source, recipe = loader(), Recipe(epoch_steps=3 * 10**9)
    begin = time.process_time()
    assert len(next(serve(recipe, source, 7))[0]) == 8
    assert images_in(recipe, source, 7) == 19 * 10**9
    assert time.process_time() - begin < 1
