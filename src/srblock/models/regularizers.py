"""Dropout, dropout2d and dropblock, active in training only (paper: D, D2D, DB; Sec. IV-A).

The paper states neither rates nor places. In its authors' other papers with the same baselines such a layer stands
between convolution and batch norm, shortcuts included, in stage 3 or 4 of a ResNet, with rate 0.1 or 0.2, and in the
linear layers of a VGG with rate 0.5. `ResNet` and `VGG` put it there; the defaults are notation's.
"""

from __future__ import annotations

from torch import Tensor, nn

SCHEDULES = ("constant", "linear")


def regularizer(kind: str, p: float, size: int = 7, schedule: str = "constant") -> nn.Module:
    """Build a dropout ("D"), dropout2d ("D2D") or dropblock ("DB") layer with rate p.

    Args: size is the side of dropblock's blocks, odd; schedule is dropblock's, see `DropBlock`.

    Raises: ValueError for another kind, a rate outside (0, 1), an even size, or an unknown schedule.
    """
    if not 0 < p < 1:
        raise ValueError(f"a dropout rate is above 0 and below 1, got {p}")
    match kind:
        case "D":
            return nn.Dropout(p)
        case "D2D":
            return nn.Dropout2d(p)
        case "DB":
            return DropBlock(p, size, schedule)
    raise ValueError(f"a regularizer is 'D', 'D2D' or 'DB', got {kind!r}")


class DropBlock(nn.Module):
    """Drop square regions of each channel, about a share p of the map (Ghiasi et al., 2018).

    torchvision's dropblock, with blocks clipped to the largest odd side that fits the map: torchvision refuses
    clipped sides that are even, such as a 4x4 map's.

    With schedule "linear" the rate grows from 0 in a run's first epoch to p in its last, as in dropblock's own paper;
    the training loop tells where the run stands. The SR paper names no schedule: "constant".

    Shapes: (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, p: float, size: int, schedule: str = "constant") -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f"dropblock's size is odd, got {size}; use {max(size, 0) + 1}")
        if schedule not in SCHEDULES:
            raise ValueError(f"dropblock's schedule is one of {', '.join(SCHEDULES)}, got {schedule!r}")
        self.p, self.size, self.schedule = p, size, schedule
        self.rate = p

    @property
    def scheduled(self) -> bool:
        """Whether the rate changes over a run."""
        return self.schedule != "constant"

    def follow(self, progress: float) -> None:
        """Set the rate for a point of the run: 0 is its first epoch, 1 its last."""
        self.rate = self.p * progress if self.schedule == "linear" else self.p

    def forward(self, x: Tensor) -> Tensor:
        from torchvision.ops import drop_block2d

        side = min(self.size, *x.shape[-2:])
        dropped: Tensor = drop_block2d(x, self.rate, side - 1 + side % 2, training=self.training)
        return dropped

    def extra_repr(self) -> str:
        return f"p={self.p}, size={self.size}, schedule={self.schedule}"
