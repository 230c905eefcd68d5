"""Networks saved for others: in a folder and through a Hub on this machine, with their blocks, weights and figures."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hub_fixture import TOKEN, Hub
from run_fixture import write_run
from safetensors.torch import load_file
from test_cli import invoke
from torch import Tensor, nn

import srblock
from srblock.cli import app
from srblock.data.sources.published import stand_in
from srblock.runs.again import again
from srblock.runs.card import run_card
from srblock.runs.records import RunConfig, read_result
from srblock.runs.study import recipe_for
from srblock.runs.trained import TrainedRun
from srblock.training.recipe import Recipe
from srblock.variants.notation import parse
from srblock.variants.weights import read_weights

PLAIN, BLOCK = "R8", "R8 + SR(M=3, P=4)"
CPU = torch.device("cpu")
# Of huggingface_hub about how it calls its own HTTP library, without hf_xet; by default Python shows it to nobody.
UPLOADS = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
DIGITS = ("--data", "digits", "--image-size", "16", "--epochs", "1")


class Own(nn.Module):
    """A network of one's own: a Sequential, a layer that needs a hook, and one weight under two names."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.deep = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(self.deep(self.body(x)).mean((2, 3))).relu())
        return y


def own(seed: int, *, blocks: bool = True, width: int = 6) -> Own:
    """Build one, with blocks that recall something."""
    torch.manual_seed(seed)
    model = Own(width)
    if blocks:
        for after in ("body", "deep"):
            srblock.insert(model, after=after, input_size=(8, 10), blocks=3, hidden=2)
        for block in srblock.blocks(model).values():
            nn.init.normal_(block.memory.values)
    model(torch.randn(4, 3, 8, 10))  # so that the batch norm has seen something
    return model.eval()


X = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    for seed in (0, 1):
        for variant in (PLAIN, BLOCK):
            done = invoke("train", variant, "--seed", seed, *DIGITS, "--out", folder)
            assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def run(out: Path) -> TrainedRun:
    return srblock.load_run(out, variant=BLOCK, seed=0, device="cpu")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub of its own for each test, with an empty cache, and nobody's token."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_comes_back(run: TrainedRun, out: Path, tmp_path: Path) -> None:
    folder = srblock.save_pretrained(run, tmp_path / "new" / "saved")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    images = torch.randint(256, (3, 1, 20, 17), dtype=torch.uint8)
    for loaded in (
        srblock.from_pretrained(folder, device="cpu"),
        srblock.load_run(folder / "model.safetensors", device="cpu"),
    ):
        assert loaded.input == run.input
        assert loaded.predict(images) == run.predict(images)
    for file in ("README.md", "config.json"):
        assert str(out) not in (folder / file).read_text(), "places of this machine are nobody's business"
    said = json.loads((folder / "config.json").read_text())["run"]
    assert (said["variant"], said["seed"], said["data"]["name"]) == (BLOCK, 0, "digits")


def test_a_run_fits_a_model_of_the_same_network(run: TrainedRun, tmp_path: Path) -> None:
    """The surgery of a run's network can be done on it as well."""
    folder = srblock.save_pretrained(run, tmp_path / "saved")
    model = srblock.load_run(run.path, device="cpu").model
    srblock.remove(model)
    for value in model.parameters():
        nn.init.zeros_(value)
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(srblock.from_pretrained(folder, model=model)(x), run.model(x))


# --- a model of one's own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("input_size", [None, (8, 10)])
@pytest.mark.parametrize("there", [False, True], ids=["without blocks", "with them"])
def test_a_model_comes_back(tmp_path: Path, input_size: tuple[int, int] | None, there: bool) -> None:
    model = own(0)
    folder = srblock.save_pretrained(model, tmp_path, input_size=input_size)
    other = own(1, blocks=there)
    found = srblock.from_pretrained(folder, model=other)
    assert found is other
    assert not torch.equal(own(1)(X), model(X))
    assert torch.equal(found(X), model(X))
    assert list(found.state_dict()) == list(model.state_dict())
    assert found.first.weight is found.second.weight
    assert "second.weight" not in load_file(folder / "model.safetensors") or "first.weight" not in load_file(
        folder / "model.safetensors"
    )
    assert srblock.remove(found) == ["body", "deep"]
    assert torch.equal(found(X), bypassed(model)), "and goes as one that was inserted"


def test_a_convolution_with_two_names_comes_back_in_any_layout(tmp_path: Path) -> None:
    model = own(0)
    model.again = model.deep
    model.to(memory_format=torch.channels_last)
    folder = srblock.save_pretrained(model, tmp_path)
    assert "again.weight" not in load_file(folder / "model.safetensors")
    other = own(1)
    other.again = other.deep
    torch.testing.assert_close(srblock.from_pretrained(folder, model=other)(X), model(X))
    assert torch.equal(read_weights(folder / "model.safetensors")["again.weight"], model.deep.weight)


def bypassed(model: nn.Module) -> Tensor:
    with srblock.bypassed(model):
        said: Tensor = model(X)
    return said


def test_options_and_layout_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"blocks": 3, "hidden": 2, "activation": "relu", "init": "channels", "resize": "bilinear"}
    model = own(0, blocks=False).to(memory_format=torch.channels_last).double()
    srblock.insert(model, after="deep", input_size=(8, 10), **options)
    nn.init.normal_(srblock.blocks(model)["deep"].memory.values)
    folder = srblock.save_pretrained(model, tmp_path)
    other = own(1, blocks=False).to(memory_format=torch.channels_last).double().train()
    block = srblock.blocks(srblock.from_pretrained(folder, model=other))["deep"]
    assert repr(block) == repr(srblock.blocks(model)["deep"])
    assert block.training
    assert block.memory.values.dtype == torch.float64
    assert block.memory.values.is_contiguous(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 11, 13).double()
    torch.testing.assert_close(other.eval()(x), model(x), rtol=0, atol=1e-12)


def renamed(model: Own) -> nn.Module:
    model.depth = model.deep
    del model.deep
    return model


def occupied(model: Own) -> nn.Module:
    model.deep.sr = nn.Identity()
    return model


def with_another_block(model: Own) -> nn.Module:
    srblock.insert(model, after="deep", input_size=(8, 10), blocks=4, hidden=2)
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, "the block stood after 'deep', and Own has no such module; the nearest names are 'depth'; build"),
        (occupied, "'deep' has an attribute 'sr' of its own"),
        (
            with_another_block,
            r"'deep' has a block already, .*blocks=4.*, and the saved one is for 6x4x5 with .*'blocks': 3",
        ),
        (lambda model: nn.Sequential(model).train(), "stood after 'body', and Sequential has no such module"),
        (
            lambda model: own(1, blocks=False, width=7),
            "'body' belongs to maps of 6x8x10, and this model's are 7x8x10 for",
        ),
        (torch.compile, "is compiled"),
    ],
)
def test_a_model_that_does_not_fit_stays_as_it_was(tmp_path: Path, change: Any, message: str) -> None:
    folder = srblock.save_pretrained(own(0), tmp_path, input_size=(8, 10))
    model = change(own(1, blocks=False))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        srblock.from_pretrained(folder, model=model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_weights_that_do_not_fit_take_the_blocks_out_again(tmp_path: Path) -> None:
    """Without an input_size nobody compares maps, and the weights of other layers tell."""
    folder = srblock.save_pretrained(own(0), tmp_path)
    model = own(1, blocks=False, width=7)
    before = model(X)
    with pytest.raises(
        ValueError, match=r"(?s)does not fit the model, and nothing was loaded.*mismatched body\.0\.weight"
    ):
        srblock.from_pretrained(folder, model=model)
    assert srblock.blocks(model) == {}
    assert torch.equal(model(X), before)


def test_who_may_read_any_file_may_read_the_weights(tmp_path: Path) -> None:
    folder = srblock.save_pretrained(own(0), tmp_path / "saved")
    (tmp_path / "any").touch()
    assert {path.stat().st_mode for path in folder.iterdir()} == {(tmp_path / "any").stat().st_mode}


def test_what_cannot_be_saved_is_refused(run: TrainedRun, tmp_path: Path) -> None:
    class Extra(Own):
        def get_extra_state(self) -> str:
            return "more"

        def set_extra_state(self, state: str) -> None: ...

    for network, options, message in (
        (run, {"input_size": 16}, r"a run has its own input_size, \(16, 16\)"),
        (run, {"license": "free\ntags: x"}, "license is an identifier such as apache-2.0"),
        (torch.compile(own(0)), {}, "is compiled"),
        (Extra(), {}, "the state_dict has '_extra_state', which is no tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            srblock.save_pretrained(network, tmp_path / "saved", **options)
        assert not (tmp_path / "saved").exists()


def test_what_was_not_saved_for_this_is_refused(run: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json of srblock\.save_pretrained; a run's own folder"):
        srblock.from_pretrained(run.path.parent)
    srblock.save_pretrained(own(0), tmp_path)
    with pytest.raises(ValueError, match="has the weights of a model, not its code: build it as it was and pass it"):
        srblock.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a folder, which has no revision 'main'"):
        srblock.from_pretrained(tmp_path, revision="main")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"format": 2, "srblock": "9.9"}))
    with pytest.raises(ValueError, match=r"was saved by srblock 9\.9"):
        srblock.from_pretrained(tmp_path, model=own(1))


# --- the card --------------------------------------------------------------------------------------------------------


def front(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_the_card_has_the_figures_of_all_seeds(run: TrainedRun, out: Path, tmp_path: Path) -> None:
    """Of runs that can be compared: one with another recipe in the same folder is not among them."""
    other = invoke("train", BLOCK, *DIGITS, "--batch-size", 32, "--seed", 7, "--out", out)
    assert other.exit_code == 0, other.output
    card = (srblock.save_pretrained(run, tmp_path / "x", license="mit", repo_id="me/net") / "README.md").read_text()
    assert front(card) == {
        "library_name": "srblock",
        "license": "mit",
        "pipeline_tag": "image-classification",
        "tags": ["squeeze-and-remember", "pytorch", "convolutional-network"],
    }
    assert 'srblock.from_pretrained("me/net")' in card
    top1 = {}
    for folder in (out / "runs").iterdir():
        result = read_result(folder)
        if result["recipe"]["batch_size"] == 64:
            top1[result["variant"], result["seed"]] = result["test_top1"]
    assert len(top1) == 4
    rows = [line for line in card.splitlines() if line.startswith("| ") and "network" not in line]
    for row, variant, name in zip(rows, (PLAIN, BLOCK), (PLAIN, f"**{BLOCK}**"), strict=True):
        values = [top1[variant, 0], top1[variant, 1]]
        assert row.startswith(f"| {name} | 2 | {np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} | ")
        assert row.endswith(f"| {values[0]:.2f} (seed 0), {values[1]:.2f} (seed 1) |")
    assert f"These weights are those of seed 0: top-1 {top1[BLOCK, 0]:.2f}%." in card
    assert f"srblock compare {PLAIN} '{BLOCK}' --seeds 2 --data digits --image-size 16 --recipe short" in card
    assert "One seed" not in card


def test_the_card_of_one_seed_says_so(tmp_path: Path, run: TrainedRun) -> None:
    only = write_run(tmp_path, BLOCK, 3)
    card = run_card(run.input, "me/net", only.directory, None)
    assert "license" not in front(card)
    assert "±" not in card
    assert "One seed: it says nothing" in card
    assert f"srblock train '{BLOCK}' --seed 3 --data digits" in card


def test_the_card_counts_seeds_that_start_from_weights_of_their_own(tmp_path: Path, run: TrainedRun) -> None:
    """And networks of other code: all that a comparison would, and none that it refuses."""
    written = [write_run(tmp_path, variant, seed) for seed in (0, 1) for variant in (PLAIN, BLOCK)]
    made = {variant: {"source": variant} for variant in (PLAIN, BLOCK)}

    def again(config: RunConfig, **changes: Any) -> None:
        changed = replace(config, **changes)
        folder = tmp_path / "runs" / changed.name
        shutil.copytree(tmp_path / "runs" / config.name, folder)
        for file in ("config.json", "result.json"):
            known = json.loads((folder / file).read_text())
            (folder / file).write_text(json.dumps(known | changed.as_dict()))

    for one in written:
        again(one.config, weights=f"seed:{one.seed}" + 60 * "a")
    again(written[2].config, seed=2, weights="seed:2" + 60 * "a", code=made[PLAIN])
    again(
        written[1].config, seed=3, weights="seed:3" + 60 * "a", recipe=replace(written[0].config.recipe, batch_size=9)
    )
    mine = replace(written[1].config, weights="seed:0" + 60 * "a")
    card = run_card(run.input, "me/net", tmp_path / "runs" / mine.name, None)
    assert [line[: line.index(" |", 4)] for line in card.splitlines() if line.startswith(("| R8", "| **R8"))] == [
        f"| {PLAIN}",
        f"| **{BLOCK}**",
    ]
    assert card.count("(seed 0)") == card.count("(seed 1)") == 2
    assert "(seed 2)" not in card
    assert "(seed 3)" not in card


def test_weights_that_were_trained_on_have_no_figures(run: TrainedRun, tmp_path: Path) -> None:
    next(run.model.parameters()).data.add_(0.1)
    card = (srblock.save_pretrained(run, tmp_path / "saved") / "README.md").read_text()
    assert "None came with these weights." in card
    assert "top-1" not in card
    assert "run" not in json.loads((tmp_path / "saved/config.json").read_text())


def test_weights_replaced_in_the_folder_have_no_figures(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "out")
    folder = srblock.load_run(tmp_path / "out", variant=BLOCK, seed=0).path.parent
    other = srblock.load_run(out, variant=BLOCK, seed=1).path
    shutil.copy(other, folder)
    card = (srblock.save_pretrained(srblock.load_run(folder), tmp_path / "saved") / "README.md").read_text()
    assert "None came with these weights." in card


def test_a_runs_own_folder_is_not_written_into(run: TrainedRun) -> None:
    before = (run.path.parent / "config.json").read_bytes()
    with pytest.raises(ValueError, match="is the folder of a run, whose config"):
        srblock.save_pretrained(run, run.path.parent)
    assert (run.path.parent / "config.json").read_bytes() == before


def test_the_card_of_a_model_says_where_its_blocks_stand(tmp_path: Path) -> None:
    card = (srblock.save_pretrained(own(0), tmp_path / "mine") / "README.md").read_text()
    assert front(card)["library_name"] == "srblock"
    assert "- after `deep`, for maps of 6x4x5: P = 3, U = 2" in card
    assert 'srblock.from_pretrained("mine", model=model)' in card


@pytest.mark.parametrize(
    ("source", "image_size", "name", "changes"),
    [
        ("cifar100", None, "auto", {}),
        ("cifar100:/home/me/images", 16, "short", {"epochs": 7, "padding": 4, "flip": False, "learning_rate": 0.3}),
        ("digits", 16, "auto", {"padding": 0, "validation_fraction": 0.0, "memory_weight_decay": 0.0}),
        ("cifar10", None, "airbench", {"tta": "none", "alternating_flip": False, "engine": "compile"}),
        ("cifar10", None, "cifar10", {"nesterov": True, "clip_norm": 1.5, "epochs": 9, "test_resize": None}),
        ("imagenet:x", 128, "auto", {"test_square": True, "precision": "bfloat16"}),
        ("cityscapes:y", None, "auto", {"crop_size": (64, 128), "ratios": (0.5, 1.5), "inference": "whole"}),
        ("cifar10", None, "finetune", {"auto_augment": "none", "lr_scales": ["fc.*=2", "*.bias=3"]}),
        ("cifar10", None, "finetune", {"crop": "resized", "freeze_epochs": 2}),
        ("imagenet:x", 128, "finetune", {"mixup": 0.2}),
        ("camvid:y", None, "scenes", {"scene_scale": 0.5, "photometric": False, "tta": "flip"}),
    ],
)
def test_the_command_gives_the_recipe_again(
    source: str, image_size: int | None, name: str, changes: dict[str, Any]
) -> None:
    """Read as the command line reads it, the options make the recipe that the run had."""
    data = stand_in(source, image_size)
    recipe = recipe_for(data, CPU, name, **changes)
    found = again(of(recipe, size=data.size), {"source": source, "image_size": image_size})
    assert found.unsaid == ()
    _, given, *_ = app.parse_args(["train", "R8", *shlex.split(found.options)])
    options = given.arguments["options"]
    assert (options.data, options.image_size) == (re.sub(":.*", ":PATH", source), image_size)
    assert recipe_for(data, CPU, options.recipe, **options.changes()) == recipe


def of(recipe: Recipe, weights: str | None = None, size: tuple[int, int] = (8, 8)) -> RunConfig:
    return RunConfig(parse("R8"), 0, recipe, {"size": [3, *size]}, weights)


def test_what_no_option_says_is_said() -> None:
    short = recipe_for(stand_in("digits"), CPU)
    found = again(of(replace(short, warmup_epochs=3), "ab" * 32), {"source": "/home/me/photos", "image_size": None})
    assert found.options.startswith("--data PATH --recipe short")
    assert found.options.endswith("--weights FILE")
    assert found.unsaid == ("warmup_epochs was 3, and short has 1", f"FILE has the SHA-256 {'ab' * 32}")
    assert again(of(short, "pretrained"), {"source": "digits"}).options.endswith("--pretrained")


# --- the Hub ---------------------------------------------------------------------------------------------------------


@UPLOADS
def test_a_run_goes_to_the_hub_and_comes_back(run: TrainedRun, hub: Hub) -> None:
    address = srblock.push_to_hub(run, "me/digits", license="mit", private=True, token=TOKEN, endpoint=hub.endpoint)
    assert address == f"{hub.endpoint}/me/digits"
    assert hub.private == {"me/digits": True}
    (files,) = hub.commits["me/digits"]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"], "in one commit"
    assert b'from_pretrained("me/digits")' in files["README.md"]
    with pytest.raises(
        FileNotFoundError, match="no folder me/digits, and no such repository on the Hub that this token"
    ):
        srblock.from_pretrained("me/digits", token=False, endpoint=hub.endpoint)
    there = srblock.from_pretrained("me/digits", token=TOKEN, endpoint=hub.endpoint, device="cpu")
    images = torch.randint(256, (3, 1, 16, 16), dtype=torch.uint8)
    assert there.predict(images) == run.predict(images)
    assert not any("README" in asked for asked in hub.asked), "what is not needed stays there"


@UPLOADS
def test_a_revision_of_a_model_comes_back(hub: Hub) -> None:
    models = own(0), own(2)
    for model in models:
        srblock.push_to_hub(model, "me/own", input_size=(8, 10), token=TOKEN, endpoint=hub.endpoint)
    assert len(hub.commits["me/own"]) == 2
    there = {"token": False, "endpoint": hub.endpoint}
    newest = srblock.from_pretrained("me/own", model=own(1, blocks=False), **there)  # type: ignore[call-overload]
    assert torch.equal(newest(X), models[1](X))
    first = srblock.from_pretrained(  # type: ignore[call-overload]
        "me/own", model=own(1, blocks=False), revision=hub.sha("me/own", 0), **there
    )
    assert torch.equal(first(X), models[0](X))
    with pytest.raises(FileNotFoundError, match="the Hub's me/own has no revision 'v2'"):
        srblock.from_pretrained("me/own", model=own(1), revision="v2", **there)  # type: ignore[call-overload]


@pytest.mark.parametrize("source", ["me/nothing", "not/a/name"])
def test_a_source_that_is_nowhere_is_said(hub: Hub, source: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"there is no folder {source}, and no such repository"):
        srblock.from_pretrained(source, token=False, endpoint=hub.endpoint)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    model = own(0)
    srblock.from_pretrained(srblock.save_pretrained(model, tmp_path), model=own(1, blocks=False))  # needs no Hub
    for ask in (lambda: srblock.push_to_hub(model, "me/own"), lambda: srblock.from_pretrained("me/own")):
        with pytest.raises(ImportError, match=r'the Hub needs .*; pip install "srblock\[hub\]"'):
            ask()
