"""The machine under a run: what is picked, resolved and recorded."""

import contextlib
import os
import platform
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from srblock.training import distributed, runtime
from srblock.training.recipe import Recipe

CPU = torch.device("cpu")


def test_auto_takes_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.pick_device() == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runtime.pick_device() == torch.device("cuda")


def test_each_of_several_processes_gets_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "1")
    for name in ("auto", "cuda"):
        assert runtime.pick_device(name) == torch.device("cuda", 1)
    assert runtime.pick_device("cpu") == CPU
    with pytest.raises(ValueError, match=r"cuda:0 is one GPU for 4 processes; --device cuda gives each its own"):
        runtime.pick_device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match=r"more processes on this machine than it has GPUs \(2\).* --device cpu"):
        runtime.pick_device()


@pytest.mark.parametrize("name", ["mps", "meta", "quantum", "cuda:99"])
def test_other_devices_are_refused_in_a_line(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"device '{name}' cannot be used here \(.*\); try --device auto or cpu"
    ) as error:
        runtime.pick_device(name)
    assert len(str(error.value)) < 200


def test_precision_is_resolved_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, cuda = Recipe(), torch.device("cuda")
    assert runtime.resolve(recipe, CPU).precision == "float32"
    assert runtime.resolve(recipe, CPU, "bfloat16").precision == "bfloat16"
    for capability, precision in (((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert runtime.resolve(recipe, cuda).precision == precision
    assert runtime.resolve(recipe, cuda, "float32").precision == "float32"


@pytest.mark.parametrize("name", runtime.FORMATS)
def test_a_model_is_placed_in_the_recipes_memory_format(name: str) -> None:
    model = runtime.place(nn.Conv2d(4, 4, 3), replace(Recipe(), memory_format=name), CPU)
    assert model.weight.is_contiguous(memory_format=runtime.FORMATS[name])


def test_the_environment_names_what_decides() -> None:
    found = runtime.environment(CPU)
    assert set(runtime.DECISIVE) <= set(found)
    assert found["processes"] == 1
    assert found["threads"] == torch.get_num_threads()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["commit"] is None or re.fullmatch(r"[0-9a-f]{12}\+?", found["commit"])


def test_an_installed_copy_in_a_strangers_repository_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        if words[0] == "ls-files":
            raise subprocess.CalledProcessError(1, words)
        return "0123456789ab"

    monkeypatch.setattr(runtime, "_git", git)
    monkeypatch.delenv("SRBLOCK_COMMIT", raising=False)
    asked = runtime._commit.__wrapped__
    assert asked() is None
    monkeypatch.setenv("SRBLOCK_COMMIT", "fedcba987654")
    assert asked() == "fedcba987654", "a copy without git is told"


WITHOUT = """
import importlib, multiprocessing.context, pkgutil, signal, sys
del multiprocessing.context.ForkServerContext, signal.SIGKILL
sys.modules["resource"] = None
import srblock
names = [found.name for found in pkgutil.walk_packages(srblock.__path__, "srblock.")]
for name in names:
    if not name.endswith(("__main__", ".cluster")):
        importlib.import_module(name)
print(len(names))
"""


def test_every_module_can_be_imported_where_windows_lacks_names() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200


def test_convolutions_in_float32_are_not_rounded_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    runtime.pick_device("cpu")
    assert torch.backends.cudnn.allow_tf32
    with contextlib.suppress(ValueError):  # where there is none
        runtime.pick_device("cuda")
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="before torch 2.9 there is one flag")
def test_a_wider_setting_does_not_bring_tf32_back() -> None:
    program = (
        "import torch; cudnn = torch.backends.cudnn; cudnn.fp32_precision = 'tf32'; "
        "from srblock.training import runtime; runtime.exact_float32(); print(cudnn.conv.fp32_precision)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "ieee\n", done.stderr


def test_a_commit_made_while_a_study_runs_is_not_that_of_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = runtime.environment(torch.device("cpu"))["commit"]
    monkeypatch.setattr(runtime, "_git", lambda *words: "ba9876543210")
    assert runtime.environment(torch.device("cpu"))["commit"] == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_this_process_own() -> None:
    """A child of a large process starts small, and sees what it allocates."""
    ballast = torch.ones(60_000_000)  # 240 MB here
    program = (
        "from srblock.training.runtime import peak_memory_mb as peak; import torch; before = peak(); "
        "torch.ones(50_000_000); print(before, peak())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert 180 < after - before < 300
    assert before < runtime.peak_memory_mb()
    assert len(ballast) == 60_000_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    """In processes of their own: 64 MB written 40 times hardly ask the system for new pages when they are kept."""
    program = (
        "import resource, sys, torch\n"
        "from srblock.training import runtime\n"
        "runtime.keep_freed_memory(torch.device('cpu'))\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(40): torch.ones(2**24)\n"
        "print(faults())\n"
    )

    def faults(environment: dict[str, str]) -> int:
        words, kept = [sys.executable, "-c", program], {k: v for k, v in os.environ.items() if "MALLOC" not in k}
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=kept | environment)
        return int(done.stdout)

    assert faults({}) < faults({"MALLOC_MMAP_MAX_": "65536"}) / 2, "the variable switches it off"


def test_memory_is_left_alone_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda *_: pytest.fail("asked for the C library"))
    runtime.keep_freed_memory(torch.device("cuda"))
