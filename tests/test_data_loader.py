from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srblock.data import Loader
from srblock.data.loading.augment import resized_crop
from srblock.data.loading.crops import center_box, draw, random_boxes
from srblock.data.loading.draws import MIRROR, below

MEAN, STD = (0.2, 0.5, 0.7), (0.1, 0.25, 0.3)


def make(count: int = 23, size: tuple[int, int] = (5, 7), channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise without black pixels, so that padding shows; label n belongs to image n."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(1, 256, (count, channels, *size), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count)


def served(loader: Loader, epoch: int) -> dict[int, np.ndarray]:
    """Images of an epoch by label."""
    return {int(y): x.numpy() for images, labels in loader.epoch(epoch) for x, y in zip(images, labels, strict=True)}


def normalized(image: np.ndarray) -> np.ndarray:
    return (image / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))


def pixels(image: np.ndarray) -> np.ndarray:
    """Undo the normalization."""
    return np.rint((image * np.reshape(STD, (3, 1, 1)) + np.reshape(MEAN, (3, 1, 1))) * 255).astype(np.uint8)


@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    padding=st.integers(0, 4),
    flip=st.booleans(),
    seed=st.integers(),
)
def test_every_image_is_a_crop_of_the_padded_one(size, padding, flip, seed):
    images, labels = make(6, size)
    loader = Loader(
        images, labels, batch_size=4, mean=MEAN, std=STD, padding=padding, flip=flip, shuffle=True, seed=seed
    )
    for label, image in served(loader, 2).items():
        padded = np.pad(images[label].numpy(), ((0, 0), (padding, padding), (padding, padding)))
        crops = [
            padded[:, y : y + size[0], x : x + size[1]]
            for y, x in itertools.product(range(2 * padding + 1), range(2 * padding + 1))
        ]
        crops += [crop[:, :, ::-1] for crop in crops] if flip else []
        assert any(np.allclose(image, normalized(crop), atol=1e-5) for crop in crops)


def test_all_places_and_both_sides_come_up():
    """One white pixel in the middle of 3x3 with padding 1 shows where it was cut; a second one beside it, which way."""
    image = torch.zeros(1, 3, 3, 3, dtype=torch.uint8)
    image[:, :, 1, 1], image[:, :, 1, 2] = 255, 100
    images, labels = image.expand(400, -1, -1, -1), torch.arange(400)
    loader = Loader(images, labels, batch_size=400, mean=MEAN, std=STD, padding=1, flip=True, shuffle=True)
    seen = {pixels(x).tobytes() for x in served(loader, 0).values()}
    assert len(seen) == 18


@given(batch_size=st.integers(1, 30), chosen=st.sets(st.integers(0, 22), min_size=2), epoch=st.integers(0, 300))
def test_augmentation_depends_on_the_sample_alone(batch_size, chosen, epoch):
    images, labels = make()
    common = {"mean": MEAN, "std": STD, "padding": 2, "flip": True, "seed": 5}
    whole = served(Loader(images, labels, batch_size=23, shuffle=False, **common), epoch)
    index = torch.tensor(sorted(chosen, reverse=True))
    some = served(Loader(images, labels, index, batch_size=batch_size, shuffle=True, **common), epoch)
    assert set(some) <= chosen
    assert len(some) >= len(chosen) - 1
    for label, image in some.items():
        np.testing.assert_array_equal(image, whole[label])


def test_resized_crops_are_those_of_the_draws():
    images, labels = make(23, (12, 16))
    index = torch.tensor([20, 3, 11, 4])
    loader = Loader(
        images, labels, index, batch_size=4, mean=MEAN, std=STD, crop="resized", flip=True, shuffle=False, seed=5
    )
    boxes = random_boxes(draw(5, 7, index.numpy()), 12, 16)
    cut = resized_crop(images[index], torch.from_numpy(boxes)).numpy()
    mirror = below(2, 5, 7, MIRROR, index.numpy())
    for image, expected, turned in zip(served(loader, 7).values(), cut, mirror, strict=True):
        np.testing.assert_allclose(image, normalized(expected[..., ::-1] if turned else expected), atol=1e-4)
    assert len(np.unique(boxes, axis=0)) == 4


@pytest.mark.parametrize(("resize", "square"), [(14, False), (20, True)])
def test_testing_may_resize_and_cut_the_center(resize, square):
    images, labels = make(5, (12, 16))
    loader = Loader(images, labels, batch_size=4, mean=MEAN, std=STD, resize=resize, square=square, shuffle=False)
    box = torch.tensor([center_box(12, 16, (12, 16), resize=resize, square=square)])
    expected = resized_crop(images, box.expand(5, 4)).numpy()
    np.testing.assert_allclose(np.stack(list(served(loader, 0).values())), normalized(expected), atol=1e-4)
    assert not np.allclose(expected, images.numpy(), atol=20)


def test_epochs_and_seeds_differ_and_repeat():
    images, labels = make()

    def order(seed: int, epoch: int) -> list[int]:
        loader = Loader(images, labels, batch_size=4, mean=MEAN, std=STD, shuffle=True, seed=seed)
        return [int(y) for _, batch in loader.epoch(epoch) for y in batch]

    def crops(seed: int, epoch: int) -> np.ndarray:
        loader = Loader(
            images, labels, batch_size=4, mean=MEAN, std=STD, padding=2, flip=True, shuffle=False, seed=seed
        )
        return np.stack(list(served(loader, epoch).values()))

    orders = [order(*key) for key in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(drawn) == list(range(23)) for drawn in orders)
    assert len({tuple(drawn) for drawn in orders}) == 3
    assert order(0, 1) == orders[1]
    np.testing.assert_array_equal(crops(0, 1), crops(0, 1))
    assert not np.array_equal(crops(0, 0), crops(0, 1))
    assert not np.array_equal(crops(0, 0), crops(1, 0))


def test_mirroring_alone_differs_too():
    images, labels = make()

    def mirrored(seed: int, epoch: int) -> tuple[bool, ...]:
        loader = Loader(images, labels, batch_size=9, mean=MEAN, std=STD, flip=True, shuffle=False, seed=seed)
        got = [pixels(x) for x in served(loader, epoch).values()]
        assert all(
            np.array_equal(x, y) or np.array_equal(x, y[..., ::-1]) for x, y in zip(got, images.numpy(), strict=True)
        )
        return tuple(not np.array_equal(x, y) for x, y in zip(got, images.numpy(), strict=True))

    drawn = {mirrored(*key) for key in ((0, 0), (0, 1), (1, 0), (1, 1))}
    assert len(drawn) == 4
    assert all(5 <= sum(sides) <= 18 for sides in drawn)


def test_evaluation_serves_everything_in_order():
    images, labels = make(9)
    index = torch.tensor([8, 0, 3, 4, 5])
    loader = Loader(images, labels, index, batch_size=4, mean=MEAN, std=STD, shuffle=False)
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader) == 2
    assert loader.images_per_epoch == 5
    assert torch.cat([y for _, y in batches]).tolist() == index.tolist()
    expected = np.stack([normalized(images[n].numpy()) for n in index])
    np.testing.assert_allclose(torch.cat([x for x, _ in batches]).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "batch_size", "shuffle", "sizes"),
    [
        (9, 4, True, [4, 4]),  # one image alone is no use to batch normalization
        (9, 4, False, [4, 4, 1]),
        (10, 4, True, [4, 4, 2]),  # an incomplete batch is kept: 45,000 images are the paper's 352 steps
        (8, 4, True, [4, 4]),
        (3, 8, True, [3]),
        (3, 1, True, [1, 1, 1]),
        (1, 1, True, [1]),
        (1, 4, False, [1]),
    ],
)
def test_last_batch(count, batch_size, shuffle, sizes):
    images, labels = make(count)
    loader = Loader(images, labels, batch_size=batch_size, mean=MEAN, std=STD, shuffle=shuffle)
    assert [len(y) for _, y in loader.epoch(0)] == sizes
    assert len(loader) == len(sizes)
    assert loader.images_per_epoch == sum(sizes)


def test_the_image_left_out_changes():
    images, labels = make(9)
    loader = Loader(images, labels, batch_size=4, mean=MEAN, std=STD, shuffle=True)
    left_out = {next(iter(set(range(9)) - set(served(loader, epoch)))) for epoch in range(20)}
    assert len(left_out) > 3


@pytest.mark.parametrize("shuffle", [True, False])
def test_shares_of_two_processes_make_up_the_batch(shuffle):
    images, labels = make(21)
    options = {"batch_size": 9, "mean": MEAN, "std": STD, "padding": 2, "flip": True, "shuffle": shuffle, "seed": 3}
    whole = Loader(images, labels, **options)
    ranks = [Loader(images, labels, **options, rank=rank, world_size=2) for rank in (0, 1)]
    batches = list(whole.epoch(6))
    if shuffle:
        batches = batches[:2]  # a last batch of three leaves one image to a process: too few for batch normalization
    assert {len(loader) for loader in ranks} == {len(batches)}
    assert {loader.images_per_epoch for loader in ranks} == {sum(len(y) for _, y in batches)}
    assert ranks[0].batch_sizes() == [len(y) for _, y in batches]
    for (x, y), *shares in zip(batches, *(loader.epoch(6) for loader in ranks), strict=True):
        assert torch.equal(torch.cat([part for part, _ in shares]), x)
        assert torch.equal(torch.cat([part for _, part in shares]), y)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_and_memory_format(dtype, memory_format):
    images, labels = make(12)
    options = {"batch_size": 5, "mean": MEAN, "std": STD, "padding": 1, "flip": True, "shuffle": True}
    plain = Loader(images, labels, **options)
    loader = Loader(images, labels, dtype=dtype, memory_format=memory_format, **options)
    for (x, y), (expected, same) in zip(loader.epoch(3), plain.epoch(3), strict=True):
        assert x.dtype == dtype
        assert x.is_contiguous(memory_format=memory_format)
        assert torch.equal(y, same)
        assert torch.equal(x, expected.to(dtype))


def test_loading_leaves_the_global_random_state():
    images, labels = make()
    before = torch.get_rng_state()
    list(Loader(images, labels, batch_size=4, mean=MEAN, std=STD, padding=2, flip=True, shuffle=True).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_same_batches_on_an_accelerator():
    if not torch.cuda.is_available():
        pytest.skip("needs an accelerator")
    images, labels = make(50)
    options = {"batch_size": 16, "mean": MEAN, "std": STD, "padding": 2, "flip": True, "shuffle": True}
    for (x, y), (expected, same) in zip(
        Loader(images, labels, device="cuda", **options).epoch(1),
        Loader(images, labels, **options).epoch(1),
        strict=True,
    ):
        assert torch.equal(x.cpu(), expected)
        assert torch.equal(y.cpu(), same)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.rand(4, 3, 5, 5)}, r"expected uint8 images \(N, C, H, W\), got torch.float32"),
        ({"images": torch.zeros(4, 3, 5, dtype=torch.uint8)}, r"expected uint8 images .* of shape \(4, 3, 5\)"),
        ({"labels": torch.arange(3)}, r"expected 4 int64 labels, got torch.int64 of shape \(3,\)"),
        ({"labels": torch.zeros(4)}, r"expected 4 int64 labels, got torch.float32"),
        ({"index": torch.tensor([0, 4])}, "expected an index of images 0 to 3, got 0 to 4"),
        ({"index": torch.tensor([-1, 2])}, "expected an index of images 0 to 3, got -1 to 2"),
        ({"index": torch.tensor([], dtype=torch.int64)}, "expected an int64 index of at least one image"),
        ({"index": torch.tensor([True, False])}, "expected an int64 index of at least one image, got torch.bool"),
        ({"batch_size": 0}, "expected a batch_size of at least 1, got 0"),
        ({"padding": -1}, "expected a padding of at least 0, got -1"),
        ({"crop": "square"}, "expected a crop of padded or resized, got 'square'"),
        ({"crop": "resized", "padding": 2}, "expected no padding and no resize with resized crops, got 2 and None"),
        ({"crop": "resized", "resize": 9}, "expected no padding and no resize with resized crops, got 0 and 9"),
        ({"square": True}, "square needs resize"),
        ({"resize": 4}, "cannot cut 5x5 from test images resized to 4; give at least 5, or None"),
        ({"mean": (0.5,)}, "expected 3 means and 3 positive deviations"),
        ({"std": (0.5, 0.0, 0.5)}, "expected 3 means and 3 positive deviations"),
        ({"index": torch.tensor([2])}, "expected at least 2 images to train on, got 1"),
    ],
)
def test_loader_refuses(change, message):
    images, labels = make(4, (5, 5))
    options = {"images": images, "labels": labels, "batch_size": 8, "mean": MEAN, "std": STD, "shuffle": True}
    with pytest.raises(ValueError, match=message):
        Loader(**{**options, **change})


@given(size=st.tuples(st.integers(2, 6), st.integers(2, 6)), padding=st.integers(1, 5), seed=st.integers())
def test_a_border_can_be_the_image_mirrored(size, padding, seed):
    """The places are those of the black border; only what the border holds differs."""
    images, labels = make(6, size)
    common = {
        "batch_size": 4,
        "mean": MEAN,
        "std": STD,
        "padding": padding,
        "flip": True,
        "shuffle": True,
        "seed": seed,
    }
    if padding >= min(size):
        with pytest.raises(
            ValueError, match=rf"{size[0]}x{size[1]} reflects fewer pixels than its side, got {padding}"
        ):
            Loader(images, labels, padding_mode="reflect", **common)
        return
    black = served(Loader(images, labels, **common), 1)
    border = (0, 0), (padding, padding), (padding, padding)
    for label, image in served(Loader(images, labels, padding_mode="reflect", **common), 1).items():
        padded = np.pad(images[label].numpy(), border, "reflect")
        crops = [
            padded[:, y : y + size[0], x : x + size[1]]
            for y, x in itertools.product(range(2 * padding + 1), range(2 * padding + 1))
        ]
        crops += [crop[:, :, ::-1] for crop in crops]
        assert any(np.allclose(image, normalized(crop), atol=1e-5) for crop in crops)
        inside = pixels(black[label]) > 0
        assert np.array_equal(pixels(image)[inside], pixels(black[label])[inside])


def test_alternating_flips_show_both_sides_in_two_epochs():
    images, labels = make(40)
    common = {"batch_size": 16, "mean": MEAN, "std": STD, "flip": True, "shuffle": True, "seed": 3}
    loader = Loader(images, labels, alternating=True, **common)
    first, second, third = (served(loader, epoch) for epoch in (0, 1, 2))
    assert all(np.array_equal(first[n], second[n][:, :, ::-1]) for n in first)
    assert all(np.array_equal(first[n], third[n]) for n in first)
    mirrored = [np.array_equal(pixels(first[n]), images[n].numpy()[:, :, ::-1]) for n in first]
    assert 10 < sum(mirrored) < 30, "which side comes first is drawn"
    assert all(np.array_equal(first[n], image) for n, image in served(Loader(images, labels, **common), 0).items())


def test_refuses_an_unknown_border():
    images, labels = make(4)
    with pytest.raises(ValueError, match="expected a padding_mode of zeros or reflect, got 'wrap'"):
        Loader(images, labels, batch_size=2, mean=MEAN, std=STD, padding_mode="wrap", shuffle=False)
