"""The machine under a run: device, what it gains from, what to record of it."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srblock import __version__
from srblock.training import distributed
from srblock.training.recipe import Recipe

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PACKAGES = ("torch", "torchvision", "timm", "numpy")
# What may change the last bits of a result; reusing a run made under others warns.
DECISIVE = ("device", "threads", "torch", "processes", "block_rounding")
# What may change more than that within a run.
CODE = ("srblock", "commit", "timm", "torchvision")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
ASSUMED = {"processes": 1, "block_rounding": 1}  # of records older than the entry
BLOCK_ROUNDING = 3  # raised when the block is computed in other forms, that is rounded otherwise


def pick_device(name: str = "auto") -> torch.device:
    """Return the named device; "auto" takes CUDA where there is one. Each of several processes gets a GPU of its own.

    Raises: ValueError if the device is not there.
    """
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    if chosen.startswith("cuda"):
        exact_float32()
    if distributed.world_size() > 1 and chosen.startswith("cuda"):
        return _own_gpu(chosen)
    if name == "auto":
        return torch.device(chosen)
    try:
        if name.partition(":")[0] not in ("cpu", "cuda"):
            raise ValueError(f"training runs on cpu and cuda, not on {name}")
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); try --device auto or cpu") from error
    return device


def exact_float32() -> None:
    """Let convolutions on GPUs compute in float32 where that is asked for; by default they round to TF32."""
    cudnn: Any = torch.backends.cudnn
    cudnn.allow_tf32 = False
    if getattr(getattr(cudnn, "conv", None), "fp32_precision", "none") not in ("none", "ieee"):
        cudnn.conv.fp32_precision = "ieee"  # a wider setting of torch 2.9 and later stands above the flag


def _own_gpu(name: str) -> torch.device:
    """Return the GPU of this process, one of several."""
    mine, there = distributed.local_rank(), torch.cuda.device_count()
    if name != "cuda":
        raise ValueError(
            f"{name} is one GPU for {distributed.world_size()} processes; --device cuda gives each its own"
        )
    if mine >= there:
        raise ValueError(
            f"torchrun started more processes on this machine than it has GPUs ({there}); start at most as many, or "
            "use --device cpu"
        )
    return torch.device("cuda", mine)


def resolve(recipe: Recipe, device: torch.device, precision: str = "auto") -> Recipe:
    """Fix precision and memory format before a run starts, so that the recipe says what was done.

    "auto" takes bfloat16 on GPUs that compute in it, float32 elsewhere (on CPUs bfloat16 was measured slower).
    """
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        precision = "bfloat16" if fast else "float32"
    return replace(recipe, precision=precision, memory_format="channels_last")


def place(model: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """Move a model to the device, in the recipe's memory format."""
    return model.to(device).to(memory_format=FORMATS[recipe.memory_format])


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Return the recipe's precision as a context."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16")


def keep_freed_memory(device: torch.device) -> None:
    """Let this process keep memory that it frees, for its next tensors, if it computes on the CPU with glibc.

    By default glibc returns every large block to the system and gets it back page by page, zeroed: a step that
    allocates gigabytes spends up to a third of its time there (`benchmarks/freed_memory.py` measures it). A process
    then stays as large as it was at its largest. No number changes. Whoever has set MALLOC_MMAP_MAX_, glibc's variable
    for this, has chosen already.
    """
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc" and "MALLOC_MMAP_MAX_" not in os.environ:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a clock read afterwards counts its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def now(device: torch.device) -> float:
    """Return a clock in seconds, after the device has finished its work."""
    synchronize(device)
    return time.perf_counter()


def environment(device: torch.device) -> dict[str, Any]:
    """Describe what a run runs on: device, threads of each process, processes, versions, commit."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
        "block_rounding": BLOCK_ROUNDING,
        "python": platform.python_version(),
        "srblock": __version__,  # of this code: the metadata of an editable installation may be older
        **{name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def differences(
    there: dict[str, Any], here: dict[str, Any], *, blocks: bool = True, beside: Sequence[str] = ()
) -> list[str]:
    """List what may make last bits differ between two environments, as "threads 8 (now 2)".

    Args:
        blocks: whether the network has SR blocks, so that their rounding matters.
        beside: entries that matter too, where they are known.
    """
    found = {key: there.get(key, ASSUMED.get(key)) for key in DECISIVE if blocks or key != "block_rounding"}
    found |= {key: there[key] for key in beside if key in there}
    return [f"{key} {value} (now {here[key]})" for key, value in found.items() if value != here[key]]


def peak_memory_mb() -> float | None:
    """Return the largest resident size of this process so far, in MB of 1e6 bytes; None on Windows."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == "Darwin" else 1024) / 1e6


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return "CPU " + line.partition(":")[2].strip()
    return f"CPU {platform.processor() or platform.machine()}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def _commit() -> str | None:
    """The commit of the source tree that runs, with a + if it was changed; as this process found it first.

    Outside a checkout of srblock it is what $SRBLOCK_COMMIT says, for a copy made elsewhere, or None.
    """
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # an installed copy may lie in a stranger's repository
        return _git("rev-parse", "--short=12", "HEAD") + ("+" if _git("status", "--porcelain", "-uno", "..") else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("SRBLOCK_COMMIT")


def _git(*words: str) -> str:
    here = Path(__file__).resolve().parent
    done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=True, timeout=5)
    return done.stdout.strip()
