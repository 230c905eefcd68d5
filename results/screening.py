"""The screening of protocols/open-memory.md: validation accuracy over the plain network's by variant, and the winner.

    python results/screening.py OUT

OUT is the folder of the runs; the plain network's are taken from there or from the records. No test figure is read.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from srblock.runs.archive import read_records
from srblock.runs.records import Run, finished, read_run

RESULTS = Path(__file__).parent
PLAIN = "Airbench94"
VARIANTS = (
    "Airbench94 + SR(M=2, P=8, gain=8)",
    "Airbench94 + SR(M=2, P=8, gain=8, logits=standardized)",
    "Airbench94 + SR(M=2, P=8, gain=8, logits=standardized, start=kmeans)",
    "Airbench94 + SR(M=2, P=8, rank=4, gain=8, logits=standardized)",
    "Airbench94 + SR(M=2, P=8, rank=4, gain=32, logits=standardized)",
    "Airbench94 + SR(M=2, P=8, grid=1x1, gain=8, logits=standardized)",
)
SEEDS = range(4)
ALIKE = 0.1  # points within which the cheaper one wins


def differences(runs: Iterable[Run], variants: Iterable[str]) -> dict[str, list[float]]:
    """Return, by variant, the validation top-1 less the plain network's, seed by seed.

    Raises: ValueError naming the first run that is missing.
    """
    by_run = {(str(run.variant), run.config.seed): run.validation["top1"] for run in runs}
    found = {}
    for variant in variants:
        for name in (variant, PLAIN):
            if missing := [seed for seed in SEEDS if (name, seed) not in by_run]:
                raise ValueError(f"{name} has no run of seed {missing[0]} yet; the screening ends with the last one")
        found[variant] = [by_run[variant, seed] - by_run[PLAIN, seed] for seed in SEEDS]
    return found


def winner(gains: Mapping[str, list[float]], parameters: Mapping[str, int]) -> str:
    """Choose the variant with the highest mean, or the cheapest of those that are within `ALIKE` of it."""
    means = {variant: statistics.mean(values) for variant, values in gains.items()}
    near = [variant for variant, mean in means.items() if mean >= max(means.values()) - ALIKE]
    return min(near, key=lambda variant: (parameters[variant], -means[variant]))


def main(out: Path) -> None:
    """Print the table and the winner."""
    folders = sorted(path for path in (out / "runs").iterdir() if finished(path))
    here = [read_run(path) for path in folders]
    if not here:
        raise ValueError(f"{out} holds no finished run")
    recipe = here[0].config.recipe
    runs = [run for run in [*read_records(RESULTS), *here] if run.config.recipe == recipe]
    gains = differences(runs, VARIANTS)
    parameters = {str(run.variant): run.parameters for run in runs}
    print("| variant | parameters | mean | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " |")
    print("|---|---:|---:|" + "---:|" * len(SEEDS))
    for variant, values in gains.items():
        cells = [f"{statistics.mean(values):+.2f}", *(f"{value:+.2f}" for value in values)]
        print(f"| `{variant}` | {parameters[variant]:,} | {' | '.join(cells)} |")
    print(f"\nwinner: {winner(gains, parameters)}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (IndexError, OSError, ValueError) as error:
        sys.exit(f"error: {error if str(error) != 'list index out of range' else 'name the folder of the runs'}")
