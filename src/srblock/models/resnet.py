"""ResNets: the paper's 18, 34 and 50 (He et al., CVPR 2016), and the small CIFAR family of Sec. 4.2 there.

Two forms: "cifar" has a 3x3 stem at stride 1 and no max-pool; "imagenet" has a 7x7 stem at stride 2, a max-pool, and
torchvision's parameter names and arithmetic (stride in the 3x3 convolution of a bottleneck), so its weights load.
R8 and R20 (n = 1 and 3, width 16, three stages, shortcuts without parameters) exist in the CIFAR form only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.models.attention import attention
from srblock.models.layers import conv, linear

Layer = Callable[[], nn.Module]


@dataclass(frozen=True)
class Shape:
    """What tells the ResNets apart: kind of block, blocks in each stage, width of the first stage, shortcut."""

    bottleneck: bool
    blocks: tuple[int, ...]
    width: int = 64
    padded_shortcut: bool = False


SHAPES = {
    "R8": Shape(False, (1, 1, 1), 16, True),
    "R18": Shape(False, (2, 2, 2, 2)),
    "R20": Shape(False, (3, 3, 3), 16, True),
    "R34": Shape(False, (3, 4, 6, 3)),
    "R50": Shape(True, (3, 4, 6, 3)),
}
EXPANSION = 4


class ResNet(nn.Module):
    """A residual network for classification, with stages `layer1`, `layer2`, ... and head `fc`.

    Shapes: (N, channels, H, W) -> (N, classes).

    Args:
        name: a key of `SHAPES`.
        form: "cifar" or "imagenet".
        attention: "SE" or "CBAM", at the end of every residual branch.
        regularizer: builds the layer that stands between convolution and batch norm, shortcuts included, in the
            stages `regularized` (1-based).

    Parameters that two such networks share have the same names, whatever else is in them, and start equal if the
    global random state was equal.

    Raises: ValueError for an unknown name, form, stage, or a form that the family does not have.
    """

    def __init__(
        self,
        name: str,
        *,
        classes: int,
        channels: int = 3,
        form: str = "cifar",
        attention: str | None = None,
        regularizer: Layer | None = None,
        regularized: Collection[int] = (),
    ) -> None:
        super().__init__()
        if name not in SHAPES:
            raise ValueError(f"expected one of {', '.join(SHAPES)}, got {name!r}")
        if form not in ("cifar", "imagenet"):
            raise ValueError(f"form must be 'cifar' or 'imagenet', got {form!r}")
        shape = self.shape = SHAPES[name]
        if form == "imagenet" and shape.padded_shortcut:
            raise ValueError(f"{name} is for small images and has no ImageNet form; use form='cifar', or R18")
        stages = range(1, len(shape.blocks) + 1)
        if not set(regularized) <= set(stages):
            raise ValueError(f"{name} has stages 1 to {len(stages)}, got regularized={sorted(regularized)}")
        width = shape.width
        self.conv1 = conv(channels, width, 3) if form == "cifar" else conv(channels, width, 7, 2)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if form == "cifar" else nn.MaxPool2d(3, 2, padding=1)
        inputs = width
        for stage in stages:
            layer = regularizer if regularizer is not None and stage in regularized else nn.Identity
            blocks: list[nn.Module] = []
            for index in range(shape.blocks[stage - 1]):
                stride = 2 if stage > 1 and index == 0 else 1
                kind = Bottleneck if shape.bottleneck else BasicBlock
                blocks.append(kind(inputs, width, stride, shape.padded_shortcut, attention, layer))
                inputs = width * (EXPANSION if shape.bottleneck else 1)
            self.add_module(self.stage(stage), nn.Sequential(*blocks))
            width *= 2
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = linear(inputs, classes, last=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, len(self.shape.blocks) + 1):
            x = getattr(self, self.stage(stage))(x)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits

    def stage(self, number: int) -> str:
        """Name the module that is a stage, 1-based.

        Raises: ValueError for a stage that does not exist.
        """
        if not 1 <= number <= len(self.shape.blocks):
            raise ValueError(f"stages are 1 to {len(self.shape.blocks)}, got {number}")
        return f"layer{number}"

    def inner(self, stage: int) -> str:
        """Name the module after which a stage's last bottleneck has its inner width (conv2-BN-ReLU).

        Raises: ValueError for a network of basic blocks, or a stage that does not exist.
        """
        if not self.shape.bottleneck:
            raise ValueError(
                "placement 'inner' is inside a bottleneck; this network has basic blocks: use 'stage' or R50"
            )
        return f"{self.stage(stage)}.{self.shape.blocks[stage - 1] - 1}.relu2"


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the first with the stride and the dilation, and a shortcut.

    Shapes: (N, inputs, H, W) -> (N, width, H / stride, W / stride).
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        padded: bool,
        kind: str | None,
        layer: Layer,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.conv1, self.drop1, self.bn1 = conv(inputs, width, 3, stride, dilation), layer(), nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2, self.drop2, self.bn2 = conv(width, width, 3), layer(), nn.BatchNorm2d(width)
        self.attention = nn.Identity() if kind is None else attention(kind, width)
        self.downsample = shortcut(inputs, width, stride, padded, layer)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu1(self.bn1(self.drop1(self.conv1(x))))
        branch = self.attention(self.bn2(self.drop2(self.conv2(branch))))
        out: Tensor = self.relu2(branch + self.downsample(x))
        return out


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 (with the stride and the dilation) and a 1x1 convolution that widens four times, and a shortcut.

    Each ReLU is a module of its own, so that a block can be inserted after one of them.

    Shapes: (N, inputs, H, W) -> (N, 4 width, H / stride, W / stride).
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        padded: bool,
        kind: str | None,
        layer: Layer,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1, self.drop1, self.bn1 = conv(inputs, width, 1), layer(), nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2, self.drop2, self.bn2 = conv(width, width, 3, stride, dilation), layer(), nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3, self.drop3, self.bn3 = conv(width, outputs, 1), layer(), nn.BatchNorm2d(outputs)
        self.attention = nn.Identity() if kind is None else attention(kind, outputs)
        self.downsample = shortcut(inputs, outputs, stride, padded, layer)
        self.relu3 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu1(self.bn1(self.drop1(self.conv1(x))))
        branch = self.relu2(self.bn2(self.drop2(self.conv2(branch))))
        branch = self.attention(self.bn3(self.drop3(self.conv3(branch))))
        out: Tensor = self.relu3(branch + self.downsample(x))
        return out


def shortcut(inputs: int, outputs: int, stride: int, padded: bool, layer: Layer) -> nn.Module:
    """Build the identity where shapes agree, else zero padding (option A) or a 1x1 convolution (option B)."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    if padded:
        return PaddedShortcut(outputs - inputs, stride)
    named = [("0", conv(inputs, outputs, 1, stride)), ("drop", layer()), ("1", nn.BatchNorm2d(outputs))]
    return nn.Sequential(OrderedDict(named))


class PaddedShortcut(nn.Module):
    """Take every `stride`-th pixel and append channels of zeros (option A of He et al., Sec. 4.2).

    Shapes: (N, C, H, W) -> (N, C + extra, H / stride, W / stride).
    """

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        return f"extra={self.extra}, stride={self.stride}"
