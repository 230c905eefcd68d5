"""Dilated ResNets for segmentation, as MMSegmentation defines them (its ResNetV1c): later stages keep their resolution.

Where a stage does not stride, its 3x3 convolutions reach as far by dilation. The first block of a dilated stage uses
half of its dilation, what the stage before has ("contract_dilation"; torchvision's `replace_stride_with_dilation` does
the same). In a basic block only the first convolution is dilated. Blocks and parameter names are `resnet`'s.

Two stems: "v1c", three 3x3 convolutions (He et al., arXiv 1812.01187, ResNet-C), and "7x7", with which torchvision's
ImageNet weights fit. Both stride by 2 and end in a max-pool that strides by 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from srblock.models.layers import conv
from srblock.models.resnet import EXPANSION, SHAPES, BasicBlock, Bottleneck

STEMS = ("v1c", "7x7")


@dataclass(frozen=True)
class Dilation:
    """Stride and dilation of each stage."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]


# Named by how many times smaller than the image their last map is.
D8 = Dilation((1, 2, 1, 1), (1, 1, 2, 4))
D16 = Dilation((1, 2, 2, 1), (1, 1, 1, 2))


def backbone(name: str, dilation: Dilation, *, channels: int = 3, stem: str = "v1c") -> dict[str, nn.Module]:
    """Build a backbone as named modules, to be run one after the other: a stem, and stages `layer1` to `layer4`.

    Shapes: of all of them, (N, channels, H, W) -> (N, C, H / 8 or 16, W / 8 or 16), rounded up.

    Args: name is "R18", "R34" or "R50"; stem is "v1c" or "7x7".

    Raises: ValueError for an unknown stem.
    """
    shape = SHAPES[name]
    modules = _stem(stem, channels, shape.width)
    inputs = width = shape.width
    block = Bottleneck if shape.bottleneck else BasicBlock
    settings = zip(shape.blocks, dilation.strides, dilation.dilations, strict=True)
    for stage, (count, stride, dilated) in enumerate(settings, start=1):
        blocks: list[nn.Module] = []
        for index in range(count):
            first = index == 0
            reach = max(dilated // 2, 1) if first else dilated
            blocks.append(block(inputs, width, stride if first else 1, False, None, nn.Identity, reach))
            inputs = width * (EXPANSION if shape.bottleneck else 1)
        modules[f"layer{stage}"] = nn.Sequential(*blocks)
        width *= 2
    return modules


def widths(name: str) -> tuple[int, ...]:
    """Return the channels of each stage's map."""
    shape = SHAPES[name]
    return tuple((shape.width << stage) * (EXPANSION if shape.bottleneck else 1) for stage in range(len(shape.blocks)))


def stem_of(names: Iterable[str]) -> str:
    """Tell from the names in a state dict which stem its network has."""
    return "7x7" if "conv1.weight" in names else "v1c"


def _stem(stem: str, channels: int, width: int) -> dict[str, nn.Module]:
    if stem not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}")
    pool = nn.MaxPool2d(3, 2, padding=1)
    if stem == "7x7":
        first, norm = conv(channels, width, 7, 2), nn.BatchNorm2d(width)
        return {"conv1": first, "bn1": norm, "relu": nn.ReLU(inplace=True), "maxpool": pool}
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((channels, width // 2, 2), (width // 2, width // 2, 1), (width // 2, width, 1)):
        layers += [conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return {"stem": nn.Sequential(*layers), "maxpool": pool}
