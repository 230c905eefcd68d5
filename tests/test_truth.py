"""Networks trained on data built so that the answer is known: what looking inside must say of them."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srblock.block import SqueezeRemember2d
from srblock.inspection.analysis import Analysis
from srblock.inspection.analyze import analyze
from srblock.training.classification import Classification

CLASSES = ("top left", "top right", "bottom left", "bottom right")


class Gated(nn.Module):
    """A block between a gate and a classifier that cannot see it.

    Channel 0 has a bright quarter, which is the class; it is taken away behind the block. The other channels are noise.
    So only a recalled map can bring the class to the global average pooling and the linear layer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Identity()
        self.block = SqueezeRemember2d(5, 4, blocks=8, hidden=8)
        self.classifier = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.block(self.body(x))[:, 1:].mean((2, 3)))
        return logits


def scenes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    maps = 0.3 * torch.randn(count, 5, 4, 4, generator=generator)
    maps[:, 0] *= 0.3
    for number, label in enumerate(labels.tolist()):
        top, left = 2 * (label // 2), 2 * (label % 2)
        maps[number, 0, top : top + 2, left : left + 2] += 2.0
    return maps, labels


class Served:
    """A loader of 300 test images, in batches of 128."""

    mean, std = (0.0,) * 5, (1.0,) * 5

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        maps, labels = scenes(300, 1)
        yield from zip(maps.split(128), labels.split(128), strict=True)


def analyzed(model: nn.Module) -> Analysis:
    return analyze(model, Served(), Classification(), CLASSES, {0: "the first", 299: "the last"})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained() -> Gated:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Gated()
        nn.init.normal_(model.block.memory.values)  # from an empty memory this training confuses two classes
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(400):
            maps, labels = scenes(64, 1000 + step)
            loss = F.cross_entropy(model(maps), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def found(trained: Gated) -> Analysis:
    return analyzed(trained)


def test_a_network_that_lives_by_recall_is_seen_to(found: Analysis) -> None:
    (block,) = found.blocks
    assert found.figures["top1"] > 95
    assert block.information is not None
    assert block.information.bits > 1
    assert block.information.explained > 0.8
    assert block.information.bits_p < 0.01
    assert block.effective > 2 > block.effective_per_image
    under = {one.name: one for one in found.controls}
    for name in ("removed", "mean", "uniform", "shuffled"):
        assert under[name].figures["top1"] < 45, name
        assert under[name].lost > 150
    assert under["shuffled"].figures["top1"] > 10
    assert under["flat"].figures["top1"] == found.figures["top1"], "average pooling sees no positions"


def test_each_memory_argues_for_the_class_that_recalls_it(found: Analysis, trained: Gated) -> None:
    """v_p = W mean_hw(M_p), and its largest entry is the class with the largest weight on p."""
    (block,) = found.blocks
    told = block.attribution
    assert told is not None
    assert told.exact
    assert told.by_block is not None
    maps = trained.block.memory.maps().detach()[:, 1:].mean((2, 3))
    torch.testing.assert_close(
        torch.tensor(told.by_block), maps @ trained.classifier.weight.detach().T, atol=1e-4, rtol=0
    )
    recalled = block.class_mean.argmax(1)
    for label, number in enumerate(recalled.tolist()):
        assert block.class_mean[label, number] > 0.5
        best = block.exemplars[number]
        assert set(best.labels or ()) <= set((recalled == number).nonzero()[0].tolist())
        assert best.enriched[0][3] < 1e-6
        assert told.by_block[number].argmax() == label
    added = told.by_class
    assert (added.argmax(1) == range(4)).all(), "what the block adds favors the image's own class"


def test_weights_that_never_change_tell_nothing() -> None:
    torch.manual_seed(1)
    model = Gated().eval()
    with torch.no_grad():
        model.block.address.fc2.zero_()
        model.block.memory.values.normal_()
    found = analyzed(model)
    (block,) = found.blocks
    assert block.information is not None
    assert block.information.bits == pytest.approx(0, abs=1e-12)
    assert (block.information.bits_p, block.information.explained_p) == (1, 1)
    assert block.effective == block.effective_per_image == pytest.approx(8)
    for one in found.controls:
        if one.name in ("mean", "uniform", "shuffled"):
            assert (one.lost, one.gained) == (0, 0), one.name


def test_what_a_fresh_block_shows() -> None:
    """It is the identity: nothing changes, nothing is added, and the memory has no direction."""
    torch.manual_seed(2)
    found = analyzed(Gated().eval())
    (block,) = found.blocks
    assert (block.change, block.spread) == (0, None)
    assert block.attribution is not None
    assert block.attribution.error == 0
    assert all((one.lost, one.gained) == (0, 0) for one in found.controls)
    assert [closeup.number for closeup in block.closeups] == [0, 299]
    assert block.closeups[1].title == "the last"
    maps, _ = scenes(300, 1)
    torch.testing.assert_close(torch.tensor(block.closeups[1].before), maps[299].mean(0))
