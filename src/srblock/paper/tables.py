"""Tables I to V of the paper as data: every row with its accuracy, its block and the overhead it prints.

The paper gives M and P only. The rest of the geometry is the audit's reading of the overheads: U = 8 on CIFAR, 16 or 32
on ImageNet; ResNet-50's rows in Tables I and V fit a block at the inner width of the last bottleneck (`counted`), which
is not where the block is trained (`variant`); Table II's fit the stage's real width. Table IV has two rows of the same
network, one a metric; it fits M counted from zero and crops of 512x1024, with U = 32 in FCN-D6 on a ResNet-50-D16
("F-CONV") and U = 16 in DeepLabv3 on a ResNet-50-D8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from srblock.block import Options
from srblock.variants.notation import SR, Variant, parse

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000, "cityscapes": 19}
IMAGE_SIZES = {"cifar10": (32, 32), "cifar100": (32, 32), "imagenet": (224, 224), "cityscapes": (1024, 2048)}
INPUT_SIZES = IMAGE_SIZES | {"cityscapes": (512, 1024)}  # what a network is built for: of scenes their crops
METRICS = {"top1": "", "miou": " mIoU", "macc": " mAcc"}  # as they follow a row's name where it has several
SEGMENTATION = {"F-CONV": "FCN-R50", "DLv3": "DLv3-R50"}  # the paper's names, the notation's


@dataclass(frozen=True)
class PaperRow:
    """One row of one table.

    Attributes:
        table: "I" to "V".
        data: "cifar10", "cifar100", "imagenet" or "cityscapes".
        model: as the paper spells it.
        mean, std: of the metric over 5 seeds (ImageNet: 4), percent.
        stage, blocks, hidden: M, P and U of the block; None without. M and P are as printed, U is the audit's.
        printed: the overhead as printed, percent; None where there is none.
        note: what has to be assumed for the printed overhead, or why it does not fit.
        metric: "top1", "miou" or "macc".
    """

    table: str
    data: str
    model: str
    mean: float
    std: float
    stage: int | None = None
    blocks: int | None = None
    hidden: int | None = None
    printed: str | None = None
    note: str = ""
    metric: str = "top1"

    @property
    def variant(self) -> Variant:
        """The variant to train.

        A VGG's rows have dropout in the linear layers: the text says so for all of them, the tables do not print it.
        """
        model = self.model.removesuffix(" + SR")
        variant = parse(SEGMENTATION.get(model, model) + (" + D" if model.startswith("VGG") else ""))
        return variant if self.stage is None else replace(variant, sr_blocks=(self._block,))

    @property
    def notation(self) -> str:
        """The variant as text."""
        return str(self.variant)

    @property
    def counted(self) -> Variant:
        """The variant whose overhead the paper prints: ResNet-50's in Tables I and V have the block inside."""
        if self.variant.network != "R50" or self.table not in ("I", "V"):
            return self.variant
        return replace(self.variant, sr_blocks=tuple(replace(b, placement="inner") for b in self.variant.sr_blocks))

    @property
    def _block(self) -> SR:
        assert self.blocks is not None
        assert self.hidden is not None
        assert self.stage is not None
        return SR(stage=self.stage + self.counts_from_zero, options=Options(blocks=self.blocks, hidden=self.hidden))

    @property
    def counts_from_zero(self) -> bool:
        """Whether M counts from zero, as the framework of Table IV does: the notation's M is one more."""
        return self.data == "cityscapes"

    @property
    def seeds(self) -> int:
        """Over how many seeds the paper took mean and std (Sec. IV)."""
        return 4 if self.data == "imagenet" else 5

    @property
    def label(self) -> str:
        """The row's name with its M and P."""
        return self.model if self.stage is None else f"{self.model} ({self.place}, P={self.blocks})"

    @property
    def place(self) -> str:
        """M as printed, and from where it counts if that is not 1."""
        return f"M={self.stage} from 0" if self.counts_from_zero else f"M={self.stage}"


# Model, mean, std, then M, P, U, the overhead as printed, what is to be said about it, and the metric.
# fmt: off
_TABLE_I = (  # cifar100
    ("R18",               76.47, 0.20),
    ("R18 + D",           77.09, 0.26),
    ("R18 + D + SR",      77.26, 0.11, 3, 10,  8, "1.47"),
    ("R18 + D2D",         77.59, 0.24),
    ("R18 + D2D + SR",    77.93, 0.25, 4, 12,  8, "0.88"),
    ("R18 + DB",          78.01, 0.20),
    ("R18 + DB + SR",     78.12, 0.15, 3,  2,  8, "0.30"),
    ("R18 + SR",          76.74, 0.33, 4,  2,  8, "0.15"),
    ("R34",               77.07, 0.45),
    ("R34 + D",           77.60, 0.49),
    ("R34 + D + SR",      77.96, 0.38, 4,  4,  8, "0.16"),
    ("R34 + D2D",         78.71, 0.28),
    ("R34 + D2D + SR",    78.81, 0.28, 3,  6,  8, "0.46"),
    ("R34 + DB",          78.68, 0.22),
    ("R34 + DB + SR",     78.84, 0.22, 3,  2,  8, "0.16"),
    ("R34 + SR",          77.22, 0.30, 3,  6,  8, "0.46"),
    ("R50",               76.17, 0.69),
    ("R50 + D",           77.47, 0.40),
    ("R50 + D + SR",      77.72, 0.29, 4,  6,  8, "0.21", "inner width (0.84% after the stage)"),
    ("R50 + D2D",         78.58, 0.58),
    ("R50 + D2D + SR",    78.68, 0.55, 3,  8,  8, "0.55", "inner width (2.22% after the stage); U <= 3 fits"),
    ("R50 + DB",          78.34, 0.56),
    ("R50 + DB + SR",     78.43, 0.29, 4,  4,  8, "0.14", "inner width (0.56% after the stage)"),
    ("R50 + SR",          77.22, 0.74, 3,  2,  8, "0.14", "inner width (0.56% after the stage)"),
    ("VGG16",             72.48, 0.35),
    ("VGG16 + SR",        72.87, 0.27, 2,  8,  8, "0.42", "0.42 needs a base of 15.59M to 15.96M"),
    ("VGG19",             71.34, 0.14),
    ("VGG19 + SR",        71.42, 0.27, 4, 10,  8, "0.10"),
)
_TABLE_II = (  # cifar100
    ("ResNet18 + CBAM",         76.71, 0.28, None, None, None, "0.78"),
    ("ResNet18 + CBAM + SR",    76.96, 0.24, 3,  6,  8, "1.66"),
    ("ResNet18 + SE",           76.96, 0.24, None, None, None, "0.79"),
    ("ResNet18 + SE + SR",      76.86, 0.21, 3,  2,  8, "1.09"),
    ("ResNet34 + CBAM",         77.20, 0.33, None, None, None, "0.74"),
    ("ResNet34 + CBAM + SR",    77.73, 0.21, 3,  6,  8, "1.05", "1.05 fits P=4, or M=4 with P=8"),
    ("ResNet34 + SE",           77.73, 0.22, None, None, None, "0.76"),
    ("ResNet34 + SE + SR",      77.93, 0.23, 4,  2,  8, "0.84"),
    ("ResNet50 + CBAM",         78.73, 0.54, None, None, None, "10.61"),
    ("ResNet50 + CBAM + SR",    79.06, 0.29, 3,  6,  8, "12.28"),
    ("ResNet50 + SE",           78.30, 0.30, None, None, None, "10.68"),
    ("ResNet50 + SE + SR",      78.73, 0.30, 4,  4,  8, "11.24"),
)
_TABLE_III = (  # imagenet
    ("R50",               76.87, 0.15),
    ("R50 + D",           77.53, 0.10),
    ("R50 + D + SR",      77.64, 0.10, 3,  2, 16, "1.59"),
    ("R50 + D2D",         77.27, 0.12),
    ("R50 + D2D + SR",    77.70, 0.06, 3,  2, 16, "1.59"),
    ("R50 + D2D + SR",    77.79, 0.02, 3, 10, 16, "7.87"),
    ("R50 + D2D + SR",    77.76, 0.08, 3, 20, 16, "15.73", "fits U=24, or U=16 over a ResNet-50 with a 3x3 stem"),
    ("R50 + DB",          77.40, 0.11),
    ("R50 + DB + SR",     77.47, 0.11, 3,  8, 32, "6.31", "U=24 fits too, U=16 does not"),
    ("R50 + SR",          76.90, 0.07, 3, 10, 16, "7.87"),
)
_TABLE_IV = (  # cityscapes
    ("F-CONV",        77.33, 0.16, None, None, None, None, "", "miou"),
    ("F-CONV",        85.02, 0.26, None, None, None, None, "", "macc"),
    ("F-CONV + SR",   77.53, 0.23, 2, 3, 32, "12.85", "", "miou"),
    ("F-CONV + SR",   85.15, 0.29, 2, 3, 32, None, "", "macc"),
    ("DLv3",          79.76, 0.32, None, None, None, None, "", "miou"),
    ("DLv3",          86.73, 0.32, None, None, None, None, "", "macc"),
    ("DLv3 + SR",     79.96, 0.19, 2, 2, 16, "24.83", "", "miou"),
    ("DLv3 + SR",     86.90, 0.23, 2, 2, 16, None, "", "macc"),
)
_TABLE_V = (  # cifar10
    ("R18",               94.04, 0.08),
    ("R18 + D",           94.29, 0.13),
    ("R18 + D + SR",      94.36, 0.17, 3,  6,  8, "0.89"),
    ("R18 + D2D",         94.40, 0.03),
    ("R18 + D2D + SR",    94.56, 0.13, 3, 10,  8, "1.48", "U=16 fits"),
    ("R18 + DB",          94.43, 0.14),
    ("R18 + DB + SR",     94.52, 0.17, 4,  6,  8, "0.45"),
    ("R18 + SR",          93.93, 0.37, 4,  4,  8, "0.34", "no even P and no U up to 64 fits"),
    ("R34",               93.69, 0.30),
    ("R34 + D",           94.55, 0.31),
    ("R34 + D + SR",      94.62, 0.29, 3, 10,  8, "0.77"),
    ("R34 + D2D",         94.30, 0.14),
    ("R34 + D2D + SR",    94.50, 0.12, 3,  8,  8, "0.23", "misprint: R34 + SR has 0.62; M=4, P=6 fits"),
    ("R34 + DB",          94.38, 0.29),
    ("R34 + DB + SR",     94.60, 0.21, 4,  2,  8, "0.08"),
    ("R34 + SR",          94.18, 0.73, 3,  8,  8, "0.62"),
    ("R50",               93.31, 0.36),
    ("R50 + D",           94.09, 0.16),
    ("R50 + D + SR",      94.16, 0.23, 3,  2,  8, "0.15", "inner width (0.56% after the stage); U=24 and U=32 fit"),
    ("R50 + D2D",         93.99, 0.29),
    ("R50 + D2D + SR",    94.01, 0.29, 3,  6,  8, "0.42", "inner width (1.68% after the stage)"),
    ("R50 + DB",          93.97, 0.31),
    ("R50 + DB + SR",     94.21, 0.19, 3,  2,  8, "0.15", "inner width (0.56% after the stage); U=24 and U=32 fit"),
    ("R50 + SR",          93.79, 0.41, 3,  6,  8, "0.42", "inner width (1.68% after the stage)"),
    ("VGG16",             93.27, 0.12),
    ("VGG16 + SR",        93.53, 0.24, 4,  8,  8, "0.10", "even the memory alone is 0.107"),
    ("VGG19",             93.21, 0.08),
    ("VGG19 + SR",        93.39, 0.15, 2, 12,  8, "0.48"),
)
# fmt: on

ROWS = tuple(
    PaperRow(table, data, *row)
    for table, data, rows in (
        ("I", "cifar100", _TABLE_I),
        ("II", "cifar100", _TABLE_II),
        ("III", "imagenet", _TABLE_III),
        ("IV", "cityscapes", _TABLE_IV),
        ("V", "cifar10", _TABLE_V),
    )
    for row in rows
)


def base_of(row: PaperRow) -> PaperRow | None:
    """Return the row without the block that a row of the same table is against; None for one without."""
    if row.stage is None:
        return None
    model = row.model.removesuffix(" + SR")
    (base,) = (r for r in ROWS if (r.table, r.model, r.metric) == (row.table, model, row.metric))
    return base
