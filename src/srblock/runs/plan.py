"""What a study is about to do: what each variant costs, which of its runs are finished, and how long the rest takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch

from srblock.inspection.cost import cost
from srblock.runs.groups import check_patterns
from srblock.runs.records import epochs_done, finished, read_config, read_metrics
from srblock.runs.study import Study
from srblock.training import runtime
from srblock.training.loop import train_epoch
from srblock.training.optimizer import make_optimizer
from srblock.training.step import Step
from srblock.variants.notation import Variant

MEASURED = 4  # variants; of more, one of each network is measured and the others' times follow their operations


@dataclass(frozen=True)
class PlanRow:
    """One variant before it is trained.

    Attributes:
        ms_per_image: time of a training step, for one image: of epochs done here, else of a few measured steps; None
            where nothing was measured.
        epoch_seconds: of training, from that time; None without it.
        done, partial, todo: how many runs are finished, started, not started.
        seconds_left: of the runs one after another, from that time; None without it where runs are left.
    """

    variant: str
    parameters: int
    overhead_percent: float
    flops_per_image: int
    ms_per_image: float | None
    epoch_seconds: float | None
    done: int
    partial: int
    todo: int
    seconds_left: float | None


def plan(
    study: Study,
    out: Path,
    device: torch.device,
    *,
    measure: bool = True,
    until: float | None = None,
    download: bool = True,
) -> list[PlanRow]:
    """Look at every variant of a study, in its order.

    Args:
        out: where its runs are, or will be.
        measure: time a few training steps of what has runs left and no epoch done. Without, no image is touched.
        until: when to stop measuring, by time.monotonic(); the rest follows its network's operations, if one was
            measured.
        download: whether pretrained weights may be fetched; without, networks are looked at as they are from scratch.

    Raises: ValueError for a variant that cannot be built for the data.
    """
    looked_at = study if download else replace(study, pretrained=False)
    here = str(runtime.environment(device)["device"])
    check_patterns(study.recipe, (looked_at.build(variant, study.seeds[0]) for variant in study.variants))
    rows = []
    measured: dict[str, tuple[float, int]] = {}  # by network: ms per image, operations
    for variant in study.variants:
        size = cost(looked_at.build(variant, study.seeds[0]), (study.data.channels, *study.size))
        folders = [out / "runs" / run.name for run in study.runs if run.variant == variant]
        started = {folder: epochs_done(folder) for folder in folders if not finished(folder)}
        ms_per_image = None
        if started and measure and (known := _recorded_ms(study, folders, here)) is not None:
            ms_per_image = known
        elif started and measure:
            wanted = len(study.variants) <= MEASURED or variant.network not in measured
            if wanted and (until is None or time.monotonic() < until):
                ms = measure_ms_per_image(looked_at, variant, device)
                measured[variant.network] = ms, size.flops_per_image
            if variant.network in measured:
                ms, operations = measured[variant.network]
                ms_per_image = ms * size.flops_per_image / operations
        epoch_seconds = None if ms_per_image is None else 1e-3 * ms_per_image * study.epoch_images
        epochs_left = study.recipe.epochs * len(started) - sum(started.values())
        rows.append(
            PlanRow(
                variant=str(variant),
                parameters=size.parameters,
                overhead_percent=size.overhead_percent,
                flops_per_image=size.flops_per_image,
                ms_per_image=ms_per_image,
                epoch_seconds=epoch_seconds,
                done=len(study.seeds) - len(started),
                partial=sum(done > 0 for done in started.values()),
                todo=sum(done == 0 for done in started.values()),
                seconds_left=0.0 if not started else None if epoch_seconds is None else epoch_seconds * epochs_left,
            )
        )
    return rows


def measure_ms_per_image(study: Study, variant: Variant, device: torch.device) -> float:
    """Measure the training time of one image: a step to warm up, then up to three timed ones."""
    runtime.keep_freed_memory(device)
    loader = study.loaders(study.seeds[0], device).train
    model = runtime.place(study.build(variant, study.seeds[0]), study.recipe, device)
    step = Step(model, make_optimizer(model, study.recipe, device, study.groups), study.task, study.recipe, device)
    train_epoch(step, loader, 0, batches=1)
    start = runtime.now(device)
    images = train_epoch(step, loader, 0, batches=3)
    return 1e3 * (runtime.now(device) - start) / images


def _recorded_ms(study: Study, folders: Sequence[Path], here: str) -> float | None:
    """Return the median training time of an image in the epochs done on the device called `here`; None without any."""
    images = study.epoch_images * study.trained_share
    found = []
    for folder in folders:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a damaged folder is an error of its run
            if read_config(folder)["environment"]["device"] == here:
                found += [1e3 * record["train_seconds"] / images for record in read_metrics(folder)]
    return median(found) if found else None


def seconds_left(rows: Sequence[PlanRow], at_once: int) -> float | None:
    """Add up a plan's time, so many runs going on at once; None where something was not measured."""
    known = [row.seconds_left for row in rows if row.seconds_left is not None]
    left = sum(row.partial + row.todo for row in rows)
    return None if len(known) < len(rows) else sum(known) / max(1, min(at_once, left))
