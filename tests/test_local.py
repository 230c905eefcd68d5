"""Several worker processes on this machine: same bits, and what happens to one run does not happen to the others."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from mishaps import Diary, Mishap, four_runs
from test_resume import CONTEXT, contents, nothing

from srblock.data.loading import workers as worker_processes
from srblock.executors import local
from srblock.executors.execute import Executor, run_study
from srblock.runs import records
from srblock.runs.records import read_result
from srblock.runs.run_one import Work
from srblock.surgery import blocks

CPU = torch.device("cpu")
local.PRELOAD = [*local.PRELOAD, "mishaps"]


@pytest.fixture(scope="module", autouse=True)
def _two_threads_for_two_workers() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study done by one process with one thread."""
    out = tmp_path_factory.mktemp("alone")
    torch.set_num_threads(1)
    run(out, workers=1)
    torch.set_num_threads(2)
    return out


@pytest.fixture(scope="module")
def undisturbed(alone: Path) -> dict[str, Any]:
    """What that leaves."""
    return whole(alone)


def run(
    out: Path, workers: int = 2, probe: Any = nothing, inspect: Any = nothing, **options: Any
) -> tuple[list[records.Run], Diary]:
    diary, work = Diary(), Work(four_runs(), out, probe, inspect)
    options = {"progress": diary, "executor": Executor(workers=workers)} | options
    return run_study(work, device=CPU, **options), diary


def whole(out: Path) -> dict[str, Any]:
    """All that a study leaves, without wall times, logs and what a probe found."""
    found = {name: (*rest, [f for f in files if f != "log.txt"]) for name, (*rest, files) in contents(out).items()}
    for _, metrics, *_ in found.values():
        for record in metrics:
            del record["probe"]
    return found


def with_block(runs: list[records.RunConfig]) -> list[str]:
    return [config.name for config in runs if config.variant.sr_blocks]


def test_two_workers_give_the_bits_of_one_process(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    probe = Mishap(tmp_path)
    runs, diary = run(tmp_path / "out", probe=probe, inspect=count_blocks)
    found = whole(tmp_path / "out")
    names = [config.name for config in four_runs().runs]
    assert [each.directory.name for each in runs] == names, "the study's order, whoever was first"
    assert [read_result(each.directory)["inspected"] for each in runs] == [0, 1, 0, 1]
    for name, (result, *rest) in found.items():
        result.pop("inspected")
        assert (result, *rest) == undisturbed[name]
    processes, parents, threads = zip(*probe.epochs(), strict=True)
    assert len(set(processes)) == 2, "a process per slot, kept from run to run"
    assert os.getpid() not in (*processes, *parents)
    assert set(threads) == {1}
    assert all(each.environment["threads"] == 1 for each in runs)
    assert diary.of("workers") == [("", "2 workers on cpu, 1 CPU thread each")]
    for name in names:
        assert [text for run, text in diary.of("epoch") if run == name] == [1, 2, 3]
    assert [r for r, _ in diary.of("finished")] != [] == diary.of("failed")


def count_blocks(model: torch.nn.Module, *_: Any) -> dict[str, Any]:
    return {"inspected": len(blocks(model))}


def test_a_finished_study_starts_no_worker(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.LocalWorkers, "__enter__", None)
    runs, diary = run(alone, workers=2)
    assert len(runs) == len(diary.entries) == 4, "no warning either: each of two workers has one thread"
    with pytest.warns(UserWarning, match=r"is reused but was made with threads 1 \(now 2\)"):
        run(alone, workers=1)


@pytest.mark.parametrize(
    ("kind", "text", "logged"),
    [
        ("raise", "LookupError: nothing like that here; see {log}", "Traceback"),
        ("run out of memory", "out of memory (CUDA out of memory. Tried to allocate 2.00 GiB)", "Traceback"),
        ("crash", "its worker ended by SIGSEGV; see {log}", "Fatal Python error: Segmentation fault"),
        ("be killed", "its worker ended by SIGKILL, 2 times now; see {log}", "SIGKILL"),
    ],
)
def test_what_happens_to_a_run_does_not_happen_to_the_others(kind: str, text: str, logged: str, tmp_path: Path) -> None:
    runs, diary = run(tmp_path / "out", probe=Mishap(tmp_path, kind))
    hit = with_block(four_runs().runs)
    assert [each.directory.name for each in runs] == [c.name for c in four_runs().runs if c.name not in hit]
    assert sorted(name for name, _ in diary.of("failed")) == sorted(hit)
    for name, told in diary.of("failed"):
        log = tmp_path / "out" / "runs" / name / "log.txt"
        assert text.format(log=log) in told
        assert str(log) in told
        assert logged in log.read_text()
        assert f"about to {kind}" in log.read_text(), "what the run has printed before"
    for each in runs:
        assert not (each.directory / "log.txt").exists(), "nothing to say, no log"
    twice = kind in ("be killed", "run out of memory")
    assert sorted(name for name, _ in diary.of("again")) == (sorted(hit) if twice else [])
    assert multiprocessing.active_children() == []


def test_a_killed_worker_changes_no_bit(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    probe = Mishap(tmp_path, "be killed", times=1)
    runs, diary = run(tmp_path / "out", probe=probe)
    assert len(runs) == 4
    ((name, text),) = diary.of("again")
    assert text == "its worker ended by SIGKILL; it goes on from its last epoch"
    assert [text for run, text in diary.of("epoch") if run == name] == [1, 2, 3], "each told once"
    assert len(probe.epochs()) == 4 * 3 + 1, "only the interrupted epoch is trained twice"
    assert whole(tmp_path / "out") == undisturbed


def test_out_of_memory_beside_others_is_tried_again_alone(tmp_path: Path) -> None:
    runs, diary = run(tmp_path / "out", probe=Mishap(tmp_path, "run out of memory", times=2))
    assert len(runs) == 4
    assert sorted(name for name, _ in diary.of("again")) == sorted(with_block(four_runs().runs))
    last = [entry[:2] for entry in diary.entries if entry[0] in ("started", "finished")][-4:]
    assert [word for word, _ in last] == ["started", "finished", "started", "finished"], "one after the other"
    assert diary.of("failed") == []


def test_a_full_disk_ends_the_study(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot write there: No space left on device"):
        run(tmp_path / "out", probe=Mishap(tmp_path, "fill the disk", slow_s=0.1))
    assert multiprocessing.active_children() == []


def test_ctrl_c_ends_all_workers(tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal sends it to the workers too, which is no failure of theirs. Finished epochs are kept."""
    probe, diary = Mishap(tmp_path, slow_s=100), Diary()
    monkeypatch.setattr(local, "GRACE_S", 100.0)
    pressed = []

    def press() -> None:
        wait_for(lambda: len({worker for worker, _, _ in probe.epochs()}) == 2)
        for worker in {worker for worker, _, _ in probe.epochs()}:
            os.kill(worker, signal.SIGINT)
        time.sleep(1)
        pressed.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    hand, before = threading.Thread(target=press), signal.signal(signal.SIGINT, signal.default_int_handler)
    hand.start()  # a parent in the background ignores the signal, hence the handler
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", probe=probe, progress=diary)
    finally:
        signal.signal(signal.SIGINT, before)
        hand.join()
    assert time.monotonic() - pressed[0] < 50, "promptly"
    assert diary.of("failed") == diary.of("again") == []
    assert multiprocessing.active_children() == []
    goes_on(tmp_path / "out", probe, undisturbed)


def go(out: Path, probe: Mishap) -> None:
    torch.set_num_threads(2)
    run(out, probe=probe)


def test_no_worker_outlives_a_killed_parent(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    probe = Mishap(tmp_path, slow_s=100)
    process = CONTEXT.Process(target=go, args=(tmp_path / "out", probe))
    process.start()
    wait_for(lambda: len({worker for worker, _, _ in probe.epochs()}) == 2)
    workers, servers = ({line[place] for line in probe.epochs()} for place in (0, 1))
    assert process.pid not in workers | servers
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    wait_for(lambda: all(gone(pid) for pid in workers | servers), 20)
    goes_on(tmp_path / "out", probe, undisturbed)


def go_until_terminated(out: Path, probe: Mishap) -> None:
    """Run the study in a process group of its own, and handle SIGTERM as the command line does."""
    os.setsid()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    diary = Diary()
    try:
        run(out, probe=probe, progress=diary)
    finally:
        (probe.folder / "told").write_text(" ".join(word for word, _, _ in diary.entries))


def test_a_terminated_group_has_no_failed_run(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    """Slurm and containers send SIGTERM to every process, whichever gets it first."""
    probe = Mishap(tmp_path, slow_s=100)
    process = CONTEXT.Process(target=go_until_terminated, args=(tmp_path / "out", probe))
    process.start()
    wait_for(lambda: len({worker for worker, _, _ in probe.epochs()}) == 2)
    workers = {worker for worker, _, _ in probe.epochs()}
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    time.sleep(1)
    assert not any(map(gone, workers)), "the process that gives them orders decides"
    start = time.monotonic()
    os.killpg(process.pid or 0, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == 128 + signal.SIGTERM
    assert time.monotonic() - start < 10, "well before SIGKILL comes, after 30 s with Slurm and 10 s with Docker"
    assert set((tmp_path / "told").read_text().split()) == {"workers", "started", "epoch"}
    wait_for(lambda: all(map(gone, workers)), 20)
    assert not any("ended by" in log.read_text() for log in (tmp_path / "out").rglob("log.txt"))
    goes_on(tmp_path / "out", probe, undisturbed)


def goes_on(out: Path, probe: Mishap, undisturbed: dict[str, Any]) -> None:
    """Check that a stopped study has kept its finished epochs and ends with the same bits."""
    kept = sum(records.epochs_done(folder) for folder in (out / "runs").iterdir())
    assert kept in (1, 2), "of two started runs the first epoch, unless its record was just being written"
    before = len(probe.epochs())
    run(out, probe=Mishap(probe.folder))
    assert 4 * 3 - 2 <= len(probe.epochs()) - before <= 4 * 3 - kept
    weights = [{name: found[2] for name, found in each.items()} for each in (whole(out), undisturbed)]
    assert weights[0] == weights[1]


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Tell whether a process has ended, be it that nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_two_studies_at_once_train_each_run_once(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    probe, found = Mishap(tmp_path, slow_s=0.05), []
    both = [threading.Thread(target=lambda: found.append(run(tmp_path / "out", probe=probe))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(60)
    (first, _), (second, _) = found
    assert [read_result(each.directory) for each in first] == [read_result(each.directory) for each in second]
    assert len(probe.epochs()) == 4 * 3
    assert len({worker for worker, _, _ in probe.epochs()}) > 2
    assert whole(tmp_path / "out").keys() == undisturbed.keys()


def test_an_idle_worker_that_ends_is_replaced(tmp_path: Path) -> None:
    config = four_runs().runs[0]
    with local.LocalWorkers(Work(four_runs(), tmp_path), CPU, 1) as workers:
        for wanted in ("done", "done"):
            workers.submit(config, None)
            found: list[Any] = []
            while not found:
                found = workers.wait(1)
            assert found[0][1].ending == wanted
            (child,) = multiprocessing.active_children()
            child.kill()
            child.join()


def test_images_are_shared_or_copied() -> None:
    work = Work(four_runs(), Path("out"))
    assert local._shared(work) is work
    assert work.study.data.train_images.is_shared()
    other = Work(four_runs(), Path("out"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "share_memory_", no_room)
        packed = local._shared(other)
    assert isinstance(packed, bytes)
    assert torch.equal(pickle.loads(packed).study.data.train_images, other.study.data.train_images)


def no_room(tensor: torch.Tensor) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_0>: No space left on device (28)")


def test_copied_images_train_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "share_memory_", no_room)
    assert len(run(tmp_path)[0]) == 4


def test_what_cannot_be_handed_over_is_said(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"cannot be handed to another process \(.*probe and inspect must stand"):
        run(tmp_path, probe=lambda model: {})
    assert multiprocessing.active_children() == []


def test_slots_are_dealt_out_over_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert list(map(str, local.slot_devices(torch.device("cuda"), 3))) == ["cuda:0", "cuda:1", "cuda:0"]
    assert list(map(str, local.slot_devices(torch.device("cuda:1"), 2))) == ["cuda:1", "cuda:1"]
    assert local.slot_devices(CPU, 2) == [CPU, CPU]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    workers = local.LocalWorkers(Work(four_runs(), Path("out")), torch.device("cuda"), 3)
    assert workers.description == "3 workers on cuda:0 and cuda:1, 2 CPU threads each"
    assert local.context_for(torch.device("cuda")).get_start_method() == "spawn", "importing may touch the device"


def test_a_worker_takes_its_threads_and_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = multiprocessing.Pipe()
    ours.close()
    taken: list[Any] = []
    for where, name in ((local.signal, "signal"), (local.faulthandler, "enable"), (local, "end_with_parent")):
        monkeypatch.setattr(where, name, mock.Mock())
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.delenv("SRBLOCK_WORKERS", raising=False)
    local._serve(theirs, Work(four_runs(), Path("out")), torch.device("cuda:1"), 3)
    assert taken == [3, torch.device("cuda:1")]
    assert os.environ.pop("SRBLOCK_WORKERS") == "3"


def test_it_ends_with_its_parent_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that ends a worker waits for the parent's end and for nothing else."""
    ours, theirs = multiprocessing.Pipe()
    ended = threading.Event()
    parent = type("Parent", (), {"sentinel": ours})
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(os, "_exit", lambda status: ended.set())
    thread = threading.Thread(target=worker_processes._wait_for_parent)
    thread.start()
    assert not ended.wait(0.2)
    theirs.close()
    assert ended.wait(5)
    thread.join()
