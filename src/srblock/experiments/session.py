"""The skeleton of an experiment: check what is asked, load data, print the plan, run, say what is left."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from srblock.data import ImageData, SceneData, load_data
from srblock.data.offenders import counted, refuse_unencodable
from srblock.data.sources import SOURCES, at_hand
from srblock.data.sources.published import stand_in
from srblock.data.sources.scenes import SCENE_SOURCES
from srblock.executors.execute import Executor, run_study
from srblock.report.plan import print_plan
from srblock.report.progress import LoadProgress, RunProgress
from srblock.report.terminal import print_lines, without_controls
from srblock.runs import events
from srblock.runs.needs import needs_of, refusal, sentence, warning
from srblock.runs.plan import plan, seconds_left
from srblock.runs.records import Run, finished, read_config
from srblock.runs.run_one import Work, make_folder
from srblock.runs.study import Study, recipe_for
from srblock.statistics.equivalence import MARGIN
from srblock.training import runtime
from srblock.training.free_memory import free_memory
from srblock.training.recipe import Recipe
from srblock.variants.custom import Build, locate
from srblock.variants.notation import Variant
from srblock.variants.weights import weights_of

REPORT_S, REPORT_SHARE = 10.0, 0.25  # of a time budget are for the report: seconds, or a share of a short one

UNTRAINED = (
    "The recipe finetune is for trained weights, and these networks start from random ones: give --pretrained or "
    "--weights FILE, or take --recipe short."
)


@dataclass(frozen=True)
class Asked:
    """What an experiment is to be, whoever asks for it.

    Attributes:
        data: a set, or where it is.
        recipe: by its name or itself, and what is changed in it (None only where it is a value).
        networks: of each network that Python code hands over the function that builds it.
        pretrained, weights: where training starts, see `Study`.
        out: where runs and reports go.
        executor: who trains.
        deadline: of training, by time.monotonic(); see `deadline`.
        tensorboard: whether runs write event files for TensorBoard, too.
        dry_run: plan only: nothing is downloaded, and nothing written but decoded images to the cache.
        console: what is said goes there.
        command: that asks for it again, for the report.
    """

    data: str | ImageData | SceneData
    recipe: str | Recipe = "auto"
    changes: Mapping[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    networks: Mapping[str, Build] = field(default_factory=dict)
    pretrained: bool = False
    weights: Path | None = None
    device: str = "auto"
    out: Path = Path("out")
    executor: Executor = field(default_factory=Executor)
    deadline: float | None = None
    tensorboard: bool = False
    dry_run: bool = False
    console: Console = field(default_factory=Console)
    command: str = ""


@dataclass(frozen=True)
class Session:
    """What was asked for, checked as far as that goes without data.

    Attributes:
        at_once: how many runs go on together.
        at_hand: whether the data is looked at; only a dry run may do without.
    """

    asked: Asked
    at_once: int
    device: torch.device
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


def deadline(start: float, minutes: float | None) -> float | None:
    """Return when training is to end if all is to end so many minutes after `start`, by time.monotonic()."""
    return None if minutes is None else start + 60 * minutes - min(REPORT_S, REPORT_SHARE * 60 * minutes)


def prepare(asked: Asked, variants: Sequence[Variant]) -> Session:
    """Check everything that can be wrong before data is loaded, which may take long.

    Raises: ValueError for options that do not fit together or this machine, a variant named twice, or a network of the
    user's own without its function.
    """
    for index, variant in enumerate(variants):
        if variant in variants[:index]:
            raise ValueError(f"{variant} is named twice; name each variant once")
        if variant.located:
            locate(variant.network)
        elif variant.custom and variant.network not in asked.networks:
            raise ValueError(f"there is no function for {variant.network}; {_known(asked.networks)}")
    _refuse_unencodable(asked)
    if asked.pretrained and asked.weights is not None:
        raise ValueError("--pretrained and --weights both say where to start; give one of them")
    if asked.tensorboard:
        events.check_installed()
    device = runtime.pick_device(asked.device)
    data, looked_at = asked.data, True
    if isinstance(data, str):
        looked_at = not asked.dry_run or at_hand(data)
        data = stand_in(data, asked.image_size)
    elif asked.image_size is not None:
        raise ValueError(
            f"image_size={asked.image_size} resizes images that are loaded by their name, and these come as an object; "
            "give them in the size that they should have, without image_size"
        )
    asked.executor.check(recipe_for(data, device, asked.recipe, **asked.changes), device)
    return Session(asked, asked.executor.slots(device), device, looked_at)


def make_study(session: Session, variants: Sequence[Variant], seeds: Iterable[int]) -> Study:
    """Load the data, or in a dry run without it its published sizes, and resolve the recipe.

    Raises: ValueError or OSError as `data.load_data`; ValueError for a seed whose weights are not there.
    """
    asked, seeds = session.asked, tuple(seeds)
    if asked.weights is not None:
        for seed in seeds:
            weights_of(asked.weights, seed)
    source = asked.data if isinstance(asked.data, str) else asked.data.name
    if not isinstance(asked.data, str):
        data = asked.data.known_anew() if isinstance(asked.data, ImageData) else asked.data
    elif session.at_hand:
        with LoadProgress(asked.console) as progress:
            data = load_data(source, image_size=asked.image_size, progress=progress)
        source = lasting(source)
    else:
        data = stand_in(source, asked.image_size)
    if asked.recipe == "finetune" and not asked.pretrained and asked.weights is None:
        print_lines([UNTRAINED], asked.console)
    named = {variant.network for variant in variants}
    located = {variant.network: locate(variant.network) for variant in variants if variant.located}
    return Study(
        tuple(variants),
        seeds,
        data,
        source,
        recipe_for(data, session.device, asked.recipe, **asked.changes),
        asked.image_size,
        asked.pretrained,
        asked.weights,
        located | {name: build for name, build in asked.networks.items() if name in named},
    )


def carry_out(session: Session, study: Study, *, then: str = "") -> Done:
    """Print the plan, and unless that is all, run it.

    Args:
        then: what follows this study, a sentence.
    """
    asked = session.asked
    if not asked.dry_run:
        make_folder(asked.out)
    memory, too_large = _memory(session, study)
    rows = plan(
        study,
        asked.out,
        session.device,
        measure=session.at_hand and not too_large,
        until=asked.deadline,
        download=not asked.dry_run,
        hollow=bool(too_large),
    )
    print_plan(rows, study, session.device, asked.console, at_once=session.at_once, at_hand=session.at_hand)
    sentences = [memory, too_large, then, *_made_otherwise(study, asked.out)]
    print_lines(filter(None, sentences), asked.console)
    if asked.dry_run:
        return Done([])
    done = run(session, study, {row.variant: row.epoch_seconds for row in rows if row.epoch_seconds is not None})
    if done.left and not done.seconds_left:  # not one epoch was made
        known = [row.epoch_seconds for row in rows if row.epoch_seconds is not None and row.partial + row.todo]
        return replace(done, seconds_left=seconds_left(rows, session.at_once), epoch_s=min(known, default=None))
    return done


def _memory(session: Session, study: Study) -> tuple[str, str]:
    """Say what memory the runs that are left need, and in a dry run why there is not enough; "" if there is.

    Raises: ValueError if what is to be trained cannot fit.
    """
    left = [config.variant for config in study.runs if not finished(session.asked.out / "runs" / config.name)]
    if not left:
        return "", ""
    wanted = replace(study, variants=tuple(dict.fromkeys(left)), pretrained=False)
    needs, free, at_once = needs_of(wanted, session.device), None, session.at_once
    if session.asked.executor.kind == "local":  # of other machines nothing is known
        free = free_memory(session.device)
    if session.device.type == "cuda" and session.device.index is None:
        at_once = -(-at_once // max(1, torch.cuda.device_count()))
    at_once = min(at_once, len(left))
    why = refusal(needs, free, at_once)
    if why and not session.asked.dry_run:
        raise ValueError(why)
    if not why and (text := warning(needs, free, at_once)):
        warnings.warn(text, stacklevel=2)
    return sentence(needs, free, at_once), why and f"Without --dry-run this is refused: {why}."


def refuse_what_cannot_fit(session: Session, study: Study) -> None:
    """Compare the memory that runs need with what is free, without a plan.

    Raises: ValueError, saying what to do.
    """
    _memory(session, study)


def run(session: Session, study: Study, epoch_seconds: Mapping[str, float] | None = None) -> Done:
    """Run what is not finished yet, as far as the time goes.

    Args:
        epoch_seconds: of each variant, from the plan.
    """
    with RunProgress(study, session.asked.console) as progress:
        runs = run_study(
            Work(study, session.asked.out, tensorboard=session.asked.tensorboard),
            device=session.device,
            progress=progress,
            executor=session.asked.executor,
            deadline=session.asked.deadline,
            epoch_seconds=epoch_seconds,
        )
    left, seconds = progress.left()
    return Done(runs, len(study.runs) - len(runs) - left, left, seconds)


def folder_name(kind: str, study: Study, margin: float = MARGIN) -> str:
    """Name a report's folder after what is compared, whatever the number of seeds; without seed 0 after them too.

    Another margin than the default one has a folder of its own, and so have other functions of the same name.
    """
    weights = study.runs[0].weights
    identity = [
        [str(variant) for variant in study.variants],
        study.recipe.identity,
        study.data.fingerprint,
        weights,
        *(run.code for run in study.runs[: len(study.variants)] if run.code is not None),
        *([] if margin == MARGIN else [margin]),
    ]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    which = f"-seeds-{study.seeds[0]}-{study.seeds[-1]}" if study.seeds[0] else ""
    return f"{kind}-{study.data.name}-{digest[:6]}{which}"


def say_where(files: Sequence[tuple[str, Path]], console: Console) -> None:
    """Print where files lie, a line each."""
    width = max(len(name) for name, _ in files) + 1
    for name, path in files:
        console.print(without_controls(f"{name + ':':{width}} {path}"), soft_wrap=True, highlight=False, markup=False)


def _refuse_unencodable(asked: Asked) -> None:
    """Refuse paths that the report, which has the command and the data's place, could not hold after the training."""
    data = lasting(asked.data) if isinstance(asked.data, str) else ""
    weights = "" if asked.weights is None else str(asked.weights.resolve())
    for option, path in (("--out", str(asked.out)), ("--data", data), ("--weights", weights)):
        refuse_unencodable(option, "path", [path], "rename it, or name another place")


def _known(networks: Mapping[str, Build]) -> str:
    return f"there are functions for {', '.join(networks)}" if networks else "name it by its place, mynet.py:make"


def _made_otherwise(study: Study, out: Path) -> list[str]:
    """Say which finished runs cannot be reused: networks of the user's own had another source or structure then."""
    ours = [config for config in study.runs if config.code is not None]
    said = []
    for network in study.networks:
        others = 0
        for mine in (config for config in ours if config.variant.network == network):
            for folder in (out / "runs").glob(f"{mine.name.rpartition('-')[0]}-*"):
                if folder.name != mine.name and finished(folder):
                    with contextlib.suppress(OSError, ValueError, KeyError):  # of a damaged run, which nobody asked for
                        then = replace(mine, code=read_config(folder).get("code"))
                        others += then.name == folder.name
        if others:
            said.append(
                f"{counted(others, 'finished run')} of {network} here had another source or structure of it and cannot "
                "be reused."
            )
    return said


def lasting(source: str) -> str:
    """Make the path in a data specification hold from any folder, for `srblock evaluate` later."""
    name, colon, path = source.partition(":")
    if name in SOURCES or name in SCENE_SOURCES:
        return f"{name}:{Path(path).expanduser().resolve()}" if colon else source
    return str(Path(source).expanduser().resolve())
