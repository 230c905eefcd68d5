"""What the commands that train share: from options to what is asked for, and the status at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from srblock.cli.app import AGAIN, FAILED, command_line, console, started
from srblock.cli.options import StudyOptions, WorkOptions

if TYPE_CHECKING:
    from srblock.experiments.session import Asked, Done


def asked(options: StudyOptions, work: WorkOptions, *, default_data: str = "digits") -> Asked:
    """Return what the options ask for."""
    from srblock.executors.execute import Executor
    from srblock.experiments.session import Asked, deadline

    return Asked(
        data=default_data if options.data is None else options.data,
        recipe=options.recipe,
        changes=options.changes(),
        image_size=options.image_size,
        pretrained=options.pretrained,
        weights=options.weights,
        device=options.device,
        out=options.out,
        executor=Executor(work.executor, work.workers, work.cpus_per_run, work.gpus_per_run),
        deadline=deadline(started(), options.minutes),
        tensorboard=options.tensorboard,
        dry_run=work.dry_run,
        console=console(),
        command=command_line(),
    )


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


def say_where(files: Sequence[tuple[str, Path]]) -> None:
    """Print where files lie, a line each."""
    from srblock.experiments.session import say_where

    say_where(files, console())


def note(*sentences: str) -> None:
    """Print sentences, wrapped at the console's width."""
    from srblock.report.terminal import print_lines

    print_lines(sentences, console())
