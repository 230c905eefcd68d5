"""What an epoch is: a pass over the training part, or so many optimization steps, which run on across passes.

With `epoch_steps` an epoch may end in the middle of a pass; the next one goes on with the following batch of that pass.
So every image is served once in each pass, however epochs are cut, and any epoch can be begun without those before it.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from srblock.data import Batches
from srblock.training.recipe import Recipe


def steps(recipe: Recipe, loader: Batches) -> int:
    """Return the number of optimization steps in an epoch."""
    return len(loader) if recipe.epoch_steps is None else recipe.epoch_steps


def stretches(epoch: int, steps: int, batches: int) -> Iterator[tuple[int, slice]]:
    """Yield which passes an epoch (counted from 0) takes its batches from, and which ones.

    Args:
        steps, batches: number of batches in an epoch, and in a pass.
    """
    here, end = epoch * steps, (epoch + 1) * steps
    while here < end:
        number, first = divmod(here, batches)
        last = min(first + end - here, batches)
        yield number, slice(first, last)
        here += last - first


def serve(recipe: Recipe, loader: Batches, epoch: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Yield the batches of an epoch, or this process's shares of them: images, target, images of all processes."""
    sizes = loader.batch_sizes()
    for number, part in stretches(epoch, steps(recipe, loader), len(loader)):
        for (images, target), size in zip(loader.epoch(number, part), sizes[part], strict=True):
            yield images, target, size


def images_in(recipe: Recipe, loader: Batches, epoch: int) -> int:
    """Return the number of images that all processes together train on in an epoch."""
    sizes, length = loader.batch_sizes(), steps(recipe, loader)

    def served(batches: int) -> int:
        passes, rest = divmod(batches, len(sizes))
        return passes * sum(sizes) + sum(sizes[:rest])

    return served((epoch + 1) * length) - served(epoch * length)
