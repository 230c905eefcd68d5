"""Trained weights: read from a file, and loaded with a word on what did not fit.

A head of another number of classes is left as it was built, and said so. Anything else that does not fit is an error:
a network that is trained in part is not what anybody asked for.
"""

from __future__ import annotations

import glob
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srblock.checkpoints import oddity
from srblock.surgery import plain_name

WRAPPERS = ("state_dict", "model_state_dict", "model")
SHOWN = 5
SEED = "{seed}"  # in a path: a file for each seed
Report = Callable[[str], None]


def weights_of(path: Path, seed: int) -> Path:
    """Return the weights file of a seed: `path`, and where it has `{seed}` in it, the one file that it is a pattern of.

    In a pattern the seed's number takes the place of `{seed}`, and `*` is any part of a name, as in
    "runs/r18-s{seed}-*/checkpoint.safetensors".

    Raises: ValueError if there is no such file, or several.
    """
    given = str(path)
    wanted = given.replace(SEED, str(seed))
    like = [wanted] if SEED not in given or Path(wanted).is_file() else sorted(glob.glob(wanted))
    # Of seed 1 "s{seed}*" is no pattern of s10.
    longer = [given.replace(f"{SEED}*", f"{SEED}[0-9]*"), given.replace(f"*{SEED}", f"*[0-9]{SEED}")]
    others = {file for way in longer if way != given for file in glob.glob(way.replace(SEED, str(seed)))}
    found = [file for file in like if file not in others and Path(file).is_file()]
    if not found:
        raise ValueError(f"there is no file {wanted} for seed {seed} to start from; check --weights")
    if len(found) > 1:
        raise ValueError(f"seed {seed} starts from {wanted}, and there are {len(found)} files for it: {_first(found)}")
    return Path(found[0])


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file, or from a .pth or .pt file without running what is in it.

    Of a tensor with several names a .safetensors file may hold one, and say in its header what the others are.

    Raises: ValueError if the file is missing, of another kind, broken, or holds anything but tensors.
    """
    if not path.is_file():
        raise ValueError(f"there is no weights file {path}; check the path")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file

        try:
            state = load_file(path)
            with safe_open(path, framework="pt") as file:
                others: dict[str, str] = file.metadata() or {}
            return state | {name: state[kept] for name, kept in others.items() if name not in state and kept in state}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is no whole safetensors file ({error}); copy or download it again") from error
    if path.suffix not in (".pth", ".pt"):
        raise ValueError(f"weights are read from .safetensors, .pth or .pt files, got {path.name}; convert it first")
    try:
        with warnings.catch_warnings(action="ignore"):  # of sparse tensors, which are refused by their keys
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file can fail in any way
        raise ValueError(
            f"{path} cannot be read as weights ({_reason(error)}): broken, or more than tensors; "
            "save a state dict alone: torch.save(model.state_dict(), path)"
        ) from None  # whose words advise to run what is in the file
    return _state_dict(content, path)


def _reason(error: Exception) -> str:
    """Say why torch did not read a file, without its advice to read it in a way that runs what is in it."""
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    if foreign:
        return f"it asks for {foreign[1].strip('.`')}, which is no tensor and is not run"
    first = (str(error).splitlines() or [""])[0]
    telling = isinstance(error, OSError) and "weights_only" not in first
    return first if telling else "no pickle of tensors"


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(
            f"{path} holds no state dict, at the top or under {', '.join(WRAPPERS)}; save one with "
            "torch.save(model.state_dict(), path)"
        )
    if odd := [key for key in content if not isinstance(key, str)]:
        raise ValueError(f"{path} has {odd[0]!r} for a key, and keys are names; save model.state_dict()")
    return dict(content)


def refuse_unusable(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that torch would not copy into a network, or would copy as something else.

    Raises: ValueError naming the first keys.
    """
    wrong = [f"{key} is {kind}" for key, value in state.items() if (kind := oddity(value, own.get(key)))]
    if wrong:
        raise ValueError(
            f"the weights of {source} hold what is no weight: {_first(wrong)}; expected dense floating-point tensors "
            "with their values, as model.state_dict() has them"
        )


def load_weights(model: nn.Module, state: Mapping[str, Tensor], *, classes: int, source: str) -> list[str]:
    """Load a state dict and return the keys left out: those of a head with another number of classes.

    Prefixes that DDP and torch.compile add to names are taken off.

    Raises: ValueError if names or other shapes differ, or a tensor cannot be used, naming the first.
    """
    state = {plain_name(key): value for key, value in state.items()}
    own = model.state_dict()
    refuse_unusable(state, own, source)
    unlike = [key for key in own if key in state and state[key].shape != own[key].shape]
    head = [key for key in unlike if _is_head(state[key], own[key], classes)]
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    problems = (
        ("not in them", missing),
        ("of another shape", [f"{k} {_shape(state[k])} for {_shape(own[k])}" for k in unlike if k not in head]),
        ("not in the network", [key for key in state if key not in own]),
    )
    if any(keys for _, keys in problems):
        found = "; ".join(f"{len(keys)} {what} ({_first(keys)})" for what, keys in problems if keys)
        raise ValueError(
            f"the weights of {source} are not this network's: {found}; give weights of the plain network, without SR "
            "block, of the same form and number of channels"
        )
    model.load_state_dict({key: value for key, value in state.items() if key not in head}, strict=False)
    return head


def load_backbone(
    model: nn.Module, state: Mapping[str, Tensor], heads: Collection[str], *, classes: int, source: str, report: Report
) -> list[str]:
    """Load a network's weights, or those of a classification network into all but the heads, and return keys left out.

    In the second case the classifier `fc` goes, the heads stay as they were built, and `report` gets a sentence on it.

    Args: heads: names of the modules that a classification network does not have.

    Raises: ValueError as `load_weights`.
    """
    state = {plain_name(key): value for key, value in state.items()}
    alone = not any(_top(key) in heads for key in state)
    if alone:
        built = {key: value for key, value in model.state_dict().items() if _top(key) in heads}
        state = {key: value for key, value in state.items() if _top(key) != "fc"} | built
    left_out = load_weights(model, state, classes=classes, source=source)
    if alone:
        report(f"{source} has a backbone alone; as they were built stay: {', '.join(heads)}")
    return left_out


def say_left_out(keys: list[str], source: str, classes: int, report: Report) -> None:
    """Report what was left out of some weights, if anything."""
    if keys:
        report(f"left out of {source}, which has another number of classes than {classes}: {', '.join(keys)}")


def adapt_stem(model: nn.Module, channels: int) -> None:
    """Let the first convolution take another number of channels, its weights summed or repeated as timm does it."""
    from timm.models import adapt_input_conv

    if channels == 3:
        return
    name, stem = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    stem.weight = nn.Parameter(adapt_input_conv(channels, stem.weight.detach()))
    stem.in_channels = channels
    assert stem.groups == 1, f"the stem {name} is grouped"


def _top(key: str) -> str:
    return key.partition(".")[0]


def _is_head(theirs: Tensor, own: Tensor, classes: int) -> bool:
    return own.dim() > 0 and theirs.dim() == own.dim() and own.shape[0] == classes and theirs.shape[1:] == own.shape[1:]


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
