"""Where a block may sit in a network: one traced forward pass, in which `srblock.maps` judges every map.

Nothing here touches the network. Its forward runs on a copy that shares the parameters (not the buffers), in eval mode,
and the random state is put back, so that batch-norm statistics, caches, training flags and seeds stay as they are.
"""

from __future__ import annotations

import copy
import enum
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from srblock.block import SqueezeRemember2d
from srblock.inputs import ExampleInputs, ImageSize, Inputs, inputs_of
from srblock.maps import Call, fault_of
from srblock.numbering import number_stages


@dataclass(frozen=True)
class Stage:
    """A point where a block can be inserted: after module `name`, whose map is `(channels, *size)`.

    `number` is the paper's 1-based stage (M in its tables) if a stage ends here, else None.
    """

    name: str
    number: int | None
    channels: int
    size: tuple[int, int]

    def __str__(self) -> str:
        number = "" if self.number is None else f" (stage {self.number})"
        return f"{self.name!r}{number}, {self.channels}x{self.size[0]}x{self.size[1]}"


@dataclass(frozen=True)
class Trace:
    """What one forward pass of a copy of a model showed.

    `inputs` went in and `outputs` came out of `copied`; `calls` has what every module returned, in the order in which
    they finished; `faults` says of each module that is no insertion point why; `numbers` maps stage numbers to names.
    """

    copied: nn.Module
    inputs: Inputs
    outputs: list[Tensor]
    calls: dict[str, Call]
    faults: dict[str, str]
    numbers: dict[int, str]
    stages: list[Stage]


def trace(
    model: nn.Module,
    input_size: ImageSize | None = None,
    example_inputs: ExampleInputs | None = None,
    *,
    hollow: bool = False,
) -> Trace:
    """Run a copy of the model once and read off what `stages` and `insert` need to know.

    Args:
        input_size: side of a square image, (H, W), or (C, H, W).
        example_inputs: instead, a tuple of positional arguments or a mapping of keyword arguments.
        hollow: run it on the meta device: names and shapes without arithmetic.

    Raises: ValueError for a wrapped, compiled or scripted model, for one that resizes its images, and for inputs that
        the model does not take.
    """
    refuse_wrapped(model)
    refuse_resizing(model)
    inputs = inputs_of(model, input_size, example_inputs)
    copied = shadow(model, "meta" if hollow else None)
    inputs = inputs.to_meta() if hollow else inputs
    calls: dict[str, Call] = {}
    with in_eval_mode(model):
        try:
            outputs = watch(copied, inputs, calls)
        except Exception as error:
            raise ValueError(
                f"the model does not run on {inputs.described}: {type(error).__name__}: {error}; {inputs.remedy}"
            ) from error
        stretched = _stretched_shapes(model, inputs)
    modules = dict(model.named_modules())
    image = inputs.image
    found = {name: fault_of(modules[name], calls.get(name), stretched.get(name), image) for name in modules if name}
    faults = {name: fault for name, fault in found.items() if fault is not None}
    maps = {name: call.shape[1:] for name, call in calls.items() if name in found and name not in faults}
    numbers = number_stages(model, maps)
    names = {name: number for number, name in numbers.items()}
    points = [Stage(name, names.get(name), shape[0], (shape[1], shape[2])) for name, shape in maps.items()]
    return Trace(copied, inputs, outputs, calls, faults, numbers, points)


def refuse_wrapped(model: nn.Module) -> None:
    """Refuse a model that is, or holds, a wrapper around which surgery would go unnoticed.

    Raises: ValueError or TypeError saying what to do first.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        where = f"{name!r} in the model" if name else "the model"
        parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
        sharded = any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__)
        if isinstance(module, parallel) or "_fsdp_wrapped_module" in module._modules or sharded:
            raise ValueError(
                f"{where} is wrapped in {type(module).__name__}, which has registered its parameters already; insert "
                f"into the plain model{'' if sharded else ' (here its .module)'} and wrap it afterwards"
            )
        if "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None:
            raise ValueError(
                f"{where} is compiled, and compiled code would not see the change; insert into the plain model and "
                "call torch.compile afterwards"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{where} is scripted or traced by TorchScript and cannot be changed; insert into the Python model and "
                "trace it afterwards (torch.jit.trace)"
            )
    if any(nn.parameter.is_lazy(value) for value in (*model.parameters(), *model.buffers())):
        raise ValueError("the model has lazy parameters that are not initialized yet; run it once on an image first")


def refuse_resizing(model: nn.Module) -> None:
    """Refuse torchvision's detectors: they resize every image by its own proportions and pad a batch to the largest.

    Raises: ValueError naming the part to insert into.
    """
    transform = sys.modules.get("torchvision.models.detection.transform")  # else nothing in the model is of it
    for name, module in model.named_modules():
        if transform is None or not isinstance(module, transform.GeneralizedRCNNTransform):
            continue
        owner = name.rpartition(".")[0]
        detector = model.get_submodule(owner)
        part = f"{owner}.backbone".lstrip(".")
        known = isinstance(getattr(detector, "backbone", None), nn.Module)
        plain = all(word.isidentifier() for word in part.split("."))
        called = f"model.{part}" if plain else f"model.get_submodule({part!r})"
        raise ValueError(
            f"{type(detector).__name__} resizes its images to sizes of its own, so that its maps have no size for a "
            f"block to belong to; insert into {called if known else 'the part that gets the resized images'}, with the "
            "size of what it is given and resize='bilinear'"
            + (f": srblock.insert({called}, after=..., input_size=(H, W), resize='bilinear')" if known else "")
        )


def shadow(model: nn.Module, device: str | None = None) -> nn.Module:
    """Copy a model without copying its parameters, or copy it to the meta device, in eval mode."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in tensors(vars(module)):  # all that a module holds, cached ones too
            if device is not None:
                moved = value.detach().to(device)
                memo[id(value)] = nn.Parameter(moved, value.requires_grad) if isinstance(value, nn.Parameter) else moved
            elif isinstance(value, nn.Parameter) or not value.is_leaf:
                memo[id(value)] = value
    return copy.deepcopy(model, memo).eval()


def duplicate(model: nn.Module) -> nn.Module:
    """Copy a model, also one that holds what it computed, such as a cached map, which `copy.deepcopy` refuses."""
    held = (value for module in model.modules() for value in tensors(vars(module)))
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in held if not value.is_leaf})


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Keep a model in eval mode while copies of it run: a closure that is its forward calls the model itself."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def run(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """Run a copy of the model and return the tensors of its output.

    The random state is the caller's and is put back; autocast is off. The graph is built, and from the image on: code
    that is chosen by whether gradients are wanted (attention's fast path) is then the same in every run. On the meta
    device, where there are only shapes to see, it is not.
    """
    devices = {value.device for value in (*model.parameters(), *inputs.tensors)}
    accelerators = [device for device in devices if device.type not in ("cpu", "meta")]
    kind = accelerators[0].type if accelerators else "cuda"
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device.index or 0 for device in accelerators], device_type=kind))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(not inputs.is_meta))
        stack.enter_context(
            _BatchNormByShape() if inputs.is_meta else torch.autocast(inputs.image.device.type, enabled=False)
        )
        fresh = inputs.fresh()
        return [leaf for leaf in leaves(model(*fresh.args, **fresh.kwargs)) if isinstance(leaf, Tensor)]


class _BatchNormByShape(TorchFunctionMode):
    """Give a fitting batch norm's shape at once: PyTorch's meta kernel of it takes half the time of a whole network."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm and len(args) > 2:
            values, mean = args[:2]
            if isinstance(mean, Tensor) and values.is_meta and values.dim() > 1 and values.shape[1] == mean.numel():
                return torch.empty_like(values)
        return func(*args, **(kwargs or {}))


def watch(model: nn.Module, inputs: Inputs, calls: dict[str, Call]) -> list[Tensor]:
    """Run a copy of the model, return the tensors of its output, and note every module's call in `calls`."""
    hooks = [module.register_forward_hook(_note(calls, name)) for name, module in model.named_modules()]
    try:
        return [value.detach() for value in run(model, inputs)]
    finally:
        for hook in hooks:
            hook.remove()


def tensors(output: object) -> Iterator[Tensor]:
    """Yield the tensors of a model's output: a tensor, or a nest of sequences, mappings and dataclasses."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from tensors(value)
    elif is_dataclass(output) and not isinstance(output, type):
        for entry in fields(output):
            yield from tensors(getattr(output, entry.name))


def leaves(output: object) -> Iterator[object]:
    """Yield what a model's output is made of, also where an object of another kind holds it in its attributes."""
    seen: set[int] = set()

    def below(value: object) -> Iterator[object]:
        parts = _parts(value)
        if parts is None:
            yield value
        elif id(value) not in seen:
            if not isinstance(value, (Mapping, list, tuple)):
                seen.add(id(value))  # objects may hold each other
            for part in parts:
                yield from below(part)

    return below(output)


def _parts(value: object) -> list[object] | None:
    """List what a container or an object holds; None for what is to be taken as it is."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, (Tensor, nn.Module, type, ModuleType, enum.Enum)):
        return None
    slots = [name for kind in type(value).__mro__ for name in vars(kind).get("__slots__", ())]
    held = [getattr(value, name) for name in slots if name != "__dict__" and hasattr(value, name)]
    return [*held, *getattr(value, "__dict__", {}).values()] or None


def runs_new_child(module: nn.Module) -> bool:
    """Tell whether a module runs a new last child as it is: a plain Sequential does that."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def runs_its_children(module: nn.Module) -> bool:
    """Tell whether a module is a container with a forward of its own, which most likely loops over its children."""
    return isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)) and not runs_new_child(module)


def _note(calls: dict[str, Call], name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        call = calls.pop(name, Call())
        call.count, call.kind = call.count + 1, type(output)
        if isinstance(output, Tensor):
            call.shape, call.dtype, call.device = tuple(output.shape), output.dtype, output.device
        calls[name] = call  # anew: modules are listed in the order in which they finish

    return hook


def _stretched_shapes(model: nn.Module, inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """Note every module's shape for images 2x as high and 3x as wide, as far as the model goes with it.

    On the meta device: costs no arithmetic, and an index out of range cannot poison an accelerator.
    """
    calls: dict[str, Call] = {}
    copied = shadow(model, "meta")
    for module in copied.modules():
        if isinstance(module, SqueezeRemember2d):
            module.bypassed = True
    # Whatever a model says to a size that it was not built for, its modules have been called until then.
    with suppress(Exception):
        watch(copied, inputs.to_meta().stretched(), calls)
    return {name: call.shape for name, call in calls.items()}
