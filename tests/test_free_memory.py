"""What is free: the least of the machine's memory and of every control group above the process."""

from __future__ import annotations

from pathlib import Path

import torch

from srblock.training.free_memory import free_memory

CPU = torch.device("cpu")


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemTotal: 900 kB\nMemAvailable: 500 kB\n", "proc/self/cgroup": "0::/job\n"})
    write(tmp_path, {"sys/fs/cgroup/job/memory.max": "max\n", "sys/fs/cgroup/job/memory.current": "1000\n"})
    assert free_memory(CPU, tmp_path) == 500 * 1024


def test_the_tightest_group_counts_without_cached_files(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemAvailable: 500 kB\n", "proc/self/cgroup": "0::/a/b\n"})
    group = "sys/fs/cgroup/a"
    write(tmp_path, {f"{group}/memory.max": "90000", f"{group}/memory.current": "50000"})
    write(tmp_path, {f"{group}/memory.stat": "anon 1\ninactive_file 2000\n"})
    write(tmp_path, {f"{group}/b/memory.max": "80000", f"{group}/b/memory.current": "10000"})
    assert free_memory(CPU, tmp_path) == 42000


def test_the_older_kind_of_groups_counts_too(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemAvailable: 500 kB\n", "proc/self/cgroup": "3:cpu,cpuacct:/x\n2:memory:/x\n"})
    group = "sys/fs/cgroup/memory/x"
    write(tmp_path, {f"{group}/memory.limit_in_bytes": "9000", f"{group}/memory.usage_in_bytes": "8000"})
    write(tmp_path, {f"{group}/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n"})
    assert free_memory(CPU, tmp_path) == 1500


def test_a_system_that_says_nothing_is_believed(tmp_path: Path) -> None:
    assert free_memory(CPU, tmp_path) is None
