"""From options to runs: load the data, make the study, print its plan, run it, write what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from srblock.cli.app import command_line, console
from srblock.cli.options import WorkOptions

if TYPE_CHECKING:
    import torch

    from srblock.cli.options import StudyOptions
    from srblock.report.comparison import Row
    from srblock.runs.records import Run
    from srblock.runs.study import Study
    from srblock.variants.notation import Variant


def make_study(
    variants: Sequence[Variant],
    seeds: Iterable[int],
    options: StudyOptions,
    default_data: str = "digits",
    refuse: str | None = None,
) -> tuple[Study, torch.device]:
    """Load the data and resolve the recipe.

    Args:
        refuse: the command's name, if torchrun must not start it several times over.

    Raises: ValueError for options that do not fit together, or a variant named twice.
    """
    from srblock.data import load
    from srblock.report.progress import LoadProgress
    from srblock.runs.study import Study, recipe_for
    from srblock.training import distributed, runtime

    if refuse is not None:
        distributed.refuse(refuse)
    for index, variant in enumerate(variants):
        if variant in variants[:index]:
            raise ValueError(f"{variant} is named twice; name each variant once")
    weights = options.weights
    if options.pretrained and weights is not None:
        raise ValueError("--pretrained and --weights both say where to start; give one of them")
    if weights is not None and not weights.is_file():
        raise ValueError(f"--weights: there is no file {weights}")
    source = default_data if options.data is None else options.data
    device = runtime.pick_device(options.device)
    with LoadProgress(console()) as progress:
        images = load(source, image_size=options.image_size, progress=progress)
    recipe = recipe_for(images, device, options.recipe, **options.changes())
    study = Study(
        tuple(variants), tuple(seeds), images, _lasting(source), recipe, options.image_size, options.pretrained, weights
    )
    return study, device


def check_margin(margin: float) -> None:
    """Refuse a margin that no verdict could be given for, before anything is trained.

    Raises: ValueError if it is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"--margin must be above 0 percentage points, got {margin}; 0.2 is the default")


def _lasting(source: str) -> str:
    """Make the path in a data specification hold from any folder, for `srblock evaluate` later."""
    from srblock.data.sources import SOURCES

    name, colon, path = source.partition(":")
    if name in SOURCES:
        return f"{name}:{Path(path).expanduser().resolve()}" if colon else source
    return str(Path(source).expanduser().resolve())


def plan_and_run(
    study: Study, out: Path, device: torch.device, work: WorkOptions, *, dry_run: bool, then: str = ""
) -> list[Run]:
    """Print the plan, and unless that is all, run it. Leaves the command if no run finished: each has its line.

    Args:
        then: what follows this study, a sentence.
    """
    from srblock.executors.execute import make_folder
    from srblock.report.plan import print_plan
    from srblock.runs.plan import plan

    if not dry_run:
        make_folder(out)
    at_once = work.workers or (None if work.executor == "ray" else 1)
    print_plan(plan(study, out, device, download=not dry_run), study, device, console(), at_once=at_once)
    if then:
        note(then)
    if dry_run:
        raise typer.Exit
    runs = run(study, out, device, work)
    if not runs:
        raise typer.Exit(1)
    return runs


def run(study: Study, out: Path, device: torch.device, work: WorkOptions | None = None) -> list[Run]:
    """Run what is not finished yet and return the finished runs."""
    from srblock.executors.execute import run_study
    from srblock.inspection.inspect import Inspect
    from srblock.inspection.recall import memory_probe
    from srblock.report.progress import RunProgress

    inspect = Inspect(len(study.data.classes), (study.data.channels, *study.data.size))
    work = work or WorkOptions()
    with RunProgress(study, console()) as progress:
        return run_study(
            study, out, device=device, progress=progress, probe=memory_probe, inspect=inspect,
            executor=work.executor, workers=work.workers, cpus=work.cpus_per_run, gpus=work.gpus_per_run,
        )  # fmt: skip


def folder_name(kind: str, study: Study) -> str:
    """Name a report's folder after what is compared, whatever the number of seeds."""
    weights = study.runs()[0].weights
    identity = [str(variant) for variant in study.variants], study.recipe.identity, study.data.fingerprint, weights
    return f"{kind}-{study.data.name}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:6]}"


def write_reports(folder: Path, runs: Sequence[Run], rows: Sequence[Row]) -> list[tuple[str, Path]]:
    """Write every seed, every test and the page; return what each file is, and where."""
    from srblock.report import html, tables

    folder.mkdir(parents=True, exist_ok=True)
    seeds, page = folder / "results.csv", folder / "report.html"
    tables.write_csv(seeds, runs)
    tables.write_comparison(folder / "comparison.csv", rows)
    html.write_report(page, runs, rows, command=command_line())
    return [("every seed", seeds), ("every test", folder / "comparison.csv"), ("report", page)]


def say_where(files: Sequence[tuple[str, Path]]) -> None:
    """Print where files lie, a line each."""
    width = max(len(name) for name, _ in files) + 1
    for name, path in files:
        console().print(f"{name + ':':{width}} {path}", soft_wrap=True, highlight=False, markup=False)


def note(text: Any) -> None:
    """Print a sentence, wrapped at the console's width."""
    console().print(text, markup=False, highlight=False)
