"""One step: what it does to the weights, in each engine that this machine has."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock import SqueezeRemember2d, param_groups
from srblock.training.classification import Classification
from srblock.training.optimizer import keep_rates_on, make_optimizer, scale_rates, set_rate
from srblock.training.recipe import Recipe
from srblock.training.step import WARM_UP, Step

CPU = torch.device("cpu")
TASK = Classification()
RECIPE = Recipe(epochs=1, batch_size=8, learning_rate=0.1, weight_decay=1e-2)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def network(device: torch.device = CPU) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    return nn.Sequential(*layers).to(device)


def batches(sizes: list[int], device: torch.device = CPU) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    drawn = [(torch.randn(n, 3, 6, 6, generator=generator), torch.randint(5, (n,), generator=generator)) for n in sizes]
    return [(images.to(device), labels.to(device)) for images, labels in drawn]


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """Set the last layer apart, with 3 times the rate and a decay of its own."""
    head = list(model[-1].parameters())  # type: ignore[index]
    rest = [parameter for name, parameter in model.named_parameters() if not name.startswith("5.")]
    return [{"params": rest}, {"params": head, "lr_scale": 3.0, "weight_decay": 0.2}]


def stepped(engine: str, sizes: list[int], device: torch.device = CPU, **changes: Any) -> tuple[nn.Module, Step]:
    """Train with a rate of its own for each batch, as a schedule does."""
    model = network(device)
    recipe = replace(RECIPE, engine=engine, **changes)
    optimizer = make_optimizer(model, recipe, device, groups)
    step = Step(model, optimizer, TASK, recipe, device)
    step.start()
    for number, (images, labels) in enumerate(batches(sizes, device)):
        step(images, labels, 0.1 / (number + 1))
    return model, step


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_step_is_sgd_with_momentum_and_the_decay_and_rate_of_each_group(nesterov: bool) -> None:
    """Two steps worked out by hand: h = g + decay w, v = 0.9 v + h, w = w - rate v; nesterov w - rate (h + 0.9 v)."""
    model, _ = stepped("eager", [8, 8], nesterov=nesterov)
    by_hand = network()
    velocity = [torch.zeros_like(p) for p in by_hand.parameters()]
    for number, (images, labels) in enumerate(batches([8, 8])):
        gradients = torch.autograd.grad(F.cross_entropy(by_hand(images), labels), list(by_hand.parameters()))
        with torch.no_grad():
            for (name, p), v, g in zip(by_hand.named_parameters(), velocity, gradients, strict=True):
                scale, decay = (3.0, 0.2) if name.startswith("5.") else (1.0, 1e-2)
                h = g + decay * p
                v.mul_(0.9).add_(h)
                p.sub_(0.1 * scale / (number + 1) * (h + 0.9 * v if nesterov else v))
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_rate_that_param_groups_gives_memories_is_kept_along_the_schedule() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), SqueezeRemember2d(4, 4), nn.Flatten(), nn.Linear(64, 5))
    optimizer = make_optimizer(model, RECIPE, CPU, partial(param_groups, memory_lr=5 * RECIPE.learning_rate))
    step = Step(model, optimizer, TASK, RECIPE, CPU)
    step.start()
    for rate, (images, labels) in zip((0.1, 0.02), batches([8, 8]), strict=True):
        step(images, labels, rate)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate, 5 * rate])


def test_the_sums_are_those_of_all_batches_since_the_start() -> None:
    _, step = stepped("eager", [8, 8, 3])
    figures, sums = step.meter.read(), step.meter.sums
    assert 0 < figures["loss"] < 10
    assert round(figures["top1"] * 19 / 100, 6) in range(20)
    assert sums[2] == 19
    step.start()
    assert step.meter.sums is sums, "where a graph would count on"
    assert sums.tolist() == [0, 0, 0]


def test_gradients_are_clipped_to_the_norm() -> None:
    free, clipped = network(), network()
    for model, norm in ((free, None), (clipped, 1e-3)):
        recipe = replace(RECIPE, clip_norm=norm)
        step = Step(model, torch.optim.SGD(model.parameters(), 1.0), TASK, recipe, CPU)
        step.start()
        step(*batches([8])[0], 1.0)
    moved = torch.cat([(a - b).flatten() for a, b in zip(clipped.parameters(), network().parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)
    apart = torch.cat([(a - b).flatten() for a, b in zip(free.parameters(), network().parameters(), strict=True)])
    assert apart.norm().item() > 1e-2


def test_graphs_are_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match="graph replays CUDA graphs, and cpu has none; use eager or compile"):
        stepped("graph", [8])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_compiled_step_trains_as_an_eager_one_and_compiles_one_shape_only() -> None:
    """`aot_eager` traces as inductor does, and needs no C++ compiler."""
    torch._dynamo.reset()
    eager, _ = stepped("eager", [8, 8, 3, 8])
    compile_ = torch.compile
    seen: list[int] = []

    def cheap(model: nn.Module, *, dynamic: bool) -> object:
        assert not dynamic
        model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        return compile_(model, backend="aot_eager", dynamic=dynamic)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", cheap)
        compiled, step = stepped("compile", [8, 8, 3, 8])
    assert step.inference is not step.model
    for ours, theirs in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert set(compiled.state_dict()) == set(eager.state_dict())


class Ramp(nn.Identity):
    """A layer with a schedule."""

    scheduled = True

    def __init__(self) -> None:
        super().__init__()
        self.told: list[float] = []

    def follow(self, progress: float) -> None:
        self.told.append(progress)


def test_layers_with_a_schedule_are_told_where_the_run_stands_and_are_not_compiled() -> None:
    ramp = Ramp()
    model = nn.Sequential(nn.Flatten(), ramp, nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    step = Step(model, optimizer, TASK, RECIPE, CPU)
    for progress in (0.0, 0.5, 1.0):
        step.start(progress)
    assert ramp.told == [0.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="would compile anew at each epoch of a layer's schedule; use eager or graph"):
        Step(model, optimizer, TASK, replace(RECIPE, engine="compile"), CPU)
    ramp.scheduled = False
    Step(model, optimizer, TASK, replace(RECIPE, engine="compile"), CPU).start(0.25)
    assert 0.25 not in ramp.told


def test_rates_in_memory_are_set_in_place_each_with_its_scale() -> None:
    """Where a graph reads them."""
    model = network()
    optimizer = make_optimizer(model, RECIPE, CPU, groups)
    scale_rates(optimizer)
    keep_rates_on(CPU, optimizer)
    rates = [group["lr"] for group in optimizer.param_groups]
    set_rate(optimizer, 0.25)
    assert [float(rate) for rate in rates] == [0.25, 0.75]
    assert all(group["lr"] is rate for group, rate in zip(optimizer.param_groups, rates, strict=True))


@needs_cuda
@pytest.mark.parametrize("engine", ["graph", "compile", "compile+graph"])
def test_every_engine_trains_as_the_eager_one(engine: str) -> None:
    cuda = torch.device("cuda")
    sizes = [8] * (WARM_UP + 4) + [3] + [8] * 3
    (eager, first), (other, second) = stepped("eager", sizes, cuda), stepped(engine, sizes, cuda)
    for ours, theirs in zip(other.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert second.meter.sums[2] == first.meter.sums[2] == sum(sizes)
    assert second.meter.read() == pytest.approx(first.meter.read(), rel=1e-4)


@needs_cuda
def test_a_graph_draws_new_dropout_masks_at_every_replay() -> None:
    cuda = torch.device("cuda")
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(108, 5)).to(cuda)
    step = Step(
        model, torch.optim.SGD(model.parameters(), 1e-9, fused=True), TASK, replace(RECIPE, engine="graph"), cuda
    )
    ((images, labels),) = batches([8], cuda)
    losses = []
    for _ in range(WARM_UP + 6):
        step.start()
        step(images, labels, 1e-9)
        losses.append(step.meter.read()["loss"])
    assert len(set(losses)) == len(losses)


def trained(model: nn.Module, recipe: Recipe, rate: float) -> nn.Module:
    """Train one step without a gradient, so that the decay alone acts."""
    optimizer = make_optimizer(model, recipe, CPU)
    scale_rates(optimizer)
    set_rate(optimizer, rate)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return model


@pytest.mark.parametrize(
    "change", [{}, {"learning_rate": 3.0}, {"bias_lr_scale": 64.0}, {"learning_rate": 0.5, "bias_lr_scale": 2.0}]
)
def test_a_decoupled_decay_takes_the_same_share_whatever_the_rate(change: dict[str, float]) -> None:
    """0.0153 for 1,024 images over 1 + 1 / (1 - 0.85) = 7.67, half of that at half of the batch and of the schedule."""
    recipe = replace(RECIPE, batch_size=512, momentum=0.85, weight_decay=0.0153, decoupled=True, **change)
    before, model = network().state_dict(), network()
    model[1].weight.requires_grad_(False)
    with torch.no_grad():
        model[1].bias.fill_(1.0)
    trained(model, recipe, recipe.learning_rate / 2)
    kept = 1 - 0.0153 / (1 + 1 / 0.15) / 2 / 2
    assert torch.allclose(model[0].weight, before["0.weight"] * kept, rtol=1e-5)
    assert torch.allclose(model[1].bias, torch.full((4,), kept), rtol=1e-5)


@pytest.mark.parametrize("scaled", [False, True])
def test_biases_of_batch_norms_without_a_scale_get_their_factor_and_no_other_does(scaled: bool) -> None:
    model = network()
    model[1].weight.requires_grad_(scaled)
    recipe = replace(RECIPE, bias_lr_scale=64.0)
    optimizer = make_optimizer(model, recipe, CPU, groups)
    scale_rates(optimizer)
    factors = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: factors[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    assert named.pop("1.bias") == (1 if scaled else 64)
    assert named == {"0.weight": 1, "0.bias": 1, "5.weight": 3, "5.bias": 3} | ({"1.weight": 1} if scaled else {})
