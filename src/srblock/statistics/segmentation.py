"""What confusion matrices say: every class by itself, and what can be had without looking at a scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from srblock.runs.records import Run
from srblock.training.segmentation import class_iou

Array = np.ndarray[Any, Any]


def iou_by_class(runs: Sequence[Run]) -> Array:
    """Return each run's intersection over union of every class on the test part, in percent.

    Shapes: (runs, classes); NaN for a class that is in neither truth nor prediction. Raises: ValueError for runs
    without a confusion matrix.
    """
    if any(run.confusion is None for run in runs):
        raise ValueError("these runs recorded no confusion matrix: they are no segmentation")
    return np.stack([class_iou(torch.tensor(run.confusion)).numpy() for run in runs])


def commonest(run: Run) -> tuple[str, float] | None:
    """Name the commonest class of the training pixels, and the test mIoU of saying it of every pixel, in percent.

    What any network must beat. None for a run that is no segmentation.
    """
    if run.confusion is None:
        return None
    data = run.config.data
    number = int(np.argmax(data["pixels"][: len(data["classes"])]))
    truth = np.sum(run.confusion, axis=1)
    return data["classes"][number], float(100 * truth[number] / truth.sum() / np.count_nonzero(truth))
