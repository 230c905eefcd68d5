"""The commands that train: compare, train, reproduce, sweep; and evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from srblock.cli import running
from srblock.cli.app import FAILED, app, console
from srblock.cli.config import VARIANTS, read_config_file
from srblock.cli.numbers import MOST_SEEDS, number
from srblock.cli.options import (
    BuildOption,
    Device,
    Margin,
    StudyOptions,
    UnsaidOptions,
    WorkOptions,
    own_option,
    seeds_of,
    seeds_option,
)

if TYPE_CHECKING:
    from srblock.variants.notation import Variant

STUDY, WORK, AS_IT_IS = StudyOptions(), WorkOptions(), UnsaidOptions()


@app.command(sort_key=1, help_epilogue='Example: srblock compare R18 "R18 + SR(M=4, P=2)" --data cifar100 --seeds 5')
def compare(
    *variants: Annotated[str, Parameter(help='e.g. R18 "R18 + SR(M=4, P=2)"; the first is the baseline')],
    seeds: Annotated[str, seeds_option("of each variant")] = "3",
    config: Annotated[Path | None, own_option("options and variants from the study.toml of a report")] = None,
    margin: Margin = 0.2,
    options: StudyOptions = STUDY,
    work: WorkOptions = WORK,
) -> int:
    """Train variants on the same data with the same seeds and report what differs.

    Finished runs are reused and started ones go on, so the same command again
    resumes.
    """
    from srblock.experiments.compare import carry_out_comparison
    from srblock.training import distributed

    distributed.refuse("compare")
    named = variants or (() if config is None else read_config_file(config).get(VARIANTS, ()))
    numbers, parsed = seeds_of(seeds), _parsed(tuple(named))
    return running.conclude(carry_out_comparison(running.asked(options, work), parsed, numbers, margin=margin).done)


@app.command(sort_key=2, help_epilogue='Example: srblock train "R18 + SR(M=4, P=2)" --data cifar100 --seed 3')
def train(
    variant: Annotated[str, Parameter(help='e.g. "R18 + D2D + SR(M=4, P=12)"')],
    /,
    *,
    seed: Annotated[int, own_option("decides all that is drawn", validator=number(gte=0))] = 0,
    options: StudyOptions = STUDY,
) -> int:
    """Train one variant with one seed; the same command goes on where it stopped.

    Over several processes: torchrun --nproc-per-node 2 -m srblock train ...
    """
    from srblock.experiments import session as experiment
    from srblock.report.recipes import selected
    from srblock.runs.groups import check_patterns
    from srblock.training import distributed

    with distributed.start(options.device):
        parsed = _parsed([variant])
        session = experiment.prepare(running.asked(options, WORK), parsed)
        study = experiment.make_study(session, parsed, [seed])
        experiment.refuse_what_cannot_fit(session, study)
        model = study.build(study.variants[0], seed)  # what cannot be built is an error of the command, not of a run
        check_patterns(study.recipe, [model])
        study.groups(model)
        done = experiment.run(session, study)
        for run in done.runs:
            print(
                f"{run.variant}, seed {run.seed}: test {run.figure.label} {run.score:.2f}% "
                f"({selected(run)})\n{run.directory}"
            )
        return running.conclude(done)


@app.command(sort_key=3, help_epilogue="Example: srblock evaluate out/runs/r18-s0-1f33aea2")
def evaluate(
    run: Annotated[Path, Parameter(help="the folder of a finished run")],
    /,
    *,
    data: Annotated[str | None, Parameter(help="where the data is now (default: where it was)")] = None,
    tta: Annotated[str | None, Parameter(help="average over views of the images (default: as the run)")] = None,
    inference: Annotated[str | None, Parameter(help="of scenes: slide, or whole, for which blocks resize")] = None,
    scene_scale: Annotated[float | None, Parameter(help="of scenes: factor of both sides")] = None,
    build: BuildOption = None,
    device: Device = "auto",
) -> None:
    """Test a finished run's weights again, as its recipe says or in another way."""
    from srblock.runs.evaluate import evaluate_run
    from srblock.training import runtime

    ways: dict[str, Any] = {"tta": tta, "inference": inference, "scene_scale": scene_scale}
    changes = {name: value for name, value in ways.items() if value is not None}
    found = evaluate_run(run, source=data, build=build, device=runtime.pick_device(device), **changes)
    figures = (f"{figure.label} {value:.2f}% (recorded: {then:.2f}%)" for figure, value, then in found.figures)
    print(f"test {', '.join(figures)}, loss {found.loss:.4f}")


@app.command(sort_key=4, help_epilogue='Example: srblock reproduce table1 --rows "R18*" --seeds 5 --dry-run')
def reproduce(
    table: Annotated[str, Parameter(help="table1, table2, table3, table4 or table5")],
    /,
    *,
    rows: Annotated[str, own_option('by name, with * and ?: "R18*"; baselines come with them')] = "*",
    seeds: Annotated[str, seeds_option("of each row")] = "5",
    margin: Margin = 0.2,
    unsaid: UnsaidOptions = AS_IT_IS,
    options: StudyOptions = STUDY,
    work: WorkOptions = WORK,
) -> int:
    """Train rows of a table of the paper and print the paper's figures beside ours.

    The data is the table's own unless --data says otherwise. Finished runs are
    reused and started ones go on. What the paper leaves unsaid about its rows is
    an option with a default.
    """
    from srblock.experiments import session as experiment
    from srblock.experiments.compare import check_margin
    from srblock.paper import select as paper
    from srblock.training import distributed

    distributed.refuse("reproduce")
    check_margin(margin)
    numbers = seeds_of(seeds)
    chosen, choices = paper.select(table, rows), unsaid.choices()
    variants = paper.variants_of(chosen, choices)
    session = experiment.prepare(running.asked(options, work, default_data=chosen[0].data), variants)
    study = experiment.make_study(session, variants, numbers)
    done = experiment.carry_out(session, study)
    if done.worth_a_report:
        from srblock.report import reproduction, tables
        from srblock.statistics.reproduction import reproduction as beside
        from srblock.training.files import remove_scrap

        lines = beside({row: paper.variant_of(row, choices) for row in chosen}, done.runs, margin=margin)
        reproduction.print_reproduction(lines, study.runs[0], console())
        folder = options.out / experiment.folder_name(f"reproduce-{table.lower()}", study, margin)
        folder.mkdir(parents=True, exist_ok=True)
        remove_scrap(folder)
        tables.write_csv(folder / "results.csv", done.runs)
        reproduction.write_markdown(folder / "table.md", lines, study.runs[0], done.runs)
        reproduction.write_latex(folder / "table.tex", lines)
        running.say_where([("every seed", folder / "results.csv"), ("table", folder / "table.md")])
    return running.conclude(done)


@app.command(sort_key=5, help_epilogue='Example: srblock sweep "R18 + D2D + SR(M={3,4}, P={2..12:2})" --data cifar100')
def sweep(
    settings: Annotated[str, Parameter(help='e.g. "R18 + D2D + SR(M={3,4}, P={2..12:2}, U={8,16,32})"')],
    /,
    *,
    seeds: Annotated[
        int, own_option("of every setting, to choose on validation", validator=number(gte=1, lte=MOST_SEEDS))
    ] = 2,
    fresh: Annotated[
        int, own_option("fresh seeds of the choice and of the plain network", validator=number(gte=1, lte=MOST_SEEDS))
    ] = 5,
    margin: Margin = 0.2,
    options: StudyOptions = STUDY,
    work: WorkOptions = WORK,
) -> int:
    """Choose M, P and U on validation, train the choice on fresh seeds, and test it.

    Also says how much choosing alone would have gained, by chance and as seen here.
    """
    from dataclasses import replace

    from srblock.experiments import session as experiment
    from srblock.experiments.compare import check_margin, write_reports
    from srblock.experiments.timing import times_of
    from srblock.training import distributed
    from srblock.variants import grid as sweeping

    distributed.refuse("sweep")
    check_margin(margin)
    if options.validation_fraction == 0:
        raise ValueError("a sweep chooses on validation, got --validation-fraction 0; leave it out")
    candidates = sweeping.expand(settings)
    base = candidates[0].without_sr()
    session = experiment.prepare(running.asked(options, work), (base, *candidates))
    study = experiment.make_study(session, (base, *candidates), range(seeds))
    then = f"Then {fresh} fresh seeds each of {base} and of the setting chosen."
    first = experiment.carry_out(session, study, then=then)
    if work.dry_run or first.left or not first.runs:
        return running.conclude(first, then=then)
    from srblock.report import sweep as report
    from srblock.report import tables
    from srblock.report.formats import write_formats
    from srblock.statistics.comparison import comparison
    from srblock.statistics.selection import collect

    found = collect(candidates, study.seeds, first.runs)
    chosen = found.best.variant
    report.print_selection(found, chosen, console())
    final = replace(study, variants=(base, chosen), seeds=tuple(range(seeds, seeds + fresh)))
    second = experiment.carry_out(session, final)
    if second.worth_a_report:
        rows = comparison(second.runs, [str(base), str(chosen)], seeds=final.seeds, margin=margin)
        folder = options.out / experiment.folder_name("sweep", study, margin)
        times = times_of(session, final, second.runs, folder)
        tables.print_table(rows, console(), second.runs, session.asked.command, times)
        by_variant = {variant: [run for run in second.runs if run.variant == variant] for variant in final.variants}
        running.note(*report.verdict_sentences(found, chosen, by_variant[base], by_variant[chosen]))
        files = write_reports(folder, second.runs, rows, session.asked.command, final.data, times)
        tables.write_csv(folder / "settings.csv", first.runs)
        write_formats(folder / "settings", [report.selection_sheet(found, chosen)])
        running.say_where([*files, ("settings", folder / "settings.csv")])
    return running.conclude(second) or (FAILED if found.dropped else 0)


def _parsed(texts: tuple[str, ...] | list[str]) -> list[Variant]:
    from srblock.variants.notation import parse

    return [parse(text) for text in texts]
