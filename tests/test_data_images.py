from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from srblock.data import ImageData, images
from srblock.data.images import resize


def parts(**change):
    generator = torch.Generator().manual_seed(0)
    whole = {
        "train_images": torch.randint(0, 256, (6, 3, 4, 5), dtype=torch.uint8, generator=generator),
        "train_labels": torch.tensor([0, 1, 0, 1, 0, 1]),
        "test_images": torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8, generator=generator),
        "test_labels": torch.tensor([1, 0]),
        "classes": ["cat", "dog"],
        "flip": True,
    }
    return {**whole, **change}


def test_properties():
    data = ImageData.build("pets", **parts())
    assert (data.channels, data.size, data.train_size, data.test_size) == (3, (4, 5), 6, 2)
    assert data.classes == ("cat", "dog")
    assert len(data.fingerprint) == 64


def test_fingerprint_sees_everything_that_can_change_a_result():
    original = parts()
    pixel = original["test_images"].clone()
    pixel[1, 2, 3, 4] += 1
    changes = [
        {},
        {"test_images": pixel},
        {"train_labels": torch.tensor([1, 0, 0, 1, 0, 1])},
        {"test_labels": torch.tensor([0, 1])},
        {"classes": ["cat", "dogs"]},
        {"flip": False},
        {"train_images": original["train_images"].flip(0)},
        {
            "train_images": original["train_images"].view(6, 3, 5, 4),
            "test_images": original["test_images"].view(2, 3, 5, 4),
        },
        {
            "train_images": torch.cat([original["train_images"], original["test_images"][:1]]),
            "train_labels": torch.tensor([0, 1, 0, 1, 0, 1, 1]),
            "test_images": original["test_images"][[1, 1]],
        },
    ]
    assert len({ImageData.build("pets", **parts(**change)).fingerprint for change in changes}) == len(changes)


def test_fingerprint_does_not_see_name_or_layout_in_memory():
    data = ImageData.build("pets", **parts())
    strided = parts()["train_images"].contiguous(memory_format=torch.channels_last)
    assert ImageData.build("other", **parts(train_images=strided)).fingerprint == data.fingerprint
    assert replace(data, name="other").fingerprint == data.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["cat"]}, "pets: expected at least two classes, got 1: cat"),
        ({"classes": ["cat", "cat"]}, "pets: class names are not unique"),
        ({"classes": ["cat", "dog", "emu"]}, r"train set: 1 class with fewer than 2 images: emu \(0\)"),
        ({"train_labels": torch.tensor([0, 0, 0, 0, 0, 1])}, r"train set: 1 class with fewer than 2 images: dog \(1\)"),
        ({"test_labels": torch.tensor([1, 1])}, r"test set: 1 class with fewer than 1 image: cat \(0\)"),
        ({"test_labels": torch.tensor([1, 2])}, "test set: expected labels 0 to 1, got 1 to 2"),
        ({"test_labels": torch.tensor([-1, 1])}, "test set: expected labels 0 to 1, got -1 to 1"),
        ({"test_labels": torch.tensor([1])}, r"test set: expected 2 int64 labels, got torch.int64 \(1,\)"),
        (
            {"train_images": torch.rand(6, 3, 4, 5)},
            r"train set: expected uint8 images \(N, C, H, W\), got torch.float32",
        ),
        (
            {"test_images": torch.zeros(2, 1, 4, 5, dtype=torch.uint8)},
            r"training images are \(3, 4, 5\) and test images \(1, 4, 5\)",
        ),
    ],
)
def test_build_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        ImageData.build("pets", **parts(**change))


def test_resize_keeps_flat_color_and_averages():
    flat = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(resize("flat", flat, 3), torch.full((2, 3, 3, 3), 77, dtype=torch.uint8))
    assert resize("flat", flat, None) is flat
    assert resize("flat", flat, 8) is flat
    stripes = torch.tensor([255, 0, 0, 255], dtype=torch.uint8).repeat(2).expand(1, 1, 8, 8)
    small = resize("stripes", stripes, 2)  # without antialiasing the four middle pixels alone would count: black
    assert small.min() > 60


def test_resize_refuses_what_does_not_fit(monkeypatch):
    monkeypatch.setattr(images, "MEMORY_LIMIT_BYTES", 2**30)
    with pytest.raises(ValueError, match=r"many: 60,000 images of 100x100 take 1\.7 GiB decoded.*smaller --image-size"):
        resize("many", torch.zeros(60000, 3, 1, 1, dtype=torch.uint8), 100)
