"""Airbench94: a small network without shortcuts that trains on CIFAR in minutes (K. Jordan, arXiv 2404.00498).

A whitening 2x2 convolution made from training images (Page, "How to train your ResNet", 2018), and three groups of two
3x3 convolutions, each group with a max-pool after its first: maps of 15, 7 and 3 pixels from an image of 32. Batch norm
has no scale, its statistics follow quickly; convolutions start as the identity where they can; logits are a ninth.

Differences from the publication: the bias of the whitening layer is trained to the end (there for 3 epochs, to save
time), and the last max-pool takes a map of any size, so images of 9 pixels or more are possible.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

from srblock.models.attention import attention

Layer = Callable[[], nn.Module]
WIDTHS = (64, 256, 256)
PATCH = 2  # side of the whitening layer's patches
LOGIT_SCALE = 1 / 9
SMALLEST = 9


class Airbench94(nn.Module):
    """The network, with stages `layer1` to `layer3`, its three groups, and head `fc`.

    Built alone, its first layer is drawn at random and frozen: `whiten` makes it from training images.

    Shapes: (N, channels, H, W) -> (N, classes), H and W at least 9.

    Args:
        attention: "SE" or "CBAM", at the end of every group.
        regularizer: builds the layer that stands before each batch norm, after the max-pool if there is one, in the
            groups `regularized` (1-based).
        widths: channels of the groups. A wider network is what a block's parameters would otherwise buy.

    Raises: ValueError for a group that does not exist, another number of widths, and for images that are too small.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int = 3,
        attention: str | None = None,
        regularizer: Layer | None = None,
        regularized: Collection[int] = (),
        widths: Sequence[int] = WIDTHS,
    ) -> None:
        super().__init__()
        if len(widths) != len(WIDTHS) or min(widths) < 1:
            raise ValueError(f"Airbench94 has {len(WIDTHS)} groups of 1 channel or more, got widths={tuple(widths)}")
        stages = range(1, len(WIDTHS) + 1)
        if not set(regularized) <= set(stages):
            raise ValueError(f"Airbench94 has stages 1 to {len(stages)}, got regularized={sorted(regularized)}")
        inputs = 2 * channels * PATCH**2
        self.whitening = nn.Conv2d(channels, inputs, PATCH)
        self.whitening.weight.requires_grad_(False)
        nn.init.zeros_(self.whitening.bias)  # type: ignore[arg-type]
        self.activation = nn.GELU()
        for stage, width in enumerate(widths, start=1):
            layer = regularizer if regularizer is not None and stage in regularized else nn.Identity
            self.add_module(self.stage(stage), Group(inputs, width, attention, layer))
            inputs = width
        self.maxpool = nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(inputs, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < SMALLEST:
            raise ValueError(f"Airbench94 needs images of {SMALLEST}x{SMALLEST} pixels or more, got {tuple(x.shape)}")
        x = self.activation(self.whitening(x))
        for stage in range(1, len(WIDTHS) + 1):
            x = getattr(self, self.stage(stage))(x)
        logits: Tensor = self.fc(torch.flatten(self.maxpool(x), 1)) * LOGIT_SCALE
        return logits

    def stage(self, number: int) -> str:
        """Name the module that is a stage, 1-based.

        Raises: ValueError for a stage that does not exist.
        """
        if not 1 <= number <= len(WIDTHS):
            raise ValueError(f"stages are 1 to {len(WIDTHS)}, got {number}")
        return f"layer{number}"

    def whiten(self, images: Tensor) -> None:
        """Set the first layer's weights, so that its outputs over the patches of these images are uncorrelated.

        Shapes: images (N, channels, H, W), normalized as the network gets them.
        """
        weight = self.whitening.weight
        with torch.no_grad():
            weight.copy_(whitening_filters(images, PATCH).to(weight.device, weight.dtype))


class Group(nn.Module):
    """Two 3x3 convolutions, each with batch norm and GELU, the first with a max-pool, and attention if any.

    Shapes: (N, inputs, H, W) -> (N, width, H // 2, W // 2).
    """

    def __init__(self, inputs: int, width: int, kind: str | None, layer: Layer) -> None:
        super().__init__()
        self.conv1, self.pool, self.drop1, self.bn1 = conv(inputs, width), nn.MaxPool2d(2), layer(), norm(width)
        self.activation1 = nn.GELU()
        self.conv2, self.drop2, self.bn2 = conv(width, width), layer(), norm(width)
        self.activation2 = nn.GELU()
        self.attention = nn.Identity() if kind is None else attention(kind, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation1(self.bn1(self.drop1(self.pool(self.conv1(x)))))
        x = self.activation2(self.bn2(self.drop2(self.conv2(x))))
        out: Tensor = self.attention(x)
        return out


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """Build a 3x3 convolution without bias; its first filters start by passing on one channel each."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:inputs])
    return layer


def norm(width: int) -> nn.BatchNorm2d:
    """Build a batch norm whose scale stays 1, and whose statistics take in two fifths of each batch's."""
    layer = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad_(False)
    return layer


def whitening_filters(images: Tensor, side: int, eps: float = 5e-4) -> Tensor:
    """Return the principal directions of all patches, each divided by its deviation, then the same negated.

    Directions have the sign that makes their largest entry positive: which one an eigensolver returns is chance.

    Shapes: images (N, C, H, W) -> (2 K, C, side, side), K = C side^2, by falling variance, float64.
    """
    channels = images.shape[1]
    size = channels * side**2
    products, count = torch.zeros(size, size, dtype=torch.float64), 0
    for chunk in torch.split(images.cpu(), 500):
        patches = chunk.double().unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, size)
        products += patches.T @ patches
        count += len(patches)
    variances, directions = torch.linalg.eigh(products / count)
    rows = directions.T.flip(0)
    rows = rows * rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    rows = rows / (variances.flip(0)[:, None].clamp(min=0) + eps).sqrt()
    return torch.cat([rows, -rows]).reshape(2 * size, channels, side, side)
