"""Put Squeeze-and-Remember blocks into a network that exists, and take them out again.

The block becomes the child `sr` of the module after which it stands, so that its keys in the state_dict are
`<name>.sr.*` for any kind of module and all other keys stay what they were. How it comes to be run is explained in
`srblock.trial`, which modules can take one in `srblock.maps`.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from srblock.block import SqueezeRemember2d
from srblock.inputs import ExampleInputs, ImageSize, memory_format
from srblock.joining import join, settings_beside
from srblock.numbering import renumber
from srblock.tracing import Stage, Trace, in_eval_mode, refuse_wrapped, runs_its_children, shadow, trace
from srblock.trial import CHILD, Unfit, attach, detach, needs_hook, refuse_stranded, was_inserted_into

__all__ = ["Insertion", "Stage", "blocks", "bypassed", "insert", "param_groups", "plain_name", "remove", "stages"]

WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
SUGGESTIONS_TRIED = 12


@dataclass(frozen=True)
class Insertion:
    """What `insert` did: a block after module `name`, whose map is `(channels, *size)`.

    `overhead_percent` is relative to the model's parameters before the insertion, as in the paper's tables.
    """

    name: str
    channels: int
    size: tuple[int, int]
    parameters_added: int
    overhead_percent: float
    block: SqueezeRemember2d

    def __str__(self) -> str:
        height, width = self.size
        return (
            f"SR block after {self.name!r} ({self.channels}x{height}x{width}): {self.parameters_added:,} parameters, "
            f"{self.overhead_percent:.2f}% more"
        )


def stages(
    model: nn.Module, input_size: ImageSize | None = None, *, example_inputs: ExampleInputs | None = None
) -> list[Stage]:
    """List the points where `insert` can put a block, in the order of the forward pass, with their (C, H, W).

    Containers with a forward of their own are tried first: DenseNet's dense blocks take every child for a layer, so a
    block too, and are left out.

    Args: input_size or example_inputs: as `insert` takes them.

    Raises: ValueError for a wrapped, compiled or scripted model, for one that resizes its images, and for inputs that
        the model does not take.
    """
    return _look(model, input_size, example_inputs).stages


def insert(
    model: nn.Module,
    *,
    after: str | int,
    input_size: ImageSize | None = None,
    example_inputs: ExampleInputs | None = None,
    hollow: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
    **block: Any,
) -> Insertion:
    """Insert a block after a module, with every weight, state_dict key and output of the model as it was.

    First tried on a copy: a forward pass there must run the block exactly once, with the outputs unchanged (bit for bit
    on the CPU) and dependent on the block. If that fails, the model has not been touched. (A memory that starts from
    normal values, `start="normal"`, is tried empty, and changes the outputs a little.)

    Args:
        after: a module's name, or the 1-based number of a stage (the rule stands in `srblock.numbering`).
        input_size: of the images: the side of a square, (H, W), or (C, H, W).
        example_inputs: instead of it, for a model that takes more than one input: a tuple of positional arguments or a
            mapping of keyword arguments, with images (N, C, H, W) among them, N at least 2. They are not changed.
        hollow: try it on the meta device, which costs neither time nor memory and sees the calls and the shapes, but no
            values: for networks that are known to be fit and large images.
        optimizer: one that was built before and trains the model: the block joins it as a new group, with the present
            settings of the group that trains the module's weights, or else the nearest weights before it.
        block: options of `SqueezeRemember2d`, such as blocks=10, hidden=8.

    Raises: ValueError or TypeError if there is no such module or stage, or the block cannot stand there, with the
        nearest place where it can; for a wrapped, compiled or scripted model; for one that resizes its images; for
        inputs that the model does not take; for options that the block refuses; for an optimizer of another model, or
        one that has a learning-rate scheduler. The model and the optimizer are then as before.
    """
    seen = _look(model, input_size, example_inputs, hollow=hollow)
    name = _resolve(model, after, seen)
    target = model.get_submodule(name)
    fault = _occupied(target) or seen.faults.get(name)
    if fault:
        raise ValueError(f"cannot insert a block after {name!r}: it {fault}; {_nearest(model, name, seen)}")
    settings = None if optimizer is None else settings_beside(optimizer, model, target)
    built = _build(model, name, seen, block)
    try:
        with in_eval_mode(model):
            hooked = needs_hook(seen, name, _tried(seen, built))
    except Unfit as unfit:
        raise ValueError(
            f"cannot insert a block after {name!r} ({type(target).__name__}): {unfit}; the model is unchanged; "
            f"{_nearest(model, name, seen)}"
        ) from unfit
    before = sum(value.numel() for value in model.parameters())
    added = sum(value.numel() for value in built.parameters())
    if optimizer is not None and settings is not None:
        join(optimizer, built, f"{name}.{CHILD}", settings)
    attach(target, built, hooked)
    return Insertion(name, built.channels, built.size, added, 100 * added / before if before else math.inf, built)


def remove(model: nn.Module) -> list[str]:
    """Take out every block that `insert` put in; all other weights stay as they are now.

    An optimizer keeps what it had of the blocks, in its groups and its state_dict: without gradients nothing happens to
    it. Build a new one to be rid of it.

    Returns: the names of the modules after which the blocks stood.
    Raises: ValueError if there is none, or one that nothing runs any more; for a wrapped, compiled or scripted model.
    """
    refuse_wrapped(model)
    refuse_stranded(model)
    targets = {name: module for name, module in model.named_modules() if was_inserted_into(module)}
    if not targets:
        raise ValueError("the model has no inserted block, so there is nothing to remove")
    for target in targets.values():
        detach(target)
    return list(targets)


def blocks(model: nn.Module) -> dict[str, SqueezeRemember2d]:
    """Find the model's blocks, by the name of the module after which each stands.

    A block that was not inserted but written into the network has its own name. The prefixes of DDP and torch.compile
    are left out. A model without blocks gives {}.

    Raises: ValueError for an inserted block that nothing runs any more, since its module was converted or fused.
    """
    refuse_stranded(model)
    own = {id(module._modules[CHILD]): name for name, module in model.named_modules() if was_inserted_into(module)}
    return {
        plain_name(own.get(id(module), name)): module
        for name, module in model.named_modules()
        if isinstance(module, SqueezeRemember2d)
    }


@contextmanager
def bypassed(model: nn.Module) -> Iterator[None]:
    """Run the model as if it had no blocks while the context lasts; may be nested.

    Raises: ValueError if the model has no blocks.
    """
    found = blocks(model).values()
    if not found:
        raise ValueError("the model has no block to bypass")
    before = [block.bypassed for block in found]
    try:
        for block in found:
            block.bypassed = True
        yield
    finally:
        for block, flag in zip(found, before, strict=True):
            block.bypassed = flag


def param_groups(
    model: nn.Module, *, memory_lr: float | None = None, memory_weight_decay: float | None = None
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into two groups for an optimizer: all others, and the blocks' memories.

    What is None follows the optimizer's own value; both may be, for a schedule that sets the second group's values
    itself. Frozen parameters are in neither group.

    Raises: ValueError if the model has no trainable memory, or for a negative or non-finite value.
    """
    given = {"lr": memory_lr, "weight_decay": memory_weight_decay}
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in options.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"memory_{name} must be a finite number of at least 0, got {value}")
    memories = [value for block in blocks(model).values() for value in block.memory.parameters() if value.requires_grad]
    if not memories:
        raise ValueError(
            "the model has no block with a trainable memory, so there is nothing to set apart; insert a block first, "
            "or pass model.parameters() to the optimizer"
        )
    own = {id(memory) for memory in memories}
    rest = [value for value in model.parameters() if value.requires_grad and id(value) not in own]
    return [{"params": rest}, {"params": memories, **options}]


def plain_name(name: str) -> str:
    """Strip what DDP, DataParallel, FSDP and torch.compile put before and into the names of parameters."""
    while (prefix := next((wrapper for wrapper in WRAPPERS if name.startswith(wrapper)), None)) is not None:
        name = name.removeprefix(prefix)
    for wrapper in WRAPPERS[1:]:  # a part of the network may be compiled; "module." inside may be the network's own
        name = name.replace(f".{wrapper}", ".")
    return name


def _look(
    model: nn.Module,
    input_size: ImageSize | None,
    example_inputs: ExampleInputs | None,
    *,
    hollow: bool = False,
) -> Trace:
    """Trace a model, leave out the containers that were tried and cannot take a block, and number what is left."""
    seen = trace(model, input_size, example_inputs, hollow=hollow)
    modules = dict(model.named_modules())
    stages = [
        stage
        for stage in seen.stages
        if not runs_its_children(modules[stage.name])
        or was_inserted_into(modules[stage.name])
        or _can_take_a_block(model, stage.name, seen)
    ]
    maps: dict[str, tuple[int, ...]] = {stage.name: (stage.channels, *stage.size) for stage in seen.stages}
    numbers = renumber(seen.numbers, maps, {stage.name for stage in stages})
    by_name = {name: number for number, name in numbers.items()}
    return replace(seen, numbers=numbers, stages=[replace(stage, number=by_name.get(stage.name)) for stage in stages])


def _occupied(target: nn.Module) -> str | None:
    if was_inserted_into(target):
        return "has a block already; remove it first, or choose another place"
    if hasattr(target, CHILD):
        return f"has an attribute {CHILD!r} of its own, the name that the block would take"
    return None


def _resolve(model: nn.Module, after: str | int, seen: Trace) -> str:
    """Turn a module's name or a stage number into the module's first name."""
    if isinstance(after, bool) or not isinstance(after, (str, int)):
        raise TypeError(f"after must be a module's name or a stage number, got {after!r}")
    listed = ", ".join(f"{number}: {name!r}" for number, name in seen.numbers.items())
    if isinstance(after, int):
        if after in seen.numbers:
            return seen.numbers[after]
        hint = f"the model's stages are {listed}" if listed else "the model's stages cannot be numbered: pass a name"
        raise ValueError(f"there is no stage {after}; {hint} (srblock.stages lists the names)")
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if after and after in modules:
        names: dict[nn.Module, str] = {module: name for name, module in model.named_modules()}
        return names[modules[after]]
    near = difflib.get_close_matches(after, [stage.name for stage in seen.stages], n=3, cutoff=0.5)
    hint = (
        f"the nearest names are {', '.join(map(repr, near))}" if near else f"its stages are {listed or 'not numbered'}"
    )
    raise ValueError(f"there is no module {after!r} in the model; {hint} (srblock.stages lists the names)")


def _build(model: nn.Module, name: str, seen: Trace, options: dict[str, Any]) -> SqueezeRemember2d:
    """Build a block for the map of module `name`, on its device, in its dtype and the model's memory format."""
    target, call = model.get_submodule(name), seen.calls[name]
    own, others = (
        [value.dtype for value in module.parameters() if value.is_floating_point()] for module in (target, model)
    )
    # A map may be of another dtype than every parameter: of a model whose forward turns autocast on.
    dtype = own[0] if own else call.dtype if call.dtype in others or not others else others[0]
    _, channels, height, width = call.shape
    device = call.device
    if seen.inputs.is_meta:  # of a hollow trace, perhaps: the model tells where its blocks belong
        device = next((value.device for value in (*target.parameters(), *model.parameters())), device)
    with torch.inference_mode(False):
        built = SqueezeRemember2d(channels, (height, width), device=device, dtype=dtype, **options)
    return built.to(memory_format=memory_format(model)).train(target.training)


def _tried(seen: Trace, block: SqueezeRemember2d) -> SqueezeRemember2d:
    """Return what to try on the copy in place of a block, which must be the identity there, or its shapes alone."""
    if not seen.inputs.is_meta:
        if block.options.start != "normal":
            return block
        block = copy.deepcopy(block)
        block.memory.clear()
        return block
    hollow = shadow(block, "meta")
    assert isinstance(hollow, SqueezeRemember2d)
    return hollow


def _nearest(model: nn.Module, name: str, seen: Trace) -> str:
    """Name the point nearest to a module, in the order of the forward pass, where a block was tried and works."""
    places = {called: place for place, called in enumerate(seen.calls)}
    here = places.get(name)
    if here is None:  # not called: start from the last module defined before it, beside it, that is
        names = [other for other, _ in model.named_modules()]
        beside = [other for other in names[: names.index(name)] if other and not name.startswith(f"{other}.")]
        here = max((places[other] for other in beside if other in places), default=0)
    free = [stage for stage in seen.stages if not _occupied(model.get_submodule(stage.name))]
    others = [stage for stage in free if stage.name != name and not stage.name.startswith(f"{name}.")]
    others.sort(key=lambda stage: (abs(places[stage.name] - here), places[stage.name] < here))
    for stage in others[:SUGGESTIONS_TRIED]:
        if _can_take_a_block(model, stage.name, seen):
            return f"the nearest usable point is {stage}"
    return "no usable point was found near it; see srblock.stages"


def _can_take_a_block(model: nn.Module, name: str, seen: Trace) -> bool:
    try:
        with in_eval_mode(model):
            needs_hook(seen, name, _tried(seen, _build(model, name, seen, {"blocks": 1, "hidden": 1})))
    except Unfit:
        return False
    return True
