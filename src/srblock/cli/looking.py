"""The commands that train nothing: stages, overhead, audit, results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srblock.cli.app import app, console

results = typer.Typer(help="Published runs: add finished ones, make the tables anew.", no_args_is_help=True)
app.add_typer(results, name="results")


@app.command()
def stages(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="R18, timm/NAME, torchvision/NAME, ...")],
    input_size: Annotated[int, typer.Option(help="side of the images in pixels", min=1)] = 224,
    all_modules: Annotated[bool, typer.Option("--all", help="every usable module, after the stages")] = False,
) -> None:
    """List where a block can go in a network."""
    from srblock import surgery
    from srblock.report import tables
    from srblock.variants.build import build
    from srblock.variants.notation import parse

    model = build(parse(network), classes=1000, channels=3, image_size=(input_size, input_size), seed=0)
    found = surgery.stages(model, input_size)
    numbered = [stage for stage in found if stage.number is not None]
    others = [stage for stage in found if stage.number is None]
    if not numbered:
        typer.echo(f"the stages of {network} cannot be numbered; these are all places for after=NAME")
    tables.print_stages(numbered + others if all_modules or not numbered else numbered, console())


@app.command()
def overhead() -> None:
    """Print the parameter overhead of every row of the paper: as printed, by Eq. (1), and of the built network."""
    from srblock.paper.overheads import overhead_table
    from srblock.report import tables

    tables.print_overhead(overhead_table(), console())


@app.command()
def audit(
    ddof: Annotated[
        int, typer.Option(help="read the printed deviations as divided by n - 1 (1) or n (0)", min=0, max=1)
    ] = 1,
) -> None:
    """Say what the paper's own printed means and deviations support."""
    from srblock.report.audit import print_audit
    from srblock.statistics.audit import audit as audited

    print_audit(audited(ddof), console())


@results.command("add")
def add(
    source: Annotated[Path, typer.Argument(help="the --out of a study, or an archive of records")],
    to: Annotated[Path, typer.Option(help="the folder of results")] = Path("results"),
) -> None:
    """Add finished runs as records; records are never overwritten."""
    from srblock.runs.archive import add_records

    found = add_records(source, to)
    for name in found.added:
        typer.echo(f"added {name}")
    typer.echo(
        f"{len(found.added)} added, {len(found.known)} known already, {found.unfinished} unfinished left out; "
        f"srblock results tables {to} makes the tables anew"
    )


@results.command("tables")
def tables(folder: Annotated[Path, typer.Argument(help="the folder of results")] = Path("results")) -> None:
    """Make the tables from the records anew."""
    from srblock.report.published import write_tables

    for path in write_tables(folder):
        typer.echo(path)
