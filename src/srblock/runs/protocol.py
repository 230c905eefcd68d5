"""Protocols: what a study will compare and how many seeds it has, written down before its first run.

`results/protocols/NAME.md` says it to people, `NAME.toml` beside it to the tables:

    title = "..."
    study = "cifar100-8-epochs-0123ab"      the data, recipe and numerics, as the tables name them
    variants = ["R8", "R8 + SR(M=3, P=8)"]  the baseline first; each of the others is compared with it, and no other
    seeds = 16                              0 to 15; or "16-31", where another protocol of the study has the first ones
    margin = 0.2                            percentage points that count as no difference
    scope = "..."                           if any: what it will be about and what not, for its page
    contrasts = [["R20", "R8 + SR(...)"]]   if any: other pairs, each tested alone and shown beside the comparisons
    diverged = [["R20", 3]]                 if any: runs (variant, seed) that have no record, as their loss diverged
    ended = "..."                           only if the study ended before its last seed: when and why
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from srblock.runs.records import Run
from srblock.variants.notation import parse


@dataclass(frozen=True)
class Protocol:
    """A study as it was planned, see above; `name` is that of its file, `first` its first seed."""

    name: str
    title: str
    study: str
    variants: tuple[str, ...]
    seeds: int
    margin: float
    scope: str = ""
    contrasts: tuple[tuple[str, str], ...] = ()
    diverged: tuple[tuple[str, int], ...] = ()
    ended: str = ""
    first: int = 0

    def __post_init__(self) -> None:
        canonical = tuple(str(parse(variant)) for variant in self.variants)
        if len(set(canonical)) < max(2, len(canonical)):
            raise ValueError(f"protocol {self.name} needs two or more different variants, got {', '.join(canonical)}")
        if self.seeds < 1 or not self.margin > 0:
            raise ValueError(
                f"protocol {self.name} needs a seed or more and a margin above 0, got {self.seeds}, {self.margin}"
            )
        object.__setattr__(self, "variants", canonical)
        object.__setattr__(
            self, "contrasts", tuple((str(parse(one)), str(parse(other))) for one, other in self.contrasts)
        )
        object.__setattr__(self, "diverged", tuple((str(parse(variant)), seed) for variant, seed in self.diverged))
        named = {*(variant for pair in self.contrasts for variant in pair), *(variant for variant, _ in self.diverged)}
        seeds = {seed for _, seed in self.diverged}
        if not (named <= {*canonical} and seeds <= {*self._planned()}):
            raise ValueError(f"protocol {self.name} has contrasts or diverged runs of what it does not plan")

    def whole_seeds(self, runs: Sequence[Run]) -> list[int]:
        """List the planned seeds with a run of every variant."""
        there = {(str(run.variant), run.seed) for run in runs}
        return [seed for seed in self._planned() if all((variant, seed) in there for variant in self.variants)]

    def plans(self, run: Run) -> bool:
        """Tell whether a run of the study is one of the planned ones."""
        return str(run.variant) in self.variants and run.seed in self._planned()

    def part_of(self, runs: Sequence[Run]) -> list[Run]:
        """Choose the runs that count: of the planned variants, with seeds that are whole."""
        whole = set(self.whole_seeds(runs))
        return [run for run in runs if self.plans(run) and run.seed in whole]

    def complete(self, runs: Sequence[Run]) -> bool:
        """Tell whether the figures may be shown: all seeds are whole or have a diverged run, or the study has ended."""
        lost = {seed for _, seed in self.diverged}
        return bool(self.ended) or {*self.whole_seeds(runs)} | lost == {*self._planned()}

    def _planned(self) -> range:
        return range(self.first, self.first + self.seeds)


def read_protocols(results: Path) -> list[Protocol]:
    """Read all protocols of a folder of results, by name.

    Raises: ValueError, naming the file, if one cannot be read.
    """
    return [_read(path) for path in sorted((results / "protocols").glob("*.toml"))]


def _read(path: Path) -> Protocol:
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text())
        known = {field.name for field in fields(Protocol)} - {"name", "first"}
        missing, unknown = known - {"scope", "contrasts", "diverged", "ended"} - values.keys(), values.keys() - known
        if missing or unknown:
            raise ValueError(f"it lacks {sorted(missing)} and has {sorted(unknown)} too many")
        if isinstance(values["seeds"], str):
            values["first"], last = map(int, values["seeds"].split("-"))
            values["seeds"] = last - values["first"] + 1
        return Protocol(**{"name": path.stem, **values, "variants": tuple(values["variants"])})
    except (ValueError, TypeError) as error:
        raise ValueError(f"the protocol {path} cannot be read ({error})") from error
