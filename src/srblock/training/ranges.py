"""What values the fields of a recipe may have, alone and together."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from srblock.data.loading.loader import CROPS, PADDING_MODES
from srblock.data.loading.policies import BINS, POLICIES

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("multistep", "cosine", "poly", "triangular")
PRECISIONS = ("float32", "bfloat16")
MEMORY_FORMATS = ("contiguous", "channels_last")
TTA = ("none", "flip", "flip+translate", "multiscale", "multiscale+flip")
INFERENCE = ("slide", "whole")
CLASS_WEIGHTS = ("none", "balanced")
ENGINES = ("eager", "compile", "graph", "compile+graph")
OF_IMAGES = ("auto_augment", "random_erasing", "mixup", "cutmix", "class_weights")
_TO_IMAGES = ("images with one class each", lambda recipe: recipe.crop != "scene")
_TO_SCENES = ("scenes", lambda recipe: recipe.crop == "scene")
BELONGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "milestones": ("the schedule multistep", lambda recipe: recipe.schedule == "multistep"),
    "gamma": ("the milestones of multistep", lambda recipe: recipe.schedule == "multistep" and bool(recipe.milestones)),
    "power": ("the schedule poly", lambda recipe: recipe.schedule == "poly"),
    "end_lr": ("the schedule poly", lambda recipe: recipe.schedule == "poly"),
    "padding": ("the crop padded", lambda recipe: recipe.crop == "padded"),
    "padding_mode": ("a padding above 0", lambda recipe: recipe.crop == "padded" and recipe.padding > 0),
    "augment_magnitude": ("randaugment", lambda recipe: recipe.auto_augment == "randaugment"),
    **dict.fromkeys(("alternating_flip", "test_resize", "test_square", *OF_IMAGES), _TO_IMAGES),
    **dict.fromkeys(("crop_size", "scene_scale", "ratios", "class_share", "photometric", "inference"), _TO_SCENES),
}
"""To what a field belongs that means nothing by itself, and whether a recipe has that."""


def scale_of(text: str) -> tuple[str, float]:
    """Read one of `lr_scales`.

    >>> scale_of("layer1.*=0.1")
    ('layer1.*', 0.1)

    Raises: ValueError for anything else.
    """
    pattern, _, factor = text.rpartition("=")
    if not pattern or not re.fullmatch(r"\d*\.?\d+(e-?\d+)?", factor) or not 0 < float(factor) < math.inf:
        raise ValueError(f"lr_scales are PATTERN=FACTOR with a factor above 0, such as 'layer1.*=0.1', got {text!r}")
    return pattern, float(factor)


def refuse_idle(recipe: Any, given: Iterable[str]) -> None:
    """Refuse fields that were asked for and would do nothing in a recipe.

    Raises: ValueError naming the field and what it belongs to.
    """
    for name in given:
        if name in BELONGS and not BELONGS[name][1](recipe):
            came = f"{name} {getattr(recipe, name)}"
            raise ValueError(
                f"{name} belongs to {BELONGS[name][0]} and would do nothing here, got {came}; leave it out"
            )


def check(recipe: Any) -> None:
    """Check a `recipe.Recipe`, which calls this when it is made.

    Raises: ValueError naming the field, what it must be and what came.
    """
    for name, ok, expected in (
        ("epochs", recipe.epochs >= 1, "be at least 1"),
        ("epoch_steps", recipe.epoch_steps is None or recipe.epoch_steps >= 1, "be at least 1 or None"),
        ("batch_size", recipe.batch_size >= 2, "be at least 2 (batch norm needs two images)"),
        ("learning_rate", 0 < recipe.learning_rate < math.inf, "be positive and finite"),
        ("momentum", 0 <= recipe.momentum < 1, "be in [0, 1)"),
        ("weight_decay", 0 <= recipe.weight_decay < math.inf, "not be negative or infinite"),
        (
            "memory_lr_scale",
            recipe.memory_lr_scale is None or 0 < recipe.memory_lr_scale < math.inf,
            "be positive and finite, or None",
        ),
        (
            "memory_weight_decay",
            0 <= (recipe.memory_weight_decay or 0) < math.inf,
            "be at least 0 and finite, or None",
        ),
        ("power", 0 < recipe.power < math.inf, "be positive and finite"),
        (
            "end_lr",
            0 <= recipe.end_lr < recipe.learning_rate,
            f"be at least 0 and below {recipe.learning_rate}, the rate",
        ),
        (
            "crop_size",
            (recipe.crop_size is not None) == (recipe.crop == "scene")
            and (recipe.crop_size is None or (len(recipe.crop_size) == 2 and min(recipe.crop_size) >= 1)),
            'be (H, W) in pixels for crop "scene" and None for others',
        ),
        ("scene_scale", 0 < recipe.scene_scale <= 8, "be above 0 and at most 8"),
        (
            "ratios",
            len(recipe.ratios) == 2 and 0 < recipe.ratios[0] <= recipe.ratios[1] <= 8,
            "be (low, high) above 0 and at most 8",
        ),
        ("class_share", 0 < recipe.class_share <= 1, "be above 0 and at most 1"),
        ("gamma", 0 < recipe.gamma < math.inf, "be positive and finite"),
        (
            "milestones",
            list(recipe.milestones) == sorted({m for m in recipe.milestones if m >= 1}),
            "be increasing epochs from 1 on",
        ),
        (
            "warmup_epochs",
            0 <= recipe.warmup_epochs < recipe.epochs or recipe.warmup_epochs == 0,
            f"be in 0..epochs-1 = {recipe.epochs - 1}",
        ),
        ("label_smoothing", 0 <= recipe.label_smoothing < 1, "be in [0, 1)"),
        ("clip_norm", recipe.clip_norm is None or 0 < recipe.clip_norm < math.inf, "be positive and finite, or None"),
        ("padding", recipe.padding >= 0, "not be negative"),
        ("test_resize", recipe.test_resize is None or recipe.test_resize >= 1, "be at least 1 or None"),
        ("validation_fraction", 0 <= recipe.validation_fraction < 1, "be at least 0 and below 1"),
        ("bias_lr_scale", 0 < recipe.bias_lr_scale < math.inf, "be positive and finite"),
        ("backbone_lr_scale", 0 < recipe.backbone_lr_scale < math.inf, "be positive and finite"),
        (
            "norm_weight_decay",
            0 <= (recipe.norm_weight_decay or 0) < math.inf,
            "be at least 0 and finite, or None",
        ),
        (
            "freeze_epochs",
            0 <= recipe.freeze_epochs < recipe.epochs or recipe.freeze_epochs == 0,
            f"be in 0..epochs-1 = {recipe.epochs - 1}",
        ),
        ("augment_magnitude", 0 <= recipe.augment_magnitude < BINS, f"be in 0..{BINS - 1}"),
        ("random_erasing", 0 <= recipe.random_erasing <= 1, "be in 0..1"),
        ("mixup", 0 <= recipe.mixup <= 1, "be in 0..1"),
        ("cutmix", 0 <= recipe.cutmix <= 1, "be in 0..1"),
        ("ema", recipe.ema is None or 0 < recipe.ema < 1, "be between 0 and 1, or None"),
    ):
        if not ok:
            raise ValueError(f"{name} must {expected}, got {getattr(recipe, name)}")
    for name, known in (
        ("schedule", SCHEDULES),
        ("precision", PRECISIONS),
        ("memory_format", MEMORY_FORMATS),
        ("crop", (*CROPS, "scene")),
        ("engine", ENGINES),
        ("padding_mode", PADDING_MODES),
        ("tta", TTA),
        ("inference", INFERENCE),
        ("optimizer", OPTIMIZERS),
        ("auto_augment", POLICIES),
        ("class_weights", CLASS_WEIGHTS),
    ):
        if getattr(recipe, name) not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(recipe, name)!r}")
    _check_pairs(recipe)
    for text in recipe.lr_scales:
        scale_of(text)


def _check_pairs(recipe: Any) -> None:
    """Refuse fields that do not go together."""
    if recipe.nesterov and recipe.momentum == 0:
        raise ValueError("nesterov needs a momentum above 0, got 0")
    if recipe.end_lr and recipe.schedule != "poly":
        raise ValueError(f"end_lr belongs to the schedule poly, got {recipe.end_lr} with {recipe.schedule}")
    if recipe.test_square and recipe.test_resize is None:
        raise ValueError("test_square needs test_resize, the side to resize to")
    if recipe.schedule == "triangular" and recipe.warmup_epochs:
        raise ValueError(f"the schedule triangular has a rise of its own, got warmup_epochs={recipe.warmup_epochs}")
    if recipe.alternating_flip and not recipe.flip:
        raise ValueError("alternating_flip needs flip, got flip=False")
    if recipe.optimizer == "adamw" and (recipe.nesterov or recipe.decoupled):
        raise ValueError("nesterov and decoupled are of SGD; adamw has neither")
    if recipe.ema is not None and recipe.lookahead:
        raise ValueError("ema and lookahead both average the weights; take one of them")
    if recipe.crop == "scene":
        for name in OF_IMAGES:
            if getattr(recipe, name) not in (0, "none"):
                raise ValueError(f"{name} is for images with one class each, got {getattr(recipe, name)} for scenes")
