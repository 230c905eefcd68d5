"""What a study looks at once a run is trained: what was recalled, and what a pass costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from srblock.data import Loader
from srblock.inspection.cost import flops_per_image
from srblock.inspection.recall import summarize_recall
from srblock.surgery import blocks
from srblock.training.checkpoint import save_weights


@dataclass(frozen=True)
class Inspect:
    """The `inspect` of `executors.execute.run_study`; it can be sent to other processes.

    Args:
        classes: how many the data has.
        shape: (C, H, W) of its images.
    """

    classes: int
    shape: tuple[int, int, int]

    def __call__(self, model: nn.Module, test: Loader, directory: Path) -> dict[str, Any]:
        """Write `recall.safetensors` if the network has blocks; return the operations of a pass."""
        if blocks(model):
            save_weights(directory / "recall.safetensors", summarize_recall(model, test.epoch(0), self.classes))
        return {"flops_per_image": flops_per_image(model, self.shape)}
