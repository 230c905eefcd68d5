"""A study: variants times seeds on one data set, run one after another, interrupted and repeated at will."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from torch import nn

from srblock.data import ImageData, Loader, split, statistics
from srblock.experiments.build import build
from srblock.experiments.notation import Variant
from srblock.experiments.records import Run, RunConfig, finished, read_run
from srblock.surgery import blocks
from srblock.training import runtime
from srblock.training.files import write_json
from srblock.training.loop import Loaders, Probe, TrainingDiverged, sgd, train, train_epoch
from srblock.training.recipe import RECIPES, Recipe

Inspect = Callable[[nn.Module, Loader, Path], dict[str, Any]]


class Progress(Protocol):
    """What wants to know how a study goes."""

    def started(self, run: RunConfig) -> None:
        """A run starts, or goes on."""

    def epoch(self, run: RunConfig, record: dict[str, Any]) -> None:
        """An epoch is done, in this session or an earlier one."""

    def finished(self, run: RunConfig, result: dict[str, Any]) -> None:
        """A run has its result, found or made."""

    def failed(self, run: RunConfig, error: Exception) -> None:
        """A run ended without a result; the others go on."""

    def waiting(self, run: RunConfig) -> None:
        """Another process is at this run; its result is waited for."""


@dataclass(frozen=True)
class Study:
    """Variants times seeds on one data set with one recipe.

    Args:
        source, image_size: how the data was loaded, recorded so that runs can be evaluated later.
        pretrained, weights: start from the library's download, or from a file of weights.
    """

    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    data: ImageData
    source: str
    recipe: Recipe
    image_size: int | None = None
    pretrained: bool = False
    weights: Path | None = None

    def runs(self) -> list[RunConfig]:
        """List the runs, seed by seed, so that an interrupted study has as many whole comparisons as possible."""
        data, weights = describe_data(self.data), self._weights_identity()
        return [
            RunConfig(variant, seed, self.recipe, data, weights) for seed in self.seeds for variant in self.variants
        ]

    def build(self, variant: Variant, seed: int) -> nn.Module:
        """Build a variant's network for this data, on the CPU."""
        return build(
            variant,
            classes=len(self.data.classes),
            channels=self.data.channels,
            image_size=self.data.size,
            seed=seed,
            pretrained=self.pretrained,
            weights=self.weights,
        )

    def loaders(self, seed: int, device: torch.device) -> Loaders:
        """Split, and put the images on the device. The same for all variants of a seed."""
        data, recipe = self.data, self.recipe
        kept, held = split(data.train_labels, fraction=recipe.validation_fraction, seed=seed)
        mean, std = statistics(data.train_images[kept])
        images, labels = data.train_images.to(device), data.train_labels.to(device)

        def loader(images: torch.Tensor, labels: torch.Tensor, index: torch.Tensor | None, training: bool) -> Loader:
            return Loader(
                images,
                labels,
                index,
                batch_size=recipe.batch_size if training else max(recipe.batch_size, 500),
                mean=mean,
                std=std,
                device=device,
                dtype=torch.float32,
                memory_format=runtime.FORMATS[recipe.memory_format],
                padding=recipe.padding if training else 0,
                flip=recipe.flip and training,
                shuffle=training,
                seed=seed,
            )

        return Loaders(
            train=loader(images, labels, kept, True),
            validation=loader(images, labels, held, False),
            test=loader(data.test_images, data.test_labels, None, False),
        )

    def _weights_identity(self) -> str | None:
        if self.weights is not None:
            return hashlib.sha256(self.weights.read_bytes()).hexdigest()
        return "pretrained" if self.pretrained else None


def describe_data(data: ImageData) -> dict[str, Any]:
    """Return what a record says of a data set."""
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "classes": list(data.classes),
        "train": len(data.train_labels),
        "test": len(data.test_labels),
        "size": [data.channels, *data.size],
    }


def recipe_for(
    data: ImageData, device: torch.device, name: str = "auto", epochs: int | None = None, **changes: Any
) -> Recipe:
    """Resolve a named recipe for a data set and a device; changes that are None are left out.

    "auto" is the paper's recipe for CIFAR-10 and CIFAR-100, else "short". The random crop pads an eighth of the side
    (4 at 32x32, as the paper), and only sets whose images may be mirrored are.

    Raises: ValueError for a name or a value that no recipe has.
    """
    if name == "auto":
        name = data.name if data.name in RECIPES else "short"
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; there are: auto, {', '.join(RECIPES)}")
    precision = changes.pop("precision", None) or "auto"
    recipe = replace(
        RECIPES[name],
        padding=min(data.size) // 8,
        flip=RECIPES[name].flip and data.flip,
        **{key: value for key, value in changes.items() if value is not None},
    )
    recipe = recipe if epochs is None else recipe.with_epochs(epochs)
    return runtime.resolve(recipe, device, precision)


def measure_ms_per_image(study: Study, variant: Variant, device: torch.device) -> float:
    """Measure the training time of one image: a step to warm up, then up to three timed ones."""
    loader = study.loaders(study.seeds[0], device).train
    model = runtime.place(study.build(variant, study.seeds[0]), study.recipe, device)
    optimizer = sgd(model, study.recipe, device)
    train_epoch(model, optimizer, loader, study.recipe, 0, device, steps=1)
    start = runtime.now(device)
    images = train_epoch(model, optimizer, loader, study.recipe, 0, device, steps=3).images
    return 1e3 * (runtime.now(device) - start) / images


def run_study(
    study: Study,
    out: Path,
    *,
    device: torch.device,
    progress: Progress,
    probe: Probe | None = None,
    inspect: Inspect | None = None,
) -> list[Run]:
    """Run what is not finished yet and return all finished runs in the study's order.

    Several processes may work on the same study: each run is locked while it is trained. A run that diverges is
    reported and left out; the others go on.

    Args:
        out: runs are folders of `out/runs`.
        probe: called on the model after each epoch; its figures are recorded (see `training.loop.train`).
        inspect: called once on the selected model with the test loader and the run's folder; what it returns is
            recorded in the result.
    """
    pending: list[RunConfig] = study.runs()
    done: dict[str, Run] = {}
    while pending:
        busy = []
        for config in pending:
            directory = make_folder(out / "runs" / config.name)
            try:
                with FileLock(directory / ".lock", blocking=False):
                    run = _one(study, config, directory, device, progress, probe, inspect)
            except Timeout:
                busy.append(config)
                continue
            if run is not None:
                done[config.name] = run
        if len(busy) == len(pending):
            progress.waiting(busy[0])
            time.sleep(1)
        pending = busy
    return [done[config.name] for config in study.runs() if config.name in done]


def make_folder(path: Path) -> Path:
    """Make a folder and its parents.

    Raises: OSError, saying what to do, if that is not allowed or a file is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot make the folder {path}: {error.strerror}; choose a writable one with --out"
        ) from error
    if not os.access(path, os.W_OK):
        raise PermissionError(f"cannot write into {path}; choose a writable folder with --out")
    return path


def _one(
    study: Study,
    config: RunConfig,
    directory: Path,
    device: torch.device,
    progress: Progress,
    probe: Probe | None,
    inspect: Inspect | None,
) -> Run | None:
    """Train one run, or find it done; None if it diverged."""
    here = runtime.environment(device)
    progress.started(config)
    if finished(directory):
        run = read_run(directory)
        _warn_if_elsewhere(run, here)
        progress.finished(config, run.result)
        return run
    model = study.build(config.variant, config.seed)
    for scrap in directory.glob(".*.tmp"):  # of a process killed while writing; the lock is ours
        scrap.unlink()
    where = {"source": study.source, "image_size": study.image_size}
    write_json(directory / "config.json", config.as_dict() | where)
    parameters = sum(p.numel() for p in model.parameters())
    added = sum(p.numel() for block in blocks(model).values() for p in block.parameters())
    loaders = study.loaders(config.seed, device)
    try:
        result = train(
            model,
            loaders,
            config.recipe,
            directory=directory,
            run=config.name,
            seed=config.seed,
            device=device,
            probe=probe,
            on_epoch=lambda record: progress.epoch(config, record),
        )
    except TrainingDiverged as error:
        progress.failed(config, error)
        return None
    result |= {"parameters": parameters, "overhead_percent": 100 * added / (parameters - added)}
    if inspect is not None:
        result |= inspect(model, loaders.test, directory)
    result |= {"environment": here | {"peak_memory_mb": runtime.peak_memory_mb()}}
    write_json(directory / "result.json", config.as_dict() | result)
    (directory / "trainer.safetensors").unlink(missing_ok=True)
    run = read_run(directory)
    progress.finished(config, run.result)
    return run


def _warn_if_elsewhere(run: Run, here: dict[str, Any]) -> None:
    """Warn if a found run was made under other conditions than a new one would be."""
    there = run.result["environment"]
    differing = [f"{key} {there.get(key)} (now {here[key]})" for key in runtime.DECISIVE if there.get(key) != here[key]]
    if differing:
        warnings.warn(
            f"{run.directory.name} is reused but was made with {', '.join(differing)}; use another --out to train it anew",
            stacklevel=2,
        )
