"""What a study is about to do: what each variant costs, which of its runs are finished, and how long the rest takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn

from srblock.inspection.cost import Cost, cost
from srblock.runs.groups import check_patterns
from srblock.runs.in_turns import in_turns, relative_to_first
from srblock.runs.records import epochs_done, finished, read_config, read_metrics
from srblock.runs.study import Study
from srblock.training import runtime
from srblock.training.loop import train_epoch
from srblock.training.optimizer import make_optimizer
from srblock.training.step import WARM_UP, Step
from srblock.variants.notation import Variant

MEASURED = 4  # variants; of more, one of each network is measured and the others' times follow their operations


@dataclass(frozen=True)
class PlanRow:
    """One variant before it is trained.

    Attributes:
        ms_per_image: time of a training step, for one image: of epochs done here, else of a few steps in turns; None
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
    hollow: bool = False,
) -> list[PlanRow]:
    """Look at every variant of a study, in its order.

    Args:
        out: where its runs are, or will be.
        measure: time a few training steps of what has runs left and no epoch done. Without, no image is touched.
        until: when to stop measuring, by time.monotonic(); the rest follows its network's operations, if one was
            measured.
        download: whether pretrained weights may be fetched; without, networks are looked at as they are from scratch.
        hollow: look at networks without memory for their weights, for which there is none.

    Raises: ValueError for a variant that cannot be built for the data.
    """
    looked_at = study if download else replace(study, pretrained=False)

    def network(variant: Variant) -> nn.Module:
        return looked_at.outline(variant) if hollow else looked_at.build(variant, study.seeds[0])

    check_patterns(study.recipe, map(network, study.variants))
    sizes = {variant: cost(network(variant), (study.data.channels, *study.size)) for variant in study.variants}
    folders = {
        variant: [out / "runs" / run.name for run in study.runs if run.variant == variant] for variant in study.variants
    }
    begun = {
        variant: {folder: epochs_done(folder) for folder in mine if not finished(folder)}
        for variant, mine in folders.items()
    }
    ms = _ms_per_image(looked_at, sizes, {v: folders[v] for v in sizes if begun[v]}, device, until) if measure else {}
    rows = []
    for variant, size in sizes.items():
        started, ms_per_image = begun[variant], ms.get(variant)
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


def _ms_per_image(
    study: Study,
    sizes: Mapping[Variant, Cost],
    folders: Mapping[Variant, Sequence[Path]],
    device: torch.device,
    until: float | None,
) -> dict[Variant, float]:
    """Estimate the training time of an image for variants with runs left, as far as there is something to go by.

    Args:
        folders: of their runs.
    """
    here = str(runtime.environment(device)["device"])
    recorded = {variant: _recorded_ms(study, mine, here) for variant, mine in folders.items()}
    unknown = [variant for variant, ms in recorded.items() if ms is None]
    wanted = unknown
    if len(sizes) > MEASURED:
        wanted = list({variant.network: variant for variant in reversed(unknown)}.values())[::-1]
    measured = measure_ms_per_image(study, wanted, device, until) if wanted else {}
    found = {variant: ms for variant, ms in recorded.items() if ms is not None} | measured
    for variant in unknown:
        alike = [other for other in measured if other.network == variant.network]
        if variant not in measured and alike:
            operations = sizes[variant].flops_per_image / sizes[alike[0]].flops_per_image
            found[variant] = measured[alike[0]] * operations
    return found


def measure_ms_per_image(
    study: Study, variants: Sequence[Variant], device: torch.device, until: float | None = None
) -> dict[Variant, float]:
    """Measure the training time of one image: a step to warm up, then three turns of each variant.

    On a device without memory for all variants at once they are measured one after another.

    Args:
        until: when to take no further variant, by time.monotonic().
    """
    try:
        return _in_turns(study, variants, device, until)
    except torch.OutOfMemoryError:
        if len(variants) == 1:
            raise
    return {name: ms for variant in variants for name, ms in _in_turns(study, [variant], device, until).items()}


def _in_turns(
    study: Study, variants: Sequence[Variant], device: torch.device, until: float | None
) -> dict[Variant, float]:
    runtime.keep_freed_memory(device)
    loader = study.loaders(study.seeds[0], device).train
    warm_up = WARM_UP + 1 if "graph" in study.recipe.engine else 1
    # A pass over files begins with a batch that nobody has decoded ahead.
    rounds, batches = (2, 3) if study.data.streamed else (3, 1)
    turns: dict[Variant, Callable[[], int]] = {}
    for variant in variants:
        if until is not None and time.monotonic() >= until:
            break
        model = runtime.place(study.build(variant, study.seeds[0]), study.recipe, device)
        step = Step(model, make_optimizer(model, study.recipe, device, study.groups), study.task, study.recipe, device)
        train_epoch(step, loader, 0, batches=warm_up)
        turns[variant] = partial(train_epoch, step, loader, 0, batches=batches)
    return relative_to_first(in_turns(turns, device, lambda done: done < rounds)) if turns else {}


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
