"""Which fields of a recipe a page shows."""

from __future__ import annotations

from dataclasses import fields, replace

from srblock.report.recipes import BELONGS, OFF, SETTINGS, applying
from srblock.training.recipe import LATER, RECIPES, Recipe

OF_SCENES = {"crop_size", "ratios", "class_share", "inference"}


def test_what_takes_no_part_is_left_out() -> None:
    """The paper's recipe for CIFAR-100 by hand: no field of a cosine, of poly, of scenes, and none that is off."""
    assert applying(RECIPES["cifar100"]) == {
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "multistep",
        "milestones": [60, 120, 160],
        "gamma": 0.2,
        "padding": 4,
        "flip": True,
        "validation_fraction": 0.1,
        "precision": "float32",
        "memory_format": "channels_last",
    }


def test_what_belongs_to_something_is_shown_with_it() -> None:
    assert not {"milestones", "gamma"} & applying(RECIPES["short"]).keys()
    assert applying(RECIPES["short"])["nesterov"] is True
    scenes = applying(RECIPES["cityscapes"])
    assert {*OF_SCENES, "power", "end_lr"} <= scenes.keys()
    assert not {"padding", "padding_mode", "test_resize", "test_square", "scene_scale"} & scenes.keys()
    reflected = replace(Recipe(), padding_mode="reflect")
    assert applying(reflected)["padding_mode"] == "reflect"
    assert "padding_mode" not in applying(replace(reflected, padding=0))


def test_a_field_that_is_off_is_shown_once_it_is_used() -> None:
    off = applying(Recipe())
    assert not off.keys() & {*OFF, *LATER} - {"padding"}
    on = applying(replace(Recipe(), clip_norm=1.0, lookahead=True, tta="flip", crop="resized"))
    assert on.items() >= {"clip_norm": 1.0, "lookahead": True, "tta": "flip", "crop": "resized"}.items()


def test_the_rules_name_fields() -> None:
    assert {*BELONGS, *OFF, *SETTINGS} <= {field.name for field in fields(Recipe)}
