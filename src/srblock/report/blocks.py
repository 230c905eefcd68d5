"""What a report shows of each SR block: recall weights by class, memory maps, how much the weights vary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from markupsafe import Markup

from srblock.inspection.analysis import Information
from srblock.inspection.recall import greatest_change
from srblock.report.analysis_words import information_line
from srblock.report.block_figures import FLAT, Array, memories, recall_weights, shown_classes
from srblock.runs.records import Run

WIDE, NARROW = 900, 350  # figures are drawn for both, in CSS pixels; the page shows the one that fits


@dataclass(frozen=True)
class Drawing:
    """One figure, drawn for a wide page and for a narrow one."""

    wide: Markup
    narrow: Markup


@dataclass(frozen=True)
class BlockView:
    """One block of one variant: pictures of its first seed, figures of all.

    Attributes:
        name: of the module that the block follows.
        size: (H, W) of its memory.
        classes_shown: how many classes the recall figure has.
        constant: whether every memory map has one value at all its positions (mean of the channels).
        variation: (seed, standard deviation of the recall weights over the images, mean over the P blocks).
        apart: (seed, distance of the memory maps from their mean, most that the recalled map changes between images),
            both in percent of the mean map, root mean square; of the seeds that recorded it.
        told: what the recall weights say of the class, with the first seed; "" where that was not recorded.
    """

    variant: str
    name: str
    seed: int
    blocks: int
    size: tuple[int, int]
    classes_shown: int
    constant: bool
    variation: tuple[tuple[int, float], ...]
    apart: tuple[tuple[int, float, float], ...]
    recall: Drawing
    memory: Drawing
    told: str

    @property
    def shares(self) -> list[tuple[int, float]]:
        """Every seed's variation in percent of 1/P, the weight of each memory block if all weigh the same."""
        return [(seed, 100 * self.blocks * value) for seed, value in self.variation]

    @property
    def hardly_varies(self) -> bool:
        """Whether the weights are nearly the same for all images, in every seed."""
        return max(share for _, share in self.shares) < 100 * FLAT

    @property
    def like_a_bias(self) -> bool:
        """Whether what the block adds is nearly the same for all images, in every seed."""
        return max(change for _, _, change in self.apart) < 100 * FLAT


def draw_both(draw: Callable[[str, int], str], name: str) -> Drawing:
    """Draw a figure wide and narrow; `draw` takes a name unique in the page and a width."""
    return Drawing(*(Markup(draw(f"{name}-{width}", width)) for width in (WIDE, NARROW)))


def block_views(groups: Sequence[tuple[str, Sequence[Run]]], classes: Sequence[str]) -> list[BlockView]:
    """Collect the blocks of all variants for which recall figures were recorded."""
    views: list[BlockView] = []
    for variant, runs in groups:
        recorded = [run for run in runs if run.recall]
        for run in recorded[1:]:
            _check_alike(run, recorded[0])
        for name in dict.fromkeys(key.rpartition("/")[0] for run in recorded[:1] for key in run.recall):
            views.append(_view(variant, name, recorded, classes, f"block{len(views)}"))
    return views


def _check_alike(run: Run, first: Run) -> None:
    """Refuse a run whose blocks are not those of another seed of its variant.

    Raises: ValueError naming both, and what to do.
    """
    here, there = ({key: value.shape for key, value in one.recall.items()} for one in (run, first))
    if here != there:
        raise ValueError(
            f"recall.safetensors of {run.directory} has other blocks than that of {first.directory}, of the same "
            "variant; one of them is foreign: delete its folder to train it anew"
        )


def _view(variant: str, name: str, runs: Sequence[Run], classes: Sequence[str], figure: str) -> BlockView:
    class_mean, mean, std, memory = (
        np.asarray(runs[0].recall[f"{name}/{key}"], dtype=float) for key in ("class_mean", "mean", "std", "memory")
    )
    return BlockView(
        variant=variant,
        name=name,
        seed=runs[0].seed,
        blocks=memory.shape[0],
        size=(memory.shape[1], memory.shape[2]),
        classes_shown=len(shown_classes(class_mean, mean)),
        constant=_constant(memory),
        variation=tuple((run.seed, float(run.recall[f"{name}/std"].mean())) for run in runs),
        apart=tuple(
            (run.seed, 100 * spread, 100 * greatest_change(run.recall[f"{name}/std"], spread))
            for run in runs
            if (spread := _spread(run, name)) is not None
        ),
        recall=draw_both(
            lambda tag, width: recall_weights(class_mean, mean, std, classes, tag, width),
            f"{figure}-recall",
        ),
        memory=draw_both(lambda tag, width: memories(memory, tag, width), f"{figure}-memory"),
        told=_told(runs[0].recalled.get(name, {}), memory.shape[0]),
    )


def _spread(run: Run, name: str) -> float | None:
    """Look up what `inspection.recall.memory_probe` recorded at the selected epoch."""
    probe = run.metrics[run.best_epoch - 1].get("probe", {})
    found = probe.get(f"{name}/memory_spread")
    return None if found is None else float(found)


def _told(figures: dict[str, float], blocks: int) -> str:
    names = [field.name for field in fields(Information)]
    if blocks < 2 or not all(name in figures for name in names):
        return ""
    return information_line(Information(**{name: figures[name] for name in names}), blocks)


def _constant(memory: Array) -> bool:
    largest = float(np.abs(memory).max())
    return memory[0].size > 1 and largest > 0 and float(np.ptp(memory, axis=(1, 2)).max()) < 1e-3 * largest
