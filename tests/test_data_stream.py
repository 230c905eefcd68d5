"""Batches from files: the same with any number of workers, those of the draws, and errors that name what is wrong."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from streamed_fixture import write_jpegs
from torchvision.transforms import v2

from srblock.data import ImageData, Loader, load
from srblock.data.loading.crops import center_box, draw, random_boxes
from srblock.data.loading.decode import decode_cut
from srblock.data.loading.draws import COLUMN, MIRROR, ORDER, ROW, below, bits
from srblock.data.loading.stream import default_workers

SIDE = 32
MEAN, STD = (0.2, 0.5, 0.7), (0.1, 0.25, 0.3)
RESIZED: dict[str, Any] = {"crop": "resized", "flip": True, "shuffle": True, "seed": 3}
PADDED: dict[str, Any] = {"padding": 4, "flip": True, "shuffle": True, "seed": 3}
CENTER: dict[str, Any] = {"resize": 37, "shuffle": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jpegs(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def data(folder: Path) -> ImageData:
    return load(f"stream:{folder}", image_size=SIDE)


def loader(data: ImageData, **options: Any) -> Loader:
    common = {"batch_size": 8, "mean": MEAN, "std": STD, "workers": 0}
    return Loader(data.train_images, data.train_labels, **(common | options))


def same(first: list[tuple[torch.Tensor, torch.Tensor]], second: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    assert len(first) == len(second)
    return all(torch.equal(x, v) and torch.equal(y, w) for (x, y), (v, w) in zip(first, second, strict=True))


def picture(data: ImageData, number: int) -> Image.Image:
    return Image.open(Path(data.train_images.root, data.train_images.name(number))).convert("RGB")


def normalized(pixels: np.ndarray) -> np.ndarray:
    return ((pixels / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)


def pixels(image: torch.Tensor) -> np.ndarray:
    """Undo the normalization. Shapes: (3, H, W) -> (H, W, 3)."""
    return (image.permute(1, 2, 0).double().numpy() * np.array(STD) + np.array(MEAN)) * 255


def test_workers_change_nothing_and_epochs_need_no_replay(data: ImageData) -> None:
    """Fresh loaders at epoch 2 with 0, 1 and 2 workers; the last was abandoned in the middle of an epoch before."""
    for options in (RESIZED, PADDED):
        plain = loader(data, **options)
        expected = [list(plain.epoch(epoch)) for epoch in range(3)]
        assert not same(expected[1], expected[2])
        with_two = loader(data, **options, workers=2)
        assert same(list(islice(with_two.epoch(0), 1)), expected[0][:1])
        assert same(list(with_two.epoch(2)), expected[2])
        if options is RESIZED:
            assert same(list(with_two.epoch(0)), expected[0])
            assert same(list(loader(data, **options, workers=1).epoch(2)), expected[2])


def test_order_crops_and_labels_are_those_of_the_draws(data: ImageData) -> None:
    (images, labels), *_ = loader(data, **RESIZED, batch_size=22).epoch(5)
    samples = np.arange(22)
    order = np.argsort(bits(3, 5, ORDER, samples))
    mirror = below(2, 3, 5, MIRROR, samples)
    assert labels.tolist() == [int(n >= 11) for n in order]
    for image, n in zip(images, order, strict=True):
        source = picture(data, n)
        top, left, rows, columns = random_boxes(draw(3, 5, np.array([n])), source.height, source.width)[0]
        cut = source.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + columns, top + rows))
        expected = normalized(np.asarray(cut))
        np.testing.assert_allclose(image, expected[:, :, ::-1] if mirror[n] else expected, atol=1e-5)


def test_resized_crops_are_torchvision_s_inside(data: ImageData) -> None:
    """Cutting first, as torchvision does, differs only at the edge, where our filter sees beyond it."""
    (images, _), *_ = loader(data, **(RESIZED | {"shuffle": False, "flip": False}), batch_size=22).epoch(0)
    for n, image in enumerate(images):
        source = picture(data, n)
        top, left, rows, columns = random_boxes(draw(3, 0, np.array([n])), source.height, source.width)[0]
        expected = np.asarray(v2.functional.resized_crop(source, top, left, rows, columns, [SIDE, SIDE]))
        edge = 2
        np.testing.assert_allclose(
            pixels(image)[edge:-edge, edge:-edge], expected[edge:-edge, edge:-edge].astype(float), atol=2.01
        )


def test_padded_crops_are_cut_from_the_resized_center(data: ImageData) -> None:
    (images, _), *_ = loader(data, **(PADDED | {"shuffle": False}), batch_size=22).epoch(1)
    samples = np.arange(22)
    rows, columns = (below(9, 3, 1, stream, samples) for stream in (ROW, COLUMN))
    mirror = below(2, 3, 1, MIRROR, samples)
    for n, image in enumerate(images):
        source = picture(data, n)
        short = min(source.size)
        left, top = (source.width - short) / 2, (source.height - short) / 2
        box = (left, top, left + short, top + short)
        center = np.asarray(source.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box))
        cut = np.pad(center, ((4, 4), (4, 4), (0, 0)))[rows[n] :, columns[n] :][:SIDE, :SIDE]
        np.testing.assert_allclose(image, normalized(cut[:, ::-1] if mirror[n] else cut), atol=1e-5)


def test_a_set_in_memory_gives_the_same_batches(data: ImageData, folder: Path) -> None:
    """Bit for bit: the test part, and training with padded crops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRBLOCK_CACHE", str(folder.parent / "cache"))
        in_memory = load(folder, image_size=SIDE)
    assert not in_memory.streamed
    for options in (PADDED, {"shuffle": False}):
        assert same(list(loader(data, **options).epoch(1)), list(loader(in_memory, **options).epoch(1)))
    close = zip(loader(data, **CENTER).epoch(0), loader(in_memory, **CENTER).epoch(0), strict=True)
    for (x, y), (expected, labels) in close:  # what is in memory was resized before: the same view, less sharp
        assert torch.equal(y, labels)
        assert abs(pixels(x[0]) - pixels(expected[0])).mean() < 4


@pytest.mark.parametrize("square", [False, True])
def test_testing_cuts_the_center(data: ImageData, square: bool) -> None:
    (images, labels), *_ = loader(data, **CENTER, square=square, batch_size=22).epoch(0)
    assert labels.tolist() == data.train_labels.tolist()
    for n, image in enumerate(images):
        box = center_box(*picture(data, n).size[::-1], (SIDE, SIDE), resize=37, square=square)
        cut = decode_cut(data.train_images.read(n), SIDE, lambda h, w, box=box: box)
        np.testing.assert_allclose(image, normalized(cut), atol=1e-5)


@pytest.mark.parametrize("options", [RESIZED, CENTER])
def test_shares_of_two_processes_make_up_the_batch(data: ImageData, options: dict[str, Any]) -> None:
    whole = list(loader(data, **options, batch_size=9).epoch(4))
    ranks = [loader(data, **options, batch_size=9, rank=rank, world_size=2) for rank in (0, 1)]
    for (x, y), *shares in zip(whole, *(part.epoch(4) for part in ranks), strict=True):
        assert torch.equal(torch.cat([part for part, _ in shares]), x)
        assert torch.equal(torch.cat([part for _, part in shares]), y)
    assert ranks[1].batch_sizes() == [9, 9, 4]


def test_a_part_is_augmented_by_its_numbers_in_the_set(data: ImageData) -> None:
    index = torch.tensor([20, 3, 11])
    (images, labels), *_ = loader(data, **(RESIZED | {"shuffle": False}), index=index, batch_size=22).epoch(0)
    (whole, _), *_ = loader(data, **(RESIZED | {"shuffle": False}), batch_size=22).epoch(0)
    assert labels.tolist() == [1, 0, 1]
    assert torch.equal(images, whole[index])


def test_form_of_the_batches(data: ImageData) -> None:
    plain = list(loader(data, **RESIZED).epoch(0))
    formed = loader(data, **RESIZED, dtype=torch.bfloat16, memory_format=torch.channels_last)
    assert (len(formed), formed.images_per_epoch) == (3, 22)
    for (x, y), (expected, labels) in zip(formed.epoch(0), plain, strict=True):
        assert expected.is_contiguous()
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(x, expected.to(torch.bfloat16))
        assert torch.equal(y, labels)


@pytest.mark.parametrize("options", [RESIZED, PADDED, CENTER])
def test_same_batches_on_an_accelerator(data: ImageData, options: dict[str, Any]) -> None:
    """Through pinned memory, and in the layout that images have in files."""
    if not torch.cuda.is_available():
        pytest.skip("needs an accelerator")
    there = loader(data, **options, device="cuda", memory_format=torch.channels_last, workers=1)
    for (x, y), (expected, labels) in zip(there.epoch(1), loader(data, **options).epoch(1), strict=True):
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(x.cpu(), expected)
        assert torch.equal(y.cpu(), labels)


def test_streaming_leaves_the_global_random_state(data: ImageData) -> None:
    before = torch.get_rng_state()
    list(loader(data, **RESIZED).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_files_are_named(tmp_path: Path, workers: int) -> None:
    root = write_jpegs(tmp_path / "pets", each=3)
    data = load(f"stream:{root}", image_size=SIDE)
    (root / "train/cat/01.jpg").write_bytes((root / "train/cat/01.jpg").read_bytes()[:300])
    (root / "train/dog/00.jpg").unlink()
    message = r"pets: 2 files cannot be read as .*: train/cat/01.jpg \(Truncated.*\), train/dog/00.jpg \(.*No such file"
    with pytest.raises(ValueError, match=message):
        list(loader(data, **(RESIZED | {"shuffle": False}), workers=workers).epoch(0))


def test_a_killed_worker_is_an_error_and_not_a_hang(data: ImageData) -> None:
    before = set(multiprocessing.active_children())
    batches = loader(data, **RESIZED, batch_size=2, workers=1).epoch(0)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - before
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"a worker process that decodes images ended .*fewer with SRBLOCK_WORKERS"):
        list(batches)


TRAINS = """
import multiprocessing, sys, time
from srblock.data import Loader, load

if __name__ == "__main__":
    data = load(f"stream:{sys.argv[1]}", image_size=32)
    options = {"batch_size": 2, "mean": [0.5] * 3, "std": [0.5] * 3, "shuffle": True, "workers": 2}
    batches = Loader(data.train_images, data.train_labels, **options).epoch(0)
    next(batches)
    print(*[worker.pid for worker in multiprocessing.active_children()], flush=True)
    time.sleep(60)
"""


def test_workers_end_with_the_process_that_trains(folder: Path, tmp_path: Path) -> None:
    """However it ends: they are not its children but of a process that forks them, which torch does not see."""
    script = tmp_path / "trains.py"
    script.write_text(TRAINS)
    with subprocess.Popen([sys.executable, script, folder], stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        workers = [int(pid) for pid in training.stdout.readline().split()]
        training.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers are left"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_epochs_at_once_are_refused(data: ImageData) -> None:
    one = loader(data, **RESIZED)
    first, second = one.epoch(0), one.epoch(1)
    next(first)
    next(second)
    with pytest.raises(RuntimeError, match="another epoch of this loader was begun; take one after the other"):
        next(first)


def test_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)), raising=False)
    monkeypatch.delenv("SRBLOCK_WORKERS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert [default_workers(), default_workers(4), default_workers(50)] == [12, 3, 1]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # two of eight processes are on this machine
    assert default_workers(8) == 6
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(400)), raising=False)
    assert default_workers() == 32
    monkeypatch.setenv("SRBLOCK_WORKERS", "0")
    assert default_workers() == 0
    monkeypatch.setenv("SRBLOCK_WORKERS", "many")
    with pytest.raises(ValueError, match=r"SRBLOCK_WORKERS must be a whole number of worker processes, .* got 'many'"):
        default_workers()
