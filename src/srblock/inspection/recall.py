"""What the blocks of a network recall: figures during training, and weights per class afterwards (Sec. IV-D)."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor, nn

from srblock.inspection.analysis import Array
from srblock.inspection.information import effective, information
from srblock.inspection.look import Look
from srblock.surgery import blocks

ROUNDING = 1e-5  # relative, of float32 sums


def memory_probe(model: nn.Module) -> dict[str, float]:
    """Measure the memory of every block: its size, and how far the P blocks differ from one another.

    Keys `<target>/memory_rms` (root mean square of all entries) and `<target>/memory_spread`, the root mean square
    over p of |M_p - mean M| / |mean M|: near 0 the memory is one bias map. The spread is left out while the
    mean is zero but for rounding, as that of no memory and of one that has just been started from features.
    """
    figures = {}
    for name, block in blocks(model).items():
        memory = block.memory.maps().detach().float().flatten(1)
        mean = memory.mean(0)
        rms, bias, apart = torch.stack(
            [memory.square().mean().sqrt(), mean.norm(), (memory - mean).norm() / len(memory) ** 0.5]
        ).tolist()
        figures[f"{name}/memory_rms"] = rms
        if bias > ROUNDING * apart:
            figures[f"{name}/memory_spread"] = apart / bias
    return figures


def by_class(weights: Tensor, shown: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (ddof = 0) of recall weights over the images of each class (Figs. 2, 5-7).

    Of scenes each counts for a class by the pixels that it has of it.

    Shapes: weights (N, P); shown, labels (N,) or pixels (N, classes) -> (classes, P) twice; a class that is
    in none gives NaN.
    """
    if shown.dim() == 2:
        shares = (shown.double() / shown.double().sum(0)).to(weights.dtype)  # a class without pixels: 0 / 0
        mean = shares.T @ weights
        apart = [
            (share[:, None] * (weights - center).square()).sum(0) for share, center in zip(shares.T, mean, strict=True)
        ]
        return mean, torch.stack(apart).sqrt()
    groups = [weights[shown == label] for label in range(classes)]
    mean = torch.stack([group.mean(0) for group in groups])
    std = torch.stack([(group - group.mean(0)).square().mean(0).sqrt() for group in groups])
    return mean, std


def summarize_recall(model: nn.Module, seen: Look, classes: int) -> dict[str, Tensor]:
    """Summarize every block B of a network over a data set for the report.

    Returns `B/class_mean` and `B/class_std` (classes, P), `B/mean` and `B/std` over all images (P,), and `B/memory`,
    the channel mean of each memory block (P, H, W) as in Fig. 4.
    """
    summary = {}
    for name, found in seen.blocks.items():
        weights = found.by_image
        summary[f"{name}/class_mean"], summary[f"{name}/class_std"] = by_class(weights, seen.shown, classes)
        summary[f"{name}/mean"], summary[f"{name}/std"] = weights.mean(0), weights.std(0, correction=0)
        summary[f"{name}/memory"] = blocks(model)[name].memory.maps().detach().float().mean(1).cpu()
    return summary


def recall_figures(seen: Look) -> dict[str, dict[str, float]]:
    """Return what a run records of every block's recall over the test images.

    "sd" of the weights over the images (mean of the P), "effective_per_image" and "effective" blocks, "change" of the
    map in percent, and where images have one class each "bits" and "explained" with what chance gives
    (`analysis.Information`).
    """
    figures = {}
    for name, found in seen.blocks.items():
        per_image, overall = effective(found.by_image)
        figures[name] = {
            "sd": float(found.by_image.std(0, correction=0).mean()),
            "effective_per_image": per_image,
            "effective": overall,
        }
        if found.change.isfinite().any():  # of a block that sees nothing but zeros there is none
            figures[name]["change"] = float(found.change.nanmean())
        if seen.shown.dim() == 1:
            figures[name] |= asdict(information(found.by_image, seen.shown))
    return figures


def greatest_change(std: Array, spread: float) -> float:
    """Bound how far the recalled map of an image lies from that of all images, relative to the mean memory map.

    The recall weights a sum to 1, so R - mean R = sum_p (a_p - mean a_p) (M_p - mean M). By Cauchy-Schwarz its root
    mean square over the images is at most P times that of the weights' deviations times that of the maps'.

    Args:
        std: of the weights over the images, (P,), ddof = 0.
        spread: root mean square over p of |M_p - mean M| / |mean M| (`memory_probe`).
    """
    return float(len(std) * np.sqrt(np.mean(np.square(std, dtype=float))) * spread)
