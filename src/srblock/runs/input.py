"""What a trained network takes and says: all that is needed to use its weights away from the data it was trained on.

It stands in `config.json` of the run under "input", and as JSON text in the header of `checkpoint.safetensors`, so that
this one file suffices. It is no part of a run's identity.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from safetensors import SafetensorError, safe_open

from srblock import __version__
from srblock.data import Batches, ImageData, SceneData
from srblock.data.image_files import MEAN, STD
from srblock.data.scenes import Color
from srblock.training.fields import read_json, require, require_kinds
from srblock.training.recipe import Recipe
from srblock.variants.notation import Variant


@dataclass(frozen=True)
class Input:
    """What a network takes and says.

    Attributes:
        variant: in the notation; with channels, size and the number of classes it builds the network.
        task: see `srblock.training.task`.
        classes: names, in the order of the outputs.
        channels, size: of the images; size is (H, W).
        mean, std: of each channel, for pixels in 0..1: the network takes (pixel - mean) / std.
        test_resize: an image has its short side resized to so many pixels, bilinear with antialiasing, and its center
            of `size` cut; None for the short side of `size`.
        test_square: both sides are resized to test_resize instead.
        scene_scale: of scenes both sides are multiplied by it, bilinear with antialiasing; they are looked at through
            windows of `size` (`training.segmentation.slide`).
        srblock: the version that trained it.
        streamed: whether images were decoded while training (`data.loading.preprocess` says what follows).
        tta, inference: how the network was tested, see `training.recipe`.
        prepared: whether images came from datasets of the user's own, whose transform nobody else knows.
        colors: of scenes, a color (red, green, blue) for each class, for pictures.
    """

    variant: str
    task: str
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test_resize: int | None
    test_square: bool
    srblock: str
    scene_scale: float = 1.0
    streamed: bool = False
    tta: str = "none"
    inference: str = "slide"
    colors: tuple[Color, ...] = ()
    prepared: bool = False

    @property
    def crop_size(self) -> tuple[int, int] | None:
        """The size of the windows through which scenes are looked at; None for images with one class each."""
        return self.size if self.task == "segmentation" else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @property
    def header(self) -> dict[str, str]:
        """Return it as the header of a safetensors file can hold it."""
        return {"input": json.dumps(self.as_dict())}


def describe_input(variant: Variant, data: ImageData | SceneData, recipe: Recipe, test: Batches) -> Input:
    """Describe what a variant's network takes; `test` is the loader of the run's test images."""
    return Input(
        variant=str(variant),
        task=data.task,
        classes=data.classes,
        channels=data.channels,
        size=recipe.crop_size or data.size,
        mean=test.mean,
        std=test.std,
        test_resize=recipe.test_resize,
        test_square=recipe.test_square,
        srblock=__version__,
        scene_scale=recipe.scene_scale,
        streamed=data.streamed,
        tta=recipe.tta,
        inference=recipe.inference,
        colors=data.colors if isinstance(data, SceneData) else (),
        prepared=isinstance(data, ImageData) and data.prepared,
    )


def read_input(weights: Path) -> Input:
    """Read what a network takes from the header of its `checkpoint.safetensors`.

    Raises: ValueError if the file is missing or damaged, says nothing of it, or more than this version knows.
    """
    try:
        with safe_open(weights, framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights} is no whole safetensors file ({error}); copy it again") from error
    if "input" not in header:
        lacking = ", ".join(field.name for field in fields(Input) if field.default is MISSING)
        raise ValueError(
            f"the header of {weights} does not say what the network takes ({lacking}): it was written by an older "
            "version of srblock, or elsewhere; train the run anew, or take them from where it was trained"
        )
    said = _parsed(weights, header["input"])
    needed = {field.name for field in fields(Input) if field.default is MISSING}
    if not needed <= said.keys() <= {field.name for field in fields(Input)}:
        raise ValueError(
            f"the header of {weights} was written by srblock {said.get('srblock')} and this is {__version__}, which "
            "expects other entries; read it with that version"
        )
    try:
        _check(said)
    except ValueError as error:
        raise ValueError(f"the header of {weights} is damaged ({error}); copy the file again") from error
    if "streamed" not in said:  # written before it was said
        said |= _not_said(said, weights.with_name("config.json"))
    said |= {"colors": [tuple(color) for color in said.get("colors", ())]}
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}
    return Input(**values)


def _parsed(weights: Path, text: str) -> dict[str, Any]:
    try:
        said = read_json(text)
        require(isinstance(said, dict), "input", said, "fields by name")
    except ValueError as error:
        raise ValueError(f"the header of {weights} is damaged ({error}); copy the file again") from error
    found: dict[str, Any] = said
    return found


def _check(said: dict[str, Any]) -> None:
    """Check kinds and ranges of what a header says.

    Raises: ValueError naming the field.
    """
    require_kinds(said, get_type_hints(Input), "input")
    classes, channels, colors = said["classes"], said["channels"], said.get("colors", [])
    require(len(classes) >= 2 and all(classes), "input classes", classes, "two names or more")
    require(channels >= 1, "input channels", channels, "1 or more")
    require(min(said["size"]) >= 1, "input size", said["size"], "height and width from 1 on")
    for name in ("mean", "std"):
        require(len(said[name]) == channels, f"input {name}", said[name], f"a number for each of {channels} channels")
    require(min(said["std"]) > 0, "input std", said["std"], "numbers above 0")
    resize, scale = said["test_resize"], said.get("scene_scale", 1.0)
    require(resize is None or resize >= 1, "input test_resize", resize, "1 or more pixels")
    require(scale > 0, "input scene_scale", scale, "a factor above 0")
    whole = len(colors) in (0, len(classes)) and all(0 <= value <= 255 for color in colors for value in color)
    require(whole, "input colors", colors, "a color of 0 to 255 for each class")


def _not_said(said: dict[str, Any], config: Path) -> dict[str, Any]:
    """Work out what headers left unsaid at first: the constants of streamed sets are nobody else's."""
    found = {"streamed": (tuple(said["mean"]), tuple(said["std"])) == (MEAN, STD)}
    try:
        recipe = json.loads(config.read_text())["recipe"]
    except (OSError, ValueError, KeyError):  # the weights were taken away alone
        return found
    return found | {name: recipe[name] for name in ("tta", "inference") if name in recipe}
