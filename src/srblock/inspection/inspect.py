"""What a study looks at once a run is trained: what was recalled, whether it mattered, and what a pass costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from srblock.data import Batches, ImageData, SceneData
from srblock.inspection.controls import controls
from srblock.inspection.cost import flops_per_image
from srblock.inspection.look import look
from srblock.inspection.recall import recall_figures, summarize_recall
from srblock.inspection.scenes import picture_scenes
from srblock.surgery import blocks
from srblock.training.checkpoint import save_weights
from srblock.training.segmentation import Segmentation
from srblock.training.task import Task


def inspect_model(
    model: nn.Module, test: Batches, directory: Path, data: ImageData | SceneData, task: Task
) -> dict[str, Any]:
    """Write `recall.safetensors` into the run's folder if the network has blocks, and `scenes.safetensors` of scenes.

    Returns "flops_per_image", the operations of a pass (of scenes over a window), and of a network with blocks "recall"
    (`recall.recall_figures`) and "controls" (`controls.controls`), without test-time augmentation.
    """
    size = task.window if isinstance(task, Segmentation) else data.size
    found: dict[str, Any] = {"flops_per_image": flops_per_image(model, (data.channels, *size))}
    seen = look(model, test, task, len(data.classes), {}) if blocks(model) else None
    if seen is not None:
        save_weights(directory / "recall.safetensors", summarize_recall(model, seen, len(data.classes)))
        found["recall"] = recall_figures(seen)
        weights = {name: block.weights for name, block in seen.blocks.items()}
        found["controls"] = controls(model, weights, lambda: test.epoch(0), task)
    if isinstance(task, Segmentation):
        recalled = {} if seen is None else {name: block.by_image for name, block in seen.blocks.items()}
        save_weights(directory / "scenes.safetensors", picture_scenes(model, test, task, recalled))
    return found
