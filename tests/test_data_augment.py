from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from srblock.data.loading.augment import mirrored, padded_crop, resized_crop


def noise(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    shares=st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=4),
)
def test_resized_crop_is_pillow_s(height, width, shares):
    images = noise(len(shares), height, width)
    boxes = []
    for top, left, rows, columns in shares:
        h, w = max(1, round(rows * height)), max(1, round(columns * width))
        boxes.append((round(top * (height - h)), round(left * (width - w)), h, w))
    cut = resized_crop(images, torch.tensor(boxes))
    assert cut.dtype == torch.float32
    for image, result, (top, left, h, w) in zip(images, cut, boxes, strict=True):
        expected = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(
            (width, height), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h)
        )
        np.testing.assert_allclose(result.permute(1, 2, 0), np.asarray(expected), atol=1.01)  # Pillow rounds, twice


def test_the_whole_image_is_itself():
    images = noise(2, 17, 9)
    torch.testing.assert_close(
        resized_crop(images, torch.tensor([[0, 0, 17, 9]] * 2)), images.float(), atol=0.01, rtol=0
    )


def test_mirrored_and_padded_crop():
    images = noise(3, 4, 5)
    mirror = torch.tensor([0, 1, 0])
    expected = torch.stack([images[0], images[1].flip(2), images[2]])
    assert torch.equal(mirrored(images, mirror), expected)
    shifted = padded_crop(images, 2, torch.tensor([2, 2, 0]), torch.tensor([2, 2, 4]), mirror)
    assert torch.equal(shifted[:2], expected[:2])
    assert torch.equal(shifted[2, :, 2:, :3], images[2, :, :2, 2:])
    assert shifted[2, :, :2].max() == shifted[2, :, :, 3:].max() == 0
