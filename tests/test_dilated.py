"""Dilated backbones: parity with torchvision, the reach of every convolution, the size of every map, the stems."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import Tensor, nn

from srblock.models.dilated import D8, D16, Dilation, backbone, stem_of, widths


def sequence(name: str, dilation: Dilation, **options: str) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(OrderedDict(backbone(name, dilation, **options)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("dilation", "replaced"), [(D8, [False, True, True]), (D16, [False, False, True])])
def test_computes_what_torchvisions_dilated_resnet_computes(dilation: Dilation, replaced: list[bool]) -> None:
    """The first block of a dilated stage has half of the dilation there too."""
    ours = sequence("R50", dilation, stem="7x7")
    with torch.device("meta"):
        reference = torchvision.models.resnet50(replace_stride_with_dilation=replaced)
    reference.fc = nn.Identity()
    state = {key: value.clone() for key, value in ours.state_dict().items()}
    assert {key: value.shape for key, value in reference.state_dict().items()} == {k: v.shape for k, v in state.items()}
    reference.load_state_dict(state, assign=True)
    maps: list[Tensor] = []
    reference.layer4.register_forward_hook(lambda _, __, map: maps.append(map))
    x = torch.randn(2, 3, 72, 104)  # maps of 9x13 and 5x7: none comes out whole
    for training in (True, False):
        reference.train(training)(x)
        torch.testing.assert_close(ours.train(training)(x), maps.pop(), rtol=0, atol=0)


def test_an_undilated_backbone_is_torchvisions_resnet18() -> None:
    """Of basic blocks torchvision has no dilated ones."""
    ours = sequence("R18", Dilation((1, 2, 2, 2), (1, 1, 1, 1)), stem="7x7").eval()
    reference = torchvision.models.resnet18().eval()
    found = reference.load_state_dict(ours.state_dict(), strict=False)
    assert found.missing_keys == ["fc.weight", "fc.bias"]
    maps: list[Tensor] = []
    reference.layer4.register_forward_hook(lambda _, __, map: maps.append(map))
    x = torch.randn(2, 3, 64, 96)
    reference(x)
    assert torch.equal(ours(x), maps[0])


@pytest.mark.parametrize(
    ("name", "dilation", "expected"),
    [
        ("R50", D8, {1: [1] * 3, 2: [1] * 4, 3: [1, 2, 2, 2, 2, 2], 4: [2, 4, 4]}),
        ("R50", D16, {1: [1] * 3, 2: [1] * 4, 3: [1] * 6, 4: [1, 2, 2]}),
        # Two convolutions a block, of which the first is dilated.
        ("R18", D8, {1: [1] * 4, 2: [1] * 4, 3: [1, 1, 2, 1], 4: [2, 1, 4, 1]}),
    ],
)
def test_how_far_every_3x3_convolution_reaches(name: str, dilation: Dilation, expected: dict[int, list[int]]) -> None:
    with torch.device("meta"):
        model = sequence(name, dilation)
    for stage, reaches in expected.items():
        convs = [m for m in model.get_submodule(f"layer{stage}").modules() if isinstance(m, nn.Conv2d)]
        wide = [conv for conv in convs if conv.kernel_size == (3, 3)]
        assert [conv.dilation for conv in wide] == [(reach, reach) for reach in reaches]
        assert [conv.padding for conv in wide] == [(reach, reach) for reach in reaches]
        strides = [conv.stride[0] for conv in wide]
        assert strides == [dilation.strides[stage - 1], *[1] * (len(wide) - 1)]
        assert {conv.stride[0] for conv in convs if conv.kernel_size == (1, 1)} <= {1, dilation.strides[stage - 1]}


@pytest.mark.parametrize("stem", ["v1c", "7x7"])
@pytest.mark.parametrize(
    ("name", "dilation", "sizes"),
    [
        ("R50", D8, [(128, 256), (64, 128), (64, 128), (64, 128)]),
        ("R50", D16, [(128, 256), (64, 128), (32, 64), (32, 64)]),
        ("R18", D8, [(128, 256), (64, 128), (64, 128), (64, 128)]),
    ],
)
def test_maps_of_a_cityscapes_crop(name: str, dilation: Dilation, sizes: list[tuple[int, int]], stem: str) -> None:
    with torch.device("meta"):
        model = sequence(name, dilation, stem=stem)
        shapes: list[tuple[int, ...]] = []
        for stage in range(1, 5):
            model.get_submodule(f"layer{stage}").register_forward_hook(
                lambda _, __, map: shapes.append(tuple(map.shape))
            )
        model(torch.empty(2, 3, 512, 1024))
    assert shapes == [(2, channels, *size) for channels, size in zip(widths(name), sizes, strict=True)]


def test_the_v1c_stem_is_three_3x3_convolutions() -> None:
    with torch.device("meta"):
        stem = sequence("R50", D8).get_submodule("stem")
    assert [type(layer) for layer in stem] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 3
    convs = [layer for layer in stem if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride, c.kernel_size, c.padding) for c in convs] == [
        (3, 32, (2, 2), (3, 3), (1, 1)),
        (32, 32, (1, 1), (3, 3), (1, 1)),
        (32, 64, (1, 1), (3, 3), (1, 1)),
    ]


def test_a_state_dict_tells_its_stem() -> None:
    with torch.device("meta"):
        for stem in ("v1c", "7x7"):
            assert stem_of(sequence("R18", D8, stem=stem).state_dict()) == stem
        assert stem_of(torchvision.models.resnet18().state_dict()) == "7x7"


def test_refuses_another_stem() -> None:
    with pytest.raises(ValueError, match="stem must be one of v1c, 7x7, got 'v1d'"):
        backbone("R18", D8, stem="v1d")
