"""Threads that read files, and stop when they are told to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    """Give a pool of a thread per core, at most 16; an interruption waits for what is under way and for no more."""
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 16))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
