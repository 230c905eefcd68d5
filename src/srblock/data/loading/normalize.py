"""From bytes to what a network takes: (pixel - mean) / std of each channel, in its dtype and memory format."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Normalize:
    """Normalize batches on their device, in float32 whatever the dtype of the result.

    Shapes: uint8 or float32 (N, C, H, W), 0 to 255 -> (N, C, H, W) in dtype and memory_format.

    Args:
        mean, std: of each channel for pixels in 0..1.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        dtype: torch.dtype,
        memory_format: torch.memory_format,
    ) -> None:
        means, deviations = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (mean, std))
        self._scale = (1 / (255 * deviations)).float().to(device)
        self._offset = (-means / deviations).float().to(device)
        self._dtype, self._memory_format = dtype, memory_format

    def __call__(self, images: Tensor) -> Tensor:
        # The layout last: on a CPU arithmetic with numbers per channel is several times slower in channels_last.
        wide = images.to(torch.float32).mul_(self._scale).add_(self._offset)
        return wide.to(self._dtype).contiguous(memory_format=self._memory_format)
