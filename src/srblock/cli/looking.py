"""The commands that train nothing: stages, overhead, audit, results."""

from __future__ import annotations

from typing import Annotated

import typer

from srblock.cli.app import app, console


@app.command()
def stages(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="R18, timm/NAME, torchvision/NAME, ...")],
    input_size: Annotated[int, typer.Option(help="side of the images in pixels", min=1)] = 224,
    all_modules: Annotated[bool, typer.Option("--all", help="every usable module, not only the stages")] = False,
) -> None:
    """List where a block can go in a network."""
    from srblock import surgery
    from srblock.experiments.build import build
    from srblock.experiments.notation import parse
    from srblock.report import tables

    model = build(parse(network), classes=1000, channels=3, image_size=(input_size, input_size), seed=0)
    found = surgery.stages(model, input_size)
    numbered = [stage for stage in found if stage.number is not None]
    tables.print_stages(found if all_modules or not numbered else numbered, console())


@app.command()
def overhead() -> None:
    """Print the parameter overhead of every row of the paper: as printed, by Eq. (1), and of the built network."""
    from srblock.experiments.paper import overhead_table
    from srblock.report import tables

    tables.print_overhead(overhead_table(), console())
