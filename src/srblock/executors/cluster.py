"""Workers on a Ray cluster: the study's runs as Ray tasks, on whatever nodes have room."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import math
import os
import signal
import socket
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from srblock.data.offenders import counted
from srblock.executors.budget import until
from srblock.runs.log import add_to_log
from srblock.runs.outcome import Ending, Outcome
from srblock.runs.records import RunConfig
from srblock.runs.run_one import Work, make_folder, train_one

ray: Any = importlib.import_module("ray")  # without types; an extra, see `execute.Executor.check`

SEEN_WITHIN_S = 30.0  # a new file of one node must be seen by another
ANSWERS_WITHIN_S = 5.0  # Ray itself would wait for minutes


class RayWorkers:
    """Tasks on a Ray cluster (`dispatch.Workers`): the one RAY_ADDRESS names, else one started on this machine.

    Args:
        count: runs at once. None: as many as there are GPUs (device "cuda") or CPUs for.
        cpus: of each run, also its CPU threads. None: its share of the cluster's, at most one node's; 1 if count is
            None too and the device is the CPU.
        gpus: of each run; less than 1 lets runs share one. None: its share of the cluster's, at most 1.

    Raises: inside the context, ValueError if the cluster is not there or lacks what a run needs, OSError if a node does
    not see the study's folder.
    """

    resumes = 3  # nodes may be taken away again and again
    poll_s = 1.0

    def __init__(
        self, work: Work, device: torch.device, count: int | None, cpus: int | None, gpus: float | None
    ) -> None:
        study = work.study  # nodes have working directories of their own
        study = replace(study, weights=study.weights.absolute() if study.weights else None)
        self._work = replace(work, study=study, out=work.out.absolute())
        self._device = device
        self._wanted = count, cpus, gpus
        self._at_work: dict[Any, RunConfig] = {}
        self._leaving = contextlib.ExitStack()
        self.count = count or 1
        self.description = "Ray"

    def environment(self) -> None:
        """Describe nothing: the nodes may differ from this machine."""

    def __enter__(self) -> RayWorkers:
        with contextlib.ExitStack() as leaving:
            if not ray.is_initialized():
                _connect(self._device, *self._wanted[:2])
                leaving.callback(ray.shutdown)
            self.count, cpus, gpus = share_out(ray.nodes(), self._device, *self._wanted)
            each = counted(cpus, "CPU") + (f" and {gpus:g} GPU{'s' if gpus > 1 else ''}" if gpus else "")
            address = ray.get_runtime_context().gcs_address
            self.description = f"Ray at {address}, {counted(self.count, 'run')} at once with {each} each"
            token = make_folder(self._work.out) / f".seen-{uuid.uuid4().hex}"
            leaving.callback(token.unlink, missing_ok=True)
            leaving.enter_context(FileLock(token))
            self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_train_there)
            self._fixed = ray.put(self._work), self._device, cpus, token
            leaving.callback(self._cancel)
            self._leaving = leaving.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.close()

    def submit(self, config: RunConfig, deadline: float | None) -> None:
        """Start a run wherever there is room."""
        left_s = math.inf if deadline is None else deadline - time.monotonic()
        self._at_work[self._task.remote(config, left_s, time.time(), *self._fixed)] = config

    def wait(self, timeout_s: float) -> list[tuple[RunConfig, Outcome]]:
        """Wait for the end of a run, or of its worker."""
        ready, _ = ray.wait(list(self._at_work), timeout=timeout_s)
        return [self._end(task, self._at_work.pop(task)) for task in ready]

    def restart(self) -> None:
        """Do nothing: Ray ends a process that has used a GPU after each task."""

    def _cancel(self) -> None:
        for task in self._at_work:
            ray.cancel(task, force=True)

    def _end(self, task: Any, config: RunConfig) -> tuple[RunConfig, Outcome]:
        try:
            outcome: Outcome = ray.get(task)
            return config, outcome
        except ray.exceptions.OutOfMemoryError as error:  # Ray ended it before the kernel would
            return config, self._failed(config, "memory", error)
        except ray.exceptions.RayTaskError as error:  # before the run began
            return config, self._failed(config, "failed", error)
        except ray.exceptions.RayError as error:  # the worker or its node is gone
            return config, self._failed(config, "killed", error)

    def _failed(self, config: RunConfig, ending: Ending, error: Exception) -> Outcome:
        log = add_to_log(self._work.folder(config), f"{error}\n")
        if ending == "killed":
            return Outcome("killed", f"its worker was lost ({type(error).__name__})")
        return Outcome(ending, f"{str(error).strip().splitlines()[-1]}; see {log}")


def share_out(
    nodes: list[dict[str, Any]], device: torch.device, count: int | None, cpus: int | None, gpus: float | None
) -> tuple[int, int, float]:
    """Settle how many runs go on at once, and the CPUs and GPUs of each (see `RayWorkers`).

    Args:
        nodes: as `ray.nodes()` lists them.

    Raises: ValueError if nothing fits.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    all_cpus, most_cpus = (int(f(r.get("CPU", 0) for r in alive)) for f in (sum, max))
    all_gpus, most_gpus = (int(f(r.get("GPU", 0) for r in alive)) for f in (sum, max))
    for name, wanted, most in (("CPUs", cpus or 0, most_cpus), ("GPUs", gpus or 0, most_gpus)):
        if wanted > most:
            raise ValueError(f"no node of the Ray cluster has {wanted:g} {name} for a run; the largest has {most}")
    if device.type == "cuda":
        if gpus is None and all_gpus == 0:
            raise ValueError("no node of the Ray cluster has a GPU; add one, or use --device cpu")
        gpus = gpus or 1 / math.ceil((count or 1) / all_gpus)
    if cpus is None:
        most_at_once = count or (_that_fit(alive, 0, gpus) if gpus else all_cpus)
        shares = range(min(all_cpus // max(1, most_at_once), most_cpus), 1, -1)
        cpus = next((share for share in shares if _that_fit(alive, share, gpus or 0) >= most_at_once), 1)
    return count or max(1, _that_fit(alive, cpus, gpus or 0)), cpus, gpus or 0.0


def _that_fit(nodes: list[dict[str, Any]], cpus: int, gpus: float) -> int:
    """Count the runs of so many CPUs and GPUs each that fit on nodes: none is spread over two, or parts of two GPUs."""
    total = 0
    for node in nodes:
        room = [int(node.get("CPU", 0) // cpus)] if cpus else []
        if gpus > 1:
            room.append(int(node.get("GPU", 0) // gpus))
        elif gpus:
            room.append(int(node.get("GPU", 0)) * int(1 / gpus + 1e-9))
        total += min(room)
    return total


def slots(device: torch.device, count: int | None, cpus: int | None, gpus: float | None) -> int:
    """Count the runs that would go on at once, on the cluster that RAY_ADDRESS names or on one started here.

    Raises: ValueError if that cluster does not answer, or has no room for a run.
    """
    if ray.is_initialized():
        nodes = ray.nodes()
    elif os.environ.get("RAY_ADDRESS"):
        _connect(device, count, cpus)
        try:
            nodes = ray.nodes()
        finally:
            ray.shutdown()
    else:
        here = _of_this_machine(device, count, cpus)
        nodes = [{"Alive": True, "Resources": {"CPU": here["num_cpus"], "GPU": here["num_gpus"]}}]
    return share_out(nodes, device, count, cpus, gpus)[0]


def _of_this_machine(device: torch.device, count: int | None, cpus: int | None) -> dict[str, int]:
    """Return what a cluster of this machine alone has for a study."""
    return {
        "num_cpus": (count or 1) * cpus if cpus else max(torch.get_num_threads(), count or 1),
        "num_gpus": torch.cuda.device_count() if device.type == "cuda" else 0,
    }


def _connect(device: torch.device, count: int | None, cpus: int | None) -> None:
    """Connect to the cluster that RAY_ADDRESS names, or start one for this study alone.

    Raises: ValueError if nothing answers there.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address, on_sigterm = os.environ.get("RAY_ADDRESS"), signal.getsignal(signal.SIGTERM)
    try:
        if address:
            _knock(address)
            ray.init(address=address, **quiet)
        else:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(address="local", include_dashboard=False, **_of_this_machine(device, count, cpus), **quiet)
    except Exception as error:  # Ray's own are of many kinds
        if not address:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({reason}); start it first, write HOST:PORT, or set "
            "RAY_AUTH_MODE=token if it asks for one"
        ) from error
    with contextlib.suppress(ValueError, TypeError):  # another thread's, or no handler of Python's
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put one there that aborts


def _knock(address: str) -> None:
    """Try the port of host:port or ray://host:port; other addresses ("auto", "local") are found by Ray.

    Raises: OSError if nobody listens there.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), ANSWERS_WITHIN_S).close()


def _train_there(
    config: RunConfig, left_s: float, sent: float, work: Work, device: torch.device, threads: int, token: Path
) -> Outcome:
    """Train a run on a node, if it sees the study's folder, and pause it so many seconds after it was sent.

    Args:
        sent: wall clock, whose difference between nodes is not corrected but makes no more time than there was.
    """
    start = time.monotonic() - max(0.0, time.time() - sent)
    patience = time.monotonic() + SEEN_WITHIN_S
    while not token.exists():
        if time.monotonic() > patience:
            text = f"node {socket.gethostname()} does not see {work.out} as this machine does"
            return Outcome("stop", f"{text}; choose an --out on a file system that all nodes share", errno.ENOENT)
        time.sleep(0.5)
    torch.set_num_threads(threads)
    with contextlib.ExitStack() as leaving:
        if "SRBLOCK_WORKERS" not in os.environ:  # processes that decode streamed images; this one may be used again
            os.environ["SRBLOCK_WORKERS"] = str(threads)
            leaving.callback(os.environ.pop, "SRBLOCK_WORKERS")
        outcome = train_one(work, config, device, on_epoch=until(start + left_s, work, config), log=True)
    if _locks_reach(token):
        return outcome
    text = f"a lock in {work.out} holds on its own node only: do not start this study a second time meanwhile"
    return replace(outcome, warnings=(*outcome.warnings, text))


def _locks_reach(token: Path) -> bool:
    """Tell whether the lock that the starting process holds on the token is felt here."""
    try:
        with FileLock(token, blocking=False):
            return False
    except Timeout:
        return True
