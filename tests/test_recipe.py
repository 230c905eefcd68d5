"""Recipes refuse what cannot be trained, survive JSON, and keep their shape when shortened."""

import json
import math
from dataclasses import replace

import pytest

from srblock.training.recipe import LATER, RECIPES, Recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epoch_steps": 0}, "epoch_steps must be at least 1 or None, got 0"),
        ({"power": 0.0}, "power must be positive and finite, got 0.0"),
        ({"memory_lr_scale": 0.0}, "memory_lr_scale must be positive and finite, or None, got 0.0"),
        ({"memory_lr_scale": math.inf}, "memory_lr_scale must be positive and finite, or None, got inf"),
        ({"memory_weight_decay": -1e-4}, "memory_weight_decay must be at least 0 and finite, or None, got -0.0001"),
        ({"batch_size": 1}, "batch norm needs two images"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": math.inf}, "learning_rate must be positive and finite, got inf"),
        ({"weight_decay": math.inf}, "weight_decay must not be negative or infinite, got inf"),
        ({"clip_norm": math.inf}, "clip_norm must be positive and finite, or None, got inf"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov needs a momentum"),
        ({"weight_decay": -1e-4}, "weight_decay must not be negative or infinite"),
        ({"gamma": 0.0}, "gamma must be positive"),
        ({"milestones": (60, 30)}, "milestones must be increasing"),
        ({"milestones": (0, 30)}, "milestones must be increasing epochs from 1 on"),
        ({"warmup_epochs": 200}, "warmup_epochs must be in 0..epochs-1 = 199, got 200"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"clip_norm": 0.0}, "clip_norm must be positive and finite, or None"),
        ({"padding": -1}, "padding must not be negative"),
        ({"validation_fraction": -0.1}, "validation_fraction must be at least 0 and below 1, got -0.1"),
        ({"schedule": "step"}, "schedule must be one of multistep, cosine, poly, triangular, got 'step'"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16"),
        ({"memory_format": "nhwc"}, "memory_format must be one of"),
        ({"crop": "center"}, "crop must be one of padded, resized, scene, got 'center'"),
        ({"engine": "jit"}, "engine must be one of eager, compile, graph"),
        ({"test_resize": 0}, "test_resize must be at least 1 or None, got 0"),
        ({"test_square": True}, "test_square needs test_resize"),
        ({"bias_lr_scale": 0.0}, "bias_lr_scale must be positive and finite, got 0.0"),
        ({"padding_mode": "wrap"}, "padding_mode must be one of zeros, reflect, got 'wrap'"),
        ({"tta": "crop"}, "tta must be one of none, flip, flip[+]translate, multiscale, multiscale[+]flip, got 'crop'"),
        ({"crop": "scene"}, 'crop_size must be .H, W. in pixels for crop "scene" and None for others, got None'),
        ({"crop_size": (8, 8)}, "crop_size must be"),
        ({"crop": "scene", "crop_size": (8,)}, "crop_size must be"),
        ({"scene_scale": 0.0}, "scene_scale must be above 0"),
        ({"ratios": (2.0, 0.5)}, "ratios must be .low, high. above 0"),
        ({"class_share": 0.0}, "class_share must be above 0"),
        ({"inference": "center"}, "inference must be one of slide, whole, got 'center'"),
        ({"schedule": "poly", "end_lr": 0.1}, "end_lr must be at least 0 and below 0.1, the rate"),
        ({"end_lr": 0.01}, "end_lr belongs to the schedule poly, got 0.01 with multistep"),
        ({"schedule": "triangular", "warmup_epochs": 2}, "triangular has a rise of its own, got warmup_epochs=2"),
        ({"flip": False, "alternating_flip": True}, "alternating_flip needs flip"),
        ({"optimizer": "adam"}, "optimizer must be one of sgd, adamw, got 'adam'"),
        ({"optimizer": "adamw", "nesterov": True}, "nesterov and decoupled are of SGD"),
        ({"norm_weight_decay": -1.0}, "norm_weight_decay must be at least 0"),
        ({"backbone_lr_scale": 0.0}, "backbone_lr_scale must be positive"),
        ({"lr_scales": ("fc",)}, "lr_scales are PATTERN=FACTOR with a factor above 0, such as .*, got 'fc'"),
        ({"lr_scales": ("fc.*=0",)}, "lr_scales are PATTERN=FACTOR"),
        ({"lr_scales": ("fc.*=1e999",)}, "lr_scales are PATTERN=FACTOR"),
        ({"freeze_epochs": 200}, "freeze_epochs must be in 0..epochs-1 = 199, got 200"),
        ({"auto_augment": "autoaugment"}, "auto_augment must be one of none, trivialaugment, randaugment"),
        ({"augment_magnitude": 31}, r"augment_magnitude must be in 0..30, got 31"),
        ({"random_erasing": 1.5}, "random_erasing must be in 0..1"),
        ({"mixup": 8.0}, "mixup must be in 0..1"),
        ({"cutmix": -1.0}, "cutmix must be in 0..1"),
        ({"ema": 1.0}, "ema must be between 0 and 1, or None, got 1.0"),
        ({"ema": 0.9, "lookahead": True}, "ema and lookahead both average"),
        ({"class_weights": "rare"}, "class_weights must be one of none, balanced"),
        ({"crop": "scene", "crop_size": (8, 8), "mixup": 0.2}, "mixup is for images with one class each, got 0.2"),
    ],
)
def test_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Recipe(), **change)


@pytest.mark.parametrize("name", RECIPES)
def test_survives_json(name: str) -> None:
    recipe = RECIPES[name]
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_names_a_field_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="does not know the recipe fields sam_rho"):
        Recipe.from_dict(Recipe().as_dict() | {"sam_rho": 0.2})


def test_the_papers_cifar_recipes() -> None:
    """Sec. IV-A: batch 128, rate 0.1, momentum 0.9; decay and milestones by data set."""
    ten, hundred = RECIPES["cifar10"], RECIPES["cifar100"]
    for recipe in (ten, hundred):
        assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.momentum) == (200, 128, 0.1, 0.9)
        assert (recipe.nesterov, recipe.clip_norm, recipe.padding, recipe.validation_fraction) == (False, None, 4, 0.1)
    assert (ten.milestones, ten.gamma, ten.weight_decay) == ((90, 136), 0.1, 1e-4)
    assert (hundred.milestones, hundred.gamma, hundred.weight_decay) == ((60, 120, 160), 0.2, 5e-4)


def test_the_papers_imagenet_recipe() -> None:
    """App. VI: 450 epochs, batch 128, rate 0.1 times 0.1 at 75, 150, 225, 300, 375, decay 1e-4; crops of 224."""
    recipe = RECIPES["imagenet"]
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.momentum) == (450, 128, 0.1, 0.9)
    assert (recipe.milestones, recipe.gamma, recipe.weight_decay) == ((75, 150, 225, 300, 375), 0.1, 1e-4)
    assert (recipe.crop, recipe.padding, recipe.flip, recipe.test_resize) == ("resized", 0, True, 256)
    assert not recipe.sync_batch_norm


def test_the_papers_cityscapes_recipe() -> None:
    """App. VII-C: rate 0.01 to 1e-4 by a polynomial of power 0.9, decay 5e-4, 80,000 steps, tested every 8,000."""
    recipe = RECIPES["cityscapes"]
    assert (recipe.learning_rate, recipe.end_lr, recipe.power, recipe.momentum) == (0.01, 1e-4, 0.9, 0.9)
    assert (recipe.schedule, recipe.weight_decay, recipe.batch_size) == ("poly", 5e-4, 8)
    assert recipe.epoch_steps == 8000
    assert recipe.epochs * recipe.epoch_steps == 80_000
    assert (recipe.crop_size, recipe.ratios, recipe.class_share) == ((512, 1024), (0.5, 2.0), 0.75)
    assert recipe.photometric
    assert recipe.flip


def test_a_field_added_later_changes_the_identity_only_where_it_is_used() -> None:
    assert not set(LATER) & set(Recipe().identity)
    used = {
        "crop": "resized", "test_resize": 256, "sync_batch_norm": True, "engine": "compile", "epoch_steps": 100,
        "power": 2.0, "memory_lr_scale": 3.0, "memory_weight_decay": 0.0, "decoupled": True, "bias_lr_scale": 64.0,
        "lookahead": True, "padding_mode": "reflect", "alternating_flip": True, "tta": "flip", "scene_scale": 0.5,
        "ratios": [0.8, 1.2], "class_share": 1.0, "photometric": True, "inference": "whole",
        "optimizer": "adamw", "norm_weight_decay": 0.0, "backbone_lr_scale": 0.1, "lr_scales": ["fc.*=2"],
        "freeze_epochs": 1, "auto_augment": "randaugment", "augment_magnitude": 5, "random_erasing": 0.1,
        "mixup": 0.2, "cutmix": 1.0, "ema": 0.99, "class_weights": "balanced",
    }  # fmt: skip
    assert set(used) | {"test_square", "end_lr", "crop_size"} == set(LATER)
    for name, value in used.items():
        assert replace(Recipe(), **{name: value}).identity == Recipe().identity | {name: value}
    assert set(Recipe().as_dict()) == set(Recipe().identity) | set(LATER)


@pytest.mark.parametrize(
    ("epochs", "milestones"), [(200, (60, 120, 160)), (30, (9, 18, 24)), (400, (120, 240, 320)), (2, (1,)), (1, ())]
)
def test_milestones_keep_their_share(epochs: int, milestones: tuple[int, ...]) -> None:
    shorter = RECIPES["cifar100"].with_epochs(epochs)
    assert (shorter.epochs, shorter.milestones) == (epochs, milestones)


def test_warmup_keeps_its_share_and_never_fills_the_run() -> None:
    short = RECIPES["short"]
    assert short.with_epochs(short.epochs * 3).warmup_epochs == 3 * short.warmup_epochs
    assert short.with_epochs(1).warmup_epochs == 0


def test_frozen_epochs_keep_their_share_and_never_fill_the_run() -> None:
    finetune = RECIPES["finetune"]
    assert [finetune.with_epochs(epochs).freeze_epochs for epochs in (1, 2, 3, 20)] == [0, 1, 1, 2]
    assert RECIPES["short"].with_epochs(50).freeze_epochs == 0
