"""What a study looks at once a run is trained: what was recalled, whether it mattered, and what a pass costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from srblock.data import Batches, ImageData, SceneData
from srblock.inspection.controls import controls
from srblock.inspection.cost import flops_per_image
from srblock.inspection.recall import recall_weights, summarize_recall
from srblock.inspection.scenes import picture_scenes
from srblock.surgery import blocks
from srblock.training.checkpoint import save_weights
from srblock.training.segmentation import Segmentation
from srblock.training.task import Task


def inspect_model(
    model: nn.Module, test: Batches, directory: Path, data: ImageData | SceneData, task: Task
) -> dict[str, Any]:
    """Write `recall.safetensors` into the run's folder if the network has blocks, and `scenes.safetensors` of scenes.

    Returns "flops_per_image", the operations of a pass (of scenes over a window), and of a network with blocks the
    "controls", without test-time augmentation.
    """
    size = data.size
    if isinstance(task, Segmentation):
        size = task.window
        save_weights(directory / "scenes.safetensors", picture_scenes(model, test, task, len(data.classes)))
    found: dict[str, Any] = {"flops_per_image": flops_per_image(model, (data.channels, *size))}
    if blocks(model):
        collected, shown = recall_weights(model, test.epoch(0), task, len(data.classes))
        save_weights(directory / "recall.safetensors", summarize_recall(model, collected, shown, len(data.classes)))
        found["controls"] = controls(model, collected, lambda: test.epoch(0), task)
    return found
