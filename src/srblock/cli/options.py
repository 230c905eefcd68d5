"""Options that several commands share, each written once, under the headings of the help."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from srblock.cli.numbers import AT_LEAST_1, LARGEST, LARGEST_SIDE, MOST_SEEDS, SIDE, number, within

if TYPE_CHECKING:
    from srblock.paper.select import Unsaid


def _under(heading: str, sort_key: int) -> Callable[..., Parameter]:
    """Return a way to describe options under one heading of the help: in words, and what else cyclopts takes."""
    group = Group(heading, sort_key=sort_key)
    return lambda help, **more: Parameter(group=group, help=help, **{"validator": within, **more})


own_option = _under("What to run", 0)
data_option = _under("Data", 1)
training_option = _under("Training (default: as the recipe says)", 2)
where_option = _under("Where it runs", 3)
output_option = _under("Output", 4)

Off = Literal["none"]  # turns off what a named recipe has
FLAG: dict[str, Any] = {"negative": "", "show_default": False}  # given or not, without a --no-... of its own


def seeds_of(text: str) -> range:
    """Read `--seeds`: how many from 0 on, or which.

    >>> seeds_of("3"), seeds_of("5-9")
    (range(0, 3), range(5, 10))

    Raises: ValueError for anything else.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)", text)
    first, last = (0, 0) if found is None else (int(found[1] or 0), int(found[2]) - (found[1] is None))
    if found is None or not first <= last:
        raise ValueError(f"--seeds must be how many, such as 5, or from which to which, such as 5-9, got {text}")
    if last > LARGEST or last - first >= MOST_SEEDS:
        raise ValueError(f"--seeds must be at most {MOST_SEEDS:,}, each of at most 64 bits, got {text}")
    return range(first, last + 1)


def size_of(text: str) -> tuple[int, int]:
    """Read `--crop-size`: "180x240" is (H, W).

    Raises: ValueError for anything else.
    """
    found = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    if found is None:
        raise ValueError(f"--crop-size must be height x width in pixels, such as 180x240, got {text}")
    return int(found[1]), int(found[2])


def seeds_option(what: str) -> Parameter:
    """Describe an option that `seeds_of` reads."""
    return own_option(f"how many {what}, or which: 5-9")


Device = Annotated[str, where_option("auto, cpu, cuda, cuda:1, ...")]
BuildOption = Annotated[
    str | None, Parameter(help="of a network of your own: the function that builds it, FILE.py:FUNCTION")
]
Margin = Annotated[float, output_option("percentage points that count as no difference")]


@Parameter(name="*")
@dataclass(frozen=True)
class StudyOptions:
    """What is trained on, how, on which device, and where it goes."""

    data: Annotated[
        str | None,
        data_option(
            "digits, cifar10[:PATH], cifar100[:PATH], imagenet:PATH, stream:PATH, or a folder or zip with one "
            "folder per class; of scenes cityscapes:PATH, camvid:PATH, scenes:PATH (default: digits; reproduce: the "
            "table's own)"
        ),
    ] = None
    image_size: Annotated[
        int | None,
        data_option("resize images to this many pixels square", validator=SIDE),
    ] = None
    crop: Annotated[str | None, data_option("padded, or resized: how training images are cut")] = None
    crop_size: Annotated[str | None, data_option("of scenes: HxW that is trained on, such as 180x240")] = None
    scene_scale: Annotated[float | None, data_option("of scenes: factor of both sides")] = None
    ratios: Annotated[
        tuple[float, float] | None, data_option("of scenes: and one drawn between these, in training: 0.5 2")
    ] = None
    class_share: Annotated[float | None, data_option("of scenes: share of a crop that one class may have")] = None
    photometric: Annotated[bool | None, data_option("of scenes: distort colors of training scenes")] = None
    inference: Annotated[str | None, data_option("of scenes: slide or whole: how they are tested")] = None
    padding: Annotated[
        int | None,
        data_option("pixels of the border that padded crops reach into", validator=number(lte=LARGEST_SIDE)),
    ] = None
    padding_mode: Annotated[str | None, data_option("zeros or reflect: what is in that border")] = None
    flip: Annotated[bool | None, data_option("mirror training images at random")] = None
    alternating_flip: Annotated[bool | None, data_option("the other side of each image at every pass")] = None
    auto_augment: Annotated[str | None, data_option("trivialaugment, randaugment or none: distort training images")] = (
        None
    )
    augment_magnitude: Annotated[int | None, data_option("of randaugment, 0 to 30")] = None
    random_erasing: Annotated[float | None, data_option("share of training images that lose a box")] = None
    mixup: Annotated[float | None, data_option("alpha of mixing training images, 0 to 1")] = None
    cutmix: Annotated[float | None, data_option("alpha of putting boxes of others into them, 0 to 1")] = None
    tta: Annotated[
        str | None, data_option("none, flip, flip+translate; of scenes multiscale: average over these in tests")
    ] = None
    test_resize: Annotated[
        int | Off | None,
        data_option("short side of test images before the center is cut", validator=number(lte=LARGEST_SIDE)),
    ] = None
    test_square: Annotated[bool | None, data_option("resize both sides to --test-resize")] = None

    recipe: Annotated[
        str,
        training_option(
            "cifar10, cifar100, imagenet, short, airbench, finetune, of scenes cityscapes, scenes; auto: by the data"
        ),
    ] = "auto"
    epochs: Annotated[int | None, training_option("stretch or shrink the recipe to so many")] = None
    epoch_steps: Annotated[int | Off | None, training_option("count so many steps as an epoch, or none: one pass")] = (
        None
    )
    batch_size: Annotated[int | None, training_option("images a step, of all processes together")] = None
    learning_rate: Annotated[float | None, training_option("learning rate at the start", name="--lr")] = None
    end_lr: Annotated[float | None, training_option("learning rate at the end of poly")] = None
    schedule: Annotated[str | None, training_option("of the rate: multistep, cosine, poly or triangular")] = None
    power: Annotated[float | None, training_option("of poly: rate * (1 - share of the run) ** power")] = None
    optimizer: Annotated[str | None, training_option("sgd or adamw")] = None
    weight_decay: Annotated[float | None, training_option("on every parameter")] = None
    norm_weight_decay: Annotated[
        float | Off | None, training_option("of norms and biases, or none: as --weight-decay")
    ] = None
    backbone_lr_scale: Annotated[float | None, training_option("factor of the rate for all but head and blocks")] = None
    lr_scales: Annotated[
        list[str] | None,
        training_option(
            "factor of the rate by parameters' names: 'layer1.*=0.1'; may be repeated", name="--lr-scale", negative=""
        ),
    ] = None
    freeze_epochs: Annotated[int | None, training_option("train head and blocks alone for so many epochs")] = None
    memory_lr_scale: Annotated[float | None, training_option("factor of the rate for the blocks' memories")] = None
    memory_weight_decay: Annotated[
        float | None, training_option("of the blocks' memories (default: as --weight-decay)")
    ] = None
    decoupled: Annotated[bool | None, training_option("rate and decay in airbench's units")] = None
    bias_lr_scale: Annotated[float | None, training_option("factor of the rate, batch norms' biases")] = None
    momentum: Annotated[float | None, training_option("of SGD; the first beta of adamw")] = None
    nesterov: Annotated[bool | None, training_option("Nesterov's momentum")] = None
    clip_norm: Annotated[float | Off | None, training_option("scale gradients to at most this norm")] = None
    lookahead: Annotated[bool | None, training_option("draw weights back to a slow average")] = None
    ema: Annotated[float | None, training_option("test an average of the weights with this decay")] = None
    class_weights: Annotated[str | None, training_option("none, or balanced: rare classes count more")] = None
    label_smoothing: Annotated[float | None, training_option("share of the target spread over all classes")] = None
    validation_fraction: Annotated[
        float | None, training_option("held out to select the epoch; 0: train on all, take the last")
    ] = None
    sync_batch_norm: Annotated[bool | None, training_option("batch norm over all processes")] = None
    pretrained: Annotated[bool, training_option("start from timm's or torchvision's trained weights", **FLAG)] = False
    weights: Annotated[
        Path | None,
        training_option("start from these weights (.safetensors or .pth); {seed} in the path: a file a seed"),
    ] = None

    device: Device = "auto"
    precision: Annotated[str | None, where_option("float32 or bfloat16 (default: what the device gains from)")] = None
    engine: Annotated[str | None, where_option("eager, compile, graph or compile+graph: how a step is run")] = None

    minutes: Annotated[
        float | None, where_option("end by then, with status 75 if runs are left", validator=number(gt=0))
    ] = None

    out: Annotated[
        Path,
        output_option("where runs and reports go; the same folder continues what is there"),
    ] = Path("out")
    tensorboard: Annotated[bool, output_option("write TensorBoard's event files into the folders of runs", **FLAG)] = (
        False
    )

    def changes(self) -> dict[str, Any]:
        """Return what the options change in a recipe: those that were given and are called as a field of it."""
        from srblock.training.recipe import Recipe, can_be_none

        said = {field.name: getattr(self, field.name, None) for field in fields(Recipe)}
        given = {name: value for name, value in said.items() if value is not None}
        given |= dict.fromkeys([name for name in given.keys() & can_be_none() if given[name] == "none"])
        return given if self.crop_size is None else given | {"crop_size": size_of(self.crop_size)}


@Parameter(name="*")
@dataclass(frozen=True)
class WorkOptions:
    """Who does the work, or whether it is only planned."""

    executor: Annotated[str, where_option("local: processes of this machine; ray: a Ray cluster")] = "local"
    workers: Annotated[
        int | None, where_option("runs at once (default: one, in this process; ray: as many as fit)")
    ] = None
    cpus_per_run: Annotated[int | None, where_option("with ray: CPU cores of each run", validator=AT_LEAST_1)] = None
    gpus_per_run: Annotated[
        float | None,
        where_option("with ray: GPUs of each run; 0.5 lets two share one", validator=number(gte=0)),
    ] = None
    dry_run: Annotated[
        bool,
        output_option(
            "print the plan and stop; nothing is downloaded, and nothing written but decoded images to the cache",
            **FLAG,
        ),
    ] = False


@Parameter(name="*")
@dataclass(frozen=True)
class UnsaidOptions:
    """What the paper leaves unsaid about its rows."""

    hidden: Annotated[
        int | None,
        own_option("U of every block (default: as the overheads imply)", name=("--hidden", "-U"), validator=AT_LEAST_1),
    ] = None
    activation: Annotated[
        Literal["relu"] | None,
        own_option("between the block's layers: relu (default: nothing)"),
    ] = None
    init: Annotated[str | None, own_option("of the block: fan_in or channels (default: fan_in)")] = None
    dropout_rate: Annotated[float | None, own_option("of D, D2D and DB (default: 0.1; VGG: 0.5)")] = None
    dropout_stages: Annotated[
        str | None, own_option("where they stand in a ResNet: 4, or 3+4 (default: the last stage)")
    ] = None
    dropblock_size: Annotated[int | None, own_option("side of dropped squares, odd (default: 3; ImageNet: 7)")] = None
    dropblock_schedule: Annotated[str | None, own_option("constant, or linear: from 0 up (default: constant)")] = None

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
