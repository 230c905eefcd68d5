"""The segmentation networks of the paper's Table IV, as MMSegmentation defines them, and smaller ones.

"F-CONV" is a fully convolutional network (Long et al., CVPR 2015), "DLv3" is DeepLabv3 (Chen et al., arXiv 1706.05587).
The paper names the heads, ResNet-50 and the dilations of DLv3; its overheads (12.85% and 24.83%) fit FCN-D6 on a
backbone that shrinks 16 times, and DeepLabv3 on one that shrinks 8 times, both trained on crops of 512x1024.

The initialization: convolutions Kaiming normal by fan-out, batch norm 1 and 0, the classifiers' weights normal with sd
0.01 and their biases 0. It is the framework's, but for the last norm of each residual branch, which it starts at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.models.dilated import D8, D16, Dilation, backbone, widths
from srblock.models.layers import conv

SMALLEST = 32
DROPOUT = 0.1  # of whole channels, before each classifier
RATES = (1, 12, 24, 36)  # dilations of DeepLabv3's branches
HEADS = ("head", "auxiliary")


@dataclass(frozen=True)
class Design:
    """What tells the networks apart.

    Attributes:
        backbone: "R18" or "R50".
        dilation: of the backbone.
        aspp: whether the head is DeepLabv3's, else it is a fully convolutional one.
        width, auxiliary: channels inside the head, and inside the auxiliary head.
        reach: dilation of the fully convolutional heads.
    """

    backbone: str
    dilation: Dilation
    aspp: bool
    width: int
    auxiliary: int
    reach: int = 1


DESIGNS = {
    "FCN-R50": Design("R50", D16, False, 512, 256, reach=6),
    "FCN-R50-D8": Design("R50", D8, False, 512, 256),
    "DLv3-R50": Design("R50", D8, True, 512, 256),
    "FCN-R18": Design("R18", D8, False, 128, 64),
    "DLv3-R18": Design("R18", D8, True, 128, 64),
}


class Segmentation(nn.Module):
    """A network that says of every pixel what it shows, with stages `layer1` to `layer4`, `head` and `auxiliary`.

    The auxiliary head looks at stage 3 and is there for training only.

    Shapes: (N, channels, H, W), H and W at least 32 -> in evaluation mode the logits (N, classes, H, W), in training
    mode {"out": logits, "aux": logits}, both (N, classes, H, W).

    Args:
        name: a key of `DESIGNS`.
        stem: "v1c", or "7x7" for torchvision's weights.

    Raises: ValueError for an unknown name or stem, for images that are too small, and in training mode for a single
        image where the head has a batch norm over images alone (DeepLabv3).
    """

    def __init__(self, name: str, *, classes: int, channels: int = 3, stem: str = "v1c") -> None:
        super().__init__()
        if name not in DESIGNS:
            raise ValueError(f"expected one of {', '.join(DESIGNS)}, got {name!r}")
        design = DESIGNS[name]
        parts = backbone(design.backbone, design.dilation, channels=channels, stem=stem)
        for part, module in parts.items():
            self.add_module(part, module)
        self.parts = tuple(parts)
        *_, middle, deep = widths(design.backbone)
        self.head: nn.Module = (
            ASPPHead(deep, design.width, classes)
            if design.aspp
            else FCNHead(deep, design.width, classes, convs=2, dilation=design.reach, concatenate=True)
        )
        self.auxiliary = FCNHead(middle, design.auxiliary, classes, convs=1, dilation=design.reach, concatenate=False)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        size = x.shape[-2:]
        if min(size) < SMALLEST:
            raise ValueError(
                f"a segmentation network needs images of {SMALLEST}x{SMALLEST} pixels or more, got {tuple(x.shape)}"
            )
        *earlier, last = self.parts
        for part in earlier:
            x = getattr(self, part)(x)
        logits = resize(self.head(getattr(self, last)(x)), size)
        return {"out": logits, "aux": resize(self.auxiliary(x), size)} if self.training else logits

    def stage(self, number: int) -> str:
        """Name the module that is a stage, 1-based.

        Raises: ValueError for a stage that does not exist.
        """
        if not 1 <= number <= 4:
            raise ValueError(f"stages are 1 to 4, got {number}")
        return f"layer{number}"


class FCNHead(nn.Module):
    """3x3 convolutions, dropout and a 1x1 classifier (FCNHead of MMSegmentation).

    With `concatenate` one more 3x3 convolution, without dilation, sees their input and output together.

    Shapes: (N, inputs, H, W) -> (N, classes, H, W).
    """

    def __init__(self, inputs: int, width: int, classes: int, *, convs: int, dilation: int, concatenate: bool) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *(conv_norm_relu(width if index else inputs, width, 3, dilation) for index in range(convs))
        )
        self.concatenated = conv_norm_relu(inputs + width, width, 3) if concatenate else None
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.convs(x)
        if self.concatenated is not None:
            features = self.concatenated(torch.cat([x, features], 1))
        logits: Tensor = self.classifier(self.dropout(features))
        return logits


class ASPPHead(nn.Module):
    """Atrous spatial pyramid pooling (arXiv 1706.05587, Sec. 3.3): branches that see the map at several scales.

    The image's mean and four branches of dilations 1 (a 1x1 convolution), 12, 24 and 36 are concatenated, a 3x3
    convolution brings them together, dropout and a 1x1 classifier follow.

    Shapes: (N, inputs, H, W) -> (N, classes, H, W).

    Raises: ValueError for a single image while batch norm takes its statistics from the batch: the mean's has one
        value for each image.
    """

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.mean = conv_norm_relu(inputs, width, 1)
        self.branches = nn.ModuleList(conv_norm_relu(inputs, width, 1 if rate == 1 else 3, rate) for rate in RATES)
        self.bottleneck = conv_norm_relu((1 + len(RATES)) * width, width, 3)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        # SyncBatchNorm, which is no BatchNorm2d, has the other processes' images as well. The length is asked for last:
        # what is exported would hold for this length alone.
        if isinstance(self.mean[1], nn.BatchNorm2d) and self.mean[1].training and len(x) == 1:
            raise ValueError(
                "DeepLabv3 cannot be trained on a batch of one image: the batch norm behind its global pooling would "
                "see a single value; use batches of two or more and drop a last batch of one, or call eval()"
            )
        mean = resize(self.mean(self.pool(x)), x.shape[-2:])
        features = torch.cat([mean, *(branch(x) for branch in self.branches)], 1)
        logits: Tensor = self.classifier(self.dropout(self.bottleneck(features)))
        return logits


def conv_norm_relu(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """Build a convolution without bias that keeps the map's size, batch norm and ReLU."""
    return nn.Sequential(
        conv(inputs, outputs, kernel, dilation=dilation), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def resize(maps: Tensor, size: torch.Size) -> Tensor:
    """Resize maps (N, C, h, w) bilinearly to (H, W); corners are those of pixels, not their centers."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def _initialize(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
