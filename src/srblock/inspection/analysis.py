"""What looking into a trained network's blocks found: numbers only, for reports and files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from srblock.training.task import Figure

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Subject:
    """What was looked into, and on which images.

    Attributes:
        variant: in the notation.
        name: of the run's folder, or of the file with the weights.
        described: which training it is from, in a few words.
        data: name of the set.
        classes: of the set, by label.
        figures: of the task; the first is compared under controls.
        scenes: whether there is a class for every pixel.
        metrics, best_epoch: what every epoch recorded, and which one counts; [] and 0 where that is not known.
    """

    variant: str
    name: str
    described: str
    data: str
    classes: tuple[str, ...]
    figures: tuple[Figure, ...]
    scenes: bool
    metrics: list[dict[str, Any]]
    best_epoch: int


@dataclass(frozen=True)
class Information:
    """How much of the class is in the recall weights of a block, over images with one class each.

    Attributes:
        bits: mutual information between the class and a memory block drawn by an image's weights; 0 if all images have
            the same weights, at most log2 P.
        null_bits: its mean over permutations of the classes, what chance gives.
        bits_p: share of permutations that reach it (one added to both), one-sided.
        explained: share of the weights' variance over images that lies between classes, 0 to 1; it knows no scale, so
            weights that hardly vary can have a large one.
        null_explained, explained_p: the same of its permutations.
    """

    bits: float
    null_bits: float
    bits_p: float
    explained: float
    null_explained: float
    explained_p: float


@dataclass(frozen=True)
class Attribution:
    """What a block adds to the logits.

    Attributes:
        exact: whether what comes after the block is affine, as global average pooling and a linear layer are: then the
            block adds sum_p a_p(x) v_p to the logits of image x, and `by_block` has the v_p = W mean_hw(M_p). None if
            the block adds so little that rounding hides it.
        error: largest absolute deviation of that sum from the difference of logits with the block and without.
        effect: largest absolute such difference.
        by_block: the v_p, (P, classes); None if not exact.
        by_class: mean over the images of each class of what the block adds to all logits, (classes, classes), rows
            are the images' class; NaN where a class has no image.
    """

    exact: bool | None
    error: float
    effect: float
    by_block: Array | None
    by_class: Array


@dataclass(frozen=True)
class Exemplars:
    """The images that recall a memory block most.

    Attributes:
        weights, numbers: of the images, the highest first, and their place in the test part, (k,).
        labels: their classes, (k,); None of scenes.
        images: uint8 (3 or 1, h, w) each.
        top: how many images `enriched` looks at.
        enriched: classes over-represented among them: name, how many there, how many were to be expected, and p of so
            many or more (hypergeometric), the smallest p first. At most five.
    """

    weights: tuple[float, ...]
    numbers: tuple[int, ...]
    labels: tuple[int, ...] | None
    images: tuple[Array, ...]
    top: int
    enriched: tuple[tuple[str, int, float, float], ...]


@dataclass(frozen=True)
class Closeup:
    """One image at a block (Fig. 3): the channel means of the map before and after, and the mean absolute difference.

    Attributes:
        title: its class, or of a scene its number.
        number: its place in the test part.
        image: uint8 (3 or 1, h, w); of a scene that is looked at through windows the first one, and so is all else.
        before, after, difference: (H, W).
        change_percent: mean |after - before| over mean |before|.
        weights: of recall, (P,).
    """

    title: str
    number: int
    image: Array
    before: Array
    after: Array
    difference: Array
    change_percent: float
    weights: tuple[float, ...]


@dataclass(frozen=True)
class BlockAnalysis:
    """One block.

    Attributes:
        name: of the module that it follows.
        class_mean, class_std: recall weights by class, (classes, P); of scenes each counts by its pixels of the class.
            NaN for a class without images.
        class_images: how many images each class's row is of, (classes,); of scenes how many show it.
        mean, std: over all images, (P,).
        memory: channel means of each memory block, (P, H, W) (Fig. 4).
        cosine: between memory blocks, over all channels and positions, (P, P).
        spread: root mean square over p of |M_p - mean M| / |mean M|; None while the memory is zero.
        effective_per_image, effective: exponential of the entropy, of each image's weights (mean over the images) and
            of the mean weights: how many of the P blocks are in use.
        change: mean |after - before| over mean |before| in percent, mean over all images.
        class_change: the same by class, (classes,).
        information: None of scenes.
        attribution: None of scenes.
        exemplars: one for each memory block.
        closeups: images of some classes.
    """

    name: str
    class_mean: Array
    class_std: Array
    class_images: Array
    mean: Array
    std: Array
    memory: Array
    cosine: Array
    spread: float | None
    effective_per_image: float
    effective: float
    change: float
    class_change: Array
    information: Information | None
    attribution: Attribution | None
    exemplars: tuple[Exemplars, ...]
    closeups: tuple[Closeup, ...]


@dataclass(frozen=True)
class Controlled:
    """The task's figures under one control (`controls.CONTROLS`), over the test part.

    Attributes:
        figures: by key, such as "top1"; percent.
        lost, gained: images that are right without the control and wrong with it, and the other way; None of scenes.
    """

    name: str
    figures: dict[str, float]
    lost: int | None
    gained: int | None


@dataclass(frozen=True)
class Analysis:
    """All of it.

    Attributes:
        images: how many were looked at, all of the test part.
        figures: of the intact network, by key, percent; {} where the images have other classes than it.
        blocks: in the order of the forward pass.
        controls: in the order of `controls.CONTROLS`; () if they were left out.
        mean_over: how many training images the mean recall weights of the control "mean" are of; None without it.
        seconds: what each part took: "look", "training" for the mean weights, "controls".
    """

    images: int
    figures: dict[str, float]
    blocks: tuple[BlockAnalysis, ...]
    controls: tuple[Controlled, ...]
    mean_over: int | None
    seconds: dict[str, float]
