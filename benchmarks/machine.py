"""What benchmark scripts share: the machine in a row of a CSV, a name for it, and the file."""

from __future__ import annotations

import csv
import os
import re
from datetime import date
from pathlib import Path

import torch

from srblock.training import runtime

RESULTS = Path(__file__).parent / "results"


def describe(device: torch.device) -> dict[str, object]:
    """Return the columns that say where a figure comes from."""
    here = runtime.environment(device)
    return {"device": here["device"], "threads": here["threads"], "cores": os.cpu_count(), "torch": here["torch"],
            "date": date.today().isoformat(), "commit": here["commit"]}  # fmt: skip


def write(folder: Path, name: str, rows: list[dict[str, object]], *versions: str) -> None:
    """Write rows as NAME-MACHINE-VERSIONS.csv; they hold the columns of `describe`."""
    first = rows[0]
    words = (first["device"], first["cores"], "cores", "torch", first["torch"], *versions)
    label = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(map(str, words))).strip("-").lower()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{label}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(first), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}")
