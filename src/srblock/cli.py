"""The command line: parse, call, print. Joins study, statistics and report."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from srblock.experiments.study import Study

app = typer.Typer(
    help="Does the Squeeze-and-Remember block help? Train with and without it, and see.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130  # what typer makes of Ctrl-C

VariantWord = Annotated[str, typer.Argument(metavar="VARIANT", help='e.g. "R18 + D2D + SR(M=4, P=12)"')]
Data = Annotated[
    str,
    typer.Option(help="digits, cifar10[:PATH], cifar100[:PATH], or a folder or zip with one folder per class"),
]
Out = Annotated[Path, typer.Option(help="where runs and reports go; the same folder continues what is there")]
ImageSize = Annotated[int | None, typer.Option(help="resize images to this many pixels square")]
RecipeName = Annotated[str, typer.Option("--recipe", help="cifar10, cifar100, short, or auto: by the data")]
Epochs = Annotated[int | None, typer.Option(help="stretch or shrink the recipe to so many epochs")]
BatchSize = Annotated[int | None, typer.Option(help="images a step")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="learning rate at the start")]
WeightDecay = Annotated[float | None, typer.Option(help="of SGD, on every parameter")]
Nesterov = Annotated[bool | None, typer.Option("--nesterov/--no-nesterov", help="default: as the recipe says")]
ClipNorm = Annotated[float | None, typer.Option(help="scale gradients to at most this norm")]
Precision = Annotated[str | None, typer.Option(help="float32 or bfloat16 (default: what the device gains from)")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="start from timm's or torchvision's trained weights")]
Weights = Annotated[Path | None, typer.Option(help="start from these weights (.safetensors or .pth)")]


@app.command()
def compare(
    variants: Annotated[list[str], typer.Argument(metavar="VARIANT...", help="the first is the baseline")],
    data: Data = "digits",
    seeds: Annotated[int, typer.Option(help="how many seeds of each variant", min=1)] = 3,
    out: Out = Path("out"),
    image_size: ImageSize = None,
    recipe: RecipeName = "auto",
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    weight_decay: WeightDecay = None,
    nesterov: Nesterov = None,
    clip_norm: ClipNorm = None,
    precision: Precision = None,
    device: Device = "auto",
    pretrained: Pretrained = False,
    weights: Weights = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and stop")] = False,
) -> None:
    """Train variants on the same data with the same seeds and report what differs.

    Finished runs are reused and started ones go on, so the same command again resumes.
    """
    from srblock.experiments.execute import make_folder

    if len(variants) < 2:
        raise ValueError(f"compare needs two variants or more, got {variants[0]!r} alone; srblock train runs one")
    study, torch_device = _study(
        variants, range(seeds), data, image_size, recipe, device, pretrained, weights,
        epochs=epochs, batch_size=batch_size, learning_rate=lr, weight_decay=weight_decay, nesterov=nesterov,
        clip_norm=clip_norm, precision=precision,
    )  # fmt: skip
    if not dry_run:
        make_folder(out)
    _plan(study, out, torch_device)
    if dry_run:
        return
    runs = _run(study, out, torch_device)
    from srblock.report import html, tables

    console = _console()
    if not runs:
        raise typer.Exit(1)  # each failure has its line already
    rows = tables.comparison(runs, [str(variant) for variant in study.variants])
    tables.print_table(rows, console)
    folder = out / _study_name(study)
    folder.mkdir(parents=True, exist_ok=True)
    tables.write_csv(folder / "results.csv", runs)
    html.write_report(folder / "report.html", runs, rows, command=_command())
    console.print(
        f"every seed: {folder / 'results.csv'}\nreport:     {folder / 'report.html'}", soft_wrap=True, highlight=False
    )
    if len(runs) < len(study.runs()):
        raise typer.Exit(1)


@app.command()
def train(
    variant: VariantWord,
    data: Data = "digits",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Out = Path("out"),
    image_size: ImageSize = None,
    recipe: RecipeName = "auto",
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    weight_decay: WeightDecay = None,
    nesterov: Nesterov = None,
    clip_norm: ClipNorm = None,
    precision: Precision = None,
    device: Device = "auto",
    pretrained: Pretrained = False,
    weights: Weights = None,
) -> None:
    """Train one variant with one seed; the same command again goes on where it stopped."""
    study, torch_device = _study(
        [variant], [seed], data, image_size, recipe, device, pretrained, weights,
        epochs=epochs, batch_size=batch_size, learning_rate=lr, weight_decay=weight_decay, nesterov=nesterov,
        clip_norm=clip_norm, precision=precision,
    )  # fmt: skip
    runs = _run(study, out, torch_device)
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
    from srblock.experiments.evaluate import evaluate_run
    from srblock.training import runtime

    top1, loss, recorded = evaluate_run(run, source=data, device=runtime.pick_device(device))
    typer.echo(f"test top-1 {top1:.2f}% (recorded: {recorded:.2f}%), loss {loss:.4f}")


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
    tables.print_stages(found if all_modules or not numbered else numbered, _console())


@app.command()
def overhead() -> None:
    """Print the parameter overhead of every row of the paper: as printed, by Eq. (1), and of the built network."""
    from srblock.experiments.paper import overhead_table
    from srblock.report import tables

    tables.print_overhead(overhead_table(), _console())


def _study(
    variants: list[str],
    seeds: Any,
    source: str,
    image_size: int | None,
    recipe: str,
    device: str,
    pretrained: bool,
    weights: Path | None,
    **changes: Any,
) -> tuple[Study, torch.device]:
    from srblock.data import load
    from srblock.experiments.notation import parse
    from srblock.experiments.study import Study, recipe_for
    from srblock.report.progress import LoadProgress
    from srblock.training import runtime

    parsed = tuple(parse(text) for text in variants)
    for index, variant in enumerate(parsed):
        if variant in parsed[:index]:
            raise ValueError(f"{variant} is named twice; name each variant once")
    if pretrained and weights is not None:
        raise ValueError("--pretrained and --weights both say where to start; give one of them")
    if weights is not None and not weights.is_file():
        raise ValueError(f"--weights: there is no file {weights}")
    torch_device = runtime.pick_device(device)
    with LoadProgress(_console()) as progress:
        images = load(source, image_size=image_size, progress=progress)
    resolved = recipe_for(images, torch_device, recipe, **changes)
    return Study(
        parsed, tuple(seeds), images, _lasting(source), resolved, image_size, pretrained, weights
    ), torch_device


def _lasting(source: str) -> str:
    """Make the path in a data specification hold from any folder, for `srblock evaluate` later."""
    from srblock.data.sources import SOURCES

    name, colon, path = source.partition(":")
    if name in SOURCES:
        return f"{name}:{Path(path).expanduser().resolve()}" if colon else source
    return str(Path(source).expanduser().resolve())


def _plan(study: Study, out: Path, device: torch.device) -> None:
    from srblock.analysis.cost import cost
    from srblock.experiments.records import epochs_done, finished
    from srblock.experiments.study import measure_ms_per_image
    from srblock.report import tables

    rows = []
    folders = {
        variant: [out / "runs" / run.name for run in study.runs() if run.variant == variant]
        for variant in study.variants
    }
    for variant in study.variants:
        size = cost(study.build(variant, study.seeds[0]), (study.data.channels, *study.data.size))
        started = {folder: epochs_done(folder) for folder in folders[variant] if not finished(folder)}
        ms_per_image = measure_ms_per_image(study, variant, device) if started else None
        images = len(study.data.train_labels) * (study.recipe.epochs * len(started) - sum(started.values()))
        rows.append(
            tables.PlanRow(
                variant=str(variant),
                parameters=size.parameters,
                overhead_percent=size.overhead_percent,
                flops_per_image=size.flops_per_image,
                ms_per_image=ms_per_image,
                done=len(study.seeds) - len(started),
                partial=sum(done > 0 for done in started.values()),
                todo=sum(done == 0 for done in started.values()),
                seconds_left=1e-3 * (ms_per_image or 0.0) * images,
            )
        )
    tables.print_plan(rows, study, device, _console())


def _run(study: Study, out: Path, device: torch.device) -> list[Any]:
    from srblock.analysis.cost import flops_per_image
    from srblock.analysis.recall import memory_probe, summarize_recall
    from srblock.experiments.execute import run_study
    from srblock.report.progress import RunProgress
    from srblock.surgery import blocks
    from srblock.training.checkpoint import save_weights

    def inspect(model: torch.nn.Module, test: Any, directory: Path) -> dict[str, Any]:
        if blocks(model):
            save_weights(
                directory / "recall.safetensors", summarize_recall(model, test.epoch(0), len(study.data.classes))
            )
        return {"flops_per_image": flops_per_image(model, (study.data.channels, *study.data.size))}

    with RunProgress(study, _console()) as progress:
        return run_study(study, out, device=device, progress=progress, probe=memory_probe, inspect=inspect)


def _study_name(study: Study) -> str:
    """Name the report's folder after what is compared, whatever the number of seeds."""
    weights = study.runs()[0].weights
    identity = [str(variant) for variant in study.variants], study.recipe.as_dict(), study.data.fingerprint, weights
    return f"compare-{study.data.name}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:6]}"


def _command() -> str:
    return shlex.join(["srblock", *sys.argv[1:]])


def _console() -> Console:
    from rich.console import Console

    return Console()


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"warning: {message}", err=True)


def main() -> None:
    """Run the command line; errors that a user can mend are one line, not a traceback."""
    warnings.showwarning = _warn
    try:
        app()
    except (SystemExit, KeyboardInterrupt) as end:
        if isinstance(end, KeyboardInterrupt) or end.code == INTERRUPTED:
            typer.echo(f"\nstopped. Finished epochs are kept; go on with the same command:\n  {_command()}", err=True)
            sys.exit(INTERRUPTED)
        raise
    except (ValueError, OSError) as error:  # what our rooms raise for bad input, damaged files and full disks
        ours = error.strerror if isinstance(error, OSError) and error.filename is None else None  # without "[Errno 28]"
        typer.echo(f"error: {ours or error}", err=True)
        sys.exit(2)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; not worth importing torch for
            raise
        typer.echo(
            f"error: the device is out of memory ({str(error).splitlines()[0]}); use a smaller --batch-size or "
            "--image-size. Finished runs are safe; the same command goes on",
            err=True,
        )
        sys.exit(2)
