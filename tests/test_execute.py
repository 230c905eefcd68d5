"""Who trains a study: what is refused beforehand."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import RECIPE, Silent, study

from srblock.executors.execute import EXECUTORS, Executor, run_study
from srblock.runs.run_one import Work

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SYNCED = replace(RECIPE, sync_batch_norm=True)
GRAPH = replace(RECIPE, engine="compile+graph")


@pytest.fixture
def _with_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, so that these tests need no Ray."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.mark.usefixtures("_with_ray")
@pytest.mark.parametrize(
    ("executor", "recipe", "device", "message"),
    [
        (Executor("slurm"), RECIPE, CPU, "there is no executor 'slurm'; there are local and ray"),
        (Executor(workers=0), RECIPE, CPU, "--workers must be at least 1, got 0"),
        (Executor("ray", workers=0), RECIPE, CPU, "--workers must be at least 1, got 0"),
        (Executor(workers=2, cpus=4), RECIPE, CPU, "are for --executor ray; local workers share"),
        (Executor(gpus=0.5), RECIPE, CUDA, "are for --executor ray"),
        (Executor("ray", cpus=0), RECIPE, CPU, "a run needs at least 1 CPU, got 0"),
        (Executor("ray", gpus=0.5), RECIPE, CPU, "needs --device cuda, got 0.5 on cpu"),
        (Executor("ray", gpus=-1), RECIPE, CUDA, "must be more than 0"),
        (Executor("ray"), RECIPE, torch.device("cuda:1"), "give --device cuda, not cuda:1"),
        (Executor(), GRAPH, CPU, r"compile\+graph replays CUDA graphs, and cpu has none; use eager or compile"),
        (Executor(), SYNCED, CPU, "--sync-batch-norm needs CUDA devices, got cpu"),
        (Executor(workers=2), SYNCED, CUDA, "each of several workers' runs has one process"),
        (Executor("ray"), SYNCED, CUDA, "each of several workers' runs has one process"),
    ],
)
def test_what_does_not_fit_is_refused(executor: Executor, recipe: Any, device: torch.device, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        executor.check(recipe, device)


@pytest.mark.usefixtures("_with_ray")
def test_what_fits_is_not() -> None:
    """A Ray of GPUs may be used from a machine that has none."""
    for kind in EXECUTORS:
        for executor in (Executor(kind), Executor(kind, workers=1), Executor(kind, workers=3)):
            executor.check(RECIPE, CPU)
            executor.check(GRAPH, CUDA)
    Executor().check(SYNCED, CUDA)
    Executor("ray", None, 2, 0.5).check(RECIPE, CUDA)


@pytest.mark.usefixtures("_with_ray")
def test_torchrun_goes_with_one_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    Executor().check(RECIPE, CPU)
    for executor in (Executor(workers=2), Executor("ray")):
        with pytest.raises(ValueError, match="torchrun spreads one run over processes"):
            executor.check(RECIPE, CPU)


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"needs Ray, which is not installed here: pip install \"srblock\[cluster\]\""):
        Executor("ray").check(RECIPE, CPU)


def test_a_study_checks_before_it_makes_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(study(1), tmp_path / "out")
    with pytest.raises(ValueError, match="there is no executor 'slurm'"):
        run_study(work, device=CPU, progress=Silent(), executor=Executor("slurm"))
    monkeypatch.setattr("srblock.training.distributed.world_size", lambda: 2)
    with pytest.raises(ValueError, match="a time budget is for runs of one process each"):
        run_study(work, device=CPU, progress=Silent(), deadline=0.0)
    assert not work.out.exists()
