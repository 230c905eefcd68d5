"""Made-up analyses and the runs that they are of, for tests of everything that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from run_fixture import DIGITS, WITH_SR, write_run

from srblock.inspection.analysis import (
    Analysis,
    Array,
    Attribution,
    BlockAnalysis,
    Closeup,
    Controlled,
    Exemplars,
    Information,
)
from srblock.inspection.controls import CONTROLS
from srblock.runs.records import Run

IMAGES = 1000


def made_up(
    classes: Sequence[str] = DIGITS,
    *,
    names: Sequence[str] = ("layer3",),
    memories: int = 8,
    size: tuple[int, int] = (4, 4),
    image: tuple[int, int, int] = (3, 32, 32),
    exact: bool = True,
    scenes: bool = False,
    controls: bool = True,
    seed: int = 0,
) -> Analysis:
    """Make an analysis up.

    Args:
        names: of the blocks.
        memories: P of each.
        size: (H, W) of the memory.
        image: (C, h, w) of images.
        exact: whether by_block is known.
        scenes: whether it is of a segmentation.
    """
    random = np.random.default_rng(seed)
    blocks = tuple(_block(random, name, classes, memories, size, image, exact, scenes) for name in names)
    key = "miou" if scenes else "top1"
    intact = {"miou": 61.0, "macc": 70.0} if scenes else {"top1": 90.0}
    under = []
    for index, name in enumerate(CONTROLS):
        lost, gained = (60, 12) if index == 0 else (20 + index, 19)
        figures = intact | {key: intact[key] + 100 * (gained - lost) / IMAGES}
        under.append(Controlled(name, figures, None if scenes else lost, None if scenes else gained))
    return Analysis(IMAGES, intact, blocks, tuple(under) if controls else (), 9000 if controls else None, {"look": 2.0})


def _block(
    random: np.random.Generator,
    name: str,
    classes: Sequence[str],
    memories: int,
    size: tuple[int, int],
    image: tuple[int, int, int],
    exact: bool,
    scenes: bool,
) -> BlockAnalysis:
    count = len(classes)
    mean = random.dirichlet([30.0] * memories)
    class_mean = np.clip(mean + random.normal(0, 0.02, (count, memories)), 1e-3, None)
    class_mean /= class_mean.sum(1, keepdims=True)
    rows, columns = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
    slopes = random.normal(0, 0.01, (3, memories, 1, 1)) * np.linspace(0.2, 2, memories)[:, None, None]
    flat = random.normal(size=(memories, 12)) + 0.7
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    return BlockAnalysis(
        name=name,
        class_mean=class_mean.astype(np.float32),
        class_std=np.full((count, memories), 0.015, np.float32),
        class_images=np.full(count, 50),
        mean=mean.astype(np.float32),
        std=np.full(memories, 0.025, np.float32),
        memory=(slopes[0] + slopes[1] * rows + slopes[2] * columns).astype(np.float32),
        cosine=flat @ flat.T,
        spread=0.83,
        effective_per_image=0.9 * memories,
        effective=0.95 * memories,
        change=3.4,
        class_change=random.uniform(2, 6, count),
        information=None if scenes else Information(0.21, 0.004, 0.005, 0.4, 0.01, 0.005),
        attribution=None if scenes else _attribution(random, memories, count, exact),
        exemplars=tuple(_exemplars(random, number, classes, image, scenes) for number in range(memories)),
        closeups=tuple(
            _closeup(random, f"scene {n}" if scenes else classes[n], n, size, image, memories)
            for n in range(min(3, count))
        ),
    )


def _attribution(random: np.random.Generator, memories: int, classes: int, exact: bool) -> Attribution:
    by_class = random.normal(0, 0.3, (classes, classes)) + 0.5 * np.eye(classes)
    return Attribution(exact, 3e-6, 0.5, random.normal(0, 1, (memories, classes)) if exact else None, by_class)


def _exemplars(
    random: np.random.Generator, number: int, classes: Sequence[str], image: tuple[int, int, int], scenes: bool
) -> Exemplars:
    chosen = random.integers(0, IMAGES, 10)
    labels = random.integers(0, len(classes), 10)
    return Exemplars(
        weights=tuple(np.sort(random.uniform(0.2, 0.5, 10))[::-1].tolist()),
        numbers=tuple(chosen.tolist()),
        labels=None if scenes else tuple(labels.tolist()),
        images=tuple(picture(random, image) for _ in chosen),
        top=100,
        enriched=() if scenes else ((classes[number % len(classes)], 30, 10.0, 1e-9), (classes[-1], 14, 10.0, 0.1)),
    )


def _closeup(
    random: np.random.Generator,
    title: str,
    number: int,
    size: tuple[int, int],
    image: tuple[int, int, int],
    memories: int,
) -> Closeup:
    before = np.abs(random.normal(1, 0.5, size))
    after = before + random.normal(0, 0.05, size)
    weights = tuple(random.dirichlet([30.0] * memories).tolist())
    return Closeup(
        title, number, picture(random, image), before, after, np.abs(after - before) + 0.01, 3.1 + number, weights
    )


def picture(random: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    """Draw a disk before a wave of colors, uint8."""
    channels, height, width = shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    wave = np.sin(random.uniform(1, 6, (channels, 1, 1)) * x + random.uniform(0, 6, (channels, 1, 1)) + 2 * y)
    disk = np.hypot(x - random.uniform(-0.4, 0.4), y) < random.uniform(0.2, 0.6)
    pixels = np.where(disk, random.uniform(-1, 1, (channels, 1, 1)), wave)
    return (127.5 + 120 * pixels + random.normal(0, 4, shape)).clip(0, 255).astype(np.uint8)


def run_of(
    folder: Path, found: Analysis, classes: Sequence[str] = DIGITS, *, epochs: int = 20, scenes: bool = False
) -> Run:
    """Write the run that an analysis is of, with what the probe recorded of its blocks."""
    run = write_run(folder, WITH_SR, 0, classes=classes, epochs=epochs)
    for epoch, record in enumerate(run.metrics):
        probe: dict[str, Any] = {}
        for block in found.blocks:
            probe[f"{block.name}/memory_rms"] = 0.001 * epoch
            if epoch:
                probe[f"{block.name}/memory_spread"] = 1 / epoch
        record["probe"] = probe
    if not scenes:
        return run
    data = run.config.data | {"task": "segmentation", "colors": [[0, 0, 0]] * len(classes)}
    return replace(
        run,
        config=replace(run.config, data=data),
        test={"miou": 61.0, "macc": 70.0},
        confusion=np.eye(len(classes), dtype=int).tolist(),
    )
