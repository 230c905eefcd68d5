"""The plan on the terminal: what each variant costs and how long the runs that are left take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from srblock.data.offenders import counted
from srblock.report import units
from srblock.report.terminal import empty_table, print_lines
from srblock.runs.plan import seconds_left

if TYPE_CHECKING:
    import torch

    from srblock.runs.plan import PlanRow
    from srblock.runs.study import Study


def print_plan(
    rows: Sequence[PlanRow],
    study: Study,
    device: torch.device,
    console: Console,
    *,
    at_once: int = 1,
    at_hand: bool = True,
) -> None:
    """Print what a study is about to do and how long that takes.

    Args:
        at_once: how many runs go on together.
        at_hand: whether the data was there to look at; otherwise its sizes are the published ones.
    """
    data, recipe = study.data, study.recipe
    height, width = data.size
    batches = f"{recipe.epoch_steps} batches" if recipe.epoch_steps else "batches"
    sizes = (
        f"{data.name}: {data.train_size:,} training and {data.test_size:,} test "
        f"images of {height}x{width} in {len(data.classes)} classes; {counted(recipe.epochs, 'epoch')} of "
        f"{batches} of {recipe.batch_size}, seeds {', '.join(map(str, study.seeds))}, on {device}"
    )
    print_lines([sizes], console)
    table = empty_table(
        "variant", "parameters", "overhead", "FLOPs/\nimage", "ms per\nimage", "runs\nleft", "time\nleft"
    )
    for row in rows:
        table.add_row(
            Text(row.variant),
            f"{row.parameters:,}",
            f"{row.overhead_percent:.2f}%",
            units.operations(row.flops_per_image),
            units.milliseconds(row.ms_per_image),
            f"{row.partial + row.todo} of {row.done + row.partial + row.todo}",
            units.duration(row.seconds_left) if row.seconds_left else "-",
        )
    console.print(table)
    print_lines([_in_all(rows, data.name, at_once, at_hand)], console)


def _in_all(rows: Sequence[PlanRow], data: str, at_once: int, at_hand: bool) -> str:
    done = sum(row.done for row in rows)
    partial = sum(row.partial for row in rows)
    todo = sum(row.todo for row in rows)
    if not at_hand:
        return (
            f"{counted(todo, 'run')}. {data} is not at hand, so its sizes are the published ones, no step was "
            "measured, and finished runs were not looked for."
        )
    if not partial + todo:
        return f"All {done} runs are finished."
    text = f"{counted(done + partial + todo, 'run')}: {done} finished, {partial} started, {todo} not started"
    seconds = seconds_left(rows, at_once)
    if seconds is None:
        return f"{text}."
    time = units.duration(seconds)
    if at_once > 1:
        return f"{text}; at least {time} left with {at_once} at once, if they do not slow each other down."
    return f"{text}; about {time} left, from measured steps."
