"""What the blocks of a network recall: figures during training, and weights per class afterwards (Sec. IV-D)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from srblock.block import SqueezeRemember2d
from srblock.data.scene_files import IGNORED
from srblock.surgery import blocks
from srblock.training.task import Task


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


def recall_weights(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], task: Task, classes: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Collect the recall weights of every block over a data set, in evaluation mode.

    Returns the weights by block name, (looks, P) each, a look being an image or a window of a scene; and what is shown:
    the labels (images,), of scenes how many of their pixels each class has, (looks, classes). On the CPU.
    """
    model.eval()
    seen: dict[str, list[Tensor]] = {name: [] for name in blocks(model)}
    shown: list[Tensor] = []

    def watch(name: str, block: SqueezeRemember2d) -> torch.utils.hooks.RemovableHandle:
        return block.register_forward_pre_hook(
            lambda module, inputs: seen[name].append(block.recall_weights(inputs[0]).float().cpu())
        )

    handles = [watch(name, block) for name, block in blocks(model).items()]
    looks = 0
    try:
        with torch.inference_mode():
            for images, labels in batches:
                task.predict(model, images)
                before, looks = looks, sum(map(len, next(iter(seen.values()))))
                shown.append(labels.cpu() if labels.dim() == 1 else _pixels(labels.cpu(), classes, looks - before))
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}, torch.cat(shown)


def _pixels(labels: Tensor, classes: int, looks: int) -> Tensor:
    """Count the pixels of each class in scenes (N, H, W), once for each look: all windows of a scene stand for it.

    Windows come corner by corner, each of all scenes. -> (looks, classes).
    """
    counts = [torch.bincount(scene.flatten(), minlength=IGNORED + 1)[:classes] for scene in labels]
    return torch.stack(counts).repeat(looks // len(labels), 1)


def by_class(weights: Tensor, shown: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (ddof = 0) of recall weights over the images of each class (Figs. 2, 5-7).

    Of scenes each counts for a class by the pixels that it has of it.

    Shapes: weights (looks, P); shown, labels (looks,) or pixels (looks, classes) -> (classes, P) twice; a class that is
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


def summarize_recall(model: nn.Module, collected: dict[str, Tensor], shown: Tensor, classes: int) -> dict[str, Tensor]:
    """Summarize every block B of a network over a data set for the report, from what `recall_weights` collected.

    Returns `B/class_mean` and `B/class_std` (classes, P), `B/mean` and `B/std` over all images (P,), and `B/memory`,
    the channel mean of each memory block (P, H, W) as in Fig. 4.
    """
    summary = {}
    for name, weights in collected.items():
        summary[f"{name}/class_mean"], summary[f"{name}/class_std"] = by_class(weights, shown, classes)
        summary[f"{name}/mean"], summary[f"{name}/std"] = weights.mean(0), weights.std(0, correction=0)
        summary[f"{name}/memory"] = blocks(model)[name].memory.maps().detach().float().mean(1).cpu()
    return summary
