"""SE and CBAM: the audit's settings, what they compute, and random streams of their own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from srblock.models.attention import attention


@pytest.mark.parametrize("channels", [16, 64, 512])
def test_se_has_two_layers_with_biases_and_reduction_16(channels: int) -> None:
    reduced = channels // 16
    assert sum(p.numel() for p in attention("SE", channels).parameters()) == 2 * channels * reduced + channels + reduced


@pytest.mark.parametrize("channels", [16, 64, 512])
def test_cbam_has_no_biases_a_3x3_spatial_kernel_and_a_batch_norm(channels: int) -> None:
    expected = 2 * channels * (channels // 16) + 2 * 3 * 3 + 2
    assert sum(p.numel() for p in attention("CBAM", channels).parameters()) == expected


def test_se_scales_channels_by_a_gate_of_their_means() -> None:
    module, x = attention("SE", 32), torch.randn(2, 32, 5, 4)
    parameters = {name: p.flatten(1) if p.dim() == 4 else p for name, p in module.named_parameters()}
    hidden = F.relu(F.linear(x.mean((2, 3)), parameters["fc1.weight"], parameters["fc1.bias"]))
    gate = torch.sigmoid(F.linear(hidden, parameters["fc2.weight"], parameters["fc2.bias"]))
    torch.testing.assert_close(module(x), x * gate[:, :, None, None])


def test_cbam_gates_channels_then_positions() -> None:
    module, x = attention("CBAM", 32).eval(), torch.randn(2, 32, 5, 4)
    weights = dict(module.named_parameters())

    def mlp(pooled: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.relu(F.conv2d(pooled, weights["channel.fc1.weight"])), weights["channel.fc2.weight"])

    gate = torch.sigmoid(mlp(x.mean((2, 3), keepdim=True)) + mlp(x.amax((2, 3), keepdim=True)))
    y = x * gate
    pooled = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], dim=1)
    logit = F.conv2d(pooled, weights["spatial.conv.conv.weight"], padding=1) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(module(x), y * torch.sigmoid(logit))


@pytest.mark.parametrize("kind", ["SE", "CBAM"])
def test_building_follows_the_seed_and_leaves_the_random_state_alone(kind: str) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = attention(kind, 64)
    assert torch.equal(torch.get_rng_state(), state)
    second = attention(kind, 64)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    torch.rand(1)
    third = attention(kind, 64)
    assert not torch.equal(next(first.parameters()), next(third.parameters()))


def test_a_module_shares_no_draws_with_the_layer_built_after_it() -> None:
    torch.manual_seed(5)
    module = attention("SE", 64)
    later = torch.nn.Conv2d(64, 4, 1)
    assert not torch.equal(module.get_parameter("fc1.weight"), later.weight)


@pytest.mark.parametrize(
    ("kind", "channels", "message"),
    [
        ("ECA", 64, "attention must be 'SE' or 'CBAM', got 'ECA'"),
        ("SE", 8, "reduces channels 16 times, got 8 channels"),
    ],
)
def test_refuses(kind: str, channels: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(kind, channels)
