"""Crops and mirroring of a batch on the device, every image at a place of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def padded_crop(images: Tensor, padding: int, top: Tensor, left: Tensor, mirror: Tensor, mode: str = "zeros") -> Tensor:
    """Pad, cut at (top, left), mirror where asked, all in one gather of pixel numbers.

    Of the ways measured on a CPU (windows by unfold and advanced indexing, slicing image by image, masks in place
    of padding) the fastest, and the padded copy is of one batch only. The mode "zeros" pads with black; "reflect"
    with the image mirrored at its outermost pixels, which takes other pixel numbers and no copy.
    Shapes: images (B, C, H, W), the others (B,) -> (B, C, H, W).
    """
    count, channels, height, width = images.shape
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = left[:, None] + torch.where(mirror[:, None] == 1, width - 1 - columns, columns)
    if mode == "zeros":
        padded = F.pad(images, (padding,) * 4)
    else:
        padded, rows, columns = images, _reflected(rows - padding, height), _reflected(columns - padding, width)
    pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    pixels = pixels.view(count, 1, height * width).expand(count, channels, height * width)
    return padded.flatten(2).gather(2, pixels).view_as(images)


def _reflected(places: Tensor, length: int) -> Tensor:
    """Bring places outside of 0..length-1 inside, by less than a length, mirrored at the first and the last."""
    return (length - 1) - ((length - 1) - places.abs()).abs()


def resized_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Cut a box from each image and bring it to the images' size.

    Bilinear. A box is never larger than its image, so this only magnifies, where antialiasing changes nothing: it is
    what Pillow's `resize` with a box gives, but for the rounding to whole numbers.
    Shapes: images (B, C, H, W), boxes (B, 4): top, left, height, width in pixels -> float32 (B, C, H, W).
    """
    height, width = images.shape[2:]
    top, left, rows, columns = boxes.to(torch.float32).unsqueeze(2).unbind(1)  # (B, 1) each
    down = (torch.arange(height, device=images.device) + 0.5) / height
    across = (torch.arange(width, device=images.device) + 0.5) / width
    y = 2 * (top + down * rows) / height - 1  # grid_sample counts from -1 at one edge to 1 at the other
    x = 2 * (left + across * columns) / width - 1
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def mirrored(images: Tensor, mirror: Tensor) -> Tensor:
    """Mirror where asked. Shapes: images (B, C, H, W), mirror (B,) -> (B, C, H, W)."""
    return torch.where(mirror.view(-1, 1, 1, 1) == 1, images.flip(3), images)
