"""Worker processes: how they start, and that they end with the process they work for, whether it ends or is killed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing import connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext  # Windows lacks the first


def fork_server(preload: list[str]) -> ForkServerContext | SpawnContext:
    """Start workers from a process without threads and without CUDA that imports once; Windows has none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload)
    return context


def end_with_parent() -> None:
    """Let this worker end when the process that started it is gone; what forked it may be another one that stays."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
