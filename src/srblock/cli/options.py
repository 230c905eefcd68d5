"""Options that several commands share, each written once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

VariantWord = Annotated[str, typer.Argument(metavar="VARIANT", help='e.g. "R18 + D2D + SR(M=4, P=12)"')]
Out = Annotated[Path, typer.Option(help="where runs and reports go; the same folder continues what is there")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print the plan and stop")]
Margin = Annotated[float, typer.Option(help="percentage points that count as no difference")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]


@dataclass(frozen=True)
class StudyOptions:
    """What is trained on, and how."""

    data: Annotated[
        str | None,
        typer.Option(
            help="digits, cifar10[:PATH], cifar100[:PATH], imagenet:PATH, stream:PATH, or a folder or zip "
            "with one folder per class (default: digits; reproduce: the table's own)"
        ),
    ] = None
    image_size: Annotated[int | None, typer.Option(help="resize images to this many pixels square")] = None
    recipe: Annotated[str, typer.Option(help="cifar10, cifar100, imagenet, short, or auto: by the data")] = "auto"
    epochs: Annotated[int | None, typer.Option(help="stretch or shrink the recipe to so many epochs")] = None
    batch_size: Annotated[int | None, typer.Option(help="images a step, of all processes together")] = None
    lr: Annotated[float | None, typer.Option(help="learning rate at the start")] = None
    weight_decay: Annotated[float | None, typer.Option(help="of SGD, on every parameter")] = None
    nesterov: Annotated[bool | None, typer.Option("--nesterov/--no-nesterov", help="default: as the recipe says")] = (
        None
    )
    clip_norm: Annotated[float | None, typer.Option(help="scale gradients to at most this norm")] = None
    crop: Annotated[str | None, typer.Option(help="padded or resized (default: as the recipe says)")] = None
    test_resize: Annotated[int | None, typer.Option(help="short side of test images before the center is cut")] = None
    test_square: Annotated[
        bool | None, typer.Option("--test-square/--no-test-square", help="resize both sides to --test-resize")
    ] = None
    sync_batch_norm: Annotated[
        bool | None, typer.Option("--sync-batch-norm/--no-sync-batch-norm", help="batch norm over all processes")
    ] = None
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16 (default: what the device gains from)")] = (
        None
    )
    engine: Annotated[
        str | None, typer.Option(help="eager, compile, graph or compile+graph: how a step reaches the device")
    ] = None
    device: Device = "auto"
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="start from timm's or torchvision's trained weights")
    ] = False
    weights: Annotated[Path | None, typer.Option(help="start from these weights (.safetensors or .pth)")] = None

    def changes(self) -> dict[str, Any]:
        """Return what the options change in a recipe, None where nothing."""
        named = ("epochs", "batch_size", "weight_decay", "nesterov", "clip_norm", "crop", "test_resize", "test_square",
                 "sync_batch_norm", "precision", "engine")  # fmt: skip
        return {"learning_rate": self.lr} | {name: getattr(self, name) for name in named}


@dataclass(frozen=True)
class WorkOptions:
    """Who does the work."""

    executor: Annotated[str, typer.Option(help="local: processes of this machine; ray: a Ray cluster")] = "local"
    workers: Annotated[
        int | None, typer.Option(help="runs at once (default: one, in this process; ray: as many as fit)", min=1)
    ] = None
    cpus_per_run: Annotated[int | None, typer.Option(help="with ray: CPU cores of each run", min=1)] = None
    gpus_per_run: Annotated[
        float | None, typer.Option(help="with ray: GPUs of each run; 0.5 lets two share one", min=0)
    ] = None


def takes(options: type, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of a dataclass as options of its own; it gets them as one object called `name`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(options, include_extras=True)
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != name]
        shared = [
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default,
                              annotation=hints[field.name])
            for field in fields(options)
        ]  # fmt: skip

        @functools.wraps(command)
        def run(**given: Any) -> None:
            chosen = options(**{parameter.name: given.pop(parameter.name) for parameter in shared})
            command(**given, **{name: chosen})

        signature = inspect.Signature([p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared)
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {key: parameter.annotation for key, parameter in signature.parameters.items()}
        del run.__wrapped__  # typer would look through it, at the original's annotations
        return run

    return decorate
