"""The commands that train: compare, train, reproduce, sweep; and evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srblock.cli import running
from srblock.cli.app import app, console
from srblock.cli.options import Device, DryRun, Margin, Out, StudyOptions, VariantWord, WorkOptions, takes

if TYPE_CHECKING:
    from srblock.variants.notation import Variant


@app.command()
@takes(StudyOptions, "options")
@takes(WorkOptions, "work")
def compare(
    variants: Annotated[list[str], typer.Argument(metavar="VARIANT...", help="the first is the baseline")],
    seeds: Annotated[int, typer.Option(help="how many seeds of each variant", min=1)] = 3,
    out: Out = Path("out"),
    margin: Margin = 0.2,
    dry_run: DryRun = False,
    *,
    options: StudyOptions,
    work: WorkOptions,
) -> None:
    """Train variants on the same data with the same seeds and report what differs.

    Finished runs are reused and started ones go on, so the same command again resumes.
    """
    if len(variants) < 2:
        raise ValueError(f"compare needs two variants or more, got {variants[0]!r} alone; srblock train runs one")
    running.check_margin(margin)
    study, device = running.make_study(_parsed(variants), range(seeds), options, refuse="compare")
    runs = running.plan_and_run(study, out, device, work, dry_run=dry_run)
    from srblock.report import tables

    rows = tables.comparison(runs, [str(variant) for variant in study.variants], margin=margin)
    tables.print_table(rows, console())
    folder = out / running.folder_name("compare", study)
    running.say_where(running.write_reports(folder, runs, rows))
    if len(runs) < len(study.runs()):
        raise typer.Exit(1)


@app.command()
@takes(StudyOptions, "options")
def train(
    variant: VariantWord,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Out = Path("out"),
    *,
    options: StudyOptions,
) -> None:
    """Train one variant with one seed; the same command again goes on where it stopped.

    Over several processes: torchrun --nproc-per-node 2 -m srblock train ...
    """
    from srblock.training import distributed

    with distributed.start(options.device):
        study, device = running.make_study(_parsed([variant]), [seed], options)
        study.build(study.variants[0], seed)  # what cannot be built is an error of the command, not of a run
        runs = running.run(study, out, device)
        if not runs:
            raise typer.Exit(1)
        result = runs[0].result
        typer.echo(
            f"{result['variant']}, seed {result['seed']}: test top-1 {result['test_top1']:.2f}% "
            f"(epoch {result['best_epoch']}, validation {result['validation_top1']:.2f}%)\n{runs[0].directory}"
        )


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    data: Annotated[str | None, typer.Option(help="where the data is now (default: where it was)")] = None,
    device: Device = "auto",
) -> None:
    """Test a finished run's weights again."""
    from srblock.runs.evaluate import evaluate_run
    from srblock.training import runtime

    top1, loss, recorded = evaluate_run(run, source=data, device=runtime.pick_device(device))
    typer.echo(f"test top-1 {top1:.2f}% (recorded: {recorded:.2f}%), loss {loss:.4f}")


@app.command()
@takes(StudyOptions, "options")
@takes(WorkOptions, "work")
def reproduce(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="table1, table2, table3 or table5")],
    rows: Annotated[str, typer.Option(help='rows by name, with * and ?: "R18*"; baselines come with them')] = "*",
    seeds: Annotated[int, typer.Option(help="how many seeds of each row", min=1)] = 5,
    hidden: Annotated[
        int | None, typer.Option("--hidden", "-U", help="U of every block (default: as the overheads imply)", min=1)
    ] = None,
    out: Out = Path("out"),
    margin: Margin = 0.2,
    dry_run: DryRun = False,
    *,
    options: StudyOptions,
    work: WorkOptions,
) -> None:
    """Train rows of a table of the paper and print the paper's figures beside ours.

    The data is the table's own unless --data says otherwise. Finished runs are reused and started ones go on.
    """
    from srblock.paper import select as paper

    running.check_margin(margin)
    chosen = paper.select(table, rows)
    unsaid = paper.Unsaid(hidden=hidden)
    variants = paper.variants_of(chosen, unsaid)
    study, device = running.make_study(variants, range(seeds), options, chosen[0].data, refuse="reproduce")
    runs = running.plan_and_run(study, out, device, work, dry_run=dry_run)
    from srblock.report import reproduction, tables

    lines = reproduction.reproduction(chosen, runs, unsaid=unsaid, margin=margin)
    reproduction.print_reproduction(lines, study.recipe, study.data.name, console())
    folder = out / running.folder_name(f"reproduce-{table.lower()}", study)
    folder.mkdir(parents=True, exist_ok=True)
    tables.write_csv(folder / "results.csv", runs)
    reproduction.write_markdown(folder / "table.md", lines, study.recipe, study.data.name)
    running.say_where([("every seed", folder / "results.csv"), ("table", folder / "table.md")])
    if len(runs) < len(study.runs()):
        raise typer.Exit(1)


@app.command()
@takes(StudyOptions, "options")
@takes(WorkOptions, "work")
def sweep(
    settings: Annotated[
        str, typer.Argument(metavar="SETTINGS", help='e.g. "R18 + D2D + SR(M={3,4}, P={2..12:2}, U={8,16,32})"')
    ],
    seeds: Annotated[int, typer.Option(help="seeds of every setting, to choose on validation", min=1)] = 2,
    fresh: Annotated[int, typer.Option(help="fresh seeds of the chosen setting and the plain network", min=1)] = 5,
    out: Out = Path("out"),
    margin: Margin = 0.2,
    dry_run: DryRun = False,
    *,
    options: StudyOptions,
    work: WorkOptions,
) -> None:
    """Choose a block's M, P and U on validation, train the choice anew on fresh seeds, and test that.

    Also says how much choosing alone would have gained, by chance and as seen here.
    """
    from dataclasses import replace

    from srblock.variants import grid as sweeping

    running.check_margin(margin)
    candidates = sweeping.expand(settings)
    base = candidates[0].without_sr()
    study, device = running.make_study((base, *candidates), range(seeds), options, refuse="sweep")
    then = f"Then {fresh} fresh seeds each of {base} and of the setting chosen."
    first = running.plan_and_run(study, out, device, work, dry_run=dry_run, then=then)
    from srblock.report import sweep as report
    from srblock.report import tables

    found = report.selection(candidates, study.seeds, first)
    chosen = sweeping.choose([(setting.variant, setting.summary.mean) for setting in found.settings])
    report.print_selection(found, chosen, console())
    final = replace(study, variants=(base, chosen), seeds=tuple(range(seeds, seeds + fresh)))
    runs = running.run(final, out, device, work)
    if not runs:
        raise typer.Exit(1)
    rows = tables.comparison(runs, [str(base), str(chosen)], margin=margin)
    tables.print_table(rows, console())
    by_variant = {variant: [run for run in runs if run.variant == variant] for variant in final.variants}
    for text in report.verdict_sentences(found, chosen, by_variant[base], by_variant[chosen]):
        running.note(text)
    folder = out / running.folder_name("sweep", study)
    files = running.write_reports(folder, runs, rows)
    tables.write_csv(folder / "settings.csv", first)
    running.say_where([*files, ("settings", folder / "settings.csv")])
    if len(runs) < len(final.runs()) or found.dropped:
        raise typer.Exit(1)


def _parsed(texts: list[str]) -> list[Variant]:
    from srblock.variants.notation import parse

    return [parse(text) for text in texts]
