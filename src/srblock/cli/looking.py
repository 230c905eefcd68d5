"""The commands that train nothing: stages, overhead, audit, results."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from srblock.cli.app import app, command_line, console
from srblock.cli.numbers import SIDE, number
from srblock.cli.options import BuildOption, Device

FormatOption = Annotated[
    Literal["text", "markdown", "latex", "csv"],
    Parameter(name="--format", help="text for the terminal, markdown, latex (plain tabular), or csv in full precision"),
]
results = App(name="results", sort_key=12, help="Published runs: pack and add finished ones, make the tables anew.")
app.command(results)


@app.command(
    sort_key=8, help_epilogue="Example: srblock analyze out/runs/r18-sr-m4-p2-s0-1f33aea2 --classes apple,pear"
)
def analyze(
    run: Annotated[
        Path, Parameter(help="the folder of a finished run with a block, or weights alone: its checkpoint.safetensors")
    ],
    /,
    *,
    classes: Annotated[str | None, Parameter(help='to look at closely: a,b,"c, with a comma" (default: three)')] = None,
    per_class: Annotated[
        int, Parameter(help="images of a class that its recall weights are of; 0: all", validator=number(gte=0))
    ] = 50,
    controls: Annotated[bool, Parameter(negative="--no-controls", help="test under controls too")] = True,
    data: Annotated[str | None, Parameter(help="where the data is now (default: where it was)")] = None,
    build: BuildOption = None,
    device: Device = "auto",
    out: Annotated[Path | None, Parameter(help="where the page goes (default: analysis/ beside the weights)")] = None,
) -> None:
    """Look into the blocks of a run: what was remembered, and whether it matters."""
    from srblock.cli.running import note, say_where
    from srblock.report.analysis import answers, write_analysis
    from srblock.runs.analyze import analyze_run
    from srblock.training import runtime

    seen, found, named = analyze_run(
        run,
        source=data,
        build=build,
        device=runtime.pick_device(device),
        classes=[name for line in csv.reader([classes or ""]) for name in line],
        per_class=per_class or None,
        with_controls=controls,
    )
    written = write_analysis(
        out or (run.parent if run.is_file() else run) / "analysis", seen, found, command=command_line(), classes=named
    )
    for headline, evidence in answers(seen, found):
        note(f"{headline}. {evidence}".replace(".. ", ". ").rstrip())
    say_where(written[:1])


@app.command(sort_key=9, help_epilogue="Example: srblock stages torchvision/resnet50 --input-size 224")
def stages(
    network: Annotated[str, Parameter(help="R18, timm/NAME, torchvision/NAME, FILE.py:FUNCTION, ...")],
    /,
    *,
    input_size: Annotated[int, Parameter(help="side of the images in pixels", validator=SIDE)] = 224,
    all_modules: Annotated[
        bool, Parameter(name="--all", negative="", show_default=False, help="every usable module, after the stages")
    ] = False,
    form: FormatOption = "text",
) -> None:
    """List where a block can go in a network."""
    from srblock import surgery
    from srblock.report import tables
    from srblock.report.formats import formatted
    from srblock.variants.build import build
    from srblock.variants.custom import call, locate
    from srblock.variants.notation import parse

    variant = parse(network)
    if variant.custom:
        if str(variant) != variant.network:
            raise ValueError(f"the places of {variant.network} are asked for without its blocks; leave these away")
        model = call(locate(variant.network), 0, variant.network)  # for images of any classes and channels
    else:
        model = build(variant, classes=1000, channels=3, image_size=(input_size, input_size), seed=0)
    found = surgery.stages(model, input_size)
    numbered = [stage for stage in found if stage.number is not None]
    others = [stage for stage in found if stage.number is None]
    shown = numbered + others if all_modules or not numbered else numbered
    if form != "text":
        print(formatted([tables.stages_sheet(shown)], form), end="")
        return
    if not numbered:
        print(f"the stages of {network} cannot be numbered; these are all places for after=NAME")
    tables.print_stages(shown, console())


@app.command(sort_key=10, help_epilogue="Example: srblock overhead")
def overhead(*, form: FormatOption = "text") -> None:
    """Print the overhead of every row of the paper: as printed, by Eq. (1), built."""
    from srblock.paper.overheads import overhead_table
    from srblock.report import tables
    from srblock.report.formats import formatted

    rows = overhead_table()
    if form == "text":
        tables.print_overhead(rows, console())
    else:
        print(formatted([tables.overhead_sheet(rows)], form, tables.overhead_notes(rows)), end="")


@app.command(sort_key=11, help_epilogue="Example: srblock audit --ddof 0")
def audit(
    *,
    ddof: Annotated[
        int,
        Parameter(help="read the printed deviations as divided by n - 1 (1) or n (0)", validator=number(gte=0, lte=1)),
    ] = 1,
    form: FormatOption = "text",
) -> None:
    """Say what the paper's own printed means and deviations support."""
    from srblock.report import audit as report
    from srblock.report.formats import formatted
    from srblock.statistics.audit import audit as audited

    rows = audited(ddof)
    if form == "text":
        report.print_audit(rows, console())
    else:
        notes = (*report.legend(rows), *report.findings(rows))
        print(formatted(report.audit_sheets(rows), form, notes), end="")


@results.command(help_epilogue="Example: srblock results pack out records.tar.gz")
def pack(
    out: Annotated[Path, Parameter(help="the --out of a study")],
    file: Annotated[Path, Parameter(help="the archive to write, a tar.gz")],
    /,
) -> None:
    """Pack the records of finished runs into one small file, to be added elsewhere."""
    from srblock.data.offenders import counted
    from srblock.report.terminal import without_controls
    from srblock.runs.archive import pack_study

    names, unfinished = pack_study(out, file)
    packed, size = counted(len(names), "finished run"), file.stat().st_size / 1000
    print(without_controls(f"packed {packed} into {file} ({size:.0f} kB), {unfinished} unfinished left out"))


@results.command(help_epilogue="Example: srblock results add records.tar.gz --to results")
def add(
    source: Annotated[Path, Parameter(help="the --out of a study, or an archive of records")],
    /,
    *,
    to: Annotated[Path, Parameter(help="the folder of results")] = Path("results"),
) -> None:
    """Add finished runs as records; records are never overwritten."""
    from srblock.runs.archive import add_records

    found = add_records(source, to)
    for name in found.added:
        print(f"added {name}")
    print(
        f"{len(found.added)} added, {len(found.known)} known already, {found.unfinished} unfinished left out; "
        f"srblock results tables {to} makes the tables anew"
    )


@results.command(help_epilogue="Example: srblock results tables results")
def tables(folder: Annotated[Path, Parameter(help="the folder of results")] = Path("results"), /) -> None:
    """Make the tables from the records anew."""
    from srblock.report.published import write_tables

    for path in write_tables(folder):
        print(path)
