"""A study killed by SIGKILL at random moments ends with the very bits of one that was left alone."""

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from srblock.data import ImageData
from srblock.executors.execute import run_study
from srblock.runs import records
from srblock.runs.records import read_result
from srblock.runs.run_one import Work
from srblock.runs.study import Study
from srblock.training.recipe import Recipe
from srblock.variants.notation import parse

RECIPE = Recipe(epochs=12, batch_size=16, learning_rate=0.05, schedule="cosine", padding=1, flip=True)
VARIANTS = ("R8 + D", "R8 + D + SR(M=3, P=3)")


class Silent:
    """Progress that tells nobody."""

    def started(self, run: records.RunConfig) -> None: ...
    def epoch(self, run: records.RunConfig, record: dict[str, Any]) -> None: ...
    def finished(self, run: records.RunConfig, result: records.Run) -> None: ...
    def failed(self, run: records.RunConfig, error: Exception) -> None: ...
    def paused(self, run: records.RunConfig) -> None: ...
    def waiting(self, run: records.RunConfig) -> None: ...
    def workers(self, count: int, description: str) -> None: ...
    def again(self, run: records.RunConfig, reason: str) -> None: ...


def study(epochs: int = RECIPE.epochs) -> Study:
    generator = torch.Generator().manual_seed(7)
    labels = torch.arange(60) % 2
    images = torch.randint(0, 120, (60, 1, 8, 8), generator=generator)
    images[labels == 1, :, :, :4] += 100
    data = ImageData(
        name="stripes", train_images=images[:40].to(torch.uint8), train_labels=labels[:40],
        test_images=images[40:].to(torch.uint8), test_labels=labels[40:], classes=("left", "right"),
        fingerprint="stripes", flip=False,
    )  # fmt: skip
    return Study(tuple(map(parse, VARIANTS)), (0,), data, "stripes", replace(RECIPE, epochs=epochs))


def nothing(*_: Any) -> dict[str, Any]:
    """Stand for a probe or an inspection that finds nothing, in other processes too."""
    return {}


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch._dynamo", "srblock.executors.execute"])  # importing takes long


def go(out: Path, ready: Event | None = None, slow_s: float = 0.0, epochs: int = RECIPE.epochs) -> None:
    """Run the study in this process; `slow_s` stretches each epoch so that a kill can hit it."""
    torch.set_num_threads(1)
    if ready is not None:
        ready.set()

    def probe(model: nn.Module) -> dict[str, float]:
        time.sleep(slow_s)
        return {}

    work = Work(study(epochs), out, probe, nothing)
    run_study(work, device=torch.device("cpu"), progress=Silent())


def start(out: Path, **options: Any) -> ForkServerProcess:
    process = CONTEXT.Process(target=go, args=(out,), kwargs=options)
    process.start()
    return process


def contents(out: Path) -> dict[str, Any]:
    """All that a study leaves, without wall times."""

    def timeless(record: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in record.items() if not k.endswith(("_s", "_ms_per_image", "seconds", "environment"))}

    found: dict[str, Any] = {}
    for folder in sorted((out / "runs").iterdir()):
        run = records.read_run(folder)
        found[folder.name] = (
            timeless(read_result(run.directory)),
            [timeless(record) for record in run.metrics],
            (folder / "checkpoint.safetensors").read_bytes(),
            sorted(path.name for path in folder.iterdir()),
        )
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What the study leaves when nothing happens to it, by its epochs."""
    found = {}
    for epochs in (3, RECIPE.epochs):
        out = tmp_path_factory.mktemp("undisturbed")
        process = start(out, epochs=epochs)
        process.join()
        assert process.exitcode == 0
        found[epochs] = contents(out)
        assert len(found[epochs]) == len(VARIANTS)
    return found


def test_ten_kills_change_no_bit(tmp_path: Path, undisturbed: dict[int, dict[str, Any]]) -> None:
    kills, midway, round_ = 0, 0, 0
    moments = random.Random(0)
    while kills < 10:
        out = tmp_path / str(round_)
        round_ += 1
        while True:
            ready = CONTEXT.Event()
            process = start(out, ready=ready, slow_s=0.02)
            assert ready.wait(60)
            process.join(moments.uniform(0, 1))
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            kills += 1
            folders = list((out / "runs").iterdir()) if (out / "runs").exists() else []
            midway += any(0 < records.epochs_done(f) < RECIPE.epochs for f in folders)
        assert contents(out) == undisturbed[RECIPE.epochs]
    assert midway >= 3, "the kills must hit runs in the middle, or this test shows nothing"


@pytest.mark.parametrize("write", [1, 2, 3, 4, 5, 8, 9, 10])
def test_a_kill_in_mid_write_changes_no_bit(tmp_path: Path, write: int, undisturbed: dict[int, dict[str, Any]]) -> None:
    """Die just before the n-th file is put in its place: its scrap is there, the old file still is."""
    process = CONTEXT.Process(target=die_at, args=(tmp_path / "out", write))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    again = start(tmp_path / "out", epochs=3)
    again.join()
    assert again.exitcode == 0
    assert contents(tmp_path / "out") == undisturbed[3], "no scrap stays either"


def die_at(out: Path, write: int) -> None:
    """Kill this process at the n-th atomic replacement."""
    replace_file, count = os.replace, 0

    def replacing(*names: Any) -> None:
        nonlocal count
        count += 1
        if count == write:
            os.kill(os.getpid(), signal.SIGKILL)
        replace_file(*names)

    os.replace = replacing  # type: ignore[assignment]
    go(out, epochs=3)


def test_two_processes_share_a_study(tmp_path: Path, undisturbed: dict[int, dict[str, Any]]) -> None:
    """Started together on the same folder they train each run once and both see all results."""
    both = [start(tmp_path / "out", slow_s=0.05) for _ in range(2)]
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert contents(tmp_path / "out") == undisturbed[RECIPE.epochs]
    made = [json.loads((f / "result.json").read_text())["wall_s"] for f in (tmp_path / "out" / "runs").iterdir()]
    again = start(tmp_path / "out")
    again.join()
    assert made == [
        json.loads((f / "result.json").read_text())["wall_s"] for f in (tmp_path / "out" / "runs").iterdir()
    ]


def test_a_locked_run_is_left_to_its_owner(tmp_path: Path) -> None:
    """While another process holds a run the others are trained; then it is waited for, not trained again."""
    from filelock import FileLock

    first = study(1).runs[0]
    folder = tmp_path / "runs" / first.name
    folder.mkdir(parents=True)
    lock = FileLock(folder / ".lock")
    lock.acquire()
    waited = threading.Event()

    class Watch(Silent):
        def waiting(self, run: records.RunConfig) -> None:
            assert run.name == first.name
            assert not records.finished(folder)
            waited.set()
            lock.release()

    runs = run_study(Work(study(1), tmp_path), device=torch.device("cpu"), progress=Watch())
    assert waited.is_set()
    assert [str(run.variant) for run in runs] == [str(v) for v in study().variants]
