"""From a variant to its network: built under a seed, weights loaded, then the block inserted.

Every part draws from a stream that its own name and the seed decide, so parameters that two variants share start
equal, bit for bit, and the global random state is left as it was.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from srblock import surgery
from srblock.block import as_size
from srblock.models import segmentation
from srblock.models.airbench import SMALLEST, Airbench94
from srblock.models.dilated import stem_of
from srblock.models.regularizers import regularizer
from srblock.models.resnet import SHAPES, ResNet
from srblock.models.segmentation import DESIGNS, Segmentation
from srblock.models.vgg import VGG
from srblock.variants.custom import Build, call
from srblock.variants.download import downloading
from srblock.variants.notation import SR, Regularizer, Variant
from srblock.variants.weights import (
    Report,
    adapt_stem,
    load_backbone,
    load_weights,
    read_weights,
    say_left_out,
)

IMAGENET_SIDE = 96  # images of this side or more get the ImageNet form
VGG_SIDE = 32
DROPBLOCK_SIZE = {"cifar": 3, "imagenet": 7}  # 7 is the DropBlock paper's for ImageNet; its blocks fill a CIFAR map
AUXILIARY = ("googlenet", "inception_v3")  # torchvision's networks with extra heads that train mode would return
LOG = logging.getLogger(__name__)


def build(
    variant: Variant,
    *,
    classes: int,
    channels: int = 3,
    image_size: int | tuple[int, int],
    seed: int,
    pretrained: bool = False,
    weights: Path | None = None,
    stem: str | None = None,
    custom: Build | None = None,
    task: str = "classification",
    report: Report = LOG.warning,
) -> nn.Module:
    """Build a variant's network in float32 on the CPU, in training mode.

    Args:
        classes, channels, image_size: of the data; image_size is (H, W) or the side of a square.
        seed: decides every initial weight.
        pretrained: start from the weights that timm or torchvision offers for download.
        weights: start from a file (see `weights.read_weights`).
        stem: of a segmentation network, "v1c" or "7x7"; None for 7x7 if the weights have it (torchvision's have), else
            v1c.
        custom: builds the network if it is one of the user's own.
        task: that such a network is for, see `srblock.training.task`.
        report: gets a sentence on what was left out of the weights.

    Raises: ValueError for what cannot be built, or weights that do not fit, saying what would.
    """
    size = as_size(image_size)
    for name, value in (("classes", classes), ("channels", channels)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if pretrained and weights is not None:
        raise ValueError("pretrained weights and a weights file both say where to start; give one of them")
    state = None if weights is None else read_weights(weights)
    if stem is None:
        stem = "7x7" if pretrained else stem_of(map(surgery.plain_name, state or ()))
    with _stream(seed, "network"):
        if variant.custom:
            model = _custom(variant.network, classes, channels, size, seed, pretrained, custom, task)
        elif variant.network in DESIGNS:
            model = _segmentation(variant.network, classes, channels, size, pretrained, stem, report)
        else:
            model = _plain(variant, classes, channels, size, pretrained, report)
    if state is not None:
        _load(model, state, str(weights), classes, report)
    for block in variant.sr_blocks:
        after = _place(model, block)
        with _stream(seed, f"sr {after}"):
            # Of a segmentation network at the size of its crops a trial takes gigabytes; hollow, it takes nothing.
            hollow = isinstance(model, Segmentation)
            surgery.insert(model, after=after, input_size=(channels, *size), hollow=hollow, **asdict(block.options))
    return model.train()


def outline(variant: Variant, *, classes: int, channels: int = 3, image_size: int | tuple[int, int]) -> nn.Module:
    """Build a variant's network on the meta device: names and shapes without memory or time for its weights.

    Raises: ValueError as `build`.
    """
    with torch.device("meta"):
        return build(variant, classes=classes, channels=channels, image_size=image_size, seed=0)


def _place(model: nn.Module, block: SR) -> str | int:
    """Name the place in our networks; leave a library's stage number to surgery."""
    if block.stage is None or not isinstance(model, (ResNet, VGG, Airbench94, Segmentation)):
        return block.target
    if isinstance(model, ResNet) and block.placement == "inner":
        return model.inner(block.stage)
    return model.stage(block.stage)


def form(image_size: tuple[int, int]) -> str:
    """Choose the form of our ResNets: "cifar" for images under 96 pixels, else "imagenet"."""
    return "cifar" if min(image_size) < IMAGENET_SIDE else "imagenet"


@contextmanager
def _stream(seed: int, part: str) -> Iterator[None]:
    """Draw from a stream that the seed and the part's name decide; afterwards the global state is what it was."""
    digest = hashlib.sha256(f"{seed} {part}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        yield


def _plain(
    variant: Variant, classes: int, channels: int, size: tuple[int, int], pretrained: bool, report: Report
) -> nn.Module:
    library, _, name = variant.network.partition("/")
    if variant.own:
        return _own(variant, classes, channels, size, pretrained, report)
    factory = _timm if library == "timm" else _torchvision
    model = factory(name, classes, channels, pretrained, report)
    _try_out(model, variant.network, classes, channels, size)
    return model


# --- our networks ----------------------------------------------------------------------------------------------------


def _own(
    variant: Variant, classes: int, channels: int, size: tuple[int, int], pretrained: bool, report: Report
) -> nn.Module:
    name, drop = variant.network, variant.regularizer
    if name == "Airbench94":
        return _airbench(variant, classes, channels, size, pretrained)
    if name not in SHAPES:
        if min(size) < VGG_SIDE:
            raise ValueError(
                f"{name} halves its maps five times and needs images of {VGG_SIDE}x{VGG_SIDE} or more, got "
                f"{size[0]}x{size[1]}; enlarge the images (--image-size {VGG_SIDE}) or take a ResNet"
            )
        if pretrained:
            raise ValueError(f"there are no pretrained weights of {name}; use torchvision/{name.lower()}_bn")
        return VGG(name, classes=classes, channels=channels, dropout=drop.p if drop else 0.0)
    shape = "cifar" if SHAPES[name].padded_shortcut else form(size)
    if pretrained and (shape == "cifar" or variant.attention):
        raise ValueError(
            f"torchvision's weights fit R18, R34 and R50 in the ImageNet form without attention; {variant} for "
            f"{size[0]}x{size[1]} images has none: use images of {IMAGENET_SIDE} pixels or more, or --weights FILE"
        )
    model = ResNet(
        name,
        classes=classes,
        channels=3 if pretrained else channels,
        form=shape,
        attention=variant.attention,
        regularizer=_layer(drop, shape),
        regularized=drop.stages if drop else (),
    )
    if pretrained:
        _load_torchvision(model, f"resnet{name.removeprefix('R')}", classes, report)
        adapt_stem(model, channels)
    return model


def _airbench(variant: Variant, classes: int, channels: int, size: tuple[int, int], pretrained: bool) -> nn.Module:
    drop = variant.regularizer
    if min(size) < SMALLEST:
        raise ValueError(
            f"Airbench94 halves its maps three times and needs images of {SMALLEST}x{SMALLEST} or more, got "
            f"{size[0]}x{size[1]}; enlarge the images (--image-size 16) or take R8"
        )
    if pretrained:
        raise ValueError("there are no pretrained weights of Airbench94; it trains from scratch in minutes")
    return Airbench94(
        classes=classes,
        channels=channels,
        attention=variant.attention,
        regularizer=_layer(drop, "cifar"),
        regularized=drop.stages if drop else (),
    )


def _segmentation(
    name: str, classes: int, channels: int, size: tuple[int, int], pretrained: bool, stem: str, report: Report
) -> nn.Module:
    if min(size) < segmentation.SMALLEST:
        raise ValueError(
            f"{name} shrinks its maps and needs images of {segmentation.SMALLEST}x{segmentation.SMALLEST} or more, got "
            f"{size[0]}x{size[1]}; enlarge the images"
        )
    model = Segmentation(name, classes=classes, channels=3 if pretrained else channels, stem=stem)
    if pretrained:
        _load_torchvision(model, f"resnet{DESIGNS[name].backbone.removeprefix('R')}", classes, report)
        adapt_stem(model, channels)
    return model


def _layer(drop: Regularizer | None, form: str) -> Callable[[], nn.Module] | None:
    """Return what builds a regularizer's layers."""
    if drop is None:
        return None
    return partial(regularizer, drop.kind, drop.p, drop.size or DROPBLOCK_SIZE[form], drop.schedule)


# --- networks of the user ---------------------------------------------------------------------------------------------


def _custom(
    name: str,
    classes: int,
    channels: int,
    size: tuple[int, int],
    seed: int,
    pretrained: bool,
    build: Build | None,
    task: str,
) -> nn.Module:
    if build is None:
        raise ValueError(f"{name} is built by a function of yours, and there is none here")
    if pretrained:
        raise ValueError(
            f"--pretrained is for networks of torchvision and timm; {name} starts as its function builds it"
        )
    model = call(build, seed, name)
    _try_out(model, name, classes, channels, size, task)
    return model


# --- networks of libraries -------------------------------------------------------------------------------------------


def _timm(name: str, classes: int, channels: int, pretrained: bool, report: Report) -> nn.Module:
    import timm

    if not timm.is_model(name):
        _refuse_unknown("timm", name, timm.list_models())
    with downloading(f"timm/{name}", hub=pretrained):
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=classes, in_chans=channels)
    if pretrained and model.pretrained_cfg["num_classes"] != classes:  # type: ignore[index]
        say_left_out(["the classifier"], f"timm's {name}", classes, report)
    return model


def _torchvision(name: str, classes: int, channels: int, pretrained: bool, report: Report) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        _refuse_unknown("torchvision", name, known)
    # Their trained weights expect transformed input; always on, so that a run's network is the same when built again.
    options = {"aux_logits": False, "init_weights": True, "transform_input": channels == 3}
    extra = options if name in AUXILIARY else {}
    model: nn.Module = models.get_model(name, weights=None, num_classes=classes, **extra)
    if pretrained:
        _load_torchvision(model, name, classes, report)
    adapt_stem(model, channels)
    return model


def _load_torchvision(model: nn.Module, name: str, classes: int, report: Report) -> None:
    from torchvision import models

    with downloading(f"torchvision/{name}"):
        state = models.get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True)
    state = {key: value for key, value in state.items() if not key.startswith(("aux1.", "aux2.", "AuxLogits."))}
    _load(model, state, f"torchvision's {name}", classes, report)


def _load(model: nn.Module, state: Mapping[str, Tensor], source: str, classes: int, report: Report) -> None:
    if isinstance(model, Segmentation):
        left_out = load_backbone(model, state, segmentation.HEADS, classes=classes, source=source, report=report)
    else:
        left_out = load_weights(model, state, classes=classes, source=source)
    say_left_out(left_out, source, classes, report)


def _try_out(
    model: nn.Module,
    network: str,
    classes: int,
    channels: int,
    size: tuple[int, int],
    task: str = "classification",
) -> None:
    """Send one image through a library's network, or a user's: only it knows which sizes it takes.

    Raises: ValueError if it fails or does not return logits (1, classes), of scenes (1, classes, H, W).
    """
    device = next((value.device for value in model.parameters()), torch.device("cpu"))
    shape = (channels, *size)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = model.eval()(torch.zeros(1, *shape, device=device))
    except Exception as error:
        few, many = ("1 channel", "3 channels") if channels == 1 else ("3 channels", "1 channel")
        hint = (
            f"the images have {few}; a network for {many} needs another first layer"
            if re.search(r"\bchannels\b", str(error))
            else "if it is made for larger images, try --image-size 224"
        )
        raise ValueError(f"{network} does not run on images of shape {shape}: {error}; {hint}") from error
    wanted = (1, classes, *size) if task == "segmentation" else (1, classes)
    if not isinstance(logits, torch.Tensor) or logits.shape != wanted:
        came = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(
            f"{network} does not return logits of shape {wanted} but {came}; use a {task} network of {classes} classes"
        )


def _refuse_unknown(library: str, name: str, known: list[str]) -> None:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(f'{library}/{word}' for word in near)}?" if near else "check its name there"
    raise ValueError(f"{library} has no network {name!r}; {hint}")
