"""One run over several processes that torchrun started: DistributedDataParallel, one device for each process.

Every process computes its share of each batch. Process 0 alone writes, prints and is asked for what is recorded; what
the run depends on is reduced or broadcast, so that all processes decide alike. In a single process each function
here does what its name says for one, that is mostly nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from srblock.training.recipe import Recipe

Value = TypeVar("Value")

PLACE = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets besides WORLD_SIZE
_on_rank0 = False  # whether process 0 does something while the others wait for it
LONGEST_WAIT = timedelta(days=7)  # for process 0, which tests alone; who is gone is noticed by the connection
PATIENCE_S = 3.0  # torchrun ends all processes when one fails: let the one with a message be that one
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Ended(RuntimeError):
    """Process 0 stopped; it says why."""


def launched() -> int:
    """Return how many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def refuse(command: str) -> None:
    """Refuse a command that torchrun would run several times over.

    Raises: ValueError if there is more than one process, in the first; a silent SystemExit in the others.
    """
    if launched() > 1:
        if int(os.environ.get("RANK") or 0) > 0:
            time.sleep(PATIENCE_S)
            raise SystemExit(1)
        raise ValueError(
            f"srblock {command} runs in one process and torchrun started {launched()}; only srblock train is spread "
            "over several: start this command without torchrun"
        )


def world_size() -> int:
    """Return the number of processes of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number among them."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Return this process's number on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK") or 0)


@contextlib.contextmanager
def start(device: str = "auto") -> Iterator[None]:
    """Join the processes that torchrun started for as long as the context lasts; without torchrun do nothing.

    Gradients travel by NCCL between GPUs and by gloo between CPUs; everything else by gloo. Processes other than 0
    neither print nor warn. When an exception leaves the context in several processes, the first keeps its own and the
    others end with a silent SystemExit.

    Args:
        device: as the user named it; `runtime.pick_device` in the context gives the process's own.

    Raises: ValueError if WORLD_SIZE is set but not the rest of what torchrun sets; ConnectionError if another process
    vanished without a word.
    """
    if launched() == 1:
        yield
        return
    if missing := [name for name in PLACE if name not in os.environ]:
        raise ValueError(
            f"WORLD_SIZE is {launched()} but {', '.join(missing)} is not set; start several processes with torchrun, "
            "or unset WORLD_SIZE for one"
        )
    gpu = torch.cuda.is_available() and device.partition(":")[0] in ("auto", "cuda")
    if gpu and local_rank() < torch.cuda.device_count():
        torch.cuda.set_device(local_rank())
    store, number, count = next(iter(rendezvous("env://")))
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    dist.init_process_group(backend, timeout=LONGEST_WAIT, store=store, rank=number, world_size=count)
    try:
        with _silence() if number > 0 else contextlib.nullcontext():
            yield
    except BaseException as error:
        lost = isinstance(error, Ended) or (isinstance(error, RuntimeError) and "gloo" in str(error))
        if not _speaks(lambda: store.add("srblock/failed", 1), lost):
            raise SystemExit(1) from None
        if lost:
            raise ConnectionError(
                f"another of the {count} processes of this run ended; see its message, or torchrun's, above or below"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def wrap(model: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """Return the model as training should call it: averaging gradients over the processes.

    Parameters and buffers become process 0's. Batch statistics are each process's own unless the recipe says
    sync_batch_norm; then the model's batch norms are replaced by synchronized ones, which a single process has no need
    for. Parameters that no loss depends on are allowed, as long as they stay the same ones.

    Raises: ValueError for sync_batch_norm on a CPU or with batch norms that torch cannot convert, and for an engine
    other than eager.
    """
    if recipe.sync_batch_norm and device.type != "cuda":
        raise ValueError(f"sync_batch_norm needs CUDA devices, got {device.type}; leave it off on a CPU")
    if world_size() == 1:
        return model
    if recipe.engine != "eager":
        raise ValueError(f"a run over {world_size()} processes needs the engine eager, got {recipe.engine}")
    if recipe.sync_batch_norm:
        for name, module in model.named_modules():
            if isinstance(module, BATCH_NORMS) and type(module) not in BATCH_NORMS:
                raise ValueError(
                    f"sync_batch_norm cannot convert {name}, a {type(module).__name__}: torch would drop what it does "
                    "besides batch normalization; leave it off for this network"
                )
            if isinstance(module, BATCH_NORMS) and (
                module._forward_hooks or module._forward_pre_hooks or [*module.children()]
            ):
                raise ValueError(
                    f"sync_batch_norm cannot convert {name}, on which something hangs (a block that stands after it, "
                    "or a hook): torch would drop it; leave it off, or insert the block after another module"
                )
        if nn.SyncBatchNorm.convert_sync_batchnorm(model) is not model:  # type: ignore[no-untyped-call]
            raise ValueError("sync_batch_norm cannot convert a network that is a single batch norm")
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True, static_graph=True)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model under `wrap`: calling it waits for nobody."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def loss_scale(images: int, batch: int) -> float:
    """Weigh the mean loss over this process's images, so that the average over processes is the batch's mean.

    Args:
        images, batch: number of images in this process's share, and in all of them.
    """
    return images * world_size() / batch


def all_reduce(values: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes; in what `on_rank0` does, process 0's own: the others wait."""
    if world_size() > 1 and not _on_rank0:
        values = values.clone()
        dist.all_reduce(values)
    return values


def share_buffers(model: nn.Module) -> None:
    """Give all processes the buffers of process 0, such as its running batch statistics."""
    if world_size() == 1:
        return
    for buffer in model.buffers():
        received = buffer.detach().contiguous()
        dist.broadcast(received, src=0)
        buffer.copy_(received)


def broadcast(value: Any) -> Any:
    """Return process 0's value in all processes; what the others pass does not matter."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def on_rank0(action: Callable[[], Value]) -> Value:
    """Do something in process 0 only and return its result in all; the others wait.

    Raises: in process 0 what the action raised; Ended in the others.
    """
    if world_size() == 1:
        return action()
    global _on_rank0
    outcome: tuple[Value] | None = None
    if rank() == 0:
        try:
            _on_rank0 = True
            try:
                outcome = (action(),)
            finally:
                _on_rank0 = False
        except BaseException:
            with contextlib.suppress(RuntimeError):  # of a process that is gone
                broadcast(None)
            raise
    outcome = broadcast(outcome)
    if outcome is None:
        raise Ended("process 0 of this run stopped; see its message")
    return outcome[0]


def reseed(seed: int, epoch: int) -> None:
    """Give processes other than 0 random numbers of their own for an epoch, the same however the run got there.

    Process 0 goes on with the state that is in the checkpoint, as a single process does.
    """
    if rank() > 0:
        drawn = np.random.SeedSequence((seed, epoch, rank())).generate_state(1, np.uint64)
        torch.manual_seed(int(drawn[0] >> np.uint64(1)))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _speaks(count: Callable[[], int], lost: bool) -> bool:
    """Tell whether this process is to say what went wrong: the first that failed by itself.

    Args:
        count: counts the processes that ask to speak.
        lost: whether it only noticed that another one is gone.
    """
    if lost:
        time.sleep(PATIENCE_S)
    with contextlib.suppress(RuntimeError):  # the store is gone with the process that held it
        if count() == 1:
            return True
    if not lost:
        time.sleep(PATIENCE_S)
    return False
