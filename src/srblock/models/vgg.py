"""VGG-16 and VGG-19 with batch norm for small images (Simonyan and Zisserman; paper Sec. IV-A).

Five stages, each a group of 3x3 convolutions that ends in its max-pool, and a head 512-512-classes: with these two
the paper's overheads come out (head and initialization also agree with the public pytorch-vgg-cifar10).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srblock.models.layers import gaussian_conv, linear

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {"VGG16": (2, 2, 3, 3, 3), "VGG19": (2, 2, 4, 4, 4)}


class VGG(nn.Module):
    """A VGG with batch norm, stages `stage1` to `stage5` and `head`.

    The pool before the head makes 1x1 maps of any size, so the parameters do not depend on the image's size.

    Shapes: (N, channels, H, W) -> (N, classes), H and W at least 32.

    Args:
        name: "VGG16" or "VGG19".
        dropout: rate before the head's first two linear layers, the only place where the paper's VGGs have any.

    Raises: ValueError for an unknown name or a rate outside [0, 1), and for images that are too small.
    """

    def __init__(self, name: str, *, classes: int, channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        if name not in CONVOLUTIONS:
            raise ValueError(f"expected one of {', '.join(CONVOLUTIONS)}, got {name!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"a dropout rate is at least 0 and below 1, got {dropout}")
        inputs = channels
        for stage, (width, count) in enumerate(zip(WIDTHS, CONVOLUTIONS[name], strict=True), start=1):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [gaussian_conv(inputs, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                inputs = width
            self.add_module(f"stage{stage}", nn.Sequential(*layers, nn.MaxPool2d(2)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            linear(inputs, 512),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            linear(512, 512),
            nn.ReLU(inplace=True),
            linear(512, classes, last=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < 32:
            raise ValueError(
                f"a VGG halves its maps five times and needs images of 32x32 or more, got {tuple(x.shape)}"
            )
        for stage in range(1, len(WIDTHS) + 1):
            x = getattr(self, f"stage{stage}")(x)
        logits: Tensor = self.head(torch.flatten(self.avgpool(x), 1))
        return logits

    def stage(self, number: int) -> str:
        """Name the module that is a stage, 1-based.

        Raises: ValueError for a stage that does not exist.
        """
        if not 1 <= number <= len(WIDTHS):
            raise ValueError(f"stages are 1 to {len(WIDTHS)}, got {number}")
        return f"stage{number}"
