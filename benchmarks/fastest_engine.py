"""Print the engine that train_speed.py has found the fastest, by the train_speed-*.csv of a folder; without, eager."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median


def fastest(folder: Path) -> str:
    """Choose by the median of images per second over rounds and variants; the bare loop is no engine."""
    rates = defaultdict(list)
    for path in folder.glob("train_speed-*.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row["engine"] != "bare":
                    rates[row["engine"]].append(float(row["images_per_s"]))
    return max(rates, key=lambda engine: median(rates[engine]), default="eager")


if __name__ == "__main__":
    print(fastest(Path(sys.argv[1])))
