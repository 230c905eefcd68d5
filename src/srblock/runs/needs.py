"""What memory the runs of a study need, said and compared with what is free before any of them begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from srblock.data import ImageData, SceneData
from srblock.data.offenders import counted
from srblock.inspection.footprint import Footprint, footprint
from srblock.runs.loaders import TESTED
from srblock.runs.study import Study
from srblock.training import distributed
from srblock.variants.notation import Variant

# What a process on the CPU grows to, over the tensors of a step and of a test: the C library's allocator gives a test
# little of what steps have left in pieces, and libraries take more inside operations. tests/test_needs.py compares the
# estimate with what training takes.
SLACK = 1.4
WARNED = 0.8  # share of the free memory that is worth a warning


@dataclass(frozen=True)
class Need:
    """Memory of one run of a variant, in bytes.

    Attributes:
        images: decoded ones that the run copies.
        least: held at once at some time, as far as it is known.
        about: what its process is likely to take.
    """

    variant: str
    footprint: Footprint
    images: int
    least: int
    about: int


def needs_of(study: Study, device: torch.device) -> list[Need]:
    """Estimate the memory of a run of every variant of a study, in its order.

    Raises: ValueError as `Study.outline`.
    """
    return [_need(study, variant, study.outline(variant), device) for variant in study.variants]


def _need(study: Study, variant: Variant, model: nn.Module, device: torch.device) -> Need:
    recipe, data = study.recipe, study.data
    batch = -(-recipe.batch_size // distributed.world_size())
    image = (data.channels, *study.size)
    target: tuple[int, ...]
    if isinstance(data, SceneData):
        # A window of a scene and not all of them, which may be thousands.
        whole = recipe.inference == "whole"
        target, tested = (batch, *study.size), (1, data.channels, *(data.size if whole else study.size))
    else:
        mixed = bool(recipe.mixup or recipe.cutmix)
        target = (batch, len(data.classes)) if mixed else (batch,)
        served = batch if data.streamed else min(max(recipe.batch_size, TESTED), max(data.train_size, data.test_size))
        tested = (served, *image)
    found = footprint(model, study.task, recipe, (batch, *image), target, tested)
    images = _images(data, device)
    about = found.total
    if device.type == "cpu":
        about = round(SLACK * (found.weights + found.kept + (found.step or 0) + (found.test or 0)))
    return Need(str(variant), found, images, found.total + images, about + images)


def _images(data: ImageData | SceneData, device: torch.device) -> int:
    """Count the bytes of decoded images that a run holds: the parts that it trains on, on a GPU those of the test too.

    The set itself is in memory already.
    """
    if isinstance(data, SceneData) or data.streamed:
        return 0
    height, width = data.size
    count = data.train_size + (data.test_size if device.type == "cuda" else 0)
    return count * data.channels * height * width


def refusal(needs: Sequence[Need], free: int | None, at_once: int = 1) -> str:
    """Say why runs cannot fit into what is free, and what to do; "" if they may."""
    if free is None:
        return ""
    for need in needs:
        if at_once * need.least > free:
            found, several = need.footprint, f" for each of {at_once} at once" if at_once > 1 else ""
            batch = max(found.step or 0, found.test or 0)
            return (
                f"{need.variant} needs at least {gigabytes(need.least)} of memory{several} (weights "
                f"{gigabytes(found.weights)}, their gradients and copies {gigabytes(found.kept)}, a batch "
                f"{gigabytes(batch)}, images {gigabytes(need.images)}), and {gigabytes(free)} are free; use "
                + ("fewer --workers, " if at_once > 1 else "")
                + "fewer blocks (P), a smaller --batch-size or --image-size, or a machine with more memory"
            )
    return ""


def sentence(needs: Sequence[Need], free: int | None, at_once: int = 1) -> str:
    """Say what a run of the largest variant takes, and what is free if that is known."""
    largest = max(needs, key=lambda need: need.about)
    each = "A run takes" if at_once == 1 else f"Each of {counted(at_once, 'run')} at once takes"
    there = "" if free is None else f"; {gigabytes(free)} are free"
    return f"{each} about {gigabytes(largest.about)} of memory{there}."


def warning(needs: Sequence[Need], free: int | None, at_once: int = 1) -> str:
    """Warn of runs that are likely to take more than 80% of what is free; "" if none is."""
    largest = max(needs, key=lambda need: need.about)
    if free is None or at_once * largest.about <= WARNED * free:
        return ""
    return (
        f"{largest.variant} takes about {gigabytes(at_once * largest.about)}"
        f"{f' in {at_once} runs at once' if at_once > 1 else ''} of the {gigabytes(free)} of memory that are free; a "
        f"smaller --batch-size{' or fewer --workers' if at_once > 1 else ''} leaves room"
    )


def gigabytes(size: int) -> str:
    """Print bytes as 0.002 GB, 0.31 GB, 17.2 GB, in units of 1e9."""
    value = size / 1e9
    digits = 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{digits}f} GB"
