"""The learning rate, against values worked out by hand and torch's own schedulers."""

import math
from dataclasses import replace

import pytest
import torch

from srblock.training.recipe import RECIPES, Recipe
from srblock.training.schedule import learning_rate


@pytest.mark.parametrize(
    ("progress", "rate"),
    [(0, 0.1), (59.99, 0.1), (60, 0.02), (119.5, 0.02), (120, 0.004), (160, 0.0008), (199.9, 0.0008)],
)
def test_multistep_drops_at_the_milestones(progress: float, rate: float) -> None:
    assert math.isclose(learning_rate(RECIPES["cifar100"], progress), rate, rel_tol=1e-12)


def test_multistep_agrees_with_torch() -> None:
    recipe = replace(RECIPES["cifar10"], epochs=12, milestones=(3, 8))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 8], 0.1)
    for epoch in range(12):
        assert math.isclose(learning_rate(recipe, epoch), optimizer.param_groups[0]["lr"], rel_tol=1e-9)
        optimizer.step()
        scheduler.step()


def test_poly_agrees_with_torch_and_starts_after_the_warm_up() -> None:
    recipe = Recipe(epochs=12, schedule="poly", learning_rate=0.1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=12, power=0.9)
    for epoch in range(12):
        assert math.isclose(learning_rate(recipe, epoch), optimizer.param_groups[0]["lr"], rel_tol=1e-9)
        optimizer.step()
        scheduler.step()
    assert learning_rate(recipe, 12) == 0
    warm = replace(recipe, warmup_epochs=2, power=2.0)
    assert math.isclose(learning_rate(warm, 1), 0.05)
    assert math.isclose(learning_rate(warm, 3), 0.1 * 0.75**2)


def test_cosine_with_warmup() -> None:
    recipe = Recipe(epochs=12, schedule="cosine", warmup_epochs=2, learning_rate=0.4)
    assert learning_rate(recipe, 0) == 0
    assert math.isclose(learning_rate(recipe, 1.5), 0.3)
    assert math.isclose(learning_rate(recipe, 2), 0.4)
    assert math.isclose(learning_rate(recipe, 7), 0.2)
    assert math.isclose(learning_rate(recipe, 12), 0, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("share", "factor"), [(0, 0.2), (0.115, 0.6), (0.23, 1.0), (0.615, 0.535), (1.0, 0.07), (1.5, 0.07)]
)
@pytest.mark.parametrize("epochs", [1, 10])
def test_triangular_rises_over_23_percent_and_falls_to_7_percent(share: float, factor: float, epochs: int) -> None:
    recipe = Recipe(epochs=epochs, schedule="triangular", learning_rate=2.0)
    assert math.isclose(learning_rate(recipe, share * epochs), 2 * factor, rel_tol=1e-9)


def test_poly_ends_at_its_rate() -> None:
    """(0.01 - 0.0001) * 0.25 ** 0.9 + 0.0001 after three quarters, as MMSegmentation counts it."""
    recipe = Recipe(epochs=80, schedule="poly", learning_rate=0.01, end_lr=1e-4)
    assert math.isclose(learning_rate(recipe, 0), 0.01)
    assert math.isclose(learning_rate(recipe, 60), 0.0099 * 0.25**0.9 + 0.0001)
    assert math.isclose(learning_rate(recipe, 80), 1e-4)
