"""Layers with the paper's initialization (App. VII-A): Kaiming uniform, and a Gaussian for a VGG's convolutions.

Kaiming uniform is He's rule itself, bound sqrt(6 / fan_in) before a ReLU, not PyTorch's default for these layers,
which passes a = sqrt(5) to the same function and draws weights sqrt(6) times smaller. The last linear layer has no
ReLU after it, so its bound is sqrt(3 / fan_in). Biases start at zero; batch norm starts at weight 1 and bias 0.
"""

from __future__ import annotations

import math

from torch import nn


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Build a convolution without bias that keeps the map's size at stride 1, Kaiming uniform."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=dilation * (kernel // 2), dilation=dilation, bias=False)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    return layer


def gaussian_conv(inputs: int, outputs: int) -> nn.Conv2d:
    """Build a 3x3 convolution with bias, drawn with sd sqrt(2 / n), n = 3 * 3 * outputs, as the paper's VGGs."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.normal_(layer.weight, 0, math.sqrt(2 / (9 * outputs)))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def linear(inputs: int, outputs: int, *, last: bool = False) -> nn.Linear:
    """Build a linear layer, Kaiming uniform; `last` says that no ReLU follows."""
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear" if last else "relu")
    nn.init.zeros_(layer.bias)
    return layer
