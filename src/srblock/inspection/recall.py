"""What the blocks of a network recall: figures during training, and weights per class afterwards (Sec. IV-D)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from srblock.block import SqueezeRemember2d
from srblock.surgery import blocks


def memory_probe(model: nn.Module) -> dict[str, float]:
    """Measure the memory of every block: its size, and how far the P blocks differ from one another.

    Keys `<target>/memory_rms` (root mean square of all entries) and `<target>/memory_spread`, the root mean square
    over p of |M_p - mean M| / |mean M|: near 0 the memory is one bias map. The spread is left out while the
    memory is zero.
    """
    figures = {}
    for name, block in blocks(model).items():
        memory = block.memory.maps().detach().float().flatten(1)
        mean = memory.mean(0)
        rms, bias, apart = torch.stack(
            [memory.square().mean().sqrt(), mean.norm(), (memory - mean).norm() / len(memory) ** 0.5]
        ).tolist()
        figures[f"{name}/memory_rms"] = rms
        if bias > 0:
            figures[f"{name}/memory_spread"] = apart / bias
    return figures


def recall_weights(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[dict[str, Tensor], Tensor]:
    """Collect the recall weights of every block over a data set, in evaluation mode.

    Returns the weights by block name, (images, P) each, and the labels (images,), on the CPU.
    """
    model.eval()
    seen: dict[str, list[Tensor]] = {name: [] for name in blocks(model)}
    labels: list[Tensor] = []

    def watch(name: str, block: SqueezeRemember2d) -> torch.utils.hooks.RemovableHandle:
        return block.register_forward_pre_hook(
            lambda module, inputs: seen[name].append(block.recall_weights(inputs[0]).float().cpu())
        )

    handles = [watch(name, block) for name, block in blocks(model).items()]
    try:
        with torch.inference_mode():
            for images, batch_labels in batches:
                model(images)
                labels.append(batch_labels.cpu())
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}, torch.cat(labels)


def by_class(weights: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (ddof = 0) of recall weights over the images of each class (Figs. 2, 5-7).

    Shapes: weights (images, P), labels (images,) -> (classes, P) twice; a class without images gives NaN.
    """
    groups = [weights[labels == label] for label in range(classes)]
    mean = torch.stack([group.mean(0) for group in groups])
    std = torch.stack([(group - group.mean(0)).square().mean(0).sqrt() for group in groups])
    return mean, std


def summarize_recall(model: nn.Module, collected: dict[str, Tensor], labels: Tensor, classes: int) -> dict[str, Tensor]:
    """Summarize every block B of a network over a data set for the report, from what `recall_weights` collected.

    Returns `B/class_mean` and `B/class_std` (classes, P), `B/mean` and `B/std` over all images (P,), and `B/memory`,
    the channel mean of each memory block (P, H, W) as in Fig. 4.
    """
    summary = {}
    for name, weights in collected.items():
        summary[f"{name}/class_mean"], summary[f"{name}/class_std"] = by_class(weights, labels, classes)
        summary[f"{name}/mean"], summary[f"{name}/std"] = weights.mean(0), weights.std(0, correction=0)
        summary[f"{name}/memory"] = blocks(model)[name].memory.maps().detach().float().mean(1).cpu()
    return summary
