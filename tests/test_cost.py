"""Costs of networks small enough to count by hand."""

import torch
from torch import nn

import srblock
from srblock.inspection.cost import cost


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
    )  # fmt: skip


def test_counts_parameters_and_operations() -> None:
    counted = cost(network(), (3, 8, 8))
    assert counted.parameters == 3 * 4 * 9 + 4 * 10 + 10
    assert counted.overhead_percent == 0
    assert counted.flops_per_image == 2 * (64 * 4 * 27 + 4 * 10)


def test_counts_what_a_block_adds() -> None:
    """Squeeze C*HW, addressing HW*U + U*P, recall P*C*HW multiply-adds."""
    model = network()
    plain = cost(model, (3, 8, 8))
    srblock.insert(model, after="0", input_size=(3, 8, 8), blocks=5, hidden=2)
    counted = cost(model, (3, 8, 8))
    added = 4 + 64 * 2 + 2 * 5 + 5 * 4 * 64
    assert counted.parameters == plain.parameters + added
    assert counted.overhead_percent == 100 * added / plain.parameters
    assert counted.flops_per_image == plain.flops_per_image + 2 * (4 * 64 + 64 * 2 + 2 * 5 + 5 * 4 * 64)


def test_leaves_the_model_as_it_was() -> None:
    model = network().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    cost(model, (3, 8, 8))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert next(model.parameters()).device.type == "cpu"
