"""Whether an exported network computes what the network computes, on real images as the run's test prepares them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.data import SceneData, load_data
from srblock.data.loading.decode import decode_image
from srblock.runs.records import read_config
from srblock.runs.trained import TrainedRun
from srblock.training.segmentation import starts

TOLERANCE = 1e-3  # of the largest logit
BATCH = 16
MOST, MOST_SCENES = 64, 4  # of the run's own test images
Network = Callable[[Tensor], Tensor]
"""A batch (N, C, H, W) to its logits, on the CPU."""


@dataclass(frozen=True)
class Agreement:
    """How two networks agree.

    Attributes:
        images: how many were looked at; of scenes windows.
        difference: the largest between two logits.
        scale: the largest logit.
        answers, equal: how many classes were said, one an image or one a pixel, and how many by both.
    """

    images: int = 0
    difference: float = 0.0
    scale: float = 0.0
    answers: int = 0
    equal: int = 0

    @property
    def close(self) -> bool:
        """Whether the difference is rounding; what is not a number is not."""
        return self.difference <= TOLERANCE * self.scale

    def add(self, found: Tensor, expected: Tensor) -> Agreement:
        """Count a batch of logits (N, classes, ...)."""
        same = found.argmax(1) == expected.argmax(1)
        differences = (found - expected).abs()
        return replace(
            self,
            images=self.images + len(expected),
            difference=max(float(differences.max().nan_to_num(torch.inf)), self.difference),
            scale=max(float(expected.abs().max()), self.scale),
            answers=self.answers + same.numel(),
            equal=self.equal + int(same.sum()),
        )


@torch.inference_mode()
def agreement(exported: Network, model: nn.Module, inputs: Iterable[Tensor]) -> Agreement:
    """Compare an exported network with the network, on inputs (C, H, W): on the first alone, and on all in batches.

    Raises: ValueError if there are none.
    """
    found = Agreement()
    waiting = iter(inputs)
    first = next(waiting, None)
    if first is None:
        raise ValueError("there are no images to check the exported network on; give one or more")
    alone = Agreement().add(exported(first[None]), model(first[None]))
    waiting = chain([first], waiting)
    while part := list(islice(waiting, BATCH)):
        batch = torch.stack(part)
        found = found.add(exported(batch), model(batch))
    return replace(found, difference=max(found.difference, alone.difference))


def resized(inputs: Iterable[Tensor], size: tuple[int, int]) -> Iterator[Tensor]:
    """Bring inputs to another size. Shapes: (C, H, W) -> (C, *size)."""
    for image in inputs:
        yield F.interpolate(image[None], size, mode="bilinear")[0]


def inputs_of(run: TrainedRun, images: Iterable[Image.Image | Tensor]) -> Iterator[Tensor]:
    """Yield what the network gets to see, float32 (C, *input.size) on the CPU: of scenes each window."""
    height, width = run.input.size
    for image in images:
        batch = run.preprocess(image).cpu()
        if run.input.crop_size is None:
            yield batch[0]
            continue
        padded = F.pad(batch[0], (0, max(0, width - batch.shape[3]), 0, max(0, height - batch.shape[2])))
        for top in starts(padded.shape[1], height):
            for left in starts(padded.shape[2], width):
                yield padded[:, top : top + height, left : left + width]


def own_images(run: TrainedRun) -> Iterator[Image.Image | Tensor]:
    """Yield some of the run's own test images, spread evenly.

    Raises: ValueError if the data is not where it was, or unknown: only the run's folder says it.
    """
    try:
        config = read_config(run.path.parent)
        data = load_data(config["source"], image_size=config["image_size"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"an exported network is checked on images, and the run's own test images cannot be loaded ({error}); "
            "name others: --images photos/"
        ) from error
    count = min(MOST_SCENES if isinstance(data, SceneData) else MOST, data.test_size)
    for number in (place * data.test_size // count for place in range(count)):
        if isinstance(data, SceneData):
            yield data.test.pair(number)[0]
        elif isinstance(data.test_images, Tensor):
            yield data.test_images[number]
        else:
            yield decode_image(data.test_images.read(number))
