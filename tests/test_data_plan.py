from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srblock.data.loading.draws import ORDER, bits
from srblock.data.loading.plan import Plan


def plans(world_size: int, count: int = 23, batch_size: int = 8, shuffle: bool = True) -> list[Plan]:
    samples = 100 + 3 * np.arange(count)
    return [Plan(samples, batch_size, shuffle, 7, rank, world_size) for rank in range(world_size)]


def test_the_order_is_that_of_the_draws():
    (plan,) = plans(1)
    expected = np.argsort(bits(7, 4, ORDER, plan.samples))
    assert [batch.tolist() for batch in plan.epoch(4)] == [expected[n : n + 8].tolist() for n in (0, 8, 16)]
    assert np.concatenate(plan.epoch(5)).tolist() != expected.tolist()


@given(
    world_size=st.integers(1, 5), count=st.integers(10, 60), batch_size=st.integers(10, 30), epoch=st.integers(0, 99)
)
def test_shares_make_up_the_batch(world_size, count, batch_size, epoch):
    """Rank r serves [r*n//W, (r+1)*n//W) of each batch of n."""
    parts = plans(world_size, count, batch_size)
    order = np.argsort(bits(7, epoch, ORDER, parts[0].samples))
    shares = [part.epoch(epoch) for part in parts]
    sizes = parts[0].batch_sizes()
    assert all(part.batch_sizes() == sizes and part.images == sum(sizes) for part in parts)
    assert all(len(share) == len(sizes) for share in shares)
    for number, size in enumerate(sizes):
        batch = order[number * batch_size :][:size]
        assert np.concatenate([share[number] for share in shares]).tolist() == batch.tolist()
        for rank, share in enumerate(shares):
            assert share[number].tolist() == batch[rank * size // world_size : (rank + 1) * size // world_size].tolist()
            assert len(share[number]) >= 2


@pytest.mark.parametrize(
    ("world_size", "count", "sizes"),
    [
        (1, 17, [8, 8]),
        (1, 18, [8, 8, 2]),
        (2, 18, [8, 8]),
        (2, 19, [8, 8]),
        (2, 20, [8, 8, 4]),
        (4, 23, [8, 8]),
    ],
)
def test_last_batch_has_two_images_for_each_process(world_size, count, sizes):
    assert [part.batch_sizes() for part in plans(world_size, count)] == [sizes] * world_size


def test_evaluation_serves_everything_in_order_and_leaves_out_empty_shares():
    first, second, third = (part.epoch(0) for part in plans(3, 9, 4, shuffle=False))
    assert [share.tolist() for share in first] == [[0], [4]]
    assert [share.tolist() for share in second] == [[1], [5]]
    assert [share.tolist() for share in third] == [[2, 3], [6, 7], [8]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "expected a batch_size of at least 1, got 0"),
        ({"rank": 2, "world_size": 2}, "expected a rank of 0 to 1, got 2"),
        ({"rank": -1}, "expected a rank of 0 to 0, got -1"),
        ({"world_size": 5}, "expected at least 10 images for 5 processes to train on, got batches of 8"),
        ({"world_size": 2, "samples": np.arange(3)}, "expected at least 4 images for 2 processes to train on, got 3"),
        ({"samples": np.arange(1)}, "expected at least 2 images to train on, got 1"),
    ],
)
def test_plan_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        Plan(**{"samples": np.arange(23), "batch_size": 8, "shuffle": True, "seed": 7, **change})
