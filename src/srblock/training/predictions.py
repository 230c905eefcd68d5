"""What was said of each test image, which the figures of a test leave out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from srblock.data import Batches
from srblock.training import distributed


class Predictions:
    """Collect the class said of each image of a part, in its order, without a host synchronization before `read`.

    Of several processes each adds its own shares.

    Args:
        part: that is tested, in order.
    """

    def __init__(self, part: Batches, device: torch.device) -> None:
        shares = part.plan.epoch(0)
        places = np.concatenate(shares) if shares else np.zeros(0, np.int64)
        self.places = torch.from_numpy(places).to(device)
        self.both = torch.zeros(2, part.plan.images, dtype=torch.int32, device=device)  # said, and true
        self.served = 0

    def add(self, output: Tensor, target: Tensor) -> None:
        """Note the next batch: logits (N, classes), target (N,)."""
        here = self.places[self.served : self.served + len(target)]
        self.both[:, here] = torch.stack([output.argmax(1), target]).int()
        self.served += len(target)

    def read(self) -> dict[str, Tensor]:
        """Return "predictions" and "labels" (N,), in the smallest of uint8, uint16, int32; each process must ask."""
        said, true = distributed.all_reduce(self.both).cpu()
        largest = int(max(said.max(), true.max()))
        dtype = torch.uint8 if largest < 2**8 else torch.uint16 if largest < 2**16 else torch.int32
        return {"predictions": said.to(dtype), "labels": true.to(dtype)}
