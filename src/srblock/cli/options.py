"""Options that several commands share, each written once, under the headings of the help."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from srblock.paper.select import Unsaid

OWN = Group("What to run", sort_key=0)
DATA = Group("Data", sort_key=1)
TRAINING = Group("Training (default: as the recipe says)", sort_key=2)
WHERE = Group("Where it runs", sort_key=3)
OUTPUT = Group("Output", sort_key=4)

AT_LEAST_1 = Number(gte=1)
Device = Annotated[str, Parameter(group=WHERE, help="auto, cpu, cuda, cuda:1, ...")]
Margin = Annotated[float, Parameter(group=OUTPUT, help="percentage points that count as no difference")]


def _flag(group: Group, help: str) -> Parameter:
    """Describe an option that is given or not, without a --no-... of its own."""
    return Parameter(group=group, help=help, negative="", show_default=False)


@Parameter(name="*")
@dataclass(frozen=True)
class StudyOptions:
    """What is trained on, how, on which device, and where it goes."""

    data: Annotated[
        str | None,
        Parameter(
            group=DATA,
            help="digits, cifar10[:PATH], cifar100[:PATH], imagenet:PATH, stream:PATH, or a folder or zip with one "
            "folder per class (default: digits; reproduce: the table's own)",
        ),
    ] = None
    image_size: Annotated[
        int | None, Parameter(group=DATA, validator=AT_LEAST_1, help="resize images to this many pixels square")
    ] = None
    crop: Annotated[str | None, Parameter(group=DATA, help="padded, or resized: how training images are cut")] = None
    test_resize: Annotated[
        int | None, Parameter(group=DATA, help="short side of test images before the center is cut")
    ] = None
    test_square: Annotated[bool | None, Parameter(group=DATA, help="resize both sides to --test-resize")] = None

    recipe: Annotated[
        str, Parameter(group=TRAINING, help="cifar10, cifar100, imagenet, short, or auto: by the data")
    ] = "auto"
    epochs: Annotated[int | None, Parameter(group=TRAINING, help="stretch or shrink the recipe to so many")] = None
    epoch_steps: Annotated[
        int | None, Parameter(group=TRAINING, help="count so many steps as an epoch (default: one pass)")
    ] = None
    batch_size: Annotated[int | None, Parameter(group=TRAINING, help="images a step, of all processes together")] = None
    learning_rate: Annotated[
        float | None, Parameter(name="--lr", group=TRAINING, help="learning rate at the start")
    ] = None
    schedule: Annotated[str | None, Parameter(group=TRAINING, help="of the rate: multistep, cosine or poly")] = None
    weight_decay: Annotated[float | None, Parameter(group=TRAINING, help="of SGD, on every parameter")] = None
    memory_lr_scale: Annotated[
        float | None, Parameter(group=TRAINING, help="factor of the rate for the blocks' memories")
    ] = None
    memory_weight_decay: Annotated[
        float | None, Parameter(group=TRAINING, help="of the blocks' memories (default: as --weight-decay)")
    ] = None
    nesterov: Annotated[bool | None, Parameter(group=TRAINING, help="Nesterov's momentum")] = None
    clip_norm: Annotated[float | None, Parameter(group=TRAINING, help="scale gradients to at most this norm")] = None
    sync_batch_norm: Annotated[bool | None, Parameter(group=TRAINING, help="batch norm over all processes")] = None
    pretrained: Annotated[bool, _flag(TRAINING, "start from timm's or torchvision's trained weights")] = False
    weights: Annotated[
        Path | None, Parameter(group=TRAINING, help="start from these weights (.safetensors or .pth)")
    ] = None

    device: Device = "auto"
    precision: Annotated[
        str | None, Parameter(group=WHERE, help="float32 or bfloat16 (default: what the device gains from)")
    ] = None
    engine: Annotated[
        str | None, Parameter(group=WHERE, help="eager, compile, graph or compile+graph: how a step is run")
    ] = None

    minutes: Annotated[
        float | None,
        Parameter(group=WHERE, validator=Number(gt=0), help="end by then, with status 75 if runs are left"),
    ] = None

    out: Annotated[
        Path, Parameter(group=OUTPUT, help="where runs and reports go; the same folder continues what is there")
    ] = Path("out")

    def changes(self) -> dict[str, Any]:
        """Return what the options change in a recipe, None where nothing: those called as a field of it."""
        from srblock.training.recipe import Recipe

        return {field.name: getattr(self, field.name) for field in fields(Recipe) if hasattr(self, field.name)}


@Parameter(name="*")
@dataclass(frozen=True)
class WorkOptions:
    """Who does the work, or whether it is only planned."""

    executor: Annotated[str, Parameter(group=WHERE, help="local: processes of this machine; ray: a Ray cluster")] = (
        "local"
    )
    workers: Annotated[
        int | None, Parameter(group=WHERE, help="runs at once (default: one, in this process; ray: as many as fit)")
    ] = None
    cpus_per_run: Annotated[
        int | None, Parameter(group=WHERE, validator=AT_LEAST_1, help="with ray: CPU cores of each run")
    ] = None
    gpus_per_run: Annotated[
        float | None,
        Parameter(group=WHERE, validator=Number(gte=0), help="with ray: GPUs of each run; 0.5 lets two share one"),
    ] = None
    dry_run: Annotated[bool, _flag(OUTPUT, "print the plan and stop; nothing is downloaded or written")] = False


@Parameter(name="*")
@dataclass(frozen=True)
class UnsaidOptions:
    """What the paper leaves unsaid about its rows."""

    hidden: Annotated[
        int | None,
        Parameter(
            name=("--hidden", "-U"), group=OWN, validator=AT_LEAST_1,
            help="U of every block (default: as the overheads imply)",
        ),
    ] = None  # fmt: skip
    activation: Annotated[
        Literal["relu"] | None, Parameter(group=OWN, help="between the block's layers: relu (default: nothing)")
    ] = None
    init: Annotated[str | None, Parameter(group=OWN, help="of the block: fan_in or channels (default: fan_in)")] = None
    dropout_rate: Annotated[float | None, Parameter(group=OWN, help="of D, D2D and DB (default: 0.1; VGG: 0.5)")] = None
    dropout_stages: Annotated[
        str | None, Parameter(group=OWN, help="where they stand in a ResNet: 4, or 3+4 (default: the last stage)")
    ] = None
    dropblock_size: Annotated[
        int | None, Parameter(group=OWN, help="side of dropped squares, odd (default: 3; ImageNet: 7)")
    ] = None
    dropblock_schedule: Annotated[
        str | None, Parameter(group=OWN, help="constant, or linear: from 0 up (default: constant)")
    ] = None

    def choices(self) -> Unsaid:
        """Return them as the rows take them.

        Raises: ValueError if the stages cannot be read.
        """
        from srblock.paper.select import Unsaid

        stages = None
        if self.dropout_stages is not None:
            if not re.fullmatch(r"[1-9](\+[1-9])*", self.dropout_stages):
                raise ValueError(f"--dropout-stages are numbers such as 4 or 3+4, got {self.dropout_stages!r}")
            stages = tuple(map(int, self.dropout_stages.split("+")))
        return Unsaid(
            self.hidden, self.activation, self.init, self.dropout_rate, stages, self.dropblock_size,
            self.dropblock_schedule,
        )  # fmt: skip
