"""A few scenes as a network saw them, for pictures: the image, the truth, what was said, and what was recalled."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.data import Batches
from srblock.data.scene_files import IGNORED
from srblock.training.segmentation import resize
from srblock.training.task import Task

SHOWN = 4  # scenes, spread evenly over the test part: by their number, whatever became of them
WIDEST = 480  # pixels of a picture


def picture_scenes(model: nn.Module, test: Batches, task: Task, recalled: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Look at some scenes of a test part in evaluation mode.

    Args: recalled: of each block the recall weights (scenes, P), means over the windows of a scene.

    Returns for scene number n `n/image`, uint8 (3, h, w), `n/truth` and `n/said`, uint8 (h, w), 255 where ignored; of
    each block B `n/recall/B`, (P,). Scenes wider than 480 pixels
    are shrunk.
    """
    model.eval()
    count = len(test)
    found: dict[str, Tensor] = {}
    for number in sorted({round(index * (count - 1) / max(1, SHOWN - 1)) for index in range(SHOWN)}):
        here = slice(number, number + 1)
        ((image, truth),) = test.epoch(0, here)
        with torch.inference_mode():
            said = resize(task.predict(model, image).float(), truth.shape[1:]).argmax(1)
        step = -(-truth.shape[2] // WIDEST)
        shown, told = (labels[0, ::step, ::step].cpu() for labels in (truth, said))
        found[f"{number}/image"] = _pixels(image.float().cpu(), test, shown.shape)
        found[f"{number}/truth"] = shown.to(torch.uint8)
        found[f"{number}/said"] = told.to(torch.uint8).masked_fill(shown == IGNORED, IGNORED)
        found |= {f"{number}/recall/{name}": weights[number].clone() for name, weights in recalled.items()}
    return found


def _pixels(image: Tensor, test: Batches, size: torch.Size) -> Tensor:
    """Turn a normalized image (1, 3, H, W) back into pixels of a size, uint8 (3, h, w)."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (test.mean, test.std))
    shown = F.interpolate(image * std + mean, size, mode="bilinear", align_corners=False, antialias=True)
    return (255 * shown[0]).round().clamp(0, 255).to(torch.uint8)
