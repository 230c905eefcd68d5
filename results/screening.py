"""The rule of protocols/open-memory-screening.md: validation accuracy over the plain network's, and the winner.

    python results/screening.py [OUT]

Runs are taken from the records, and from OUT if it is given. No test figure is read.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from srblock.report.published import study_name
from srblock.runs.archive import read_records
from srblock.runs.protocol import read_protocols
from srblock.runs.records import Run, finished, read_run

RESULTS = Path(__file__).parent
PROTOCOL = next(plan for plan in read_protocols(RESULTS) if plan.name == "open-memory-screening")
PLAIN, *VARIANTS = PROTOCOL.variants
SEEDS = range(PROTOCOL.seeds)
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


def main(out: Path | None = None) -> None:
    """Print the table and the winner."""
    folders = [] if out is None else sorted(path for path in (out / "runs").iterdir() if finished(path))
    runs = [*read_records(RESULTS), *map(read_run, folders)]
    runs = [run for run in runs if study_name(run.config) == PROTOCOL.study]
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
        main(*map(Path, sys.argv[1:2]))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
