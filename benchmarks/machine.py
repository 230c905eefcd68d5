"""What benchmark scripts share: the machine in a row of a CSV, a name for it, and the file."""

from __future__ import annotations

import csv
import os
import re
from datetime import date
from functools import cache
from pathlib import Path

import torch

from srblock.training import runtime

RESULTS = Path(__file__).parent / "results"


@cache
def describe(device: torch.device) -> dict[str, object]:
    """Return the columns that say where a figure comes from."""
    here = runtime.environment(device)
    return {"device": here["device"], "threads": here["threads"], "cores": os.cpu_count(), "torch": here["torch"],
            "date": date.today().isoformat(), "commit": here["commit"]}  # fmt: skip


def write(folder: Path, name: str, rows: list[dict[str, object]], *versions: str, done: bool = True) -> None:
    """Write rows as NAME-MACHINE-VERSIONS.csv; they hold the columns of `describe`. Say where, if they are all."""
    first = rows[0]
    words = (first["device"], first["cores"], "cores", "torch", first["torch"], *versions)
    label = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(map(str, words))).strip("-").lower()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{label}.csv"
    with (part := path.with_suffix(".part")).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(first), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)
    if done:
        print(f"wrote {path}")
