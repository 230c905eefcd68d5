"""Look into the blocks of a trained network: all of `analysis.Analysis`, from a model and its data."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.data import Batches
from srblock.inspection.analysis import Analysis, BlockAnalysis, Controlled
from srblock.inspection.attribution import attribution
from srblock.inspection.controls import CONTROLS, controls
from srblock.inspection.exemplars import exemplars
from srblock.inspection.information import effective, information
from srblock.inspection.look import Look, look
from srblock.inspection.recall import by_class, memory_probe
from srblock.surgery import blocks
from srblock.training.task import Task

PER_CLASS = 50  # images of a class in the figures by class (the paper's figures do not say)


def analyze(
    model: nn.Module,
    test: Batches,
    task: Task,
    classes: Sequence[str],
    titles: Mapping[int, str],
    *,
    per_class: int | None = PER_CLASS,
    mean: dict[str, Tensor] | None = None,
    mean_over: int | None = None,
    with_controls: bool = True,
    judged: bool = True,
) -> Analysis:
    """Look into the blocks of a network.

    Args:
        test: the images to look at, all of them.
        titles: which images to take a close-up of, by their number, and what to call them.
        per_class: how many images of each class the recall weights by class are of, the first ones; None for all.
        mean, mean_over: recall weights (P,) of each block for the control "mean", and of how many images they are.
        with_controls: whether to test under controls and measure what the blocks add to the logits.
        judged: whether the classes are the network's own; without, there is no figure to compare under controls.

    Raises: ValueError if the model has no block.
    """
    start = time.perf_counter()
    seen = look(model, test, task, len(classes), titles, judged=judged)
    of_scenes = seen.shown.dim() == 2
    found = [_block(model, name, seen, classes, per_class) for name in blocks(model)]
    seconds = {"look": time.perf_counter() - start}
    under: tuple[Controlled, ...] = ()
    if with_controls and judged:
        start = time.perf_counter()
        collected = {name: block.weights for name, block in seen.blocks.items()}
        tested = controls(model, collected, lambda: test.epoch(0), task, mean=mean)
        under = tuple(_controlled(name, tested[name], task) for name in CONTROLS)
        if not of_scenes:
            found = [
                replace(block, attribution=attribution(model, block.name, test.epoch(0), len(classes)))
                for block in found
            ]
        seconds["controls"] = time.perf_counter() - start
    return Analysis(len(seen.shown), seen.figures, tuple(found), under, mean_over, seconds)


def _block(model: nn.Module, name: str, seen: Look, classes: Sequence[str], per_class: int | None) -> BlockAnalysis:
    here, shown = seen.blocks[name], seen.shown
    labels = shown if shown.dim() == 1 else None
    chosen = torch.arange(len(shown)) if labels is None else _first_of_each(labels, per_class)
    class_mean, class_std = by_class(here.by_image[chosen], shown[chosen], len(classes))
    there = here.change.isfinite()  # of a map of zeros there is no share
    change, _ = by_class(here.change[there, None], shown[there], len(classes))
    per_image, overall = effective(here.by_image)
    maps = blocks(model)[name].memory.maps().detach().float().cpu()
    direction = F.normalize(maps.flatten(1).double(), dim=1)
    return BlockAnalysis(
        name=name,
        class_mean=class_mean.numpy(),
        class_std=class_std.numpy(),
        class_images=_images(shown[chosen], len(classes)).numpy(),
        mean=here.by_image.mean(0).numpy(),
        std=here.by_image.std(0, correction=0).numpy(),
        memory=maps.mean(1).numpy(),
        cosine=(direction @ direction.T).numpy(),
        spread=memory_probe(model).get(f"{name}/memory_spread"),
        effective_per_image=per_image,
        effective=overall,
        change=float(here.change.nanmean()),
        class_change=(change[:, 0] if there.any() else torch.full((len(classes),), torch.nan)).numpy(),
        information=None if labels is None else information(here.by_image, labels),
        attribution=None,
        exemplars=exemplars(here.by_image, labels, classes, seen.top[name], seen.images),
        closeups=tuple(here.closeups[number] for number in sorted(here.closeups)),
    )


def _first_of_each(labels: Tensor, count: int | None) -> Tensor:
    """Return the numbers of the first images of each class, in order."""
    if count is None:
        return torch.arange(len(labels))
    chosen = [(labels == label).nonzero()[:count, 0] for label in torch.unique(labels).tolist()]
    return torch.cat(chosen).sort().values


def _images(shown: Tensor, classes: int) -> Tensor:
    """Count the images of each class, or the scenes that show it."""
    return torch.bincount(shown, minlength=classes) if shown.dim() == 1 else (shown > 0).sum(0)


def _controlled(name: str, tested: dict[str, float], task: Task) -> Controlled:
    figures = {figure.key: tested[figure.key] for figure in task.figures}
    if "lost" not in tested:
        return Controlled(name, figures, None, None)
    return Controlled(name, figures, int(tested["lost"]), int(tested["gained"]))
