"""What the figures of trained networks become under controls, over the seeds of a study."""

from __future__ import annotations

from collections.abc import Sequence

from srblock.report.units import reach, signed
from srblock.runs.records import Run
from srblock.statistics.pairing import pairing

CONTROLS = {
    "removed": "block removed",
    "mean": "mean recall weights",
    "uniform": "recall weights 1 / P",
    "shuffled": "another image's recall weights",
    "largest": "largest recall weight alone",
    "flat": "memory without positions",
}


def control_lines(groups: Sequence[tuple[str, Sequence[Run]]]) -> list[tuple[str, str, str, str, str]]:
    """List variant, control, number of seeds, change against the intact network and its 95% interval.

    Of runs that recorded them; of one seed there is no interval.
    """
    lines = []
    for variant, runs in groups:
        recorded = [run for run in runs if run.controls]
        intact = {run.seed: run.controls["intact"][run.figure.key] for run in recorded}
        for name, words in CONTROLS.items():
            under = {run.seed: run.controls[name][run.figure.key] for run in recorded if name in run.controls}
            if not under:
                continue
            found = pairing({seed: intact[seed] for seed in under}, under)
            changes = [under[seed] - intact[seed] for seed in under]
            low_to_high = "-" if found is None or found.estimate is None else reach(found.estimate.interval())
            lines.append((variant, words, str(len(under)), signed(sum(changes) / len(changes)), low_to_high))
    return lines
