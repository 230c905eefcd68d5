"""Semantic segmentation: a class for every pixel; cross-entropy with an auxiliary head, mIoU and mAcc.

As MMSegmentation trains and tests: the auxiliary head has 0.4 of the loss, ignored pixels count as zero in its mean,
and large scenes are tested by windows that overlap by a third.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.data.scene_files import IGNORED
from srblock.training import distributed
from srblock.training.task import Figure

AUXILIARY = 0.4  # of the loss (App. VII-C)
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of "multiscale"


class Segmentation:
    """A class for every pixel.

    Shapes: images (N, C, H, W); output, the logits (N, classes, H, W), in training {"out": logits, "aux": logits};
    target (N, H', W'), to whose size logits are resized where it differs; 255 is ignored.

    Args:
        classes: how many.
        window: (H, W) of sliding windows, the size that a network was trained on.
        inference: "slide" looks at scenes through windows of that size, the only one that a block's memory fits;
            "whole" at all of a scene at once, for which a block needs `resize="bilinear"`.
    """

    figures = (Figure("miou", "mIoU"), Figure("macc", "mAcc"))
    tta = ("none", "flip", "multiscale", "multiscale+flip")

    def __init__(self, classes: int, window: tuple[int, int], inference: str = "slide") -> None:
        self.classes, self.window, self.inference = classes, window, inference

    def loss(self, output: Tensor | dict[str, Tensor], target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy, its mean over all pixels with that of ignored ones zero.

        In training that of the auxiliary head is added, times 0.4.
        """
        if isinstance(output, dict):
            main, auxiliary = (
                self.loss(output[key], target, label_smoothing=label_smoothing) for key in ("out", "aux")
            )
            return main + AUXILIARY * auxiliary
        logits = resize(output.float(), target.shape[1:])
        summed = F.cross_entropy(logits, target, ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="sum")
        return summed / target.numel()

    def predict(self, model: nn.Module, images: Tensor, *, tta: str = "none") -> Tensor:
        """Return the logits, or the logarithm of the mean of probabilities over the views of the images.

        "flip": both sides. "multiscale": the images at 0.5, 0.75, 1, 1.25, 1.5 and 1.75 times their size.
        "multiscale+flip": both sides of each.
        """
        if tta == "none":
            return self._look(model, images)
        size, seen = images.shape[2:], []
        for scale in SCALES if "multiscale" in tta else (1.0,):
            scaled = resize(images, torch.Size(max(1, int(side * scale + 0.5)) for side in size), antialias=True)
            for flipped in (False, True) if "flip" in tta else (False,):
                logits = self._look(model, scaled.flip(3) if flipped else scaled)
                seen.append(resize(logits.flip(3) if flipped else logits, size).softmax(1))
        return torch.stack(seen).mean(0).clamp_min(torch.finfo(torch.float32).tiny).log()

    def training_loss(self, output: Tensor | dict[str, Tensor], target: Tensor, *, label_smoothing: float) -> Tensor:
        """Return `loss`: all pixels count alike."""
        return self.loss(output, target, label_smoothing=label_smoothing)

    def meter(self, device: torch.device) -> ConfusionMeter:
        """Return sums at zero."""
        return ConfusionMeter(self.classes, device)

    def _look(self, model: nn.Module, images: Tensor) -> Tensor:
        look = slide if self.inference == "slide" else _whole
        return look(model, images, self.window).float()


def slide(model: nn.Module, images: Tensor, window: tuple[int, int]) -> Tensor:
    """Look at images through windows that overlap by a third or more, and average their logits where they do.

    The last row and column of windows end where the image does; an image smaller than a window is padded with zeros,
    the mean color, below and to the right. Shapes: (N, C, H, W) -> (N, classes, H, W).
    """
    height, width = images.shape[2:]
    rows, columns = window
    padded = F.pad(images, (0, max(0, columns - width), 0, max(0, rows - height)))
    corners = [(top, left) for top in starts(height, rows) for left in starts(width, columns)]
    if len(corners) == 1:
        logits: Tensor = model(padded)
        return logits[:, :, :height, :width]
    total, count = None, torch.zeros(padded.shape[2:], device=images.device)
    for top, left in corners:
        here = (..., slice(top, top + rows), slice(left, left + columns))
        logits = model(padded[here]).float()
        if total is None:
            total = logits.new_zeros(len(images), logits.shape[1], *padded.shape[2:])
        total[here] += logits
        count[here] += 1
    assert total is not None
    return (total / count)[:, :, :height, :width]


def starts(side: int, window: int) -> list[int]:
    """List where windows begin along a side, at most two thirds of a window apart; the last one ends at the end."""
    stride = max(1, window * 2 // 3)
    last = max(0, side - window)
    return [min(step * stride, last) for step in range(math.ceil(last / stride) + 1)]


def _whole(model: nn.Module, images: Tensor, window: tuple[int, int]) -> Tensor:
    logits: Tensor = model(images)
    return logits


def resize(maps: Tensor, size: torch.Size, *, antialias: bool = False) -> Tensor:
    """Resize maps (N, C, h, w) bilinearly to (H, W), unless they have that size."""
    if maps.shape[2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=antialias)


class ConfusionMeter:
    """Count which class was said of the pixels of each class, over a whole set; ignored pixels are left out.

    Shapes: the matrix is (classes, classes), truth by what was said.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self.classes = classes
        self.pixels = torch.zeros(classes * classes + 1, dtype=torch.int64, device=device)  # the last: ignored ones
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)  # losses, scenes

    def reset(self) -> None:
        """Begin anew, in the same memory."""
        self.pixels.zero_()
        self.sums.zero_()

    def add(self, loss: Tensor, output: Tensor | dict[str, Tensor], target: Tensor) -> None:
        """Count a batch: its mean loss (), logits (N, classes, H, W), target (N, H', W')."""
        logits = output["out"] if isinstance(output, dict) else output
        said = resize(logits.detach().float(), target.shape[1:]).argmax(1)
        where = torch.where(target == IGNORED, self.classes**2, target * self.classes + said).flatten()
        self.pixels.index_add_(0, where, torch.ones_like(where))
        scenes = torch.full((), len(target), dtype=torch.float64, device=self.sums.device)
        self.sums += torch.stack([loss.detach().double() * scenes, scenes])

    def read(self) -> dict[str, float]:
        """Return mean "loss", "miou" and "macc" in percent, over all processes of the run; each of them must ask.

        The means are over the classes that are there: for IoU in truth or prediction, for accuracy in the truth.
        """
        loss, scenes = distributed.all_reduce(self.sums).tolist()
        confusion = self._confusion()
        return {"loss": loss / scenes, "miou": mean(class_iou(confusion)), "macc": mean(class_accuracy(confusion))}

    def details(self) -> dict[str, Any]:
        """Return the "confusion" matrix, truth by what was said, in pixels."""
        return {"confusion": self._confusion().tolist()}

    def _confusion(self) -> Tensor:
        counts = distributed.all_reduce(self.pixels)[:-1]
        return counts.view(self.classes, self.classes).cpu()


def class_iou(confusion: Tensor) -> Tensor:
    """Return each class's intersection over union in percent; NaN where it is in neither truth nor prediction.

    Shapes: (classes, classes), truth by prediction -> (classes,).
    """
    counts = confusion.double()
    return 100 * counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())


def class_accuracy(confusion: Tensor) -> Tensor:
    """Return the share of each class's pixels that were recognized, in percent; NaN where it is not in the truth."""
    counts = confusion.double()
    return 100 * counts.diagonal() / counts.sum(1)


def mean(figures: Tensor) -> float:
    """Average over the classes that are there; 0 if none is."""
    there = figures[~figures.isnan()]
    return float(there.mean()) if len(there) else 0.0
