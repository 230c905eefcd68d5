"""Use a finished run: its network, and images brought to what it takes."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from srblock.data.loading.decode import flat
from srblock.data.loading.preprocess import Images, Preprocess
from srblock.data.offenders import offenders
from srblock.models.dilated import stem_of
from srblock.runs.input import Input, read_input
from srblock.runs.records import damaged, finished, read_config
from srblock.runs.seal import WEIGHTS
from srblock.tracing import in_eval_mode
from srblock.training import runtime
from srblock.training.task import Task
from srblock.training.tasks import find_task
from srblock.variants.build import build as build_variant
from srblock.variants.custom import Build, function_of
from srblock.variants.identity import OTHER_SOURCE, identity_of
from srblock.variants.notation import Variant, parse
from srblock.variants.weights import read_weights, refuse_unusable

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """What a network says of an image.

    Attributes:
        classes: the most probable, the first one first; of a scene those of most pixels.
        shares: the probability of each; of a scene its share of the pixels. 0 to 1.
        pixels: of a scene, as it is seen, the class of each pixel by its number, uint8 (H, W); None for images with one
            class each.
    """

    classes: tuple[str, ...]
    shares: tuple[float, ...]
    pixels: Tensor | None = None

    def __str__(self) -> str:
        return ", ".join(f"{name} {100 * share:.1f}%" for name, share in zip(self.classes, self.shares, strict=True))


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A finished run to be used; `load_run` makes one.

    Attributes:
        path: of the weights.
        input: what the network takes and says.
        model: in evaluation mode, float32, on `device`.
        as_trained: whether a network of the user's own is what the run was trained with, as far as that is known.
        preprocess: brings images to what the model takes.
    """

    path: Path
    input: Input
    model: nn.Module
    preprocess: Preprocess
    as_trained: bool = True

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the outputs."""
        return self.input.classes

    @property
    def variant(self) -> str:
        """The network in the notation."""
        return self.input.variant

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.preprocess.device

    @cached_property
    def task(self) -> Task:
        """What is predicted, and how the network is asked: as in the run's test."""
        return find_task(self.input.task, len(self.classes), self.input)

    @torch.inference_mode()
    def logits(self, batch: Tensor) -> Tensor:
        """Ask the model as in the run's test: in evaluation mode, over the same views, of scenes through windows.

        Shapes: (N, C, H, W) as `preprocess` gives it -> (N, classes), of scenes (N, classes, H, W).
        """
        with in_eval_mode(self.model):
            said: Tensor = self.task.predict(self.model, batch, tta=self.input.tta)
        return said.float()

    def predict(self, images: Images, *, top: int = 5) -> list[Prediction]:
        """Say what is on images: one of Pillow's, a uint8 tensor (C, H, W) or (N, C, H, W), or several of them.

        Args:
            top: how many classes to name; more than there are gives all.

        Raises: as `Preprocess`; ValueError for a `top` below 1.
        """
        if top < 1:
            raise ValueError(f"expected a top of at least 1 class, got {top}")
        if isinstance(images, Image.Image) or (isinstance(images, Tensor) and images.dim() == 3):
            images = [images]
        if self.input.task == "segmentation":
            return [self._scene(image, top) for image in images]
        found: list[Prediction] = []
        for start in range(0, len(images), BATCH):
            shares = self.logits(self.preprocess(images[start : start + BATCH])).softmax(1).cpu()
            found += [self._named(row, top) for row in shares]
        return found

    def _scene(self, image: Image.Image | Tensor, top: int) -> Prediction:
        """Give every pixel of a scene a class, at the size that the scene is seen in."""
        if isinstance(image, Image.Image):
            image = flat(image, gray=self.input.channels == 1)
        size = (image.height, image.width) if isinstance(image, Image.Image) else image.shape[1:]
        logits = nn.functional.interpolate(self.logits(self.preprocess(image)), tuple(size), mode="bilinear")
        pixels = logits[0].argmax(0).to(torch.uint8).cpu()
        counts = torch.bincount(pixels.flatten(), minlength=len(self.classes))
        named = self._named(counts / counts.sum(), top)
        return Prediction(named.classes, named.shares, pixels)

    def _named(self, shares: Tensor, top: int) -> Prediction:
        best = shares.topk(min(top, len(self.classes)))
        return Prediction(tuple(self.classes[number] for number in best.indices.tolist()), tuple(best.values.tolist()))


def load_run(
    path: str | os.PathLike[str],
    *,
    variant: str | None = None,
    seed: int | None = None,
    build: Build | str | None = None,
    device: str | torch.device = "auto",
) -> TrainedRun:
    """Load a finished run: network, preprocessing, classes.

    Args:
        path: of a run's folder, its `checkpoint.safetensors` (which alone suffices), or a study's `--out` folder.
        variant, seed: which of a study's runs, the variant in the notation.
        build: of a network of the user's own the function that builds it, or its place: "mynet.py:make". A run never
            says which code to execute.
        device: "auto" for a GPU if there is one.

    Raises: FileNotFoundError if there is no finished run; ValueError if several fit, saying which there are, or the
    weights are damaged, do not fit, or do not say what the network takes.
    """
    weights = _weights(Path(path).expanduser(), variant, seed)
    said, state = read_input(weights), read_weights(weights)
    there = runtime.pick_device(str(device))
    function = function_of(parse(said.variant), build)
    model = build_variant(
        parse(said.variant),
        classes=len(said.classes),
        channels=said.channels,
        image_size=said.size,
        seed=0,
        stem=stem_of(state),
        custom=function,
        task=said.task,
    )
    refuse_unusable(state, model.state_dict(), str(weights))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit {said.variant}: {error}") from error
    as_trained = _is_of_its_make(weights, parse(said.variant), function)
    if not as_trained:
        warnings.warn(OTHER_SOURCE.format(said.variant), stacklevel=2)
    model = model.eval().to(there).to(memory_format=torch.channels_last)
    return TrainedRun(weights, said, model, preprocess_for(said, there), as_trained)


def _is_of_its_make(weights: Path, variant: Variant, function: Build | None) -> bool:
    """Tell whether a network of the user's own is what the run was trained with, as far as its config.json is here."""
    try:
        config = json.loads(weights.with_name("config.json").read_text())
        config = config.get("run", config)  # of a folder that `save_pretrained` wrote
        then, seed = config.get("code"), config["seed"]
    except (OSError, ValueError, KeyError, AttributeError):  # the weights were taken away alone
        return True
    return function is None or not then or identity_of(function, seed, variant.network) == then


def preprocess_for(said: Input, device: torch.device) -> Preprocess:
    """Make what brings images to what a network takes."""
    return Preprocess(
        channels=said.channels,
        size=said.size,
        mean=said.mean,
        std=said.std,
        resize=said.test_resize,
        square=said.test_square,
        streamed=said.streamed,
        prepared=said.prepared,
        scale=None if said.crop_size is None else said.scene_scale,
        device=device,
    )


def _weights(path: Path, variant: str | None, seed: int | None) -> Path:
    """Find the weights: a file, those of a run's folder, or of the one run of a study that fits."""
    if path.is_file():
        if variant is not None or seed is not None:
            raise ValueError(
                f"{path} is one network's file, and variant and seed choose among a study's; leave them out"
            )
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"there is no run {path}; give a run's folder, its {WEIGHTS}, or a study's --out")
    if (path / "config.json").is_file():
        if not finished(path):
            raise FileNotFoundError(f"{path} holds no finished run (no result.json); train it to the end first")
        folders = [path]
    else:
        runs = path if path.name == "runs" else path / "runs"
        folders = [folder for folder in sorted(runs.glob("*")) if finished(folder)]
    if not folders:
        raise FileNotFoundError(f"{path} is no run, and no study with finished runs (runs/*/result.json); give one")
    known = {folder: _identity(folder) for folder in folders}
    wanted = None if variant is None else str(parse(variant))
    fitting = [folder for folder in folders if wanted in (None, known[folder][0]) and seed in (None, known[folder][1])]
    if len(fitting) == 1:
        return fitting[0] / WEIGHTS
    there = offenders(
        [f"{known[folder][0]!r}, seed {known[folder][1]} ({folder.name})" for folder in fitting or folders]
    )
    if fitting:
        raise ValueError(f"{len(fitting)} runs in {path} fit; name variant and seed, or one folder; there are {there}")
    asked = f"{wanted or 'any variant'}, {'any seed' if seed is None else f'seed {seed}'}"
    raise ValueError(f"no finished run in {path} is {asked}; there are {there}")


def _identity(folder: Path) -> tuple[str, int]:
    """Read variant and seed of a run."""
    try:
        config = read_config(folder)
        return config["variant"], config["seed"]
    except (OSError, ValueError, KeyError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise damaged(folder, f"config.json: {said}") from error
