"""How often times measured in turns find a difference between two networks that are the same one.

    python benchmarks/equal_networks.py [--data digits] [--network R8] [--times 30]

A comparison's report times its variants in turns and gives the median ratio a 95% interval by the sign test
(`runs/side_by_side.py`). Rounds need not be independent on a busy machine, so whether the interval holds is a question
to it: here both sides are the same network with the same weights, and an interval without 1 in it is a false finding,
which is expected at most once in twenty. Writes a CSV into benchmarks/results/, named by processor and torch version,
with the load of the machine.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import machine

from srblock.data import load
from srblock.runs.side_by_side import time_side_by_side
from srblock.runs.study import Study, recipe_for
from srblock.statistics.times import variant_times
from srblock.training import runtime
from srblock.variants.notation import parse

BUDGET = SimpleNamespace(wall_s=100.0, environment={})  # a run long enough for the usual time


def main() -> None:
    """Measure, print how often 1 was left out, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--network", default="R8")
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    args = parser.parse_args()
    device, data = runtime.pick_device(), load(args.data)
    one, other = parse(args.network), parse(f"{args.network} + SE")  # a name is all that tells them apart
    study = Study((one, other), (0,), data, args.data, recipe_for(data, device))
    build = Study.build
    rows: list[dict[str, object]] = []
    with mock.patch.object(Study, "build", lambda self, variant, seed: build(self, one, seed)):
        for number in range(args.times):
            found = variant_times(time_side_by_side(study, study.variants, [BUDGET], device))[str(other)]
            for part, ratio in (("train", found.train), ("test", found.test)):
                assert ratio is not None
                low, high = ratio.interval or (None, None)
                rows.append({
                    "network": args.network, "data": args.data, "number": number + 1, "part": part, "rounds": ratio.n,
                    "ratio": round(ratio.median, 4), "low": low and round(low, 4), "high": high and round(high, 4),
                    "false_finding": int(ratio.differs), "load": round(os.getloadavg()[0], 1),
                    **machine.describe(device),
                })  # fmt: skip
    false = sum(row["false_finding"] for row in rows)
    worst = max(abs(row["ratio"] - 1) for row in rows)
    print(f"{false} of {len(rows)} intervals leave out 1; the median ratio is at most {100 * worst:.1f}% off")
    machine.write(args.out, "equal_networks", rows)


if __name__ == "__main__":
    main()
