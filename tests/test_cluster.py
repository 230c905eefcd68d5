"""A study on a Ray cluster: a local one of two workers, one of which is killed in mid-run."""

from __future__ import annotations

import math
import os
import socket
import sys
import time
import types
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from mishaps import Diary, Mishap, four_runs
from test_local import count_blocks, whole
from test_resume import nothing

import srblock
from srblock.data.loading.stream import default_workers
from srblock.executors.execute import Executor, run_study
from srblock.runs.records import epochs_done
from srblock.runs.run_one import Work
from srblock.runs.study import Study

ray = pytest.importorskip("ray")
cluster = pytest.importorskip("srblock.executors.cluster")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TWO = Executor("ray", workers=2)


@pytest.fixture(scope="module", autouse=True)
def _one_local_ray() -> Iterator[None]:
    """Start Ray as a study would, but once for all tests here."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # Ray's own
        patch.delenv("RAY_ADDRESS", raising=False)
        ours = Path(__file__).parent, Path(srblock.__file__).parents[1]  # where workers find the probes and srblock
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, ours)))
        patch.setenv("RAY_worker_niceness", "0")  # else 15: beside another busy process they would hardly ever run
        cluster._connect(CPU, 2, 1)
        yield
        ray.shutdown()


def run(
    out: Path,
    study: Study | None = None,
    probe: Any = nothing,
    inspect: Any = nothing,
    executor: Executor = TWO,
    **options: Any,
) -> tuple[list[Any], Diary]:
    diary = Diary()
    work = Work(study or four_runs(), out, probe, inspect)
    return run_study(work, device=CPU, progress=diary, executor=executor, **options), diary


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process with one thread leaves."""
    out, threads = tmp_path_factory.mktemp("undisturbed"), torch.get_num_threads()
    torch.set_num_threads(1)
    run(out, executor=Executor(), probe=Mishap(out.parent), inspect=count_blocks)
    torch.set_num_threads(threads)
    return whole(out)


def test_a_killed_worker_changes_no_bit_and_nothing_is_done_twice(
    tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Mishap(tmp_path, "be killed", times=1)
    monkeypatch.chdir(tmp_path)
    runs, diary = run(Path("out"), probe=probe, inspect=count_blocks)
    assert [each.directory.name for each in runs] == [config.name for config in four_runs().runs]
    assert whole(tmp_path / "out") == undisturbed
    assert len(probe.epochs()) == 4 * 3 + 1, "only the interrupted epoch is trained twice"
    ((name, reason),) = diary.of("again")
    assert "its worker was lost (WorkerCrashedError); it goes on from its last epoch" in reason
    assert "about to be killed" in (tmp_path / "out" / "runs" / name / "log.txt").read_text()
    assert [epoch for run, epoch in diary.of("epoch") if run == name] == [1, 2, 3]
    workers = [worker for worker, _, _ in probe.epochs()]
    assert os.getpid() not in workers
    assert len(set(workers)) >= 2
    assert {threads for _, _, threads in probe.epochs()} == {1}
    ((_, description),) = diary.of("workers")
    assert description.endswith("2 runs at once with 1 CPU each")
    assert not list(Path("out").glob(".seen*")), "the token is gone"
    assert ray.is_initialized(), "a cluster that somebody else has started is left alone"


def test_a_node_that_lacks_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that only this process has stands for srblock that was not installed there."""
    module = types.ModuleType("only_here")
    exec("def probe(model):\n    return {}\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    runs, diary = run(tmp_path, study=replace(four_runs(1), seeds=(0,)), probe=module.probe)
    assert runs == []
    for name, text in diary.of("failed"):
        assert text == f"ModuleNotFoundError: No module named 'only_here'; see {tmp_path / 'runs' / name / 'log.txt'}"


def test_a_failing_run_ends_alone(tmp_path: Path) -> None:
    runs, diary = run(tmp_path / "out", probe=Mishap(tmp_path, "raise"))
    assert [each.seed for each in runs] == [0, 1]
    assert len(diary.of("failed")) == 2
    for name, text in diary.of("failed"):
        log = tmp_path / "out" / "runs" / name / "log.txt"
        assert text == f"LookupError: nothing like that here; see {log}"
        assert "Traceback" in log.read_text()


def test_runs_found_from_elsewhere_warn(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    """Only the nodes know what they are: runs found are compared with those they make."""
    study, threads = replace(four_runs(1), seeds=(0,)), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    run(tmp_path, study=study, executor=Executor())
    torch.set_num_threads(threads)
    with pytest.warns(UserWarning, match=rf"is reused but was made with threads {threads + 1} \(now 1\)"):
        run(tmp_path, study=replace(study, seeds=(0, 1)))


def test_a_node_that_does_not_see_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "SEEN_WITHIN_S", 0.1)
    work, config = Work(four_runs(), tmp_path), four_runs().runs[0]
    outcome = cluster._train_there(config, math.inf, time.time(), work, CPU, 1, tmp_path / "never")
    assert outcome.ending == "stop"
    assert f"does not see {tmp_path} as this machine does; choose an --out on a file system" in outcome.text


def test_locks_that_hold_on_one_node_only_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    work, config, threads = Work(four_runs(1), tmp_path), four_runs(1).runs[0], torch.get_num_threads()
    given = config, math.inf, time.time(), work, CPU, threads, tmp_path / "token"
    with FileLock(tmp_path / "token"):
        assert cluster._train_there(*given).warnings == ()
    (text,) = cluster._train_there(*given).warnings
    assert "holds on its own node only" in text


def nodes(*resources: dict[str, float]) -> list[dict[str, Any]]:
    return [{"Alive": True, "Resources": each} for each in resources] + [{"Alive": False, "Resources": {"CPU": 99}}]


@pytest.mark.parametrize(
    ("there", "device", "wanted", "expected"),
    [
        (nodes({"CPU": 8}), CPU, (None, None, None), (8, 1, 0)),
        (nodes({"CPU": 8}), CPU, (2, None, None), (2, 4, 0)),
        (nodes({"CPU": 8}), CPU, (None, 4, None), (2, 4, 0)),
        (nodes({"CPU": 8}), CPU, (20, None, None), (20, 1, 0)),
        (nodes(*[{"CPU": 4}] * 8), CPU, (3, None, None), (3, 4, 0)),
        (nodes({"CPU": 16, "GPU": 2}, {"CPU": 16, "GPU": 2}, {"CPU": 4}), CUDA, (None, None, None), (4, 8, 1)),
        (nodes({"CPU": 16, "GPU": 1}), CUDA, (4, None, None), (4, 4, 0.25)),
        (nodes({"CPU": 16, "GPU": 2}), CUDA, (None, 2, 0.5), (4, 2, 0.5)),
        (nodes({"CPU": 16, "GPU": 2}), CUDA, (3, None, None), (3, 5, 0.5)),
        (nodes({"CPU": 3}, {"CPU": 3}), CPU, (None, 2, None), (2, 2, 0)),
        (nodes({"CPU": 8, "GPU": 4}), CUDA, (None, None, 0.6), (4, 2, 0.6)),
        (nodes({"CPU": 4, "GPU": 4}, {"CPU": 4, "GPU": 4}), CUDA, (None, 4, None), (2, 4, 1)),
        (nodes({"CPU": 64, "GPU": 8}), CUDA, (None, None, 2), (4, 16, 2)),
    ],
)
def test_what_each_run_gets(there: Any, device: torch.device, wanted: Any, expected: Any) -> None:
    assert cluster.share_out(there, device, *wanted) == expected


def test_what_no_node_has_is_said() -> None:
    with pytest.raises(ValueError, match="no node of the Ray cluster has a GPU; add one, or use --device cpu"):
        cluster.share_out(nodes({"CPU": 8}), CUDA, None, None, None)
    with pytest.raises(ValueError, match="no node of the Ray cluster has 9 CPUs for a run; the largest has 8"):
        cluster.share_out(nodes({"CPU": 8}, {"CPU": 4}), CPU, None, 9, None)
    with pytest.raises(ValueError, match="no node of the Ray cluster has 2 GPUs for a run; the largest has 1"):
        cluster.share_out(nodes({"CPU": 8, "GPU": 1}), CUDA, None, None, 2)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_no_cluster_where_ray_address_says(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of Ray itself, a closed port takes minutes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(ray, "init", None)
    monkeypatch.setenv("RAY_ADDRESS", address)
    start = time.monotonic()
    with pytest.raises(ValueError, match=rf"no Ray cluster answers at RAY_ADDRESS={address} \(.*refused\); start it"):
        cluster._connect(CPU, None, None)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:{port}"])
def test_what_ray_cannot_connect_to_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**options: Any) -> None:
        raise ConnectionError("nobody")

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = address.format(port=server.getsockname()[1])
        monkeypatch.setattr(ray, "init", refused)
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ValueError, match=rf"no Ray cluster answers at RAY_ADDRESS={address} \(nobody\)"):
            cluster._connect(CPU, None, None)


def test_slots_are_counted_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the plan: on the cluster at hand, or on the one that would be started here."""
    assert Executor("ray").slots(CPU) == 2, "the cluster of these tests"
    assert Executor("ray", workers=1).slots(CPU) == 1
    assert Executor(workers=3).slots(CPU) == 3
    assert Executor().slots(CPU) == 1
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert Executor("ray").slots(CPU) == 6
    assert Executor("ray", cpus=3).slots(CPU) == 1
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
    with pytest.raises(ValueError, match="no Ray cluster answers"):
        Executor("ray").slots(CPU)


def test_runs_pause_in_the_seconds_left(tmp_path: Path) -> None:
    """Thirty epochs of 0.5 s do not fit into 6 s."""
    probe, study = Mishap(tmp_path, times=0, slow_s=0.5, saves=False), four_runs(30)
    pace = dict.fromkeys(map(str, study.variants), 0.01)
    runs, diary = run(tmp_path / "out", study, probe, deadline=time.monotonic() + 6, epoch_seconds=pace)
    assert runs == []
    paused = {name for name, _ in diary.of("paused")}
    assert paused == {name for name, _ in diary.of("started")}
    assert diary.of("failed") == diary.of("again") == []
    for name in paused:
        assert (tmp_path / "out" / "runs" / name / "trainer.safetensors").exists()
    assert [name for name, _ in diary.of("started")][:2] == [config.name for config in study.runs[:2]]


@pytest.mark.parametrize(("left_s", "ago_s", "epochs"), [(1000, 0, 3), (1000, 2000, 1), (0, -2000, 1)])
def test_seconds_left_count_from_when_they_were_sent(left_s: float, ago_s: float, epochs: int, tmp_path: Path) -> None:
    """A start may take long; a node whose clock is behind has no more time for it than there was."""
    (tmp_path / "token").touch()
    work, config, threads = Work(four_runs(3), tmp_path), four_runs(3).runs[0], torch.get_num_threads()
    with FileLock(tmp_path / "token"):
        outcome = cluster._train_there(config, left_s, time.time() - ago_s, work, CPU, threads, tmp_path / "token")
    assert (outcome.ending, epochs_done(work.folder(config))) == ("done" if epochs == 3 else "paused", epochs)


def test_decoding_processes_are_each_run_s_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a process that Ray uses again, and unless somebody has said so."""
    monkeypatch.delenv("SRBLOCK_WORKERS", raising=False)
    (tmp_path / "token").touch()
    seen: list[int] = []
    work = Work(four_runs(1), tmp_path, lambda model: seen.append(default_workers()) or {}, nothing)
    threads = torch.get_num_threads()
    with FileLock(tmp_path / "token"):
        for config, count in zip(work.study.runs, (3, 2, 2, 2), strict=True):
            if len(seen) == 2:
                monkeypatch.setenv("SRBLOCK_WORKERS", "7")
            cluster._train_there(config, math.inf, time.time(), work, CPU, count, tmp_path / "token")
    torch.set_num_threads(threads)
    assert seen == [3, 2, 7, 7]
