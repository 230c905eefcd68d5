"""Compare networks: train each with the same seeds on the same data, and say what differs."""

from __future__ import annotations

import difflib
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from srblock.data import ImageData, SceneData
from srblock.data.offenders import counted
from srblock.data.sources.datasets import Labeled, from_datasets
from srblock.executors.execute import Executor
from srblock.experiments.session import Asked, Done, carry_out, deadline, folder_name, make_study, prepare, say_where
from srblock.experiments.study_file import write_study
from srblock.experiments.timing import TIMES, times_of
from srblock.report import tables, units
from srblock.runs.records import Run
from srblock.runs.study import Study
from srblock.statistics.comparison import Row, comparison
from srblock.statistics.equivalence import MARGIN
from srblock.statistics.times import VariantTimes
from srblock.statistics.verdicts import Verdict
from srblock.training.files import remove_scrap
from srblock.training.recipe import Recipe
from srblock.variants.custom import Build
from srblock.variants.notation import Variant, parse
from srblock.variants.variant import CUSTOM

Data = str | os.PathLike[str] | ImageData | SceneData | tuple[Labeled, Labeled]


@dataclass(frozen=True, repr=False)
class Comparison:
    """What a comparison came to.

    Attributes:
        study: what was compared.
        done: what became of it: the finished runs, and how many are left or failed.
        rows: a line for each variant, the baseline first; see `statistics.comparison.Row`.
        report: the page; None where there was nothing to report.
        times: what variants cost in time, measured in turns; {} where it was not.
    """

    study: Study
    done: Done
    rows: tuple[Row, ...]
    report: Path | None
    times: Mapping[str, VariantTimes] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Say in a line for each variant what its seeds came to."""
        left = f", {self.done.left} left" if self.done.left else ""
        lines = [f"<Comparison of {counted(len(self.runs), 'run')}{left}"]
        for row in self.rows:
            line = f"{row.variant}: test {row.figure.label} {units.mean_and_std(row.mean, row.std)}, n = {row.n}"
            if row.analysis is not None and row.verdict is not None:
                line += f"; {units.signed(row.analysis.mean)} to {row.baseline}: {row.verdict.finding}"
            lines.append(line)
        return "\n  ".join([*lines, *([f"report: {self.report}"] if self.report else [])]) + ">"

    @property
    def runs(self) -> list[Run]:
        """The finished runs, seed by seed."""
        return self.done.runs

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """What the difference of each variant to the baseline amounts to, as far as there is a verdict."""
        return {row.variant: row.verdict for row in self.rows if row.verdict is not None}

    @property
    def verdict(self) -> Verdict:
        """The one verdict where two variants are compared.

        Raises: ValueError if there are several, or none yet.
        """
        found = self.verdicts
        if len(found) != 1:
            raise ValueError(f"expected one verdict, got {len(found)}; see verdicts, and rows")
        return next(iter(found.values()))

    def run_table(self) -> list[dict[str, object]]:
        """Return a dict for every run, as `results.csv` has it: `pandas.DataFrame(...)` and its kin take the list."""
        return tables.run_lines(self.runs, self.report.parent if self.report else Path())

    def variant_table(self) -> list[dict[str, object]]:
        """Return a dict for every variant, as `comparison.csv` has it."""
        return tables.variant_lines(self.rows)

    def class_table(self) -> list[dict[str, object]]:
        """Return a dict for every class of every variant against the baseline, as `classes.csv` has it."""
        from srblock.report.classes import class_lines

        return class_lines(self.rows, self.runs)


def compare(
    networks: Mapping[str, Build] | Sequence[str],
    data: Data,
    *,
    seeds: int | Iterable[int] = 3,
    recipe: str | Recipe = "auto",
    out: str | os.PathLike[str] = "out",
    device: str = "auto",
    workers: int | None = None,
    minutes: float | None = None,
    margin: float = MARGIN,
    image_size: int | None = None,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
    tensorboard: bool = False,
    quiet: bool = False,
    **changes: Any,
) -> Comparison:
    """Train networks on the same data with the same seeds, and say what differs; the first is the baseline.

    Finished runs in `out` are reused and started ones go on, so the same call again resumes. `srblock compare` is this
    function.

    Args:
        networks: names, and for each a function `(seed) -> nn.Module` that returns logits (N, classes); or variants in
            the notation, among them "mynet.py:make" and "mynet.py:make + SR(after=trunk.3, P=8)". A run of such a
            network is known by the source of the function's file and the structure of what it builds: if either
            changes, runs are trained anew. With workers, functions must stand at the top of a module.
        data: "cifar100", a folder, ... as `--data` takes it; a set that `srblock.data.load_data` returned; or two
            `torch.utils.data.Dataset` of (image, label), to train and to test on, see `data.sources.datasets`.
        seeds: how many from 0 on, or which.
        recipe: its name, or one of your own.
        out: where runs and reports go.
        workers: runs at once, each in a process of its own; None for one, in this process.
        minutes: for all of it; what is not finished then is left for the next call.
        margin: percentage points that count as no difference.
        image_size, pretrained, weights, tensorboard: as the options of `srblock compare`.
        quiet: print nothing.
        changes: of the recipe: epochs=5, batch_size=64, learning_rate=0.05, ...

    Raises: ValueError, TypeError or OSError for what cannot be done, before the first run; a run that fails is left
    out of the rows, with its traceback in `log.txt` of its folder.
    """
    start = time.monotonic()
    _check_changes(changes)
    variants, functions = _variants(networks)
    asked = Asked(
        data=_data(data),
        recipe=recipe,
        changes=changes,
        image_size=image_size,
        networks=functions,
        pretrained=pretrained,
        weights=None if weights is None else Path(weights),
        device=device,
        out=Path(out).expanduser(),
        executor=Executor(workers=workers),
        deadline=deadline(start, minutes),
        tensorboard=tensorboard,
        console=Console(quiet=quiet),
        command=f"srblock.compare({', '.join(map(repr, map(str, variants)))}, ...)",
    )
    return carry_out_comparison(asked, variants, range(seeds) if isinstance(seeds, int) else seeds, margin=margin)


def carry_out_comparison(
    asked: Asked, variants: Sequence[Variant], seeds: Iterable[int], *, margin: float
) -> Comparison:
    """Compare variants as asked: print the plan, run, print the table, write the report.

    Raises: ValueError for fewer than two variants, no seeds or a margin that is none; as `prepare` and `make_study`.
    """
    check_margin(margin)
    if len(variants) < 2:
        came = f"{str(variants[0])!r} alone" if variants else "none"
        raise ValueError(f"compare needs two variants or more, got {came}; srblock train runs one")
    numbers = tuple(seeds)
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise ValueError(f"expected one seed or more, each once and at least 0, got {numbers}")
    session = prepare(asked, variants)
    study = make_study(session, variants, numbers)
    done = carry_out(session, study)
    if not done.worth_a_report:
        return Comparison(study, done, (), None)
    rows = comparison(done.runs, [str(variant) for variant in study.variants], seeds=numbers, margin=margin)
    folder = asked.out / folder_name("compare", study, margin)
    times = times_of(session, study, done.runs, folder)
    tables.print_table(rows, asked.console, done.runs, asked.command, times)
    files = write_reports(folder, done.runs, rows, asked.command, study.data, times)
    again = write_study(folder, asked, variants, numbers, margin)
    say_where([*files, *([] if again is None else [("again", again)])], asked.console)
    return Comparison(study, done, tuple(rows), dict(files)["report"], times)


def check_margin(margin: float) -> None:
    """Refuse a margin that is none.

    Raises: ValueError.
    """
    if not 0 < margin < math.inf:
        raise ValueError(
            f"--margin must be above 0 percentage points and finite, got {margin}; {MARGIN} is the default"
        )


def write_reports(
    folder: Path,
    runs: Sequence[Run],
    rows: Sequence[Row],
    command: str,
    data: ImageData | SceneData | None = None,
    times: Mapping[str, VariantTimes] | None = None,
) -> list[tuple[str, Path]]:
    """Write every seed, every test, every class, the tables and the page; return what each file is, and where.

    Args:
        data: whose test images the page shows, if it is at hand.
        times: measured in turns, which `times.csv` of the folder has.
    """
    from srblock.report import html  # which waits for matplotlib; a plan and the first run need not
    from srblock.report.classes import class_lines

    folder.mkdir(parents=True, exist_ok=True)
    remove_scrap(folder)
    seeds, page = folder / "results.csv", folder / "report.html"
    tables.write_csv(seeds, runs)
    tables.write_comparison(folder, rows, times)
    html.write_report(page, runs, rows, command, data, times)
    files = [("every seed", seeds), ("every test", folder / "comparison.csv")]
    if lines := class_lines(rows, runs):
        files.append(("every class", folder / "classes.csv"))
        tables.write_lines(folder / "classes.csv", lines)
    if times:
        files.append(("times", folder / TIMES))
    return [*files, ("tables", folder / "comparison.md"), ("report", page)]


def _variants(networks: Mapping[str, Build] | Sequence[str]) -> tuple[list[Variant], dict[str, Build]]:
    if isinstance(networks, str) or not isinstance(networks, (Mapping, Sequence)):
        raise TypeError(
            'expected a mapping from names to functions, or several variants such as ["R18", "R18 + SR(M=4)"], got '
            f"{networks!r}"
        )
    if not isinstance(networks, Mapping):
        return [parse(text) for text in networks], {}
    functions: dict[str, Build] = {}
    for name, build in networks.items():
        if not callable(build):
            raise TypeError(f"{name}: expected a function (seed) -> nn.Module, got {type(build).__name__}")
        functions[f"{CUSTOM}/{name}"] = build
    try:
        return [Variant(name) for name in functions], functions
    except ValueError:
        raise ValueError(f"names are one word without + and parentheses, got {', '.join(networks)}") from None


def _data(data: Data) -> str | ImageData | SceneData:
    if isinstance(data, (ImageData, SceneData)):
        return data
    if isinstance(data, (str, os.PathLike)):
        return os.fspath(data)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return from_datasets(*data)
    raise TypeError(
        "expected data by its name or path, a set that srblock.data.load_data returned, or two datasets (train, test) "
        f"of (image, label), got {type(data).__name__}"
    )


def _check_changes(changes: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(Recipe)]
    for name in changes:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
            raise TypeError(f"no recipe has a field {name!r}; {hint}")
