"""The tasks by the names that data sets call them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from srblock.training.classification import Classification
from srblock.training.segmentation import Segmentation
from srblock.training.task import Figure, Task

TASKS: dict[str, type[Classification] | type[Segmentation]] = {
    "classification": Classification,
    "segmentation": Segmentation,
}


class Way(Protocol):
    """What decides how a network is asked: a recipe has it, and what a finished run says of its input."""

    @property
    def crop_size(self) -> tuple[int, int] | None: ...
    @property
    def inference(self) -> str: ...
    @property
    def tta(self) -> str: ...


def find_task(name: str, classes: int, way: Way, class_weights: Tensor | None = None) -> Task:
    """Return the task that a data set names, for its classes, as a recipe says.

    Args: class_weights: of the training loss, see `classification.Classification`.

    Raises: ValueError if there is none of this name, or the recipe is for another one.
    """
    if name == "segmentation":
        if way.crop_size is None:
            raise ValueError("a recipe for segmentation has a crop_size, (H, W), got None")
        task: Task = Segmentation(classes, way.crop_size, way.inference)
    else:
        figures(name)
        task = Classification(class_weights)
    if way.tta not in task.tta:
        raise ValueError(f"tta for {name} must be one of {', '.join(task.tta)}, got {way.tta!r}")
    return task


def figures(name: str) -> tuple[Figure, ...]:
    """Return what is measured of a task; the first figure selects and is compared.

    Raises: ValueError if there is none of this name.
    """
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}; there are: {', '.join(TASKS)}")
    return TASKS[name].figures
