"""Follow runs of other processes through the files in their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srblock.runs.records import read_metrics


class Watch:
    """Read the epochs that runs at work have finished since the last look."""

    def __init__(self) -> None:
        self._seen: dict[Path, int] = {}

    def news(self, directory: Path) -> list[dict[str, Any]]:
        """Return the new records of a run's metrics.jsonl, which is replaced as a whole after each epoch.

        The first look returns what earlier starts have left. Epochs that a run repeats, because it went on from an
        earlier one, are told when they are done again. A file that cannot be read is read at the next look: on a
        network file system it may vanish under the reader.
        """
        try:
            records = read_metrics(directory)
        except (OSError, ValueError):
            return []
        news = records[self._seen.get(directory, 0) :]
        self._seen[directory] = len(records)
        return news
