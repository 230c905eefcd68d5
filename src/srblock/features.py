"""Start a block's memory from the features that it will see, instead of from zero (the paper's future work, Sec. V).

The maps are means of the features of alike images, by k-means or by class, less their common mean and small beside the
features. So where the recall weights are equal the block adds nothing, as with a memory of zeros, and where they are
not it has something to tell images apart by from the first step on.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from srblock.block import SqueezeRemember2d
from srblock.block.compute import to_grid
from srblock.surgery import blocks
from srblock.tracing import duplicate, refuse_wrapped

WAYS = ("kmeans", "class_means")
NUMBERS = 2**27  # of the features that are kept for k-means: 0.5 GB
SHARE = 0.1
RESTARTS = 4
ORDERED_FROM = 32  # images whose order tells something


def init_memory(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    by: str | None = None,
    *,
    share: float = SHARE,
    images: int = 2048,
    seed: int = 0,
) -> dict[str, float]:
    """Make the memories of a network's blocks from the features of images, in one pass.

    Features are what comes into a block in evaluation, resized where its memory is of another size; batch norms that
    have not seen a batch yet take the batch's statistics. Nothing else of the model changes.

    Args:
        loader: batches of images (N, C, H, W), as the network takes them, and their classes (N,), in random order:
            k-means looks at the first, and batch norms without figures take away what a batch has in common.
        by: "kmeans" of the features, or "class_means", which are k-means of these where there are fewer memory blocks
            than classes. None for what each block was built with (`start`), and the others stay as they are.
        share: the root mean square of the maps that the memory holds, in that of the features.
        images: that k-means looks at, at most.
        seed: of k-means.

    Returns: by block, the root mean square of its maps.

    Raises: ValueError for a model that has no block to start, a block of P = 1, a loader with fewer images (or classes)
        than memory blocks or with targets that are no classes, and features that are all alike. ImportError without
        scikit-learn where there is something to cluster.
    """
    refuse_wrapped(model)
    ways = _ways(model, by)
    trial = duplicate(model).eval()
    for module in trial.modules():
        if _unseen(module):
            module.train()
    kept = {name: _Features(way, images) for name, way in ways.items()}
    order: list[Tensor] = []
    with torch.no_grad(), _watched(trial, kept) as seen:
        for batch, labels in loader:
            seen(batch, labels)
            order.append(labels.cpu())
            if all(features.full for features in kept.values()):
                break
    if order and class_by_class(torch.cat(order)) and ("kmeans" in ways.values() or any(map(_unseen, model.modules()))):
        warnings.warn(
            "the images came class by class, so k-means may not have seen all classes, and batch norms that have seen "
            "no batch take away what tells the classes apart; let the loader shuffle",
            stacklevel=2,
        )
    found = {}
    for name, block in blocks(model).items():
        if name in kept:
            centers = kept[name].centers(name, block.options.blocks, seed)
            found[name] = _start(block, centers, share * kept[name].rms())
    return found


def class_by_class(labels: Tensor) -> bool:
    """Tell whether images lie by their class: all of one, or changing from one to the next half as often as by chance.

    Not of fewer than `ORDERED_FROM`. Shape: labels (N,).
    """
    if len(labels) < ORDERED_FROM:
        return False
    counts = torch.unique(labels, return_counts=True)[1].double()
    by_chance = (len(labels) - 1) * (1 - (counts / len(labels)).square().sum())
    return bool((labels[1:] != labels[:-1]).sum() <= by_chance / 2)


def _unseen(module: nn.Module) -> bool:
    """Tell whether a batch norm has seen no batch; weights of before torch 0.4.1 have figures without a counter."""
    counter = getattr(module, "num_batches_tracked", None)
    if counter is None or counter:
        return False
    fresh: bool = not module.running_mean.any() and bool((module.running_var == 1).all())  # type: ignore[union-attr,operator]
    return fresh


def _ways(model: nn.Module, by: str | None) -> dict[str, str]:
    """Say which blocks are started how."""
    if by is not None and by not in WAYS:
        raise ValueError(f'by must be "kmeans" or "class_means", got {by!r}')
    found = blocks(model)
    ways = {name: by or block.options.start for name, block in found.items() if by or block.options.start in WAYS}
    if not ways:
        raise ValueError(
            'the model has no block whose memory starts from features; pass by="kmeans", or build blocks with '
            'start="kmeans"' if found else "the model has no block; insert one first"
        )  # fmt: skip
    if single := [name for name in ways if found[name].options.blocks == 1]:
        raise ValueError(
            f"the block after {single[0]!r} has one memory block, and one map of features is their mean, which is no "
            "start; take 2 blocks or more, or start it from zeros"
        )
    return ways


@contextmanager
def _watched(model: nn.Module, kept: dict[str, _Features]) -> Iterator[_Pass]:
    """Let each block's features be kept while the model looks at images."""
    looking = _Pass(model)

    def hook(features: _Features) -> object:
        return lambda block, inputs: features.add(to_grid(inputs[0], block.size), looking.labels)

    found = blocks(model)
    handles = [found[name].register_forward_pre_hook(hook(features)) for name, features in kept.items()]  # type: ignore[arg-type]
    try:
        yield looking
    finally:
        for handle in handles:
            handle.remove()


class _Pass:
    """A pass over images, which knows the classes of those that are looked at."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.labels = torch.empty(0)

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        if labels.dim() != 1 or len(labels) != len(images) or labels.is_floating_point():
            raise ValueError(
                f"expected the class of each of {len(images)} images, whole numbers of shape ({len(images)},), got "
                f"{labels.dtype} of shape {tuple(labels.shape)}"
            )
        self.labels = labels
        self.model(images.to(self.device))


class _Features:
    """What one block sees: its features, or their sums by class."""

    def __init__(self, way: str, images: int) -> None:
        self.way, self.most = way, images
        self.rows: list[Tensor] = []
        self.count = self.numbers = 0
        self.squares = 0.0
        self.sums: dict[int, tuple[Tensor, int]] = {}

    @property
    def full(self) -> bool:
        return self.way == "kmeans" and self.count >= self.most

    def add(self, maps: Tensor, labels: Tensor) -> None:
        rows = maps.detach().flatten(1).float().cpu()
        if self.way == "kmeans":
            self.most = max(1, min(self.most, NUMBERS // rows.shape[1]))
            rows = rows[: self.most - self.count]
            self.rows.append(rows)
        else:
            for label in sorted(set(labels.tolist())):
                own = rows[labels.cpu() == label]
                total, count = self.sums.get(label, (torch.zeros(rows.shape[1], dtype=torch.float64), 0))
                self.sums[label] = total + own.double().sum(0), count + len(own)
        self.count += len(rows)
        self.numbers += rows.numel()
        self.squares += float(rows.double().square().sum())

    def rms(self) -> float:
        return float((self.squares / max(1, self.numbers)) ** 0.5)

    def centers(self, name: str, count: int, seed: int) -> Tensor:
        """Return so many means of features, (count, C H W)."""
        if self.way == "kmeans":
            rows = torch.cat(self.rows) if self.rows else torch.empty(0, 0)
        else:
            rows = torch.stack([total / number for _, (total, number) in sorted(self.sums.items())]).float()
        if len(rows) < count:
            what = "images" if self.way == "kmeans" else 'classes; take fewer blocks, or by="kmeans"'
            raise ValueError(
                f"the block after {name!r} has {count} memory blocks, and there are only {len(rows)} {what}"
            )
        if not (rows - rows.mean(0)).square().mean().sqrt() > 1e-6 * self.rms():
            raise ValueError(f"the features that come into the block after {name!r} are the same for all images")
        return rows if len(rows) == count else _kmeans(rows, count, seed)


def _kmeans(rows: Tensor, count: int, seed: int) -> Tensor:
    """Cluster, on one thread: several sum in an order that changes from run to run."""
    try:
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError as error:
        raise ImportError(f'k-means needs {error.name}; pip install "srblock[experiments]"') from error
    with threadpool_limits(limits=1):
        found = KMeans(count, n_init=RESTARTS, random_state=seed).fit(rows.numpy())
    return torch.from_numpy(found.cluster_centers_).float()


def _start(block: SqueezeRemember2d, centers: Tensor, wanted: float) -> float:
    """Store centers (P, C H W), less their mean, so that what the memory holds of them has a root mean square.

    Returns: that of its maps.
    """
    maps = centers - centers.mean(0)
    maps = (maps * (wanted / _rms(maps))).view(-1, block.channels, *block.size).to(next(block.memory.parameters()))
    block.memory.store(maps)
    held = _rms(block.memory.maps()).item()
    if held and not math.isclose(held, wanted, rel_tol=0.01):  # of low rank or on a grid it holds less of them
        block.memory.store(maps * (wanted / held))
    return _rms(block.memory.maps()).item()


def _rms(maps: Tensor) -> Tensor:
    return maps.float().square().mean().sqrt()  # squares of half precision would vanish
