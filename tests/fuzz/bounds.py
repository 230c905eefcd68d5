"""How many damaged files of a kind are tried, how long one may take, and where the counts go."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

MOST = int(os.environ.get("SRBLOCK_FUZZ", "0"))  # of each kind; 0 for some seconds' worth
SLOWEST_S = 10.0  # of the processor, as others may be at it too
LARGEST_MB = 1000.0  # that a process may grow by
TRIED = "files tried"  # a property of a test's report

Record = Callable[[str, object], None]


def tries(kind: str, record: Record, seconds: float = 1.5) -> Iterator[int]:
    """Count the tries of a kind of file, as many as are asked for; one that took too long is an error.

    Args:
        record: pytest's `record_property`, which hands the counts to the summary.
        seconds: to try for where no number is asked for.
    """
    begin = time.monotonic()
    number, slowest_s = 0, 0.0
    while number < MOST if MOST else time.monotonic() - begin < seconds:
        start = time.process_time()
        yield number
        slowest_s = max(slowest_s, time.process_time() - start)
        assert slowest_s < SLOWEST_S, f"{kind}, try {number} took {slowest_s:.1f} s"
        number += 1
    record(TRIED, (kind, number, round(slowest_s, 2)))
