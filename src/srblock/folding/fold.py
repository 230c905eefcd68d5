"""Fold what a block needs for training into less for inference, exactly at the size it belongs to.

- Directly before global average pooling and a linear layer W a block adds sum_p a_p(x) v_p to the layer's outputs,
  v_p = W mean_hw(M_p): the memory becomes a table P x outputs. With P = 1 it becomes a bias.
- Elsewhere a block of P = 1 is the addition of its one map: the weights sum to one.
- Without an activation the two linear layers are one P x HW matrix, which is taken where it is the smaller.
- Standardized logits and a temperature become a scale of the last linear layer, and a bias.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from srblock.block import SqueezeRemember2d
from srblock.folding.forms import Constant, Linears, Pooled, Recall, wide, with_bias, with_table
from srblock.folding.probe import Head, Stays, agree, called, find_head, outputs_of
from srblock.folding.report import FoldedBlock, Folding
from srblock.inputs import ExampleInputs, ImageSize, Inputs, inputs_of
from srblock.surgery import blocks
from srblock.tracing import duplicate, refuse_wrapped
from srblock.trial import CHILD, MARK, detach, was_inserted_into


@dataclass(frozen=True)
class Plan:
    """What is to be done with a block; nothing, unless told.

    Attributes:
        name: of the block, as `srblock.blocks` has it.
        head: where a memory is carried over to the classifier.
        constant: the block becomes the addition of its one map.
        one_matrix: the two linear layers become one.
        scaled: standardization and temperature go into the last one.
    """

    name: str
    head: Head | None = None
    constant: bool = False
    one_matrix: bool = False
    scaled: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return self.head is None and not (self.constant or self.one_matrix or self.scaled)


def fold(
    model: nn.Module, input_size: ImageSize | None = None, *, example_inputs: ExampleInputs | None = None
) -> tuple[nn.Module, Folding]:
    """Copy a network for inference with its blocks folded as far as that is exact, and say what was folded and why.

    Every fold is checked on a copy in float64 on the CPU: the outputs for images of noise must be the model's, to 1e-12
    of the largest. The model stays as it is. The copy is in evaluation mode and for inference alone.

    Args:
        input_size: of the images that the blocks were inserted for, as `insert` takes it.
        example_inputs: instead of it, for a model that takes more than one input.

    Returns: the copy, and what was folded and left.

    Raises: ValueError if the model has no block, or one that is bypassed; for a wrapped, compiled or scripted model;
        for images of another size than the blocks belong to, inputs that the model does not take, and outputs that
        cannot be compared.
    """
    refuse_wrapped(model)
    found = blocks(model)
    if not found:
        raise ValueError("the model has no block to fold")
    if any(block.bypassed for block in found.values()):
        raise ValueError("a block of the model is bypassed; fold it outside `with srblock.bypassed(model)`")
    with torch.inference_mode(False):  # tensors made within it would be marked for good
        return _folded(model, found, inputs_of(model, input_size, example_inputs))


def _folded(model: nn.Module, found: dict[str, SqueezeRemember2d], given: Inputs) -> tuple[nn.Module, Folding]:
    trial, inputs = duplicate(model).to("cpu", torch.float64).eval(), given.wide()
    try:
        shapes, expected = called(trial, blocks(trial), inputs)
    except Stays as stays:
        raise ValueError(str(stays)) from stays
    except Exception as error:
        raise ValueError(
            f"the model does not run in float64 on {inputs.described}: {type(error).__name__}: {error}; {inputs.remedy}"
        ) from error
    _check_sizes(found, shapes)
    folded, said = duplicate(model).eval(), []
    for name in [*shapes, *(name for name in found if name not in shapes)]:
        plan, trial, what = _fold_one(trial, name, shapes.get(name, []), inputs, expected)
        _carry_out(folded, plan)
        said.append(what)
    return folded, Folding(tuple(said))


def _check_sizes(found: dict[str, SqueezeRemember2d], shapes: dict[str, list[torch.Size]]) -> None:
    for name, given in shapes.items():
        size = found[name].size
        if others := [shape for shape in given if shape[-2:] != size]:
            raise ValueError(
                f"the block after {name!r} belongs to maps of {size[0]}x{size[1]} and resizes its memory to the "
                f"{others[0][-2]}x{others[0][-1]} of these images; a fold is exact at its own size alone: give the "
                "input_size that it was inserted for"
            )


def _fold_one(
    trial: nn.Module, name: str, given: list[torch.Size], inputs: Inputs, expected: list[Tensor]
) -> tuple[Plan, nn.Module, FoldedBlock]:
    """Fold a block of the copy as far as it goes. -> what was done, the copy as it is then, and in words."""
    block = blocks(trial)[name]
    own, before = sum(value.numel() for value in block.parameters()), _count(trial)
    single, plan = block.options.blocks == 1, Plan(name)
    folded: list[str] = []
    left: list[str] = []
    if not single:
        plan = replace(plan, one_matrix=_matrix_is_smaller(block, folded, left), scaled=_is_scaled(block, folded))
    try:
        head = _find_head(trial, block, given, inputs)
        trial = _tried(trial, replace(plan, head=head), inputs, expected)
        plan = replace(plan, head=head)
        folded.insert(0, _said(block, head, trial))
    except Stays as stays:
        left.insert(0, f"the memory, into the classifier: {stays}")
        plan = replace(plan, constant=single)
        if single:
            folded.append("the block, whose one weight is always 1: it adds its map")
        try:
            trial = trial if plan.empty else _tried(trial, plan, inputs, expected)
        except Stays as again:  # of a network that says something else every time, for one
            return Plan(name), trial, FoldedBlock(name, (), (*left, f"all of it: {again}"), own, own)
    return plan, trial, FoldedBlock(name, tuple(folded), tuple(left), own, own + _count(trial) - before)


def _matrix_is_smaller(block: SqueezeRemember2d, folded: list[str], left: list[str]) -> bool:
    """Decide whether the two linear layers become one matrix, and say so."""
    hidden, count, positions = block.options.hidden, block.options.blocks, block.address.fc1.shape[1]
    one, two = count * positions, hidden * (positions + count)
    if block.options.activation is not None:
        left.append(f"the linear layers: activation={block.options.activation!r} stands between them")
    elif one >= two:
        left.append(f"the linear layers: one {count} x {positions} matrix has {one:,} numbers, they have {two:,}")
    else:
        folded.append(f"the linear layers, {two:,} numbers, into one {count} x {positions} matrix, {one:,}")
        return True
    return False


def _is_scaled(block: SqueezeRemember2d, folded: list[str]) -> bool:
    """Decide whether the last linear layer takes over what comes after it, and say so."""
    by = [f"temperature {block.options.temperature:g}"] if block.options.temperature != 1 else []
    if block.options.logits == "standardized":
        by.insert(0, f"standardization of the logits by their running figures, with a bias of {block.options.blocks}")
    if by:
        folded.append(f"{' and '.join(by)}: into the last linear layer")
    return bool(by)


def _find_head(trial: nn.Module, block: SqueezeRemember2d, given: list[torch.Size], inputs: Inputs) -> Head:
    """Find where a memory can be carried over, and check that something is gained by it.

    Raises: Stays saying why not.
    """
    if len(given) != 1:
        raise Stays(f"a forward pass runs the block {len(given)} times instead of once")
    if block.options.blocks == 1 and block.options.resize is not None:
        raise Stays("the block resizes its map to other sizes, of which a bias would know nothing")
    head = find_head(trial, block, given[0], inputs)
    linear = trial.get_submodule(head.linear)
    assert isinstance(linear, nn.Linear)
    table, memory = block.options.blocks * linear.out_features, _count(block.memory)
    if block.options.blocks > 1 and table >= memory:
        raise Stays(f"a table for the outputs of {head.linear!r} has {table:,} numbers, the memory {memory:,}")
    return head


def _said(block: SqueezeRemember2d, head: Head, trial: nn.Module) -> str:
    memory = " x ".join(map(str, block.memory.basis().shape))
    if block.options.rank is not None:
        memory = f"{memory} of rank {block.options.rank}, {_count(block.memory):,}"
    outputs = trial.get_submodule(head.linear).out_features
    if block.options.blocks == 1:
        return f"the block, whose one weight is always 1, {memory} numbers: into the bias of {head.linear!r}"
    sizes = ""
    if block.options.resize is not None:
        sizes = f"; maps of other sizes than {block.size[0]}x{block.size[1]} are refused now"
    return (
        f"the memory, {memory} numbers, into a table {block.options.blocks} x {outputs} that {head.linear!r} adds, by "
        f"the weights that {head.pool!r} hands on{sizes}"
    )


def _tried(trial: nn.Module, plan: Plan, inputs: Inputs, expected: list[Tensor]) -> nn.Module:
    """Return a copy of the copy with a plan carried out.

    Raises: Stays if it is not the same network then.
    """
    changed = duplicate(trial)
    _carry_out(changed, plan)
    try:
        outputs = outputs_of(changed, inputs)
    except Exception as error:  # code between pooling and classifier that counts on C features, for one
        raise Stays(f"the folded network fails with {type(error).__name__}: {error}") from error
    if not agree(outputs, expected):
        raise Stays("the folded network has other outputs")
    return changed


def _carry_out(model: nn.Module, plan: Plan) -> None:
    """Do what is planned with a block, in place."""
    if plan.empty:
        return
    block = blocks(model)[plan.name]
    address: nn.Module = block.address
    if plan.one_matrix or plan.scaled:
        address = Linears(block.address, plan.one_matrix)
    if plan.head is None:
        _put(model, block, Constant(block) if plan.constant else Recall(block, address))
        return
    _take_out(model, block)
    pool, linear = (model.get_submodule(name) for name in (plan.head.pool, plan.head.linear))
    assert isinstance(linear, nn.Linear)
    means = wide(block.memory.maps()).mean((2, 3))
    if block.options.blocks == 1:
        _replace(model, linear, with_bias(linear, means))
    else:
        _replace(model, linear, with_table(linear, means))
        _replace(model, pool, Pooled(pool, address, block.size))


def _put(model: nn.Module, block: SqueezeRemember2d, form: nn.Module) -> None:
    """Put a form in the place of a block, run as the block was; for surgery there is no block any more."""
    for target in [module for module in model.modules() if was_inserted_into(module)]:
        if target._modules[CHILD] is block:
            delattr(target, MARK)
            vars(block).pop(MARK, None)
    _replace(model, block, form.eval())


def _take_out(model: nn.Module, block: SqueezeRemember2d) -> None:
    for target in [module for module in model.modules() if was_inserted_into(module)]:
        if target._modules[CHILD] is block:
            detach(target)
            return
    _replace(model, block, nn.Identity())


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is old:
                module._modules[name] = new


def _count(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())
