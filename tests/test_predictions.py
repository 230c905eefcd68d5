"""What a run said of each test image: stored as measured, in order, and read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from run_fixture import BASELINE, write_run
from safetensors.numpy import load_file, save_file
from test_loop import CPU, RECIPE, TASK, loaders, network, run, striped

from srblock.data import Loader
from srblock.runs.records import finished, read_run
from srblock.training import checkpoint
from srblock.training.predictions import Predictions
from srblock.training.task import measure

FILE = "predictions.safetensors"


@pytest.mark.parametrize("tta", ["none", "flip"])
def test_what_was_said_gives_the_figure_of_the_test(tmp_path: Path, tta: str) -> None:
    """Of the selected epoch, not of the last, and averaged over the views that the figure is."""
    recipe = replace(RECIPE, learning_rate=0.003, tta=tta)
    model = network()
    result = run(tmp_path, model, recipe)
    stored = load_file(tmp_path / FILE)
    hits = int((stored["predictions"] == stored["labels"]).sum())
    assert 100 * (hits / 32) == result["test_top1"]
    images, labels = striped(32, 3)
    assert stored["labels"].tolist() == labels.tolist()
    assert stored["labels"].dtype == stored["predictions"].dtype == np.uint8
    pixels = (images.float() / 255 - 0.43) / 0.26
    with torch.inference_mode():
        model.load_state_dict(checkpoint_of(tmp_path))
        said = TASK.predict(model.eval(), pixels, tta=tta).argmax(1)
    assert stored["predictions"].tolist() == said.tolist()


def checkpoint_of(folder: Path) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in load_file(folder / "checkpoint.safetensors").items()}


def test_the_shares_of_processes_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 23 images in batches of 8 over three processes; the last batch of 7 is shared unevenly."""
    labels = torch.arange(23)
    images = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    model = torch.nn.Flatten()
    parts = []
    for rank in range(3):
        part = Loader(images, labels, None, batch_size=8, mean=[0.0], std=[1 / 255], shuffle=False, rank=rank,
                      world_size=3)  # fmt: skip
        found = Predictions(part, CPU)
        for pixels, target in part.epoch(0):
            found.add(torch.eye(23)[model(pixels)[:, 0].round().long()].roll(1, 1), target)
        parts.append(found.both)
    monkeypatch.setattr("srblock.training.distributed.all_reduce", lambda both: torch.stack(parts).sum(0).int())
    read = found.read()
    assert read["labels"].tolist() == labels.tolist()
    assert read["predictions"].tolist() == [(number + 1) % 23 for number in range(23)]


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(255, torch.uint8), (256, torch.uint16), (65_535, torch.uint16), (65_536, torch.int32)],
)
def test_the_smallest_kind_of_number_that_holds_the_classes(largest: int, dtype: torch.dtype, tmp_path: Path) -> None:
    labels = torch.tensor([0, largest, largest])
    part = Loader(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), labels, None, batch_size=3, mean=[0.5], std=[0.5],
                  shuffle=False)  # fmt: skip
    found = Predictions(part, CPU)
    logits = torch.zeros(3, largest + 1)
    logits[1, largest] = 1
    found.add(logits, labels)
    read = found.read()
    assert {value.dtype for value in read.values()} == {dtype}
    checkpoint.save_weights(tmp_path / FILE, read)
    assert load_file(tmp_path / FILE)["predictions"].tolist() == [0, largest, 0]


def test_measuring_without_them_says_the_same() -> None:
    model, part = network(), loaders().test
    kept = Predictions(part, CPU)
    with_them = measure(model, part.epoch(0), TASK, RECIPE, CPU, kept).read()
    assert with_them == measure(model, part.epoch(0), TASK, RECIPE, CPU).read()


def test_runs_with_and_without_the_file_are_read(tmp_path: Path) -> None:
    run = write_run(tmp_path, BASELINE, 0)
    assert run.answers is None, "as of runs made before"
    said, true = np.full(360, 9, np.uint16), np.full(360, 9, np.uint16)
    said[:9] = range(9)
    run = write_run(tmp_path, BASELINE, 1, test_top1=97.5)
    save_file({"predictions": said, "labels": true}, run.directory / FILE)
    found = read_run(run.directory).answers
    assert found is not None
    assert (found.said.tolist(), found.true.tolist()) == (said.tolist(), true.tolist())


@pytest.mark.parametrize("content", [b"PK", None, {"predictions": np.zeros(2, np.uint8)}])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes | dict[str, np.ndarray] | None) -> None:
    run = write_run(tmp_path, BASELINE, 0)
    if isinstance(content, bytes):
        (run.directory / FILE).write_bytes(content)
    else:
        save_file(content or {"predictions": np.zeros(2), "labels": np.zeros(3)}, run.directory / FILE)
    assert finished(run.directory)
    with pytest.raises(ValueError, match=r"the run in .* is damaged .*; delete the folder to train it anew"):
        read_run(run.directory)
