"""What is compared: a network with a regularizer, attention and SR blocks, checked and printed in one canonical way.

Read from text by `notation.parse`. An option at its default is not printed; where a block stands always is.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from itertools import pairwise

from srblock.block import Options
from srblock.block.options import SETTINGS
from srblock.models.regularizers import SCHEDULES
from srblock.models.segmentation import DESIGNS

SEGMENTATION = tuple(DESIGNS)
STAGES = {"R8": 3, "R18": 4, "R20": 3, "R34": 4, "R50": 4, "VGG16": 5, "VGG19": 5, "Airbench94": 3}
STAGES |= dict.fromkeys(SEGMENTATION, 4)
LIBRARIES = ("timm", "torchvision")
CUSTOM = "custom"  # of a function that Python code hands over
LOCATED = re.compile(r"[^\s()+:][^\s()+]*:[A-Za-z_]\w*")  # mynet.py:make, package.module:make
REGULARIZERS = ("D", "D2D", "DB")
ATTENTION = ("SE", "CBAM")
PLACEMENTS = ("stage", "inner")
INNER = ("R50",)  # networks of bottlenecks, whose blocks have an inner width


@dataclass(frozen=True)
class Regularizer:
    """Dropout (D), dropout2d (D2D) or dropblock (DB), with its rate and its place.

    Attributes:
        kind: "D", "D2D" or "DB".
        p: the rate, above 0 and below 1.
        stages: 1-based stages whose convolutions it follows; () stands for the linear layers of a VGG's head.
        size: side of dropblock's blocks, odd; None for the default of the network's form (3 for CIFAR, 7 for ImageNet).
        schedule: of dropblock's rate, "constant", or "linear" from 0 to p over the run.
    """

    kind: str
    p: float
    stages: tuple[int, ...]
    size: int | None = None
    schedule: str = "constant"


@dataclass(frozen=True)
class SR:
    """One Squeeze-and-Remember block: its place and its settings (paper: M, P, U).

    Attributes:
        stage: M, the 1-based stage that the block follows, or None where `after` names a module.
        placement: "stage", or "inner" for the inner width of the stage's last bottleneck.
        after: name of a module that the block follows.
        options: of the block itself.
    """

    stage: int | None = 3
    placement: str = "stage"
    after: str | None = None
    options: Options = field(default_factory=Options)

    @property
    def target(self) -> str | int:
        """What the block follows, as `srblock.insert` takes it: a module's name or a stage."""
        if self.after is not None:
            return self.after
        assert self.stage is not None  # a Variant has checked it
        return self.stage

    @property
    def place(self) -> tuple[float, str, str]:
        """Where it stands, to sort by: by stage, and what stands after a module's name behind all stages."""
        return math.inf if self.stage is None else self.stage, self.after or "", self.placement

    def __str__(self) -> str:
        place = f"M={self.stage}" if self.after is None else f"after={self.after}"
        said = [] if self.placement == "stage" else [(f"placement={self.placement}", True)]
        for option in SETTINGS:
            value = getattr(self.options, option.name)
            if value != option.default:
                said.append((f"{option.word}={option.show(value)}", isinstance(value, str)))
        said.sort(key=lambda entry: entry[1])  # numbers before words, as runs are named
        return f"SR({', '.join([place, *(text for text, _ in said)])})"


@dataclass(frozen=True)
class Variant:
    """A network with what is added to it; printing and `parse` are inverse to each other.

    Attributes:
        network: a key of `STAGES`, "timm/NAME", "torchvision/NAME", or a function of the user's own that builds it:
            "FILE.py:FUNCTION", "MODULE:FUNCTION", or "custom/NAME" if Python code hands it over.
        regularizer: at most one.
        attention: "SE", "CBAM" or None, in every residual block.
        sr_blocks: sorted by place.

    Raises: ValueError for a combination that cannot be built, saying what can.
    """

    network: str
    regularizer: Regularizer | None = None
    attention: str | None = None
    sr_blocks: tuple[SR, ...] = ()

    def __post_init__(self) -> None:
        _check_network(self)
        if self.regularizer is not None:
            _check_regularizer(self.network, self.regularizer)
        sr_blocks = sorted((_settle(self.network, block) for block in self.sr_blocks), key=lambda block: block.place)
        for block, following in pairwise(sr_blocks):
            if block.place == following.place:
                raise ValueError(
                    f"two SR blocks stand at the same place ({block.after or f'M={block.stage}'}); give each its own M"
                )
        object.__setattr__(self, "sr_blocks", tuple(sr_blocks))

    @property
    def own(self) -> bool:
        """Whether the network is one of ours, not timm's or torchvision's."""
        return self.network in STAGES

    @property
    def located(self) -> bool:
        """Whether the network is a function of the user's own, named by its place."""
        return LOCATED.fullmatch(self.network) is not None

    @property
    def custom(self) -> bool:
        """Whether the network is a function of the user's own."""
        return self.located or self.network.startswith(f"{CUSTOM}/")

    def without_sr(self) -> Variant:
        """Return the same network without any SR block: the one to compare with."""
        return replace(self, sr_blocks=())

    def __str__(self) -> str:
        words = [self.network]
        if self.regularizer is not None:
            usual = default_regularizer(self.network, self.regularizer.kind)
            shown = []
            if self.regularizer.p != usual.p:
                shown.append(f"p={self.regularizer.p!r}")
            if self.regularizer.size is not None:
                shown.append(f"size={self.regularizer.size}")
            if self.regularizer.schedule != usual.schedule:
                shown.append(f"schedule={self.regularizer.schedule}")
            if self.regularizer.stages != usual.stages:
                shown.append(f"M={'+'.join(map(str, self.regularizer.stages))}")
            words.append(self.regularizer.kind + (f"({', '.join(shown)})" if shown else ""))
        if self.attention is not None:
            words.append(self.attention)
        return " + ".join([*words, *map(str, self.sr_blocks)])


def default_regularizer(network: str, kind: str) -> Regularizer:
    """Return the regularizer with the rate and place it has unless told otherwise.

    The paper gives neither. Its authors' other papers use 0.1 or 0.2 in stage 3 or 4 of a ResNet, and 0.5 in the
    linear layers of a VGG; here 0.1 in the last stage.
    """
    return (
        Regularizer(kind, 0.5, ()) if network.startswith("VGG") else Regularizer(kind, 0.1, (STAGES.get(network, 4),))
    )


def _check_network(variant: Variant) -> None:
    network = variant.network
    libraries = "|".join((*LIBRARIES, CUSTOM))
    if network not in STAGES and not variant.located and not re.fullmatch(rf"({libraries})/[^\s()+]+", network):
        raise ValueError(
            f"unknown network {network!r}; known are {', '.join(STAGES)}, timm/NAME, torchvision/NAME and your own as "
            "FILE.py:FUNCTION"
        )
    if variant.attention is None:
        return
    if variant.attention not in ATTENTION:
        raise ValueError(f"attention must be one of {', '.join(ATTENTION)}, got {variant.attention!r}")
    if network not in STAGES or network.startswith("VGG") or network in SEGMENTATION:
        raise ValueError(
            f"{variant.attention} goes into our own ResNets (R8 to R50) and Airbench94 only, not into {network}; leave "
            "it out"
        )


def _check_regularizer(network: str, regularizer: Regularizer) -> None:
    kind, stages = regularizer.kind, regularizer.stages
    if kind not in REGULARIZERS:
        raise ValueError(f"a regularizer is one of {', '.join(REGULARIZERS)}, got {kind!r}")
    if not 0 < regularizer.p < 1:
        raise ValueError(f"p of {kind} must be above 0 and below 1, got {regularizer.p}")
    if regularizer.size is not None and (kind != "DB" or regularizer.size < 1 or regularizer.size % 2 == 0):
        raise ValueError(f"size is dropblock's (DB) and odd, got {kind} with size={regularizer.size}")
    if regularizer.schedule not in SCHEDULES or (kind != "DB" and regularizer.schedule != "constant"):
        raise ValueError(
            f"schedule is dropblock's (DB), one of {', '.join(SCHEDULES)}, got {kind} with {regularizer.schedule!r}"
        )
    if network not in STAGES:
        raise ValueError(
            f"{kind} goes into our own networks only ({', '.join(STAGES)}), not into {network}; leave it out"
        )
    if network in SEGMENTATION:
        raise ValueError(f"{network} takes no regularizer: its heads have dropout already; leave {kind} out")
    if network.startswith("VGG"):
        if kind != "D" or stages:
            raise ValueError(f"a VGG has dropout in its linear layers only (Sec. IV-A); write {network} + D, without M")
        return
    if not stages or not set(stages) <= set(range(1, STAGES[network] + 1)) or list(stages) != sorted(set(stages)):
        came = "+".join(map(str, stages))
        raise ValueError(f"{kind} stands in stages 1 to {STAGES[network]} of {network}, in order, got M={came}")


def _settle(network: str, block: SR) -> SR:
    """Check one block and name its place by stage where `after` says the same."""
    if (block.stage is None) == (block.after is None):
        raise ValueError(f"an SR block has one place, a stage (M) or a module's name (after), got {block!r}")
    whole = re.fullmatch(r"(layer|stage)([1-9])", block.after or "")
    if whole and network in STAGES and (whole[1] == "stage") == network.startswith("VGG"):
        block = replace(block, after=None, stage=int(whole[2]))
    if block.stage is not None and not 1 <= block.stage <= STAGES.get(network, block.stage):
        raise ValueError(f"{network} has stages 1 to {STAGES[network]}, got M={block.stage}")
    if block.placement not in PLACEMENTS:
        raise ValueError(f"placement of SR must be one of {', '.join(PLACEMENTS)}, got {block.placement!r}")
    if block.placement == "inner" and (network not in INNER or block.stage is None):
        raise ValueError(
            f"placement=inner is a place in the bottlenecks of {', '.join(INNER)}, with M, got {block} in {network}"
        )
    return block
