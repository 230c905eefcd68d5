"""How much memory is free for this process: of the machine or of its control group, or of a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch


def free_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Return the bytes that this process could still take on a device; None where the system does not say.

    On the CPU that is what Linux calls MemAvailable, or less where a control group (a container, a job) has a limit.

    Args: root: where /proc and /sys are.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = list(_control_groups(root))
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    return min(found, default=None)


def _control_groups(root: Path) -> Iterator[int]:
    """Yield what is left of the limits on this process's control group and those above it.

    Cached files count as used and are given up when memory is wanted, so they are left out.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds and "memory" not in kinds.split(","):
            continue
        names = ("memory.max", "memory.current") if not kinds else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        top = root / "sys/fs/cgroup" / ("memory" if kinds else "")
        folder = top / path.strip("/")
        for place in (folder, *folder.parents):
            try:
                limit, used = (int((place / name).read_text()) for name in names)
            except (OSError, ValueError):  # "max" is no limit
                pass
            else:
                yield max(0, limit - used + _cached(place))
            if place == top:
                break


def _cached(place: Path) -> int:
    try:
        entries = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(entries.get("total_inactive_file", entries.get("inactive_file", 0)))
