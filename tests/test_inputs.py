"""Insertion into models of more than one input, and into detectors, which resize what they are given."""

from __future__ import annotations

import collections
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import srblock


def images(size: tuple[int, ...] = (2, 3, 16, 24), seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


class Conditioned(nn.Module):
    """Two pictures and a label or a vector: what the second picture and the vector do is up to `second`."""

    def __init__(self, second: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, 6, 3, 2, 1), second or nn.Conv2d(1, 6, 3, 2, 1)
        self.style, self.mix = nn.Embedding(7, 6), nn.Conv2d(6, 8, 3, 2, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, picture: Tensor, extra: dict[str, Any], *, style: Tensor | None = None) -> Tensor:
        x = self.stem(picture) + self.side(extra["depth"])
        if style is not None:
            x = x + self.style(style)[:, :, None, None]
        return self.head(self.mix(x).mean((2, 3)))


def arguments(depth: tuple[int, ...] = (2, 1, 16, 24)) -> dict[str, Any]:
    return {"picture": images(), "extra": {"depth": images(depth, 1), "note": "as is"}, "style": torch.tensor([3, 6])}


def refused(match: str, error: type[Exception] = ValueError, model: nn.Module | None = None, **options: Any) -> str:
    """Expect a refusal by `insert` and by `stages`, and a model as before."""
    model = model or Conditioned()
    with pytest.raises(error, match=match) as caught:
        srblock.insert(model, after="mix", **options)
    assert not srblock.blocks(model)
    with pytest.raises(error, match=match):
        srblock.stages(model, **options)
    return str(caught.value)


@pytest.mark.parametrize("hollow", [False, True])
def test_keyword_arguments_nests_and_integers(hollow: bool) -> None:
    model, given = Conditioned().eval(), arguments()
    before, depth = model(**given), given["extra"]["depth"].clone()
    done = srblock.insert(model, after="mix", example_inputs=given, hollow=hollow, blocks=3)
    assert (done.channels, done.size) == (8, (4, 6))
    assert done.block.memory.values.device.type == "cpu"
    assert torch.equal(model(**given), before)
    assert torch.equal(given["extra"]["depth"], depth)
    assert given["picture"].requires_grad is False
    assert [stage.name for stage in srblock.stages(Conditioned(), example_inputs=given)] == ["stem", "side", "mix"]


def test_positional_arguments() -> None:
    given = arguments()
    assert srblock.insert(Conditioned(), after="side", example_inputs=(given["picture"], given["extra"])).channels == 6
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
    assert srblock.insert(model, after="0", example_inputs=(images(),)).size == (8, 12)


def test_what_a_model_does_to_its_inputs_stays_in_the_copy() -> None:
    class Careless(Conditioned):
        def forward(self, picture: Tensor, extra: dict[str, Any], *, style: Tensor | None = None) -> Tensor:
            extra["depth"] = F.relu_(extra["depth"])
            assert style is not None
            return super().forward(picture.mul_(2), extra, style=style.remainder_(5))

    given = arguments()
    given["extra"] = collections.OrderedDict(given["extra"])
    srblock.insert(Careless(), after="mix", example_inputs=given)
    for key, value in arguments().items():
        if key != "extra":
            assert torch.equal(given[key], value)
    assert torch.equal(given["extra"]["depth"], arguments()["extra"]["depth"])


def test_every_image_is_stretched_so_that_layouts_can_be_told() -> None:
    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 6, 3, 2, 1), nn.LayerNorm(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    square = {"picture": images((2, 3, 12, 12)), "extra": {"depth": images((2, 1, 12, 12))}}
    model = Conditioned(Norm())  # 6 channels, 6 rows, 6 columns: only growth can tell
    with pytest.raises(ValueError, match=r"returns its map as \(N, H, W, C\)"):
        srblock.insert(model, after="side.norm", example_inputs=square)
    # "mix" runs after both pictures were added, so only if both have grown.
    assert {"side.conv", "stem", "mix"} <= {stage.name for stage in srblock.stages(model, example_inputs=square)}
    srblock.insert(model, after="mix", example_inputs=square)


def test_where_the_second_input_is_of_one_size_proportions_judge() -> None:
    class OneSize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-2:] != (8, 16):
                raise ValueError("8x16 only")
            return self.conv(x)

    given = arguments(depth=(2, 1, 8, 16)) | {"picture": images((2, 3, 16, 32))}
    model = Conditioned(OneSize())
    # The first layer has been seen to grow, the last has not been reached.
    assert [stage.name for stage in srblock.stages(model, example_inputs=given)] == ["stem", "side.conv", "side", "mix"]
    assert srblock.insert(model, after="mix", example_inputs=given).size == (4, 8)


def test_a_vector_is_not_stretched() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.project = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(10, 4)

        def forward(self, tokens: Tensor, pixels: Tensor) -> Tensor:
            assert tokens.shape == (2, 5, 10)
            return self.conv(pixels) * self.project(tokens).mean(1)[:, :, None, None]

    square = (images((2, 5, 10)), images((2, 3, 8, 8)))  # 4x4x4 maps
    assert srblock.insert(Tokens(), after="conv", example_inputs=square).size == (4, 4)


def test_maps_that_no_image_belongs_to_are_refused() -> None:
    class Prompted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prompt, self.place, self.conv = nn.Parameter(images((1, 3, 4, 4))), nn.Identity(), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.conv(x + scale * self.place(F.interpolate(self.prompt, x.shape[-2:])))

    with pytest.raises(ValueError, match=r"returns shape \(1, 3, 16, 24\) for 2 images, not one map an image"):
        srblock.insert(Prompted(), after="place", example_inputs=(images(), torch.tensor(0.5)))


def test_refuses_other_inputs() -> None:
    given = arguments()
    refused(
        "give the size of images as input_size.*or images, and what else the model takes, as example_inputs", TypeError
    )
    refused("give input_size.*or example_inputs.*not both", TypeError, input_size=16, example_inputs=given)
    refused("got Tensor; a single one is written", TypeError, example_inputs=given["picture"])
    refused("got dict", TypeError, example_inputs={0: given["picture"]})
    refused(r"hold no images.*but \(2,\), \(3, 8, 8\)", example_inputs=(torch.zeros(2), [torch.zeros(3, 8, 8)]))
    refused("hold no images.*but no tensor", example_inputs=(None, 3))
    refused(r"hold no images", example_inputs=(torch.zeros(2, 3, 8, 8, dtype=torch.uint8),))
    refused("have a batch of 1; give 2 or more", example_inputs=(images((1, 3, 8, 8)),))
    refused(r"\(2, 3, 16, 24\), \(4, 1, 16, 24\), must be equally many", example_inputs=arguments((4, 1, 16, 24)))
    given["style"] = torch.tensor([3, 99])
    message = refused("IndexError", example_inputs=given)
    assert "example_inputs of shapes (2, 3, 16, 24), (2, 1, 16, 24), (2,)" in message
    assert "check that model(**example_inputs) works" in message
    refused("model of more than one input needs example_inputs", input_size=16)


# --- detectors


def detector(**options: Any) -> nn.Module:
    detection = pytest.importorskip("torchvision.models.detection")
    torch.manual_seed(0)
    built = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=5, box_score_thresh=0.0, **options
    )
    assert isinstance(built, nn.Module)
    return built.eval()


def test_detectors_are_refused_with_the_part_to_insert_into() -> None:
    model = detector()
    call = r"srblock\.insert\(model\.backbone, after=\.\.\., input_size=\(H, W\), resize='bilinear'\)"
    for options in ({"input_size": 320}, {"example_inputs": ([images((3, 320, 320))],)}):
        refused(f"FasterRCNN resizes its images.*{call}", model=model, **options)
    refused(r"insert into model\.net\.backbone", model=nn.ModuleDict({"net": model}), input_size=320)
    refused(r"insert\(model\.get_submodule\('0\.backbone'\)", model=nn.Sequential(model), input_size=320)
    refused("the part that gets the resized images", model=nn.Sequential(model.transform), input_size=320)


def test_a_block_in_the_backbone_of_a_detector() -> None:
    model = detector()
    pictures = [images((3, 200, 300)).sigmoid(), images((3, 260, 180)).sigmoid()]
    with torch.inference_mode():
        before = model(pictures)
    done = srblock.insert(model.backbone, after=6, input_size=320, resize="bilinear")
    assert (done.name, done.size) == ("body.15", (10, 10))
    assert list(srblock.blocks(model)) == ["backbone.body.15"]
    with torch.inference_mode():
        for new, old in zip(model(pictures), before, strict=True):
            assert len(old["boxes"]) > 0
            assert all(torch.equal(new[key], old[key]) for key in old)
        done.block.memory.values.normal_()
        assert not torch.equal(model(pictures)[0]["boxes"], before[0]["boxes"])
    targets = [
        {"boxes": torch.tensor([[10.0, 20, 100, 120]]), "labels": torch.tensor([label])}  # in training it detects too
        for label in (1, 2)
    ]
    sum(model.train()(pictures, targets).values()).backward()
    assert done.block.memory.values.grad.abs().sum() > 0
    assert srblock.remove(model) == ["backbone.body.15"]


def test_a_detector_of_one_size_needs_no_resizing_block() -> None:
    model = detector(fixed_size=(320, 256))  # (width, height)
    done = srblock.insert(model.backbone, after=6, input_size=(256, 320))
    assert done.size == (8, 10)
    with torch.inference_mode():
        assert len(model([images((3, 200, 300)).sigmoid(), images((3, 260, 180)).sigmoid()])) == 2
