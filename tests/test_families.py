"""Surgery on every torchvision classification CNN and on one timm architecture of each family.

The networks have cheap made-up weights: it is their structure that is put to the test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

import srblock.surgery as surgery

torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")

DOCS = Path(__file__).parent.parent / "docs" / "surgery.md"
RANDOM = ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_")
NOISE = torch.randn(65521, generator=torch.Generator().manual_seed(0))

# Not convolutional networks: their stages hand on no (N, C, H, W) maps. See REFUSED for one of each.
TRANSFORMERS = ("vit_", "swin_")
TORCHVISION = [
    name for name in torchvision.models.list_models(module=torchvision.models) if not name.startswith(TRANSFORMERS)
]
TORCHVISION_SIDES = {"maxvit_t": 224, "inception_v3": 75, "alexnet": 64}

# One small network per family, the stage or module after which the block goes, and the side of the images.
TIMM: dict[str, tuple[int | str, int]] = {
    # residual networks and their kin
    "test_resnet": (3, 32),
    "resnetv2_18": (3, 32),
    "legacy_seresnet18": (3, 32),
    "resnest14d": (3, 32),
    "res2net50_14w_8s": (3, 32),
    "skresnet18": (3, 32),
    "nf_resnet26": (3, 32),
    "test_nfnet": (3, 32),
    "tresnet_m": (3, 32),
    "regnetx_002": (3, 32),
    "nf_regnet_b0": (3, 32),
    # re-parameterized, searched and hand-written convolutional networks
    "repvgg_a0": (3, 32),
    "gernet_s": (3, 32),
    "rdnet_tiny": (3, 32),
    "dla46_c": (4, 32),
    "dpn48b": (3, 32),
    "ese_vovnet19b_slim_dw": (3, 32),
    "cs3darknet_focus_s": (3, 32),
    "cspnext_tiny": (3, 32),
    "hgnetv2_b0": (3, 32),
    "hrnet_w18_small": ("layer1", 32),
    "selecsls42": ("head.1", 32),
    "inception_v4": (3, 75),
    "nasnetalarge": (2, 32),
    # for small devices
    "mobilenetv2_035": (3, 32),
    "mixnet_s": (3, 32),
    "tinynet_e": (3, 32),
    "mobilenetv3_small_050": (3, 32),
    "mobilenetv4_conv_small_035": (3, 32),
    "fbnetv3_b": (3, 32),
    "lcnet_035": (3, 32),
    "lcnetv2_small": (3, 32),
    "hardcorenas_a": (3, 32),
    "ghostnet_050": (3, 32),
    "ghostnetv2_100": (3, 64),
    "repghostnet_050": (3, 32),
    "rexnet_100": (3, 32),
    "fasternet_t0": (3, 32),
    "starnet_s050": (3, 32),
    "repvit_m0_9": (3, 32),
    # modern convolutional networks
    "test_convnext": (3, 32),
    "inception_next_atto": (3, 32),
    "convmixer_768_32": (1, 28),
    "convformer_s18": (3, 32),
    "poolformer_s12": (3, 32),
    "focalnet_tiny_srf": (3, 32),
    # convolutions with attention
    "eca_botnext26ts_256": (3, 256),
    "caformer_s18": (3, 32),
    "test_coatnet": (3, 160),
    "mobilevit_xxs": (3, 64),
    "mobilevitv2_050": (3, 64),
    "edgenext_xx_small": (3, 64),
    "efficientformer_l1": (3, 224),
    "efficientformerv2_s0": (3, 224),
    "efficientvit_b0": (3, 32),
    "efficientvit_m0": (2, 224),
    "fastvit_t8": (3, 32),
    "iformer_t": (3, 32),
    "pvt_v2_b0": (3, 32),
    "shvit_s1": (2, 64),
    "swiftformer_xs": (3, 64),
    "tiny_vit_5m_224": (3, 224),
    "visformer_tiny": (2, 224),
    "vit_tiny_r_s16_p8_224": ("patch_embed.backbone", 224),
}

# What the lowest timm of pyproject.toml lacks, with the version that brought it: before its own, dpn48b is there, but
# its stages hand on pairs of maps.
NEWER = {
    "lcnetv2_small": (1, 0, 29),
    "iformer_t": (1, 0, 30),
    "cspnext_tiny": (1, 0, 31),
    "dpn48b": (1, 0, 31),
    "test_coatnet": (1, 0, 31),
}
TIMM_VERSION = tuple(int(part) for part in timm.__version__.split(".")[:3])


# What is refused, one example of each kind: network, place, side of the images, how the error says why, and the
# nearest usable point that it names.
REFUSED: dict[str, tuple[str, int, str, str]] = {
    "torchvision/densenet121": (
        "features.denseblock3",
        32,
        r"with the block in it a forward pass fails",
        "features.transition3.norm",
    ),
    "torchvision/swin_t": ("features.1", 64, r"returns its map as \(N, H, W, C\)", "features.0.0"),
    "timm/swin_tiny_patch4_window7_224": ("layers.0", 224, r"returns its map as \(N, H, W, C\)", "patch_embed.proj"),
    "timm/test_mambaout": ("stages.0", 32, r"returns its map as \(N, H, W, C\)", "stages.1.downsample.conv"),
    "torchvision/convnext_tiny": (
        "features.1.0.block.2",
        32,
        r"returns its map as \(N, H, W, C\)",
        "features.1.0.block.0",
    ),
    "timm/test_vit": ("blocks.0", 160, r"returns a 3-D tensor", "patch_embed.proj"),
    "timm/hrnet_w18_small": ("stage2", 32, r"returns a list, not one \(N, C, H, W\) map", "transition2.2.0.0"),
    "timm/selecsls42": ("features.0", 32, r"returns a list, not one \(N, C, H, W\) map", "features.1.conv1.0"),
    "torchvision/googlenet": ("aux1", 32, r"is not called in a forward pass", "inception5b"),
    "torchvision/resnet18": ("layer1.0.relu", 32, r"is called 2 times in one forward pass", "layer1.0"),
}


@contextmanager
def cheap_init() -> Iterator[None]:
    """Skip what draws initial weights; constants (batch norm, layer scale) are set as ever."""

    def cheap(tensor: Tensor, *args: object, **kwargs: object) -> Tensor:
        # Larger ones are left as they are: fill() writes to each.
        return tensor.data.fill_(0.1) if tensor.dim() < 2 else tensor

    patches = [mock.patch.object(nn.init, name, cheap) for name in RANDOM]
    try:
        for patch in patches:
            patch.start()
        yield
    finally:
        for patch in patches:
            patch.stop()


def fill(model: nn.Module) -> nn.Module:
    """Give every weight of two or more dimensions values that keep the signal's size.

    Weights of one shape share their memory: the largest networks here have 2.6 GB of them.
    """
    made: dict[torch.Size, Tensor] = {}
    for value in model.parameters():
        if value.dim() > 1:
            if value.shape not in made:
                repeats = -(-value.numel() // len(NOISE))
                scale = (2 / value[0].numel()) ** 0.5
                made[value.shape] = (NOISE * scale).repeat(repeats)[: value.numel()].view(value.shape)
            value.data = made[value.shape]
    return model.eval()


def from_torchvision(name: str) -> nn.Module:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with cheap_init():
        return fill(torchvision.models.get_model(name, weights=None, **options))


def from_timm(name: str) -> nn.Module:
    with cheap_init():
        return fill(timm.create_model(name, num_classes=10))


def identities(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Where each tensor of the state lies, and how often it was written to."""
    return {key: (value.data_ptr(), value._version) for key, value in model.state_dict(keep_vars=True).items()}


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def check(model: nn.Module, after: int | str, side: int) -> None:
    """Identity of the logits, old keys and weights, gradient reaching the memory, removal."""
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    before, hooked = identities(model), hooks(model)
    logits = model(images).detach()
    assert logits.isfinite().all()
    assert not torch.equal(logits[0], logits[1])

    done = surgery.insert(model, after=after, input_size=side, blocks=2, hidden=3)
    after_insertion = identities(model)
    assert [key for key in after_insertion if not key.startswith(f"{done.name}.sr.")] == list(before)
    assert {key: after_insertion[key] for key in before} == before
    assert len(after_insertion) == len(before) + 4

    new_logits = model(images)
    assert torch.equal(new_logits, logits)
    (gradient,) = torch.autograd.grad(new_logits.square().sum(), done.block.memory.values)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0

    assert surgery.remove(model) == [done.name]
    assert list(identities(model).items()) == list(before.items())
    assert hooks(model) == hooked


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    side = TORCHVISION_SIDES.get(name, 32)
    model = from_torchvision(name)
    check(model, 3, side)


@pytest.mark.parametrize("name", ["torchvision/densenet121", "timm/densenet121"])
def test_densenets_stages_end_after_their_dense_blocks(name: str) -> None:
    library, network = name.split("/")
    model = (from_torchvision if library == "torchvision" else from_timm)(network)
    numbered = [(stage.number, stage.name, stage.channels) for stage in surgery.stages(model, 64) if stage.number]
    assert numbered == [
        (1, "features.transition1.norm", 256),
        (2, "features.transition2.norm", 512),
        (3, "features.transition3.norm", 1024),
        (4, "features.norm5", 1024),
    ]


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    if (first := NEWER.get(name, TIMM_VERSION)) > TIMM_VERSION:
        pytest.skip(f"needs timm {'.'.join(map(str, first))}")
    after, side = TIMM[name]
    check(from_timm(name), after, side)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    place, side, reason, nearest = REFUSED[name]
    library, network = name.split("/")
    model = (from_torchvision if library == "torchvision" else from_timm)(network)
    before, hooked = identities(model), hooks(model)
    with pytest.raises(ValueError, match=rf"cannot insert a block after '{re.escape(place)}'.*{reason}") as caught:
        surgery.insert(model, after=place, input_size=side)
    assert list(identities(model).items()) == list(before.items())
    assert hooks(model) == hooked
    suggested = re.search(r"the nearest usable point is '([^']+)'", str(caught.value))
    assert suggested is not None
    assert suggested[1] == nearest


def test_docs_list_what_is_tested_and_what_is_refused() -> None:
    text = DOCS.read_text()
    tested = re.search(r"## Tested networks\n(.*?)\n## ", text, re.DOTALL)
    assert tested is not None
    assert set(re.findall(r"`([^`]+)`", tested[1])) == {*TORCHVISION, *TIMM}
    refused = re.search(r"## What is refused\n(.*?)\n## ", text, re.DOTALL)
    assert refused is not None
    rows = re.findall(r"^\| `(.*?)` \| `(.*?)` \| .* \| `(.*?)` \|$", refused[1], re.MULTILINE)
    assert rows == [(name, place, nearest) for name, (place, _, _, nearest) in REFUSED.items()]
    assert len(TIMM) >= 60
