"""One pass over a data set in which everything is noted that a block shows: weights, changes, exemplars, close-ups."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from srblock.block import SqueezeRemember2d
from srblock.data import Batches
from srblock.data.scene_files import IGNORED
from srblock.inspection.analysis import Array, Closeup
from srblock.surgery import blocks
from srblock.training.task import Task

KEPT = 8  # images that recall a memory block most


@dataclass
class Seen:
    """What one block showed.

    Attributes:
        weights: recall weights (looks, P), a look being an image or a window of a scene.
        by_image: their mean over the looks at each image, (images, P).
        change: mean |after - before| over mean |before| of each image, (images,).
        closeups: by the image's number.
    """

    weights: Tensor
    by_image: Tensor
    change: Tensor
    closeups: dict[int, Closeup] = field(default_factory=dict)


@dataclass
class Look:
    """What a pass showed.

    Attributes:
        figures: of the task, by key; {} unless judged.
        blocks: by name.
        shown: labels (images,), or of scenes the pixels of each class, (images, classes).
        top: of each block the numbers of the images that recall each memory block most, (P, k), the first the most.
        images: those, uint8 (C, h, w), by their number.
    """

    figures: dict[str, float]
    blocks: dict[str, Seen]
    shown: Tensor
    top: dict[str, Tensor]
    images: dict[int, Array]


def look(
    model: nn.Module, test: Batches, task: Task, classes: int, titles: Mapping[int, str], *, judged: bool = True
) -> Look:
    """Pass once over a data set in evaluation mode, without test-time augmentation.

    Args:
        classes: of the data.
        judged: whether these are the network's own, so that what it says is right or wrong.
        titles: which images, by their number, to take a close-up of, and what to call them.

    Raises: ValueError if the model has no block.
    """
    found = blocks(model)
    if not found:
        raise ValueError("the model has no block to look into; analyze a run with SR in its variant")
    model.eval()
    watchers = {name: _Watcher(block) for name, block in found.items()}
    meter, shown, top, images = None, [], _Top(found), 0
    with torch.inference_mode(), ExitStack() as hooks:
        for watcher in watchers.values():
            hooks.enter_context(watcher.watching())
        windows: list[Sequence[int]] = []
        handle = model.register_forward_pre_hook(lambda module, inputs: windows.append(inputs[0].shape[2:]))
        hooks.callback(handle.remove)
        for batch, target in test.epoch(0):
            wanted = {number - images: title for number, title in titles.items() if 0 <= number - images < len(batch)}
            for watcher in watchers.values():
                watcher.begin(len(batch), wanted, images)
            windows.clear()
            output = task.predict(model, batch)
            if judged:
                meter = meter or task.meter(batch.device)
                meter.add(task.loss(output, target), output, target)
            for name, watcher in watchers.items():
                watcher.end()
                top.add(name, watcher.by_image[-1], images, batch)
            for watcher in watchers.values():
                watcher.show(batch, test, windows[0])
            shown.append(target.cpu() if target.dim() == 1 else pixels(target.cpu(), classes))
            images += len(batch)
    read = {} if meter is None else meter.read()
    return Look(
        {figure.key: read[figure.key] for figure in task.figures if read},
        {name: watcher.seen() for name, watcher in watchers.items()},
        torch.cat(shown),
        {name: numbers for name, (_, numbers) in top.best.items()},
        {number: as_pixels(image, test) for number, image in top.images.items()},
    )


def pixels(labels: Tensor, classes: int) -> Tensor:
    """Count the pixels of each class in scenes. Shapes: (N, H, W) -> (N, classes)."""
    return torch.stack([torch.bincount(scene.flatten(), minlength=IGNORED + 1)[:classes] for scene in labels])


def as_pixels(image: Tensor, test: Batches) -> Array:
    """Turn a normalized image back into what it was, uint8. Shapes: (C, h, w) -> (C, h, w)."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (test.mean, test.std))
    shown: Array = (255 * (image.float().cpu() * std + mean)).round().clamp(0, 255).to(torch.uint8).numpy()
    return shown


class _Watcher:
    """Notes what one block gets, weighs and returns."""

    def __init__(self, block: SqueezeRemember2d) -> None:
        self.block = block
        self.weights: list[Tensor] = []
        self.by_image: list[Tensor] = []
        self.change: list[Tensor] = []
        self.closeups: dict[int, Closeup] = {}
        self._batch = self._first = 0
        self._wanted: dict[int, str] = {}
        self._here: list[Tensor] = []
        self._ratios: list[Tensor] = []
        self._maps: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        handles = [
            self.block.address.register_forward_hook(lambda module, inputs, own: self._here.append(own.float().cpu())),
            self.block.register_forward_hook(self._note),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def begin(self, images: int, wanted: dict[int, str], first: int) -> None:
        self._batch, self._wanted, self._first = images, wanted, first
        self._here, self._ratios, self._maps = [], [], {}

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...], after: Tensor) -> None:
        before = inputs[0]
        difference = (after - before).abs()
        size = before.abs().mean((1, 2, 3))
        ratio = difference.mean((1, 2, 3)) / size
        self._ratios.append(ratio.where(size > 0, math.nan).float().cpu())  # of a map of zeros there is none
        if not self._maps:  # of a scene the first window
            for place in self._wanted:
                maps = before[place], after[place], difference[place]
                before_, after_, difference_ = (part.float().mean(0).cpu() for part in maps)
                self._maps[place] = before_, after_, difference_

    def end(self) -> None:
        """Take in a batch. Windows come corner by corner, each of all its images."""
        weights, ratios = torch.cat(self._here), torch.cat(self._ratios)
        self.weights.append(weights)
        self.by_image.append(weights.view(-1, self._batch, weights.shape[1]).mean(0))
        self.change.append(100 * ratios.view(-1, self._batch).nanmean(0))

    def show(self, batch: Tensor, test: Batches, window: Sequence[int]) -> None:
        """Take close-ups of what was wanted: of a scene its first window, whose (H, W) is given."""
        height, width = window
        for place, (before, after, difference) in self._maps.items():
            number = self._first + place
            self.closeups[number] = Closeup(
                self._wanted[place],
                number,
                as_pixels(batch[place, :, :height, :width], test),
                before.numpy(),
                after.numpy(),
                difference.numpy(),
                float(100 * self._ratios[0][place]),
                tuple(self._here[0][place].tolist()),
            )

    def seen(self) -> Seen:
        return Seen(torch.cat(self.weights), torch.cat(self.by_image), torch.cat(self.change), self.closeups)


class _Top:
    """The images that recall each memory block most so far, the earlier of equals."""

    def __init__(self, found: Mapping[str, SqueezeRemember2d]) -> None:
        self.best = {
            name: (torch.empty(block.options.blocks, 0), torch.empty(block.options.blocks, 0, dtype=torch.int64))
            for name, block in found.items()
        }
        self.images: dict[int, Tensor] = {}

    def add(self, name: str, weights: Tensor, first: int, batch: Tensor) -> None:
        values, numbers = self.best[name]
        here = torch.arange(first, first + len(weights)).expand(len(values), -1)
        values, numbers = torch.cat([values, weights.T], 1), torch.cat([numbers, here], 1)
        order = values.argsort(stable=True, dim=1, descending=True)[:, :KEPT]
        self.best[name] = values.gather(1, order), numbers.gather(1, order)
        kept = {number for _, best in self.best.values() for number in best.flatten().tolist()}
        for number in kept - self.images.keys():
            self.images[number] = batch[number - first].cpu()
        self.images = {number: image for number, image in self.images.items() if number in kept}
