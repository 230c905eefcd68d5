"""Look into the blocks of a finished run."""

from __future__ import annotations

import difflib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from srblock.data import ImageData, SceneData
from srblock.inspection.analysis import Analysis
from srblock.inspection.analyze import PER_CLASS, analyze
from srblock.inspection.mean_weights import mean_weights
from srblock.runs.loaders import training_part
from srblock.runs.records import Run
from srblock.runs.reopen import reopen
from srblock.runs.study import Study
from srblock.surgery import blocks
from srblock.training import runtime
from srblock.training.checkpoint import save_weights
from srblock.variants.custom import Build

NAMED = 3  # classes that are looked at closely unless some are named
MOST = 50_000  # training images that the mean recall weights are of
CACHE = "recall_mean.safetensors"


def analyze_run(
    directory: Path,
    *,
    source: str | ImageData | SceneData | None = None,
    build: Build | str | None = None,
    device: torch.device,
    classes: Sequence[str] = (),
    per_class: int | None = PER_CLASS,
    with_controls: bool = True,
) -> tuple[Run, Analysis, tuple[str, ...]]:
    """Look into the blocks of a finished run, over its test part.

    The mean recall weights of the training part, for the control "mean", are kept in the run's folder.

    Args:
        source: the data, or where it is now; None for where it was.
        build: of a network of the user's own the function that builds it.
        classes: to look at closely, by name; three spread over all if none is named.
        per_class: how many images of each class the recall weights by class are of; None for all.
        with_controls: whether to test under controls and measure what blocks add to the logits.

    Returns the run, what was found, and the classes looked at closely.

    Raises: as `reopen`; ValueError for a class that the data has not, or a run without a block.
    """
    run, study, model = reopen(directory, source=source, build=build)
    data, seed = study.data, run.seed
    if not blocks(model):
        raise ValueError(f"{run.variant} has no block to look into; analyze a run with SR in its variant")
    named = _named(classes, data.classes)
    runtime.place(model, run.config.recipe, device)
    mean, over, seconds = None, None, 0.0
    if with_controls:
        start = time.perf_counter()
        mean, over = _mean(directory, study, model, device)
        seconds = time.perf_counter() - start
    found = analyze(
        model,
        study.loaders(seed, device).test,
        study.task,
        data.classes,
        _titles(study, named),
        per_class=per_class,
        mean=mean,
        mean_over=over,
        with_controls=with_controls,
    )
    return run, replace(found, seconds=found.seconds | {"training": seconds}), named


def _named(wanted: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    for name in wanted:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(classes[:20])}"
            raise ValueError(f"there is no class {name!r} in the run's data; {hint}")
    if wanted:
        return tuple(dict.fromkeys(wanted))
    last = len(classes) - 1
    return tuple(dict.fromkeys(classes[round(index * last / (NAMED - 1))] for index in range(NAMED)))


def _titles(study: Study, named: Sequence[str]) -> dict[int, str]:
    """Choose what to take a close-up of: the first test image of each class, or scenes spread over the test part."""
    data = study.data
    if isinstance(data, SceneData):
        numbers = {round(index * (data.test_size - 1) / (NAMED - 1)) for index in range(NAMED)}
        return {number: f"scene {number}" for number in sorted(numbers)}
    found = [(data.test_labels == data.classes.index(name)).nonzero()[0, 0] for name in named]
    return {int(number): name for number, name in zip(found, named, strict=True)}


def _mean(directory: Path, study: Study, model: nn.Module, device: torch.device) -> tuple[dict[str, Tensor], int]:
    """Return the mean recall weights over the training part and of how many images; kept for the same weights."""
    file = directory / CACHE
    weights = hashlib.sha256((directory / "checkpoint.safetensors").read_bytes()).hexdigest()
    key = json.dumps([weights, study.data.fingerprint, MOST])
    try:
        with safe_open(file, framework="pt") as kept:
            header = kept.metadata() or {}
            if header.get("of") == key:
                return {name: kept.get_tensor(name) for name in kept.keys()}, int(header["images"])  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError):
        pass  # not there, or damaged: made anew
    part = training_part(study.data, study.recipe, study.seeds[0], device, MOST)
    found, images = mean_weights(model, part.epoch(0), study.task, len(study.data.classes))
    save_weights(file, found, {"of": key, "images": str(images)})
    return found, images
