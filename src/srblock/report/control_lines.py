"""What the figures of trained networks become under controls, over the seeds of a study."""

from __future__ import annotations

from collections.abc import Sequence

from srblock.report.units import reach, signed
from srblock.runs.records import Run
from srblock.statistics.equivalence import tost_p
from srblock.statistics.pairing import pairing
from srblock.statistics.power import ALPHA

CONTROLS = {
    "removed": "block removed",
    "mean": "mean recall weights",
    "uniform": "recall weights 1 / P",
    "shuffled": "another image's recall weights",
    "largest": "largest recall weight alone",
    "flat": "memory without positions",
}
NOT_USED = {
    "removed": "The trained networks hardly use the block: without it",
    "mean": "The block does hardly more than a fixed bias map: with the mean recall weights for every image",
}  # what it means that a control changes nothing, the stronger one first


MOST = 1.0  # percentage points that two test images may be to count as no change


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


def not_used(runs: Sequence[Run], margin: float) -> str:
    """Say in a sentence that trained networks do as well without their blocks, or with a fixed map in their place.

    Said only where it is shown: two seeds or more, and their change within the margin by TOST, or within two test
    images if these are more, up to a point; where all seeds change alike, within the margin. Else "".

    Args: margin in percentage points.
    """
    recorded = [run for run in runs if run.controls]
    if not recorded:
        return ""
    image = 100 / int(recorded[0].config.data["test"]) if recorded[0].figure.per_image else 0.0
    bound = max(margin, min(2 * image, MOST))
    intact = {run.seed: run.controls["intact"][run.figure.key] for run in recorded}
    for name, meaning in NOT_USED.items():
        under = {run.seed: run.controls[name][run.figure.key] for run in recorded if name in run.controls}
        found = pairing({seed: intact[seed] for seed in under}, under)
        if found is None:
            continue
        small = abs(found.mean) < margin if found.estimate is None else tost_p(found.estimate, bound) < ALPHA
        if small:
            return (
                f"{meaning}, test {runs[0].figure.label} changes by {signed(found.mean)} points, less than {bound:.2g}."
            )
    return ""
