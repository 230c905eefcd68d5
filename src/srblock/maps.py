"""Which modules are insertion points: a forward pass calls them exactly once, and they return one map (N, C, H, W).

That a 4-D tensor really is (N, C, H, W), and not (N, H, W, C) or attention weights, is read from how its shape follows
the input's: the network is run once more on an image twice as high and three times as wide, without computing anything
(meta tensors). Of a map's dimensions the third then grows, the fourth grows more, the second stays.
A network that refuses other sizes has shown some shapes until then; the rest is judged by proportion: the last two
dimensions have the image's proportions, the two before them have not, and the module holds a 2-D layer. What stays
ambiguous is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from srblock.block import SqueezeRemember2d

LAYERS_2D = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


@dataclass
class Call:
    """What one module returned in a forward pass, and how often it was called.

    `kind` is the output's type; the rest is only there if it is a tensor's.
    """

    count: int = 0
    kind: type = object
    shape: tuple[int, ...] = ()
    dtype: torch.dtype | None = None
    device: torch.device | None = None


def fault_of(module: nn.Module, call: Call | None, stretched: tuple[int, ...] | None, image: Tensor) -> str | None:
    """Say why a module is no insertion point, or None if it is one."""
    if isinstance(module, SqueezeRemember2d):
        return "is a block itself"
    if call is None:
        return "is not called in a forward pass (in eval mode)"
    if call.count > 1:
        return f"is called {call.count} times in one forward pass, and one memory cannot serve several maps"
    if not issubclass(call.kind, Tensor):
        return f"returns a {call.kind.__name__}, not one (N, C, H, W) map"
    if len(call.shape) != 4:
        return f"returns a {len(call.shape)}-D tensor of shape {call.shape}, not an (N, C, H, W) map"
    if call.shape[0] != len(image):
        return f"returns shape {call.shape} for {len(image)} images, not one map an image"
    if call.dtype is None or not call.dtype.is_floating_point:
        return f"returns {call.dtype}, not a floating-point map"
    return _layout_fault(module, call.shape, stretched, (image.shape[2], image.shape[3]))


def _layout_fault(
    module: nn.Module, shape: tuple[int, ...], stretched: tuple[int, ...] | None, size: tuple[int, int]
) -> str | None:
    """Say why a 4-D tensor is no (N, C, H, W) map (rule at the top of this file), or None if it is one."""
    channels_last = f"returns its map as (N, H, W, C), here {shape}, and the block takes (N, C, H, W)"
    _, a, b, c = shape
    if stretched is not None and len(stretched) == 4 and stretched != shape:
        growth = [large / small for large, small in zip(stretched[1:], shape[1:], strict=True)]
        if growth[0] == 1 <= growth[1] < growth[2]:
            return None
        if growth[2] == 1 <= growth[0] < growth[1]:
            return channels_last
        return f"returns shape {shape}, whose dimensions do not follow the image's height and width as a map's do"
    as_nchw, as_nhwc = _proportional(b, c, size), _proportional(a, b, size)
    if as_nhwc and not as_nchw:
        return channels_last
    holds_2d_layer = any(isinstance(part, LAYERS_2D) for part in module.modules())
    if as_nchw and not as_nhwc and (stretched is not None or holds_2d_layer):
        return None
    return f"returns shape {shape}, which cannot be told to be (N, C, H, W), as the model refuses images of other sizes"


def _proportional(height: int, width: int, size: tuple[int, int]) -> bool:
    """Tell whether a map has the image's proportions, up to one row or column, or is a square of fixed size."""
    return abs(height - width * size[0] / size[1]) < 1 or height == width == 1
