"""Workers on this machine: a process per slot, kept from run to run, replaced when a run takes it down."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import pickle
import signal
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

import torch

from srblock.data.loading.workers import end_with_parent, fork_server
from srblock.data.offenders import counted
from srblock.executors.budget import until
from srblock.runs.log import add_to_log
from srblock.runs.outcome import Outcome
from srblock.runs.records import RunConfig
from srblock.runs.run_one import Work, train_one
from srblock.training import runtime

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext  # Windows lacks the first

KILLED = (-9, -signal.SIGTERM)  # exit codes of SIGKILL, which Windows lacks, and SIGTERM; nobody kills itself so
GRACE_S = 3.0  # from the end of a connection to that of its process
PRELOAD = ["torch._dynamo", "srblock.executors.local"]  # imported once; the first is what optimizers import late


@dataclass
class _Slot:
    process: BaseProcess
    connection: Connection
    config: RunConfig | None = None


class LocalWorkers:
    """Processes of this machine (`dispatch.Workers`).

    They share the images' memory, the CPU threads evenly, and, for device "cuda", the visible GPUs in turn; a named
    device takes all. Each ends by itself when this process is gone, however it went.

    Raises: TypeError on the first run if probe, inspect or a function that builds a network cannot be pickled.
    """

    resumes = 1
    poll_s = 0.2

    def __init__(self, work: Work, device: torch.device, count: int) -> None:
        self.count, self._work = count, work
        self._devices = slot_devices(device, count)
        self._threads = max(1, torch.get_num_threads() // count)
        self._slots: dict[int, _Slot] = {}
        self._context = context_for(device)
        self._payload: Work | bytes = work
        names = list(dict.fromkeys(map(str, self._devices)))
        self.description = f"{count} workers on {' and '.join(names)}, {counted(self._threads, 'CPU thread')} each"

    def environment(self) -> dict[str, Any]:
        """Describe what the workers run on."""
        return runtime.environment(self._devices[0]) | {"threads": self._threads}

    def __enter__(self) -> LocalWorkers:
        self._payload = _shared(self._work)
        if self._devices[0].type == "cuda":
            torch.cuda.empty_cache()  # what planning has left
        return self

    def __exit__(self, *_: object) -> None:
        self.restart(list(self._slots))

    def submit(self, config: RunConfig, deadline: float | None) -> None:
        """Hand a run to an idle worker, or to a new one."""
        for number, slot in list(self._slots.items()):
            if slot.config is None and not slot.process.is_alive():
                self.restart([number])  # ended while it had nothing to do
        number = next(n for n in range(self.count) if n not in self._slots or self._slots[n].config is None)
        if number not in self._slots:
            self._slots[number] = self._start(number)
        self._slots[number].config = config
        with contextlib.suppress(OSError):  # it has just ended; `wait` finds out how
            self._slots[number].connection.send((config, deadline))

    def wait(self, timeout_s: float) -> list[tuple[RunConfig, Outcome]]:
        """Wait for the end of a run, or of its worker."""
        busy = {slot.connection: number for number, slot in self._slots.items() if slot.config is not None}
        found = []
        for ready in connection.wait(list(busy), timeout_s):
            number = busy[ready]  # type: ignore[index]
            slot, config = self._slots[number], self._slots[number].config
            assert config is not None
            slot.config = None
            try:
                outcome = slot.connection.recv()
            except (EOFError, OSError):
                outcome = self._death(slot, config)
            found.append((config, outcome))
            if outcome.ending not in ("done", "busy", "paused", "diverged"):
                self.restart([number])  # an error may leave a device unusable for its process
        return found

    def restart(self, numbers: list[int] | None = None) -> None:
        """End workers, those with nothing to do unless told which; new ones start when needed."""
        if numbers is None:
            numbers = [number for number, slot in self._slots.items() if slot.config is None]
        slots = [self._slots.pop(number) for number in numbers]
        for slot in slots:
            slot.process.kill()  # files are whole at any moment
        for slot in slots:
            slot.process.join()
            slot.connection.close()
            slot.process.close()

    def _start(self, number: int) -> _Slot:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve,
            args=(theirs, self._payload, self._devices[number], self._threads),
            name=f"srblock worker {number}",
        )
        try:
            process.start()
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            ours.close()
            raise TypeError(
                f"a run cannot be handed to another process ({error}); functions that build networks, probe and "
                "inspect must stand at the top of an importable module"
            ) from error
        finally:
            theirs.close()
        return _Slot(process, ours)

    def _death(self, slot: _Slot, config: RunConfig) -> Outcome:
        """Say how a worker ended that took a run with it."""
        slot.process.join(GRACE_S)
        code = slot.process.exitcode
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        text = f"its worker ended by {how}"
        log = add_to_log(self._work.folder(config), f"{text}\n")
        return Outcome("killed", text) if code in KILLED else Outcome("failed", f"{text}; see {log}")


def slot_devices(device: torch.device, count: int) -> list[torch.device]:
    """Return the device of each slot: "cuda" is dealt out over the visible GPUs, any other takes all."""
    gpus = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 0
    return [torch.device("cuda", number % gpus) if gpus else device for number in range(count)]


def context_for(device: torch.device) -> ForkServerContext | SpawnContext:
    """Return the way to start workers: with CUDA anew, as a library that looks for a device while it is imported makes
    CUDA unusable in all forks.
    """
    return multiprocessing.get_context("spawn") if device.type == "cuda" else fork_server(PRELOAD)


def _shared(work: Work) -> Work | bytes:
    """Move the images into shared memory, where workers find them; a copy for each where that is too small."""
    try:
        for value in vars(work.study.data).values():
            if isinstance(value, torch.Tensor):
                value.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError:  # Docker gives /dev/shm 64 MB
        return pickle.dumps(work)
    return work


def _serve(orders: Connection, payload: Work | bytes, device: torch.device, threads: int) -> None:
    """Train what is ordered until there is nobody to order."""
    # Both may reach all processes of a group; the one that gives orders sees to the rest.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _nothing)  # SIG_IGN would be inherited by processes that must end by it
    end_with_parent()
    faulthandler.enable(file=2)
    torch.set_num_threads(threads)
    os.environ.setdefault("SRBLOCK_WORKERS", str(threads))  # processes that decode streamed images
    if device.type == "cuda":
        torch.cuda.set_device(device)
    work = payload if isinstance(payload, Work) else pickle.loads(payload)
    while True:
        try:
            config, deadline = orders.recv()
        except (EOFError, OSError):
            return
        outcome = train_one(work, config, device, on_epoch=until(deadline, work, config), log=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()  # for the neighbors
        orders.send(outcome)


def _nothing(number: int, frame: object) -> None:
    """Handle a signal that is for another process."""
