"""What goes into a network that is looked at: two images of noise, or the arguments that a caller gives.

Images are the floating-point tensors (N, C, H, W) among the arguments, wherever they are nested. All have one N, of two
or more: with a single image, a map that does not depend on it would look like one map an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

BATCH = 2
ImageSize = int | tuple[int, ...]
ExampleInputs = tuple[Any, ...] | Mapping[str, Any]


@dataclass(frozen=True)
class Inputs:
    """Arguments of a model, and in what words an error speaks of them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    described: str
    remedy: str

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return [value for value in _pytree.tree_leaves((self.args, self.kwargs)) if isinstance(value, Tensor)]

    @property
    def image(self) -> Tensor:
        """The first batch of images: how many there are, and the proportions that maps are compared with."""
        return next(filter(is_image, self.tensors))

    @property
    def is_meta(self) -> bool:
        """Tell whether there are only shapes."""
        return self.image.is_meta

    def to_meta(self) -> Inputs:
        """Keep of every tensor its shape."""
        return self._each(lambda value: value.to("meta"))

    def stretched(self) -> Inputs:
        """Make every image twice as high and three times as wide, and leave all other arguments as they are."""
        return self._each(lambda value: value.repeat(1, 1, 2, 3) if is_image(value) else value)

    def fresh(self) -> Inputs:
        """Copy every tensor, so that the model may change it; the images have a graph, which begins at them."""

        def copied(value: Tensor) -> Tensor:
            own = value.detach().clone()
            return own.requires_grad_().clone() if is_image(value) else own

        return self._each(copied)

    def wide(self) -> Inputs:
        """Bring every tensor to the CPU, floating-point ones to float64."""
        return self._each(lambda value: value.to("cpu", torch.float64 if value.is_floating_point() else value.dtype))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        args, kwargs = _pytree.tree_map_only(Tensor, change, (self.args, self.kwargs))
        return replace(self, args=args, kwargs=kwargs)


def is_image(value: Tensor) -> bool:
    """Tell whether a tensor among a model's arguments is a batch of images."""
    return value.ndim == 4 and value.is_floating_point()


def inputs_of(model: nn.Module, input_size: ImageSize | None, example_inputs: ExampleInputs | None) -> Inputs:
    """Draw images of a size, or take the arguments given.

    Raises: TypeError unless there is exactly one of the two, of the right kind; ValueError for a size below 1, and for
        arguments without images, with one image, or with unequal numbers of them.
    """
    if example_inputs is None:
        return _noise(model, input_size)
    if input_size is not None:
        raise TypeError(
            "give input_size, for a model of one image, or example_inputs, from which the size is read, not both"
        )
    return _given(example_inputs)


def memory_format(model: nn.Module) -> torch.memory_format:
    """Tell whether the model was moved to channels_last: whether its convolutions' weights are."""
    for module in model.modules():
        weight = getattr(module, "weight", None) if isinstance(module, nn.Conv2d) else None
        if isinstance(weight, Tensor) and not weight.is_contiguous():
            return torch.channels_last
    return torch.contiguous_format


def _noise(model: nn.Module, input_size: ImageSize | None) -> Inputs:
    """Draw a batch of two images of noise, on the model's device, in its dtype and memory format.

    The channels default to what the model's first convolution takes if that is at most 4, else to 3.
    """
    if input_size is None:
        raise TypeError(
            "give the size of images as input_size, such as 224 or (480, 640), or images, and what else the model "
            "takes, as example_inputs=(images,)"
        )
    size: tuple[Any, ...] = tuple(input_size) if isinstance(input_size, Iterable) else (input_size,) * 2
    if len(size) not in (2, 3) or not all(type(side) is int for side in size):
        got = f"a tensor {tuple(input_size.shape)}" if isinstance(input_size, Tensor) else repr(input_size)[:80]
        raise TypeError(
            f"input_size must be an integer, (H, W) or (C, H, W), got {got}; images themselves, and more than one "
            "input, are example_inputs=(images,)"
        )
    if min(size) < 1:
        raise ValueError(f"input_size must be at least 1 in every direction, got {input_size!r}")
    if len(size) == 2:
        first = next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
        size = (first if first <= 4 else 3, *size)
    noise = torch.randn(BATCH, *size, generator=torch.Generator().manual_seed(0), device="cpu")
    like = next((value for value in model.parameters() if value.is_floating_point()), noise)
    image = noise.to(like.device, like.dtype).contiguous(memory_format=memory_format(model))
    remedy = (
        "check input_size, which is a side, (H, W), or (C, H, W); a model of more than one input needs example_inputs"
    )
    return Inputs((image,), {}, f"images of shape {tuple(image.shape)}", remedy)


def _given(example_inputs: ExampleInputs) -> Inputs:
    """Take a tuple of positional arguments or a mapping of keyword arguments, as torch.export does."""
    if isinstance(example_inputs, tuple):
        found = Inputs(example_inputs, {}, "", "check that model(*example_inputs) works, on the model's device")
    elif isinstance(example_inputs, Mapping) and all(isinstance(key, str) for key in example_inputs):
        found = Inputs((), dict(example_inputs), "", "check that model(**example_inputs) works, on the model's device")
    else:
        raise TypeError(
            "example_inputs must be a tuple of positional arguments or a dict of keyword arguments, got "
            f"{type(example_inputs).__name__}; a single one is written (images,)"
        )
    shapes = ", ".join(str(tuple(value.shape)) for value in found.tensors)
    images = list(filter(is_image, found.tensors))
    if not images:
        raise ValueError(
            f"example_inputs hold no images, which are floating-point tensors (N, C, H, W), but {shapes or 'no tensor'}"
            "; where a model takes a list of single images, insert into the part that gets them as a batch"
        )
    counts = {len(image) for image in images}
    if len(counts) > 1:
        raise ValueError(
            f"the images in example_inputs, {', '.join(str(tuple(image.shape)) for image in images)}, must be equally "
            "many, as a block has one map for each"
        )
    if min(counts) < BATCH:
        raise ValueError(
            f"example_inputs have a batch of {min(counts)}; give {BATCH} or more, as with one image it cannot be told "
            "whether a map belongs to it"
        )
    return replace(found, described=f"example_inputs of shapes {shapes}")
