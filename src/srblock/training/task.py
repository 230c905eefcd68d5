"""What is predicted: the figures by which a network is judged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A figure of a task.

    Attributes:
        key: in records, after the part of the data: "top1" in "test_top1".
        label: for people, "top-1".
        per_image: whether it is a share of the images, so that its chance over test images is known.
    """

    key: str
    label: str
    per_image: bool = False


@dataclass(frozen=True)
class Classification:
    figures: tuple[Figure, ...] = (Figure("top1", "top-1", per_image=True),)


TASKS = {"classification": Classification()}
