"""A block inserted after the optimizer was built: it is trained as what is beside it, or nothing happens at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import srblock


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.Flatten(), nn.Linear(96, 2)
    )


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    optimizer.zero_grad()
    model(images).square().sum().backward()
    optimizer.step()


def decays(model: nn.Module) -> list[dict[str, Any]]:
    """Groups as fine-tuning code makes them: no decay for vectors, a rate of its own for the last layer."""
    parameters = list(model.named_parameters())
    return [
        {"params": [value for _, value in parameters[:-2] if value.ndim == 1], "weight_decay": 0.0},
        {"params": [value for _, value in parameters[:-2] if value.ndim > 1], "weight_decay": 0.05},
        {"params": [value for _, value in parameters[-2:]], "lr": 0.3, "weight_decay": 0.0},
    ]


def test_the_block_is_trained_with_the_present_settings_of_its_neighbors() -> None:
    model = net()
    optimizer = torch.optim.AdamW(decays(model), lr=0.1)
    step(model, optimizer)
    for group in optimizer.param_groups:
        group["lr"] /= 10  # a schedule by hand
    done = srblock.insert(model, after="3", input_size=8, optimizer=optimizer)
    own = optimizer.param_groups[-1]
    assert len(optimizer.param_groups) == 4
    assert own["params"] == list(done.block.parameters())
    assert (own["lr"], own["weight_decay"]) == (0.01, 0.05)  # not AdamW's 0.1 and 0.01
    memory = done.block.memory.values.detach().clone()
    step(model, optimizer)
    step(model, optimizer)
    assert not torch.equal(done.block.memory.values, memory)


@pytest.mark.parametrize(("after", "rate"), [("0", 1), ("2", 1), ("3", 4), ("1", 1)])
def test_the_neighbors_are_the_nearest_weights_before(after: str, rate: int) -> None:
    model = net()
    # Rates by layer, and biases and norms apart: 0: weight 1, bias 2; 1: 3; 3: weight 4, bias 5; 5: weight 6, bias 7.
    rates = [1, 2, 3, 3, 4, 5, 6, 7]
    groups = [{"params": [value], "lr": float(own)} for value, own in zip(model.parameters(), rates, strict=True)]
    optimizer = torch.optim.SGD(groups, lr=9.0)
    srblock.insert(model, after=after, input_size=8, optimizer=optimizer)
    assert optimizer.param_groups[-1]["lr"] == rate


def test_without_the_optimizer_the_block_is_left_out() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    done = srblock.insert(model, after="3", input_size=8)
    step(model, optimizer)
    assert torch.equal(done.block.memory.values, torch.zeros_like(done.block.memory.values))


def test_names_tensors_and_frozen_layers() -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=torch.tensor(0.1))
    srblock.insert(model, after="3", input_size=8, optimizer=optimizer)
    first, own = optimizer.param_groups
    assert own["param_names"] == [f"3.sr.{key}" for key, _ in model[3].sr.named_parameters()]
    assert own["lr"] == first["lr"]
    assert own["lr"] is not first["lr"]  # changed in place by schedulers

    model = net()
    optimizer = torch.optim.SGD(model[5].parameters(), lr=0.2)  # the classifier alone is trained
    srblock.insert(model, after="3", input_size=8, optimizer=optimizer)
    assert optimizer.param_groups[-1]["lr"] == 0.2


def test_a_count_of_steps_is_not_the_blocks() -> None:
    """timm's Lamb and Adan keep it in the group, and correct their averages by it."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0] |= {"step": 41, "lr_scale": 0.5}
    srblock.insert(model, after="3", input_size=8, optimizer=optimizer)
    assert "step" not in optimizer.param_groups[-1]
    assert optimizer.param_groups[-1]["lr_scale"] == 0.5


def test_a_scheduler_built_afterwards_governs_the_block() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    srblock.insert(model, after="3", input_size=8, optimizer=optimizer)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    step(model, optimizer)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.05]


def test_an_optimizer_keeps_what_was_removed_and_leaves_it_alone() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    block = srblock.insert(model, after="3", input_size=8, optimizer=optimizer).block
    step(model, optimizer)
    srblock.remove(model)
    kept = [value.detach().clone() for value in block.parameters()]
    step(model, optimizer)
    assert all(torch.equal(value, old) for value, old in zip(block.parameters(), kept, strict=True))


def refused(model: nn.Module, optimizer: Any, match: str, error: type[Exception] = ValueError, **options: Any) -> None:
    """Expect a refusal that leaves the model and the optimizer as they were."""
    groups = len(optimizer.param_groups) if isinstance(optimizer, torch.optim.Optimizer) else 0
    with pytest.raises(error, match=match):
        srblock.insert(model, **{"after": "3", "input_size": 8, "optimizer": optimizer, **options})
    assert not srblock.blocks(model)
    assert groups == (len(optimizer.param_groups) if groups else 0)


def test_refuses_what_could_not_train_the_block() -> None:
    model = net()
    refused(model, torch.optim.SGD(net().parameters(), lr=0.1), "none of the model's parameters.*another model")
    refused(model, model.parameters(), r"must be a torch\.optim\.Optimizer, got generator", TypeError)
    for kind in (torch.optim.Adagrad, torch.optim.LBFGS):
        refused(model, kind(model.parameters()), f"{kind.__name__} takes no parameters after it was built")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    refused(model, optimizer, "returns a 2-D tensor", after="5")
    refused(model, optimizer, "blocks must be at least 1", blocks=0)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    refused(model, optimizer, "has a learning-rate scheduler.*before the scheduler is built")
    for group in optimizer.param_groups:
        del group["initial_lr"]
    srblock.insert(model, after="3", input_size=8, optimizer=optimizer)
