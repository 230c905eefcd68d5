"""The state of an unfinished run: what is damaged or foreign is said, and never gone on from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from test_loop import RECIPE, lines, run
from torch import Tensor

from srblock.training.checkpoint import CheckpointError
from srblock.training.recipe import Recipe

State = dict[str, Tensor]
ADAMW = replace(RECIPE, optimizer="adamw", learning_rate=0.01)
STATE = "trainer.safetensors"


def half_done(folder: Path, recipe: Recipe = RECIPE, **options: Any) -> None:
    """Leave a run after two of its four epochs."""

    def stop(record: dict[str, Any]) -> None:
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, recipe=recipe, on_epoch=stop, **options)


def opened(file: Path) -> tuple[State, dict[str, str]]:
    with safe_open(file, "pt") as found:
        return {key: found.get_tensor(key) for key in found.keys()}, dict(found.metadata())  # noqa: SIM118


def rewritten(folder: Path, change: Callable[[State, dict[str, Any]], Any], *, signed: bool = False) -> None:
    """Change what a state says, as one written before there was a checksum, or with the one it had."""
    tensors, header = opened(folder / STATE)
    parts = {"metrics": json.loads(header["metrics"]), "header": header}
    change(tensors, parts)
    header["metrics"] = json.dumps(parts["metrics"])
    if not signed:
        del header["sha256"]
    save_file(tensors, folder / STATE, header)


@pytest.mark.parametrize(
    "recipe",
    [RECIPE, ADAMW, replace(RECIPE, ema=0.9), replace(RECIPE, momentum=0.0), replace(RECIPE, lookahead=True)],
)
def test_a_state_without_a_checksum_is_gone_on_from(tmp_path: Path, recipe: Recipe) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    run(whole, recipe=recipe)
    half_done(parts, recipe)
    rewritten(parts, lambda tensors, parts: None)
    run(parts, recipe=recipe)
    assert lines(parts) == lines(whole)
    assert (parts / "checkpoint.safetensors").read_bytes() == (whole / "checkpoint.safetensors").read_bytes()


def test_one_changed_weight_is_noticed(tmp_path: Path) -> None:
    half_done(tmp_path)

    def change(tensors: State, _: dict[str, Any]) -> None:
        tensors["momentum/0"].view(-1)[0] += 1e-3

    rewritten(tmp_path, change, signed=True)
    with pytest.raises(CheckpointError, match=r"is damaged \(its content is not .* delete it to start this run again"):
        run(tmp_path)


def drop(*keys: str) -> Callable[[State, dict[str, Any]], None]:
    return lambda tensors, parts: [tensors.pop(key) for key in keys] and None


def put(**given: Tensor) -> Callable[[State, dict[str, Any]], None]:
    return lambda tensors, parts: tensors.update({key.replace("__", "/"): value for key, value in given.items()})


def epochs(change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[State, dict[str, Any]], None]:
    return lambda tensors, parts: parts.update(metrics=change(parts["metrics"]))


ONE = torch.ones(())
SGD_CASES = {
    "a shape that broadcasts": (put(momentum__0=torch.ones(3)), r"momentum/0 is \(3,\) .*expected \(8, 1, 3, 3\)"),
    "a number for all": (put(momentum__0=ONE), r"momentum/0 is \(\) .*expected \(8, 1, 3, 3\)"),
    "another kind of number": (put(momentum__1=torch.ones(8, dtype=torch.float64)), r"momentum/1 is .*float64, expect"),
    "a parameter too many": (put(momentum__99=ONE), r"momentum/99 is in one of them alone"),
    "another optimizer's": (put(exp_avg__0=torch.ones(8, 1, 3, 3)), r"exp_avg/0 is in one of them alone"),
    "no momentum": (drop(*(f"momentum/{number}" for number in range(6))), r"lacks momentum, the state of the optim"),
    "an average without one": (put(slow__0=ONE), r"slow does not fit the network: 0 is in one"),
    "an unknown part": (put(other__0=ONE), r"it has 'other/0', expected one of model, best"),
    "no random state": (drop("rng/cpu"), r"it lacks rng"),
    "a foreign random state": (put(rng__cpu=torch.zeros(3, dtype=torch.uint8)), r"its random state"),
    "half of the best": (drop("best/0.weight"), r"best does not fit the network"),
    "a running mean for all": (put(**{"model__1.running_mean": ONE}), r"model does not fit .*1.running_mean is \(\)"),
    "no epochs": (epochs(lambda found: []), r"the list of epochs is \[\]"),
    "epochs of no kind": (epochs(lambda found: 7), r"the list of epochs is 7"),
    "an epoch that is left out": (epochs(lambda found: found[1:]), r"epoch 1: its number is 2, expected 1"),
    "more epochs than the run has": (
        epochs(lambda found: [found[0] | {"epoch": number} for number in range(1, 6)]), r"has 5 finished epochs.* has 4"
    ),
    "an accuracy beyond all": (
        epochs(lambda found: [found[0] | {"validation_top1": 1e9}]), r"validation_top1 is 1000000000.0"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SGD_CASES)
def test_what_does_not_fit_is_refused(tmp_path: Path, case: str) -> None:
    change, message = SGD_CASES[case]
    half_done(tmp_path)
    rewritten(tmp_path, change)
    with pytest.raises(CheckpointError, match=rf"(?s){STATE} is damaged \(.*{message}.*delete it to start"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("step/0"), r"step/0 is in one of them alone"),
        (put(step__0=torch.ones(1)), r"step/0 is \(1,\) .*expected \(\)"),
        (put(exp_avg_sq__0=torch.ones(8, 1, 1, 1)), r"exp_avg_sq/0 is \(8, 1, 1, 1\)"),
        (put(momentum__0=torch.ones(8, 1, 3, 3)), r"momentum/0 is in one of them alone"),
    ],
)
def test_what_adamw_keeps_must_be_whole(
    tmp_path: Path, change: Callable[[State, dict[str, Any]], None], message: str
) -> None:
    half_done(tmp_path, ADAMW)
    rewritten(tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path, recipe=ADAMW)


def test_an_average_must_be_whole(tmp_path: Path) -> None:
    recipe = replace(RECIPE, ema=0.9)
    half_done(tmp_path, recipe)
    rewritten(tmp_path, put(**{"slow__0.bias": ONE}))
    with pytest.raises(CheckpointError, match=r"slow .* 0.bias is \(\) .*expected \(8,\)"):
        run(tmp_path, recipe=recipe)
    rewritten(tmp_path, drop("slow/0.bias"), signed=True)
    with pytest.raises(CheckpointError, match=r"slow does not fit the network: 0.bias"):
        run(tmp_path, recipe=recipe)
