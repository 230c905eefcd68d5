from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from srblock.data.loading.crops import center_box, draw, random_boxes
from srblock.data.loading.draws import AREA, LEFT, RATIO, TOP, bits


def reference(drawn: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """torchvision's get_params in plain Python, with given random numbers."""
    for area_share, ratio_share, top_share, left_share in drawn:
        area = height * width * (0.08 + 0.92 * area_share)
        ratio = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * ratio_share)
        columns, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < columns <= width and 0 < rows <= height:
            return int(top_share * (height - rows + 1)), int(left_share * (width - columns + 1)), rows, columns
    if width / height < 3 / 4:
        rows, columns = round(width / (3 / 4)), width
    elif width / height > 4 / 3:
        rows, columns = height, round(height * (4 / 3))
    else:
        rows, columns = height, width
    return (height - rows) // 2, (width - columns) // 2, rows, columns


@given(size=st.tuples(st.integers(1, 600), st.integers(1, 600)), seed=st.integers(), epoch=st.integers(0, 500))
def test_boxes_follow_the_draws(size, seed, epoch):
    drawn = draw(seed, epoch, np.arange(40))
    boxes = random_boxes(drawn, *size)
    assert boxes.tolist() == [list(reference(one, *size)) for one in drawn]
    assert boxes.min(axis=0)[2:].min() >= 1
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= size).all()


def test_each_try_has_numbers_of_its_own():
    drawn = draw(3, 4, np.array([7, 2]))
    for position, stream in enumerate((AREA, RATIO, TOP, LEFT)):
        for row, sample in ((0, 7), (1, 2)):
            expected = bits(3, 4, stream, np.arange(10 * sample, 10 * sample + 10)) / 2.0**64
            np.testing.assert_allclose(drawn[row, :, position], expected, atol=2**-52)
    assert len(np.unique(draw(3, 4, np.arange(50)))) == 50 * 10 * 4


@pytest.mark.parametrize("size", [(375, 500), (60, 400)])
def test_boxes_are_distributed_as_torchvision_s(size):
    """Two-sample Kolmogorov-Smirnov tests of place, sides and area; at (60, 400) most boxes are of a later try."""
    count = 4000
    ours = random_boxes(draw(11, 0, np.arange(count)), *size)
    torch.manual_seed(5)
    image = torch.empty(1, *size)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)])
    for measure in (*(lambda b, n=n: b[:, n] for n in range(4)), lambda b: b[:, 2] * b[:, 3]):
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > 0.001


def test_what_never_fits_is_the_largest_center():
    drawn = draw(0, 0, np.arange(20))
    assert random_boxes(drawn, 10, 4000).tolist() == [[0, 1993, 10, 13]] * 20
    assert random_boxes(drawn, 4000, 10).tolist() == [[1993, 0, 13, 10]] * 20


@pytest.mark.parametrize(
    ("size", "options", "box"),
    [
        ((300, 400), {"resize": 224}, (0, 50, 300, 300)),
        ((400, 300), {"resize": 256}, (68.75, 18.75, 262.5, 262.5)),
        ((300, 400), {"resize": 256, "square": True}, (18.75, 25, 262.5, 350)),
        ((256, 256), {"resize": 256}, (16, 16, 224, 224)),
    ],
)
def test_center(size, options, box):
    """Of 256 pixels after resizing, 224 are kept: 7/8 of the short side, or of both."""
    assert center_box(*size, (224, 224), **options) == box
