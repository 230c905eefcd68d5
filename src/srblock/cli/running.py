"""The skeleton of the commands that train: check options, load data, print the plan, run, say what is left."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from srblock.cli.app import AGAIN, FAILED, command_line, console, deadline
from srblock.cli.options import StudyOptions, WorkOptions

if TYPE_CHECKING:
    import torch

    from srblock.executors.execute import Executor
    from srblock.runs.records import Run
    from srblock.runs.study import Study
    from srblock.statistics.comparison import Row
    from srblock.variants.notation import Variant


@dataclass(frozen=True)
class Session:
    """A command's options, checked as far as that goes without data.

    Attributes:
        executor: who trains.
        at_once: how many runs go on together.
        source: of the data.
        at_hand: whether the data is looked at; only a dry run may do without.
    """

    options: StudyOptions
    executor: Executor
    at_once: int
    device: torch.device
    source: str
    dry_run: bool
    at_hand: bool


@dataclass(frozen=True)
class Done:
    """What became of a study, or of nothing in a dry run.

    Attributes:
        runs: the finished ones.
        failed: how many ended without a result.
        left, seconds_left: how many the time did not reach, and how long they take.
        epoch_s: the shortest epoch among them, where not one was made in the time.
    """

    runs: list[Run]
    failed: int = 0
    left: int = 0
    seconds_left: float | None = None
    epoch_s: float | None = None

    @property
    def worth_a_report(self) -> bool:
        """Whether there is something to compare, or nothing more to come."""
        return bool(self.runs) and (not self.left or len({run.variant for run in self.runs}) > 1)


def prepare(
    options: StudyOptions,
    work: WorkOptions,
    variants: Sequence[Variant],
    *,
    default_data: str = "digits",
    margin: float | None = None,
) -> Session:
    """Check everything that can be wrong before data is loaded, which may take long.

    Raises: ValueError for options that do not fit together or this machine, or a variant named twice.
    """
    from srblock.data.sources import at_hand
    from srblock.data.sources.published import stand_in
    from srblock.executors.execute import Executor
    from srblock.runs.study import recipe_for
    from srblock.training import runtime

    if margin is not None and not margin > 0:
        raise ValueError(f"--margin must be above 0 percentage points, got {margin}; 0.2 is the default")
    for index, variant in enumerate(variants):
        if variant in variants[:index]:
            raise ValueError(f"{variant} is named twice; name each variant once")
    if options.pretrained and options.weights is not None:
        raise ValueError("--pretrained and --weights both say where to start; give one of them")
    if options.weights is not None and not options.weights.is_file():
        raise ValueError(f"--weights: there is no file {options.weights}")
    device = runtime.pick_device(options.device)
    source = default_data if options.data is None else options.data
    recipe = recipe_for(stand_in(source, options.image_size), device, options.recipe, **options.changes())
    executor = Executor(work.executor, work.workers, work.cpus_per_run, work.gpus_per_run)
    executor.check(recipe, device)
    looked_at = not work.dry_run or at_hand(source)
    return Session(options, executor, executor.slots(device), device, source, work.dry_run, looked_at)


def make_study(session: Session, variants: Sequence[Variant], seeds: Iterable[int]) -> Study:
    """Load the data, or in a dry run without it its published sizes, and resolve the recipe.

    Raises: ValueError or OSError as `data.load`.
    """
    from srblock.data import load_data
    from srblock.data.sources.published import stand_in
    from srblock.report.progress import LoadProgress
    from srblock.runs.study import Study, recipe_for

    options = session.options
    if session.at_hand:
        with LoadProgress(console()) as progress:
            images = load_data(session.source, image_size=options.image_size, progress=progress)
    else:
        images = stand_in(session.source, options.image_size)
    recipe = recipe_for(images, session.device, options.recipe, **options.changes())
    return Study(
        tuple(variants), tuple(seeds), images, _lasting(session.source), recipe, options.image_size,
        options.pretrained, options.weights,
    )  # fmt: skip


def carry_out(session: Session, study: Study, *, then: str = "") -> Done:
    """Print the plan, and unless that is all, run it.

    Args:
        then: what follows this study, a sentence.
    """
    from srblock.report.plan import print_plan
    from srblock.runs.plan import plan, seconds_left
    from srblock.runs.run_one import make_folder

    out = session.options.out
    if not session.dry_run:
        make_folder(out)
    end = deadline(session.options.minutes)
    rows = plan(study, out, session.device, measure=session.at_hand, until=end, download=not session.dry_run)
    print_plan(rows, study, session.device, console(), at_once=session.at_once, at_hand=session.at_hand)
    if then:
        note(then)
    if session.dry_run:
        return Done([])
    done = run(session, study, {row.variant: row.epoch_seconds for row in rows if row.epoch_seconds is not None})
    if done.left and not done.seconds_left:  # not one epoch was made
        known = [row.epoch_seconds for row in rows if row.epoch_seconds is not None and row.partial + row.todo]
        return replace(done, seconds_left=seconds_left(rows, session.at_once), epoch_s=min(known, default=None))
    return done


def run(session: Session, study: Study, epoch_seconds: Mapping[str, float] | None = None) -> Done:
    """Run what is not finished yet, as far as the time goes.

    Args:
        epoch_seconds: of each variant, from the plan.
    """
    from srblock.executors.execute import run_study
    from srblock.report.progress import RunProgress
    from srblock.runs.run_one import Work

    with RunProgress(study, console()) as progress:
        runs = run_study(
            Work(study, session.options.out),
            device=session.device,
            progress=progress,
            executor=session.executor,
            deadline=deadline(session.options.minutes),
            epoch_seconds=epoch_seconds,
        )
    left, seconds = progress.left()
    return Done(runs, len(study.runs) - len(runs) - left, left, seconds)


def conclude(done: Done, *, then: str = "") -> int:
    """Say what is left and how to go on; return the command's status."""
    from srblock.data.offenders import counted
    from srblock.report.units import duration

    if done.left:
        about = f", about {duration(done.seconds_left)}" if done.seconds_left else ""
        said = [f"The time is up with {counted(done.left, 'run')} left{about}.", then, "Go on with the same command:"]
        if done.epoch_s is not None:
            said[2] = f"Not one epoch was made: one takes about {duration(done.epoch_s)}. Go on with more --minutes:"
        note(" ".join(filter(None, said)))
        console().print(f"  {command_line()}", soft_wrap=True, highlight=False, markup=False)
        return AGAIN
    return FAILED if done.failed else 0


def _lasting(source: str) -> str:
    """Make the path in a data specification hold from any folder, for `srblock evaluate` later."""
    from srblock.data.sources import SOURCES
    from srblock.data.sources.scenes import SCENE_SOURCES

    name, colon, path = source.partition(":")
    if name in SOURCES or name in SCENE_SOURCES:
        return f"{name}:{Path(path).expanduser().resolve()}" if colon else source
    return str(Path(source).expanduser().resolve())


def folder_name(kind: str, study: Study) -> str:
    """Name a report's folder after what is compared, whatever the number of seeds; without seed 0 after them too."""
    weights = study.runs[0].weights
    identity = [str(variant) for variant in study.variants], study.recipe.identity, study.data.fingerprint, weights
    which = f"-seeds-{study.seeds[0]}-{study.seeds[-1]}" if study.seeds[0] else ""
    return f"{kind}-{study.data.name}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:6]}{which}"


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


def note(*sentences: str) -> None:
    """Print sentences, wrapped at the console's width."""
    from srblock.report.terminal import print_lines

    print_lines(sentences, console())
