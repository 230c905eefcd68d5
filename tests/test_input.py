"""What a run's folder says of its network's input: the constants that the loader applied, in both places."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_resume import study as tiny_study
from torch import Tensor

import srblock
from srblock.runs.input import Input, describe_input, read_input
from srblock.runs.records import RunConfig
from srblock.runs.run_one import Work, train_one
from srblock.runs.study import Study
from srblock.variants.build import build
from srblock.variants.notation import parse

CPU = torch.device("cpu")
Trained = tuple[Study, RunConfig, Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run with a block."""
    study, out = tiny_study(2), tmp_path_factory.mktemp("trained")
    config = study.runs[1]
    assert train_one(Work(study, out), config, CPU).ending == "done"
    return study, config, out / "runs" / config.name


def prepared(images: Tensor, said: Input) -> Tensor:
    """Do with uint8 images of the right size what is said."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (said.mean, said.std))
    return (images / 255 - mean) / std


def test_config_and_weights_say_what_the_network_takes(trained: Trained) -> None:
    said = read_input(trained[2] / "checkpoint.safetensors")
    assert json.loads((trained[2] / "config.json").read_text())["input"] == said.as_dict()
    assert (said.variant, said.task, said.classes) == ("R8 + D + SR(M=3, P=3)", "classification", ("left", "right"))
    assert (said.channels, said.size, said.test_resize, said.test_square) == (1, (8, 8), None, False)
    assert said.srblock == srblock.__version__


def test_its_constants_are_those_that_the_loader_applied(trained: Trained) -> None:
    """They are of the run's own part of the training images."""
    study, config, folder = trained
    said = read_input(folder / "checkpoint.safetensors")
    served = torch.cat([images for images, _ in study.loaders(config.seed, CPU).test.epoch(0)])
    torch.testing.assert_close(prepared(study.data.test_images, said), served)  # type: ignore[arg-type]
    other = describe_input(config.variant, study.data, study.recipe, study.loaders(config.seed + 1, CPU).test)
    assert other.mean != said.mean


def test_the_rule_for_test_images_is_the_recipes(trained: Trained) -> None:
    study, config, _ = trained
    recipe = replace(study.recipe, test_resize=9, test_square=True)
    said = describe_input(config.variant, study.data, recipe, study.loaders(0, CPU).test)
    assert (said.test_resize, said.test_square) == (9, True)


def test_the_weights_file_alone_gives_the_recorded_figure(trained: Trained) -> None:
    """As elsewhere: a network built and images prepared by what its header says, and nothing else."""
    study, _, folder = trained
    weights = folder / "checkpoint.safetensors"
    said = read_input(weights)
    model = build(parse(said.variant), classes=len(said.classes), channels=said.channels, image_size=said.size, seed=9)
    model.load_state_dict(load_file(weights))
    with torch.no_grad():
        logits = model.eval()(prepared(study.data.test_images, said))  # type: ignore[arg-type]
    top1 = 100 * (logits.argmax(1) == study.data.test_labels).float().mean().item()
    assert top1 == pytest.approx(json.loads((folder / "result.json").read_text())["test_top1"])


def test_weights_that_say_nothing_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(
        ValueError, match=r"does not say what the network takes \(variant, .*, srblock\): it was written by an older"
    ):
        read_input(tmp_path / "plain.safetensors")
    (tmp_path / "plain.safetensors").write_bytes(b"?")
    for name in ("plain.safetensors", "missing.safetensors"):
        with pytest.raises(ValueError, match=rf"{name} is no whole safetensors file .*; copy it again"):
            read_input(tmp_path / name)


def test_weights_of_another_version_are_refused(tmp_path: Path) -> None:
    header = {"input": json.dumps({"variant": "R8", "srblock": "9.9", "palette": "warm"})}
    save_file({"weight": torch.zeros(1)}, tmp_path / "newer.safetensors", header)
    with pytest.raises(ValueError, match=r"was written by srblock 9\.9 and this is"):
        read_input(tmp_path / "newer.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "Expecting property name"),
        ("7", "input is 7, expected fields by name"),
        ({"classes": None}, "input classes is None"),
        ({"classes": ["one"]}, r"input classes is \['one'\], expected two names or more"),
        ({"size": [8]}, r"input size is \[8\]"),
        ({"size": [0, 8]}, r"input size is \[0, 8\], expected height and width from 1 on"),
        ({"mean": [0.5, 0.5]}, "input mean is .*, expected a number for each of 1 channels"),
        ({"std": [0.0]}, r"input std is \[0.0\], expected numbers above 0"),
        ({"std": [float("nan")]}, "NaN is no number in JSON"),
        ({"channels": True}, "input channels is True, expected a whole number"),
        ({"test_resize": "9"}, "input test_resize is '9'"),
        ({"colors": [[1, 2, 300]] * 2}, "input colors is .*, expected a color of 0 to 255"),
    ],
)
def test_a_header_that_lies_names_the_field(tmp_path: Path, trained: Trained, change: Any, message: str) -> None:
    weights = trained[2] / "checkpoint.safetensors"
    said = json.dumps(read_input(weights).as_dict() | change) if isinstance(change, dict) else change
    save_file(load_file(weights), tmp_path / "checkpoint.safetensors", {"input": said})
    with pytest.raises(ValueError, match=rf"the header of .* is damaged \(.*{message}.*\); copy the file again"):
        read_input(tmp_path / "checkpoint.safetensors")
