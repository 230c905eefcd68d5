"""One run over two processes: the single-process result, one voice, no hang, resume with another number."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import distributed_program as program
import pytest
import torch
from distributed_program import RECIPE, STEPS, network, run, stop_at, three_steps
from safetensors.torch import load_file
from scene_fixture import write_camvid
from torch import nn

from srblock.runs.records import read_run
from srblock.surgery import blocks, bypassed, insert
from srblock.training import checkpoint, distributed, runtime
from srblock.training.loop import Record

CPU = torch.device("cpu")


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    """Start two processes as a user would."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, words)]
    source = str(Path(distributed.__file__).parents[2])
    path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that distributed_program filled in two processes; process 1 failed at its end."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.raises(KeyboardInterrupt):
        run(folder / "one to two", network(), on_epoch=stop_at(2))
    write_camvid(folder / "camvid", {"train": 10, "val": 1, "test": 5})
    done = torchrun(program.__file__, folder, "--fail")
    (folder / "output").write_text(done.stdout)
    (folder / "errors").write_text(done.stderr)
    assert (folder / "seen-1.json").exists(), done.stderr
    assert done.returncode != 0
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> list[dict[str, Any]]:
    """What each process saw."""
    return [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """The steady run in this one process, undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, network())


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key].double() - other[key].double()).abs().max()) for key in one)


def records(folder: Path) -> list[Record]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "seconds" not in key} for line in lines]


# --- the single-process result ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STEPS)
def test_three_steps_give_the_weights_of_one_process(folder: Path, seen: list[dict[str, Any]], name: str) -> None:
    """With label smoothing, momentum, a block, and a last batch of 7 images, 3 and 4 for the two."""
    recipe, groups, options = STEPS[name]
    weights, figures = three_steps(recipe, network(options=options), groups)
    assert largest_difference(weights, load_file(folder / name)) < 1e-5
    assert largest_difference(weights, checkpoint.copy_weights(network(options=options))) > 1e-3, (
        "three steps change something"
    )
    assert seen[0][name] == seen[1][name], "both have the figures over all images"
    assert seen[0][name] == pytest.approx(figures, rel=1e-5)


def test_scenes_give_the_figures_of_one_process(
    folder: Path, seen: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crops to train on, with ignored pixels and an auxiliary head; of five whole scenes one process tests the last."""
    monkeypatch.setenv("SRBLOCK_WORKERS", "0")
    weights, (trained, tested, confusion) = program.scenes(folder / "camvid")
    assert seen[0]["scenes"] == seen[1]["scenes"], "both have the figures over all scenes"
    assert largest_difference(weights, load_file(folder / "scenes")) < 1e-5
    assert seen[0]["scenes"][0] == pytest.approx(trained, rel=1e-3)
    assert seen[0]["scenes"][1] == pytest.approx(tested, rel=1e-3)
    counted = [sum(row) for row in confusion]
    assert sum(counted) == 5 * 44 * 96
    assert [sum(row) for row in seen[0]["scenes"][2]] == counted, "every labeled pixel once"


def test_a_block_that_takes_no_part_stops_nobody(folder: Path) -> None:
    for name in ("frozen", "bypassed"):
        model = network()
        before = checkpoint.copy_weights(model)
        with bypassed(model):  # a fresh frozen block is the identity, like one bypassed
            weights, _ = three_steps(RECIPE, model)
        found = load_file(folder / name)
        assert largest_difference(weights, found) < 1e-5
        assert all(torch.equal(before[key], found[key]) for key in before if ".sr." in key)
        assert blocks(model)


def test_resume_with_another_number_of_processes(folder: Path, whole: tuple[Path, Record]) -> None:
    """Stopped after 2 of 4 epochs: weights, momentum, best epoch and history all go on."""
    assert len(records(folder / "two to one")) == 2
    run(folder / "two to one", network())
    for name in ("one to two", "two to one"):
        ours, expected = (load_file(p / "checkpoint.safetensors") for p in (folder / name, whole[0]))
        assert largest_difference(ours, expected) < 1e-5
        for mine, theirs in zip(records(folder / name), records(whole[0]), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4)


def test_a_backbone_that_thaws_gives_the_weights_of_one_process(folder: Path, tmp_path: Path) -> None:
    """AdamW, whose gradients are averaged anew from the third epoch on, and the moving average of what it makes."""
    program.finetune(tmp_path / "one")
    one, two = (load_file(path / "checkpoint.safetensors") for path in (tmp_path / "one", folder / "thawed"))
    assert largest_difference(one, two) < 1e-4
    for mine, theirs in zip(records(tmp_path / "one"), records(folder / "thawed"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)


def test_two_processes_resume_bit_for_bit(folder: Path, seen: list[dict[str, Any]]) -> None:
    """With dropout and batch statistics in each process."""
    plain = [{key: value for key, value in r.items() if key != "probe"} for r in records(folder / "whole")]
    assert plain == [{key: value for key, value in r.items() if key != "probe"} for r in records(folder / "parts")]
    one, other = ((folder / name / "checkpoint.safetensors").read_bytes() for name in ("whole", "parts"))
    assert one == other
    assert seen[0]["result"] == seen[1]["result"]


def test_what_was_said_of_each_image_is_that_of_one_process(
    folder: Path, seen: list[dict[str, Any]], whole: tuple[Path, Record]
) -> None:
    """35 test images in batches of 16, 16 and 3, each shared; in their order, and as many right as the figure says."""
    stored = load_file(folder / "parts" / "predictions.safetensors")
    assert stored["labels"].tolist() == [number % 2 for number in range(35)]
    hits = int((stored["predictions"] == stored["labels"]).sum())
    assert 100 * (hits / 35) == seen[0]["result"]["test_top1"]
    ours, expected = (load_file(where / "predictions.safetensors") for where in (folder / "one to two", whole[0]))
    assert largest_difference(ours, expected) == 0


# --- who does what ---------------------------------------------------------------------------------------------------


def test_process_0_alone_writes_prints_and_is_asked(folder: Path, seen: list[dict[str, Any]]) -> None:
    assert [found["told"] for found in seen] == [[1, 2, 3, 4], []]
    assert [found["asked"] for found in seen] == [4, 0]
    assert (folder / "output").read_text().count("printed by process 0") == 1
    assert "printed by process 1" not in (folder / "output").read_text()
    assert [found["processes"] for found in seen] == [2, 2]


def test_process_0_measures_alone_while_the_others_wait(seen: list[dict[str, Any]]) -> None:
    """The controls of a block are tested in process 0: a meter that waited for the others there would wait forever."""
    assert [found["alone"] for found in seen] == [1, 1]


def test_batch_statistics_are_each_processs_own_until_shared(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["own statistics"] != seen[1]["own statistics"]
    assert seen[0]["shared statistics"] == seen[1]["shared statistics"] == seen[0]["own statistics"]


def test_random_numbers_go_on_in_process_0_and_depend_on_the_epoch_elsewhere(seen: list[dict[str, Any]]) -> None:
    first, other = seen[0]["draws"], seen[1]["draws"]
    torch.manual_seed(0)
    assert first == [float(torch.rand(())) for _ in range(3)], "as in a single process"
    assert other[0] == other[2] != other[1]
    assert not set(first) & set(other)


# --- ends ------------------------------------------------------------------------------------------------------------


def test_both_end_alike_when_one_sees_a_nan(folder: Path, seen: list[dict[str, Any]]) -> None:
    assert seen[0]["diverged"] == seen[1]["diverged"]
    assert "training loss became nan in epoch 2 of 4" in seen[0]["diverged"][1]
    assert len(records(folder / "nan")) == 1
    assert seen[0]["probe"] == seen[1]["probe"]
    assert "memory became inf in epoch 1" in seen[0]["probe"][1]


@pytest.mark.parametrize(("what", "first"), [("stopped", "KeyboardInterrupt"), ("damaged", "CheckpointError")])
def test_what_stops_process_0_stops_the_other(seen: list[dict[str, Any]], what: str, first: str) -> None:
    assert seen[0][what][0] == first
    assert seen[1][what] == ["Ended", "process 0 of this run stopped; see its message"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("sync", "sync_batch_norm needs CUDA devices, got cpu; leave it off on a CPU"),
        ("engine", "a run over 2 processes needs the engine eager, got compile"),
        ("one gpu", "cuda:0 is one GPU for 2 processes; --device cuda gives each its own"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(seen: list[dict[str, Any]], what: str, message: str) -> None:
    assert seen[0][what] == seen[1][what] == ["ValueError", message]


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="both processes have a GPU")
def test_more_processes_than_gpus_are_refused(seen: list[dict[str, Any]]) -> None:
    assert "more processes on this machine than it has GPUs" in seen[1]["no gpu"][1]


def test_an_error_in_one_process_ends_all_with_one_message(folder: Path) -> None:
    errors = (folder / "errors").read_text()
    assert errors.count("ValueError: process 1 has had enough") == 1
    assert "Connection closed" not in errors
    assert "RuntimeError" not in errors


def test_the_command_line_trains_in_two_processes(tmp_path: Path) -> None:
    """As a user would call it; then a single process finds the run."""
    words = ("train", "R8 + SR(M=3, P=4)", "--data", "digits", "--epochs", "1", "--out", tmp_path)
    tensorboard = importlib.util.find_spec("tensorboard") is not None
    words += ("--tensorboard",) if tensorboard else ()
    done = torchrun("-m", "srblock", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("started") == 1
    assert done.stdout.count("test top-1") == 1
    (folder,) = (tmp_path / "runs").iterdir()
    found = read_run(folder)
    assert found.environment["processes"] == 2
    assert 0 < found.score <= 100
    assert set(found.recall), "the block was looked at, over the whole test set"
    assert len(found.metrics) == 1
    assert len(list(folder.glob("tensorboard/*"))) == tensorboard, "process 0 alone writes it"


# --- in one process --------------------------------------------------------------------------------------------------


def test_one_process_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.start():
        assert (distributed.world_size(), distributed.rank()) == (1, 0)
        model = nn.Linear(2, 2)
        assert distributed.wrap(model, RECIPE, CPU) is model is distributed.unwrap(model)
        assert distributed.loss_scale(7, 7) == 1
    with pytest.raises(ZeroDivisionError), distributed.start():
        distributed.on_rank0(lambda: 1 / 0)
    assert distributed.on_rank0(lambda: 3) == distributed.broadcast(3) == 3
    distributed.refuse("compare")


def test_half_of_what_torchrun_sets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in distributed.PLACE:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"WORLD_SIZE is 2 but RANK, .* is not set; start .* with torchrun"):
        distributed.start().__enter__()


def test_other_commands_are_refused_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="srblock compare runs in one process and torchrun started 2"):
        distributed.refuse("compare")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(SystemExit):
        distributed.refuse("compare")


def test_the_first_to_fail_by_itself_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    counts = iter((1, 2, 2))
    assert distributed._speaks(lambda: next(counts), lost=False)
    assert waits == [], "its message comes before torchrun ends it"
    assert not distributed._speaks(lambda: next(counts), lost=False)
    assert not distributed._speaks(lambda: next(counts), lost=True)
    assert waits == [distributed.PATIENCE_S] * 2

    def gone() -> int:
        raise torch.distributed.DistNetworkError("the store is gone")

    assert not distributed._speaks(gone, lost=True)


def test_synchronized_batch_norm_is_refused_where_torch_would_break_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class ActivatedNorm(nn.BatchNorm2d):
        """As timm's: normalizes, then activates."""

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    recipe = program.replace(RECIPE, sync_batch_norm=True)
    with pytest.raises(ValueError, match="cannot convert 0, a ActivatedNorm"):
        distributed.wrap(nn.Sequential(ActivatedNorm(2)), recipe, torch.device("cuda"))
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    insert(network, after="1", input_size=(1, 8, 8), blocks=2)
    with pytest.raises(ValueError, match="cannot convert 1, on which something hangs"):
        distributed.wrap(network, recipe, torch.device("cuda"))


def test_records_without_the_number_of_processes_were_made_by_one() -> None:
    here = runtime.environment(CPU)
    older = {key: value for key, value in here.items() if key != "processes"}
    assert runtime.differences(older, here) == []
    assert runtime.differences(here | {"threads": 99}, here) == [f"threads 99 (now {here['threads']})"]
    assert runtime.differences(older, here | {"processes": 2}) == ["processes 1 (now 2)"]
    before = {key: value for key, value in here.items() if key != "block_rounding"}
    assert runtime.differences(before, here) == [f"block_rounding 1 (now {here['block_rounding']})"]
    assert runtime.differences(before, here, blocks=False) == []
    assert not math.isnan(here["processes"])
