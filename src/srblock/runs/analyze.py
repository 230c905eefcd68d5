"""Look into the blocks of a finished run, or of its weights alone."""

from __future__ import annotations

import difflib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from srblock.data import Batches, ImageData, SceneData, load_data
from srblock.inspection.analysis import Analysis, Subject
from srblock.inspection.analyze import PER_CLASS, analyze
from srblock.inspection.mean_weights import mean_weights
from srblock.runs.loaders import as_tested, normalized_as_trained, training_part
from srblock.runs.records import Run, read_run
from srblock.runs.reopen import reopen
from srblock.runs.seal import WEIGHTS
from srblock.runs.trained import load_run
from srblock.surgery import blocks
from srblock.training import runtime
from srblock.training.checkpoint import save_weights
from srblock.training.task import Task
from srblock.variants.custom import Build

NAMED = 3  # classes that are looked at closely unless some are named
MOST = 50_000  # training images that the mean recall weights are of
CACHE = "recall_mean.safetensors"


@dataclass(frozen=True, eq=False)
class _Opened:
    """What is needed to look: the network and images as it takes them.

    Attributes:
        part: serves at most so many images of the training part.
        weights: the file.
        cache: where the mean recall weights over the training part are kept; None for nowhere.
        judged: whether the images have the network's own classes.
    """

    subject: Subject
    model: nn.Module
    data: ImageData | SceneData
    task: Task
    test: Batches
    part: Callable[[int], Batches]
    weights: Path
    cache: Path | None
    judged: bool = True


def analyze_run(
    path: Path,
    *,
    source: str | ImageData | SceneData | None = None,
    build: Build | str | None = None,
    device: torch.device,
    classes: Sequence[str] = (),
    per_class: int | None = PER_CLASS,
    with_controls: bool = True,
) -> tuple[Subject, Analysis, tuple[str, ...]]:
    """Look into the blocks of a trained network, over the test part of a data set.

    The mean recall weights of the training part, for the control "mean", are kept in the run's folder. Images of other
    classes than the network's have recall weights too, but no accuracy, so there are no controls then.

    Args:
        path: of a finished run's folder; or of its `checkpoint.safetensors`, which alone suffices: then the control
            "mean" is over all training images, those of the run's validation part too.
        source: the data, or where it is now; None for where a run's was.
        build: of a network of the user's own the function that builds it.
        classes: to look at closely, by name; three spread over all if none is named.
        per_class: how many images of each class the recall weights by class are of; None for all.
        with_controls: whether to test under controls and measure what blocks add to the logits.

    Returns what was looked into, what was found, and the classes looked at closely.

    Raises: as `reopen` and `load_run`; ValueError for a class that the data has not, a network without a block, weights
    alone without data, or data of another task or number of channels.
    """
    opened = _open(path, source, build, device)
    if not blocks(opened.model):
        raise ValueError(f"{opened.subject.variant} has no block to look into; analyze a run with SR in its variant")
    named = _named(classes, opened.data.classes)
    mean, over, seconds = None, None, 0.0
    if with_controls and opened.judged:
        start = time.perf_counter()
        mean, over = _mean(opened)
        seconds = time.perf_counter() - start
    found = analyze(
        opened.model,
        opened.test,
        opened.task,
        opened.data.classes,
        _titles(opened.data, named),
        per_class=per_class,
        mean=mean,
        mean_over=over,
        with_controls=with_controls,
        judged=opened.judged,
    )
    return opened.subject, replace(found, seconds=found.seconds | {"training": seconds}), named


def subject_of(run: Run) -> Subject:
    """Describe a run as what is looked into."""
    return Subject(
        variant=str(run.variant),
        name=run.directory.name,
        described=f"Seed {run.seed}, epoch {run.best_epoch} of {len(run.metrics)}{_views(run.config.recipe.tta)}",
        data=str(run.config.data["name"]),
        classes=tuple(map(str, run.config.data["classes"])),
        figures=run.config.figures,
        scenes=run.config.data.get("task") == "segmentation",
        metrics=run.metrics,
        best_epoch=run.best_epoch,
    )


def _views(tta: str) -> str:
    """Say how the run's test figure differs from what is found here."""
    return "" if tta == "none" else f"; one view of each image here, where its test averaged over views: {tta}"


def _open(
    path: Path, source: str | ImageData | SceneData | None, build: Build | str | None, device: torch.device
) -> _Opened:
    if path.is_file():
        return _open_weights(path, source, build, device)
    if source is not None:
        known = read_run(path).config
        source = _loaded(source, known.data["size"][1:], scenes=known.recipe.crop_size is not None)
        if list(source.classes) != known.data["classes"]:
            return _open_weights(path / WEIGHTS, source, build, device)
    run, study, model = reopen(path, source=source, build=build)
    runtime.place(model, run.config.recipe, device)

    def normalized(batches: Batches) -> Batches:
        own = study.data.fingerprint == run.config.data["fingerprint"]
        return batches if own else normalized_as_trained(batches, path / WEIGHTS)

    return _Opened(
        subject=replace(subject_of(run), data=study.data.name),
        model=model,
        data=study.data,
        task=study.task,
        test=normalized(study.loaders(run.seed, device).test),
        part=lambda most: normalized(training_part(study.data, study.recipe, run.seed, device, most)),
        weights=path / WEIGHTS,
        cache=path / CACHE,
    )


def _open_weights(
    weights: Path, source: str | ImageData | SceneData | None, build: Build | str | None, device: torch.device
) -> _Opened:
    """Open a network by what the header of its weights says."""
    if source is None:
        raise ValueError(f"{weights} does not say where data is; name some with --data")
    trained = load_run(weights, build=build, device=str(device))
    said = trained.input
    data = _loaded(source, said.size, scenes=said.crop_size is not None)
    if (data.task, data.channels) != (said.task, said.channels):
        raise ValueError(
            f"{said.variant} is for {said.task} of images with {said.channels} channels, and {data.name} is for "
            f"{data.task} with {data.channels}"
        )
    subject = Subject(
        variant=said.variant,
        name=weights.name,
        described=f"Weights of srblock {said.srblock}{_views(said.tta)}",
        data=data.name,
        classes=data.classes,
        figures=trained.task.figures,
        scenes=isinstance(data, SceneData),
        metrics=[],
        best_epoch=0,
    )
    return _Opened(
        subject=subject,
        model=trained.model,
        data=data,
        task=trained.task,
        test=as_tested(data, "test", said, device),
        part=lambda most: as_tested(data, "train", said, device, most),
        weights=weights,
        cache=None,
        judged=data.classes == said.classes,
    )


def _loaded(source: str | ImageData | SceneData, size: Sequence[int], *, scenes: bool) -> ImageData | SceneData:
    """Load a set at a network's size, as far as a set can be loaded at a size."""
    if isinstance(source, (ImageData, SceneData)):
        return source
    return load_data(source, image_size=None if scenes or size[0] != size[1] else size[0])


def _named(wanted: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    for name in wanted:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(classes[:20])}"
            raise ValueError(f"there is no class {name!r} in the data; {hint}")
    if wanted:
        return tuple(dict.fromkeys(wanted))
    last = len(classes) - 1
    return tuple(dict.fromkeys(classes[round(index * last / (NAMED - 1))] for index in range(NAMED)))


def _titles(data: ImageData | SceneData, named: Sequence[str]) -> dict[int, str]:
    """Choose what to take a close-up of: the first test image of each class, or scenes spread over the test part."""
    if isinstance(data, SceneData):
        numbers = {round(index * (data.test_size - 1) / (NAMED - 1)) for index in range(NAMED)}
        return {number: f"scene {number}" for number in sorted(numbers)}
    found = [(data.test_labels == data.classes.index(name)).nonzero()[0, 0] for name in named]
    return {int(number): name for number, name in zip(found, named, strict=True)}


def _mean(opened: _Opened) -> tuple[dict[str, Tensor], int]:
    """Return the mean recall weights over the training part and of how many images; kept for the same weights."""
    weights = hashlib.sha256(opened.weights.read_bytes()).hexdigest()
    key = json.dumps([weights, opened.data.fingerprint, MOST])
    if opened.cache is not None:
        try:
            with safe_open(opened.cache, framework="pt") as kept:
                header = kept.metadata() or {}
                if header.get("of") == key:
                    return {name: kept.get_tensor(name) for name in kept.keys()}, int(header["images"])  # noqa: SIM118
        except (OSError, SafetensorError, ValueError, KeyError):
            pass  # not there, or damaged: made anew
    found, images = mean_weights(opened.model, opened.part(MOST).epoch(0), opened.task, len(opened.data.classes))
    if opened.cache is not None:
        save_weights(opened.cache, found, {"of": key, "images": str(images)})
    return found, images
