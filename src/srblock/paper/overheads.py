"""The parameter overheads that the paper prints, recomputed: by Eq. (1), and from the networks as they are built.

38 of 48 match; what has to be assumed for the others stands in the notes of `tables.ROWS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from srblock.block import parameter_count
from srblock.paper.tables import CLASSES, INPUT_SIZES, ROWS, PaperRow
from srblock.variants.build import outline
from srblock.variants.notation import Variant

# Parameters of the networks without attention and block: by network and data.
BASES = {
    ("R18", "cifar100"): 11_220_132,
    ("R34", "cifar100"): 21_328_292,
    ("R50", "cifar100"): 23_705_252,
    ("VGG16", "cifar100"): 15_299_748,
    ("VGG19", "cifar100"): 20_612_004,
    ("R18", "cifar10"): 11_173_962,
    ("R34", "cifar10"): 21_282_122,
    ("R50", "cifar10"): 23_520_842,
    ("VGG16", "cifar10"): 15_253_578,
    ("VGG19", "cifar10"): 20_565_834,
    ("R50", "imagenet"): 25_557_032,
    ("FCN-R50", "cityscapes"): 49_497_734,
    ("DLv3-R50", "cityscapes"): 68_113_030,
}
# Maps (C, H, W) after layer3 for a 512x1024 crop: FCN-D6 on a ResNet-50-D16, DeepLabV3 on a ResNet-50-D8.
SEGMENTATION_MAPS = {"FCN-R50": (1024, 32, 64), "DLv3-R50": (1024, 64, 128)}


@dataclass(frozen=True)
class OverheadRow:
    """A printed overhead beside what Eq. (1) and the built network give; percent of the network without additions."""

    table: str
    row: str
    printed: str
    formula_percent: float
    built_percent: float
    note: str

    @property
    def matches(self) -> bool:
        """Whether both figures round to the printed digits."""
        return f"{self.formula_percent:.2f}" == f"{self.built_percent:.2f}" == self.printed


def overhead_table() -> list[OverheadRow]:
    """Recompute all 48 printed overheads (38 match)."""
    return [
        OverheadRow(row.table, row.label, row.printed, formula_percent(row), built_percent(row), row.note)
        for row in ROWS
        if row.printed is not None
    ]


def formula_percent(row: PaperRow) -> float:
    """Compute a row's overhead from Eq. (1), the geometry of its stage and known parameter counts."""
    variant, added = row.counted, 0
    if row.stage is not None:
        assert row.blocks is not None
        assert row.hidden is not None
        channels, height, width = SEGMENTATION_MAPS.get(variant.network) or _map(variant, row.data)
        added += parameter_count(channels, (height, width), blocks=row.blocks, hidden=row.hidden)
    if variant.attention is not None:
        added += _attention_parameters(variant.network, variant.attention)
    return 100 * added / BASES[variant.network, row.data]


def built_percent(row: PaperRow) -> float:
    """Compute a row's overhead from the parameters of networks that are really built (without memory for them)."""
    plain = _parameters(Variant(row.counted.network), row.data)
    return 100 * (_parameters(row.counted, row.data) - plain) / plain


@cache
def _parameters(variant: Variant, data: str) -> int:
    model = outline(variant, classes=CLASSES[data], image_size=INPUT_SIZES[data])
    return sum(parameter.numel() for parameter in model.parameters())


def _map(variant: Variant, data: str) -> tuple[int, int, int]:
    """Work out (C, H, W) where a variant's block stands."""
    (block,) = variant.sr_blocks
    stage = int(block.target)
    if variant.network.startswith("VGG"):
        side = INPUT_SIZES[data][0] >> stage
        return min(64 << (stage - 1), 512), side, side
    side = (56 if data == "imagenet" else 32) >> (stage - 1)
    widened = 4 if variant.network == "R50" and block.placement == "stage" else 1
    return widened * 64 << (stage - 1), side, side


def _attention_parameters(network: str, kind: str) -> int:
    """Count SE (with biases) or CBAM (without, and without its batch norm) in every residual block."""
    total, reduction, kernel = 0, 16, 3
    for stage, blocks in enumerate((2, 2, 2, 2) if network == "R18" else (3, 4, 6, 3)):
        channels = (64 << stage) * (4 if network == "R50" else 1)
        extra = channels + channels // reduction if kind == "SE" else 2 * kernel**2
        total += blocks * (2 * channels * (channels // reduction) + extra)
    return total
