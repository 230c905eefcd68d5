"""Batches of scenes: a function of (seed, epoch, sample), image and label together, ignored where nothing is."""

import colorsys
import gc
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scene_fixture import SIZE, write_camvid

from srblock.data import Augmentation, SceneFiles, SceneLoader, load_scenes
from srblock.data.loading.photometric import Distortion, distorted, draw_distortions
from srblock.data.loading.scene_crops import Window, choose, cut_classes, cut_image, scaled
from srblock.data.loading.scenes import augmented, draw

CROP = Augmentation(crop=(24, 32))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SceneFiles:
    root = tmp_path_factory.mktemp("scenes")
    return load_scenes(f"camvid:{write_camvid(root)}", cache=root / "cache").train


def served(
    loader: SceneLoader, epoch: int = 1, batches: slice = slice(None)
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(loader.epoch(epoch, batches))


def equal(ours: list[tuple[torch.Tensor, torch.Tensor]], theirs: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # three workers on fewer cores
def test_the_number_of_workers_changes_no_bit_and_a_batch_can_be_begun_with(files: SceneFiles) -> None:
    def loader(workers: int) -> SceneLoader:
        return SceneLoader(files, augmentation=CROP, batch_size=4, shuffle=True, seed=3, workers=workers)

    alone = served(loader(0))
    assert [images.shape for images, _ in alone] == [(4, 3, 24, 32), (4, 3, 24, 32)], "a last batch of one is left out"
    for workers in (1, 3):
        assert equal(served(loader(workers)), alone)
    assert equal(served(loader(0), batches=slice(1, None)), alone[1:])
    assert not equal(served(loader(0), epoch=2), alone)


def test_workers_end_with_their_loader(files: SceneFiles) -> None:
    """At once: in a reference cycle they would not be told, and each be waited for, for 5 seconds."""
    loader = SceneLoader(files, augmentation=CROP, batch_size=4, shuffle=True, workers=1)
    served(loader)
    workers = loader._ahead._loader._iterator._workers  # type: ignore[union-attr, attr-defined]
    gc.disable()
    try:
        start = time.monotonic()
        del loader
        assert not any(worker.is_alive() for worker in workers)
        assert time.monotonic() - start < 4
    finally:
        gc.enable()


def test_a_scene_is_augmented_by_its_number_alone(files: SceneFiles) -> None:
    index = torch.tensor([6, 2])
    some = served(SceneLoader(files, index, augmentation=CROP, batch_size=2, shuffle=False, seed=3, workers=0))
    whole = served(SceneLoader(files, augmentation=CROP, batch_size=3, shuffle=False, seed=3, workers=0))
    assert torch.equal(some[0][0][0], whole[2][0][0])
    assert torch.equal(some[0][1][1], whole[0][1][2])


def test_every_epoch_and_seed_has_crops_of_its_own(files: SceneFiles) -> None:
    """In order, so that only the augmentation can differ."""
    plain = Augmentation(crop=(24, 32), photometric=False)

    def batch(seed: int, epoch: int) -> torch.Tensor:
        loader = SceneLoader(files, augmentation=plain, batch_size=9, shuffle=False, seed=seed, workers=0)
        return next(loader.epoch(epoch))[0]

    first = batch(3, 0)
    assert torch.equal(batch(3, 0), first)
    for other in (batch(3, 1), batch(4, 0)):
        assert not any(torch.equal(ours, theirs) for ours, theirs in zip(first, other, strict=True))


def test_draws_of_a_scene_know_nothing_of_each_other() -> None:
    drawn = list(draw(7, 1, np.arange(4000)))
    rows = [[one.ratio, *one.places[0], one.places[1, 0], one.mirror, *vars(one.distortion).values()] for one in drawn]
    correlation = np.corrcoef(np.array(rows, dtype=float).T)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 4.5 / 4000**0.5


def test_image_and_classes_stay_together() -> None:
    """A scene whose color is its class: resized, cropped and mirrored it still is, away from edges."""
    random = np.random.default_rng(0)
    classes = np.kron(random.integers(0, 5, (6, 8)), np.ones((16, 16))).astype(np.uint8)
    image = Image.fromarray(np.repeat(classes[..., None] * 50, 3, 2).astype(np.uint8))
    plain = Augmentation(crop=(40, 56), photometric=False)
    sides = set()
    for drawn in draw(0, 0, np.arange(12)):
        pixels, cut = augmented(image, classes, plain, drawn)
        assert pixels.shape[:2] == cut.shape == (40, 56) or min(drawn.ratio, 1) < 0.4
        assert set(np.unique(cut)) <= set(range(5)), "no value is made up"
        same = np.abs(pixels[..., 0].astype(int) - 50 * cut.astype(int)) < 10
        assert same.mean() > 0.8
        sides.add(drawn.mirror)
    assert sides == {True, False}


@pytest.mark.parametrize("factor", [0.5, 0.77, 1.0, 1.31, 2.0])
def test_a_window_is_cut_as_if_the_whole_scene_had_been_resized(files: SceneFiles, factor: float) -> None:
    image, classes = files.pair(0)
    height, width = size = scaled(SIZE, factor)
    whole = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    labels = np.asarray(Image.fromarray(classes).resize((width, height), Image.Resampling.NEAREST))
    window = Window(size, 3, width // 3, height - 5, width // 2)
    part = (slice(3, height - 2), slice(width // 3, width // 3 + width // 2))
    assert np.abs(cut_image(image, window) - whole[part]).max() <= 1
    assert np.array_equal(cut_classes(classes, window), labels[part])


@pytest.mark.parametrize("augmentation", [CROP, None])
def test_processes_share_every_batch(files: SceneFiles, augmentation: Augmentation | None) -> None:
    def loader(rank: int, world_size: int) -> SceneLoader:
        options = {"batch_size": 4, "shuffle": True} if augmentation else {"shuffle": False}
        return SceneLoader(
            files, augmentation=augmentation, seed=3, rank=rank, world_size=world_size, workers=0, **options
        )

    alone, first, second = served(loader(0, 1)), served(loader(0, 2)), served(loader(1, 2))
    if augmentation:
        shares = zip(first, second, strict=True)
        together = [tuple(torch.cat(halves) for halves in zip(*share, strict=True)) for share in shares]
    else:
        together = [*first, *second]
        alone = [*alone[::2], *alone[1::2]]
        assert (len(first), len(second)) == (4, 5), "of a last single scene the first process has no share"
        alone = [*alone[:4], *alone[5:], alone[4]]
    assert equal(together, alone)


def test_no_class_has_three_quarters_of_a_crop_where_another_place_is_to_be_had() -> None:
    """The left 60 columns are one class: only crops that reach far to the right pass; ignored pixels do not count."""
    classes = np.zeros((20, 80), np.uint8)
    classes[:, 60:] = 1
    classes[:5] = 255
    places = np.stack([np.zeros(11), np.linspace(0, 0.99, 11)], 1)
    window = choose(classes, (20, 80), (20, 20), places, 0.75)
    cut = cut_classes(classes, window)
    assert 0 < (cut == 1).sum() < 0.75 * (cut != 255).sum()
    assert (cut == 0).sum() < 0.75 * (cut != 255).sum()
    assert choose(classes, (20, 80), (20, 20), places, 1.0).left == 0, "1 takes the first place"
    one = np.zeros((20, 80), np.uint8)
    assert choose(one, (20, 80), (20, 20), places, 0.75).left == 60, "none passes: the place after ten tries"


def test_what_is_beyond_a_small_scene_is_zero_and_ignored(files: SceneFiles) -> None:
    large = Augmentation(crop=(120, 200), ratios=(1, 1), photometric=False)
    images, classes = next(SceneLoader(files, augmentation=large, batch_size=2, shuffle=False, workers=0).epoch(0))
    assert (images[:, :, SIZE[0] :] == 0).all()
    assert (images[:, :, :, SIZE[1] :] == 0).all()
    assert (classes[:, SIZE[0] :] == 255).all()
    assert (images[:, :, : SIZE[0], : SIZE[1]] != 0).float().mean() > 0.99


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_whole_scenes_come_in_order(files: SceneFiles, scale: float) -> None:
    loader = SceneLoader(files, augmentation=None, scale=scale, shuffle=False, workers=0)
    whole = served(loader)
    assert len(whole) == len(files)
    image, labels = files.decode(4)
    assert torch.equal(whole[4][1][0], torch.from_numpy(labels).long()), "classes keep their size"
    assert whole[4][0].shape == (1, 3, int(SIZE[0] * scale), int(SIZE[1] * scale))
    if scale == 1:
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (loader.mean, loader.std))
        assert torch.allclose(whole[4][0][0], (torch.from_numpy(image).float() / 255 - mean) / std, atol=1e-5)


def by_colorsys(pixel: np.ndarray, d: Distortion) -> list[float]:
    """Distort one pixel in floating-point numbers, step by step."""
    values = [min(max(v + d.brightness, 0), 255) for v in pixel.tolist()]
    if not d.contrast_last:
        values = [min(v * d.contrast, 255) for v in values]
    hue, saturation, value = colorsys.rgb_to_hsv(*(v / 255 for v in values))
    turned = colorsys.hsv_to_rgb((hue + d.hue / 360) % 1, min(saturation * d.saturation, 1), value)
    values = [255 * v for v in turned]
    return [min(v * d.contrast, 255) for v in values] if d.contrast_last else values


@pytest.mark.parametrize(
    "distortion",
    [
        Distortion(),
        Distortion(brightness=-20),
        Distortion(contrast=1.4),
        Distortion(saturation=1.5),
        Distortion(saturation=0.5, contrast=0.6, contrast_last=True),
        Distortion(30, 0.7, False, 1.3, 35.0),
        Distortion(-30, 1.5, True, 0.6, -36.0),
    ],
)
def test_distortion_is_that_of_hsv(distortion: Distortion) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 7, 3), np.uint8)
    pixels[0] = [[0, 0, 0], [255, 255, 255], [9, 9, 9], [255, 0, 0], [0, 255, 0], [0, 0, 255], [1, 2, 2]]
    expected = [[by_colorsys(pixel, distortion) for pixel in row] for row in pixels]
    assert np.abs(distorted(pixels, distortion) - np.array(expected)).max() <= 0.51


def test_half_of_the_scenes_get_each_distortion_and_within_its_bounds() -> None:
    drawn = list(draw_distortions(5, 2, np.arange(2000)))
    for name, neutral, low, high in (
        ("brightness", 0, -32, 32), ("contrast", 1, 0.5, 1.5), ("saturation", 1, 0.5, 1.5), ("hue", 0, -36, 36),
    ):  # fmt: skip
        values = np.array([getattr(one, name) for one in drawn])
        changed = values[values != neutral]
        assert 900 < len(changed) < 1100
        assert low <= changed.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < changed.max() <= high


def test_a_file_that_breaks_later_is_named(tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "camvid")
    train = load_scenes(f"camvid:{root}", cache=tmp_path / "cache").train
    (root / "train" / "0003.png").write_bytes(b"gone")
    with pytest.raises(ValueError, match=r"train/0003\.png"):
        served(SceneLoader(train, augmentation=CROP, batch_size=3, shuffle=False, workers=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augmentation": None, "batch_size": 2, "shuffle": False}, "whole scenes may differ in size"),
        ({"augmentation": CROP, "scale": 0.5, "shuffle": True}, "the scale of crops in the augmentation"),
        ({"augmentation": None, "scale": 0.0, "shuffle": False}, "a scale above 0"),
        ({"augmentation": CROP, "std": (1, 1, 0), "shuffle": True}, "positive deviations"),
        ({"augmentation": CROP, "index": torch.tensor([9]), "shuffle": True}, "scenes 0 to 8, got 9 to 9"),
    ],
)
def test_refuses(files: SceneFiles, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SceneLoader(files, workers=0, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"crop": (0, 5)}, "a crop"), ({"ratios": (2, 1)}, "ratios"), ({"most": 0}, "most"), ({"scale": 9}, "a scale")],
)
def test_augmentations_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**{"crop": (8, 8), **options})
