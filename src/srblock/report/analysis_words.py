"""What an analysis found of a block, in words that follow from its figures; their thresholds are named here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from srblock.inspection.analysis import Attribution, BlockAnalysis, Information
from srblock.inspection.recall import greatest_change
from srblock.report.block_figures import FLAT
from srblock.report.units import p_equals
from srblock.statistics.power import ALPHA

FAINTLY = 0.01  # of log2 P: below it the class tells little, however sure that it tells something


def block_headline(block: BlockAnalysis) -> str:
    """Say in one line what a block holds."""
    size = len(block.mean)
    if block.spread is None:
        return "The memory is zero: the block adds nothing"
    if size == 1:
        return "One memory block, so the same map is added to every image"
    if block.spread < FLAT:
        return f"The memory is nearly closed: {size} memory blocks that are almost one map"
    return f"The memory is open: {size} memory blocks that differ"


def block_lines(block: BlockAnalysis, classes: Sequence[str]) -> list[str]:
    """Say what was found of a block, without controls: memory, use, class, change, logits."""
    lines = [memory_line(block)]
    if len(block.mean) > 1:
        lines.append(use_line(block))
        if block.information is not None:
            lines.append(information_line(block.information, len(block.mean)))
    lines.append(change_line(block, classes))
    if block.attribution is not None:
        lines.append(attribution_line(block.attribution))
    return [line for line in lines if line]


def memory_line(block: BlockAnalysis) -> str:
    """Say how far the memory blocks differ, and with the weights, what is added to different images."""
    if block.spread is None:
        return "All of the memory is zero, as it is before training, so recall weights have no effect."
    if len(block.mean) == 1:
        return "With one memory block its weight is 1 for every image: the block is a bias map by construction."
    bound = 100 * greatest_change(block.std, block.spread)
    text = (
        f"The memory blocks differ from their mean map by {percent(100 * block.spread)} of its size (root mean square)"
        f"; with the spread of the recall weights, what is added changes from image to image by at most "
        f"{percent(bound)} of the mean map"
    )
    return text + (": almost the same map for every image." if bound < 100 * FLAT else ".")


def use_line(block: BlockAnalysis) -> str:
    """Say how many memory blocks are in use."""
    return (
        f"An image uses {block.effective_per_image:.1f} of the {len(block.mean)} memory blocks on average, all images "
        f"together {block.effective:.1f} (exponential of the entropy of the recall weights)."
    )


def information_line(found: Information, blocks: int) -> str:
    """Say how much the class and the recall weights tell of each other, against permuted classes."""
    most = math.log2(blocks)
    figures = (
        f"{found.bits:.2g} bits of at most {most:.2f}, where permuted classes give {found.null_bits:.2g} "
        f"({p_equals(found.bits_p)}); {percent(100 * found.explained)} of the weights' variance lies between classes"
    )
    if found.bits_p >= ALPHA:
        return f"No sign that the recall weights depend on the class: {figures}."
    if found.bits - found.null_bits < FAINTLY * most:
        return f"The recall weights depend on the class, but hardly: {figures}."
    return f"The recall weights depend on the class: {figures}."


def change_line(block: BlockAnalysis, classes: Sequence[str]) -> str:
    """Say by how much the block changes its map."""
    if math.isnan(block.change):
        return "The maps that come into the block are zero everywhere; by which share it changes them cannot be said."
    text = f"The block changes its map by {percent(block.change)} on average"
    there = np.flatnonzero(np.isfinite(block.class_change))
    if len(there) > 1 and block.change > 0:
        least, most = (int(there[pick(block.class_change[there])]) for pick in (np.argmin, np.argmax))
        text += (
            f", from {percent(float(block.class_change[least]))} ({classes[least]}) to "
            f"{percent(float(block.class_change[most]))} ({classes[most]})"
        )
    return f"{text}; the paper has 2 to 10%."


def attribution_line(found: Attribution) -> str:
    """Say whether what the block adds to the logits is known exactly."""
    if found.exact:
        return (
            "What comes after the block is affine, so each memory block adds fixed amounts to the logits, times its "
            f"recall weight; that accounts for all of the block's effect (largest error {found.error:.1e})."
        )
    if found.exact is None:
        return (
            f"The block adds at most {found.effect:.1e} to a logit, too little beside rounding to tell whether what "
            "comes after it is affine; shown is what the whole block adds."
        )
    return (
        "What comes after the block is not affine, so no memory block has fixed amounts that it adds to the logits; "
        "shown is what the whole block adds."
    )


def enriched_lines(block: BlockAnalysis, classes: int) -> list[str]:
    """Name the classes that are too many among the images that recall a memory block most.

    By Bonferroni over all memory blocks and classes.
    """
    tests = classes * len(block.exemplars)
    lines = []
    for number, one in enumerate(block.exemplars):
        sure = [line for line in one.enriched if line[3] * tests < ALPHA]
        if sure:
            names = ", ".join(f"{name} ({count}, chance gives {expected:.1f})" for name, count, expected, _ in sure)
            lines.append(f"Memory block {number + 1}: {names}.")
    return lines


def block_facts(block: BlockAnalysis) -> list[tuple[str, str]]:
    """List the figures behind what is said of a block, for a table."""
    size, spread, told = len(block.mean), block.spread, block.information
    facts = [
        ("distance of the memory blocks from their mean, relative", "-" if spread is None else f"{spread:.4f}"),
        ("standard deviation of the recall weights over the images, mean", f"{float(block.std.mean()):.5f}"),
        ("the same in percent of 1/P", f"{100 * size * float(block.std.mean()):.3f}"),
        (f"memory blocks that an image uses, of {size}", f"{block.effective_per_image:.3f}"),
        (f"memory blocks that all images use, of {size}", f"{block.effective:.3f}"),
        ("change of the map, %", f"{block.change:.3f}"),
    ]
    if told is not None and size > 1:
        facts += [
            (f"class and recall weights, bits of at most {math.log2(size):.3f}", f"{told.bits:.5f}"),
            ("the same with permuted classes", f"{told.null_bits:.5f}"),
            ("p of the permutations", f"{told.bits_p:.4f}"),
            ("variance of the weights between classes, %", f"{100 * told.explained:.3f}"),
            ("the same with permuted classes, %", f"{100 * told.null_explained:.3f}"),
            ("p of these permutations", f"{told.explained_p:.4f}"),
        ]
    if block.attribution is not None:
        facts.append(("largest error of the logits that the memory accounts for", f"{block.attribution.error:.2e}"))
    return facts


def percent(value: float) -> str:
    """Print a percentage with about two digits that count: 0.031%, 2.0%, 83%; a dash for none."""
    if math.isnan(value):
        return "-"
    return f"{value:.0f}%" if abs(value) >= 9.95 else f"{value:.1f}%" if abs(value) >= 1 else f"{value:.2g}%"
