"""Controls on networks whose use of the memory is known."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from srblock.block import SqueezeRemember2d
from srblock.inspection.controls import _others, controls
from srblock.training.classification import Classification

LABELS = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1, 1])


class Reader(nn.Module):
    """Sees two pixels, which say the label, and answers by what its block recalls alone.

    The block sends label 0 to memory 0 and label 1 to memory 1; channels 1 and 2 of the memories are the answer.
    """

    def __init__(self, used: bool = True) -> None:
        super().__init__()
        self.block = SqueezeRemember2d(3, (1, 2), blocks=2, hidden=2)
        with torch.no_grad():
            self.block.address.squeeze.copy_(torch.tensor([1.0, 0, 0]).view_as(self.block.address.squeeze))
            self.block.address.fc1.copy_(20 * torch.eye(2))
            self.block.address.fc2.copy_(torch.eye(2))
            self.block.memory.values.zero_()
            maps = self.block.memory.values.view(2, 3, 2)
            if used:
                maps[0, 1], maps[1, 2] = 1.0, 1.0
            else:
                maps[:, 2] = 1.0  # both say 1

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x).sum(3).squeeze(2)[:, 1:]


def images() -> Iterator[tuple[Tensor, Tensor]]:
    for labels in LABELS.split(4):
        maps = torch.zeros(len(labels), 3, 1, 2)
        maps[torch.arange(len(labels)), 0, 0, labels] = 1.0
        yield maps, labels


def under_control(model: nn.Module) -> dict[str, dict[str, float]]:
    weights = torch.cat([model.block.recall_weights(maps) for maps, _ in images()]).detach()
    return controls(model, {"block": weights}, images, Classification())


def test_a_network_that_lives_by_its_recall_loses_it_under_every_control() -> None:
    model = Reader()
    found = under_control(model)
    assert list(found) == ["intact", "removed", "mean", "uniform", "shuffled", "largest", "flat"]
    assert found["intact"] == {"top1": 100}
    # Without a block all logits are 0 and the first class is named: the six images of class 1 are lost.
    assert found["removed"] == {"top1": 40, "lost": 6, "gained": 0}
    assert found["mean"] == {"top1": 60, "lost": 4, "gained": 0}, "the mean says 1, as six images do"
    assert found["uniform"] == {"top1": 40, "lost": 6, "gained": 0}
    other = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert found["shuffled"]["top1"] == 100 * (LABELS[other] == LABELS).double().mean().item()
    assert 0 < found["shuffled"]["lost"] < 10
    assert found["largest"] == {"top1": 100, "lost": 0, "gained": 0}, "the larger weight is nearly 1 already"
    assert found["flat"] == {"top1": 100, "lost": 0, "gained": 0}, "the memories have one value at all positions"
    assert under_control(model) == found, "nothing is left behind"
    assert under_control(model)["intact"] == {"top1": 100}


def test_a_static_map_shows_as_one() -> None:
    found = under_control(Reader(used=False))
    assert found["intact"]["top1"] == 60
    for name in ("mean", "uniform", "shuffled"):
        assert found[name] == {"top1": 60, "lost": 0, "gained": 0}
    assert found["removed"] == {"top1": 40, "lost": 6, "gained": 4}


def test_a_network_without_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="no block to control"):
        controls(nn.Conv2d(3, 2, 1), {}, images, Classification())


@pytest.mark.parametrize("looks", [2, 3, 4, 5, 8, 10, 50, 233, 10_000])
def test_no_look_gets_its_own_weights(looks: int) -> None:
    other = _others(looks)
    assert (other != torch.arange(looks)).all()
    assert torch.equal(other.sort().values, torch.arange(looks))
    assert _others(1).tolist() == [0]
