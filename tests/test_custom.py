"""Networks of one's own: built by a function, known by its source and structure, compared from Python and the shell."""

from __future__ import annotations

import functools
import inspect
import json
import linecache
import re
import runpy
import shutil
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scene_fixture import write_camvid
from test_cli import error, invoke
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset

import srblock
from srblock.data import load_data
from srblock.data.sources.datasets import from_datasets
from srblock.report import units
from srblock.runs.evaluate import evaluate_run
from srblock.runs.records import read_result, read_run
from srblock.runs.reopen import reopen
from srblock.statistics.verdicts import Verdict
from srblock.training.recipe import Recipe
from srblock.variants import custom, identity
from srblock.variants.build import build
from srblock.variants.notation import parse

SOURCE = """
import torch
from torch import nn
from parts import WIDTH


class Net(nn.Module):
    def __init__(self, width, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.trunk = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.trunk(self.stem(x)).mean((2, 3)))


def make(seed):
    return Net(WIDTH)


if __name__ == "__main__":
    print("whatever")
"""
BLOCK = "SR(after=trunk.2, P=3)"
pytestmark = pytest.mark.usefixtures("unpainted")


class Small(nn.Module):
    """For functions of this file."""

    def __init__(self, width: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.conv(x).relu().mean((2, 3)))
        return result


def plain(seed: int) -> nn.Module:
    return Small()


def with_block(seed: int) -> nn.Module:
    model = Small()
    srblock.insert(model, after="conv", input_size=8, blocks=3)
    return model


def lopsided(seed: int) -> nn.Module:
    return Small(4 + seed)


def lazy(seed: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


class Dense(nn.Module):
    """Says of every pixel what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 11, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a network in a file, to stand in; files are imported anew."""
    (tmp_path / "mynet.py").write_text(SOURCE)
    (tmp_path / "parts.py").write_text("WIDTH = 4\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "parts", raising=False)
    monkeypatch.setattr("sys.path", [*sys.path])
    custom._execute.cache_clear()
    yield tmp_path
    custom._execute.cache_clear()
    sys.modules.pop("parts", None)


def names(out: Path) -> set[str]:
    return {folder.name for folder in (out / "runs").iterdir()}


def compared(*words: object) -> str:
    done = invoke("compare", "mynet.py:make", f"mynet.py:make + {BLOCK}", "--epochs", 1, *(words or ("--seeds", 1)))
    assert done.exit_code == 0, done.output
    return done.output


# --- functions -------------------------------------------------------------------------------------------------------


def test_a_seed_decides_what_is_drawn_whether_or_not_it_is_asked_for() -> None:
    def made(function: custom.Build, seed: int) -> Tensor:
        model = build(parse("custom/x"), classes=10, channels=1, image_size=8, seed=seed, custom=function)
        return model.state_dict()["head.weight"]

    def unasked() -> nn.Module:
        return Small()

    def named(width: int = 4, *, seed: int) -> nn.Module:
        return Small(width)

    def sown(seed: int) -> nn.Module:
        torch.manual_seed(seed + 1)
        return Small()

    def of_model(model_seed: int = 0) -> nn.Module:
        return sown(model_seed)

    def of_two(data_seed: int = 0, seed: int = 0) -> nn.Module:
        return sown(seed)

    before = torch.random.get_rng_state()
    functions = (plain, unasked, Small, named, sown, of_model, of_two, functools.partial(Small, 5))
    for function in (*functions, lambda width=3: Small(width)):
        assert torch.equal(made(function, 3), made(function, 3))
        assert not torch.equal(made(function, 3), made(function, 4))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda seed, width: Small(width), "custom/x is called with a seed alone, and wants seed, width"),
        (lambda width: Small(width), "custom/x is called with a seed alone, and wants width; give what is no seed a"),
        (
            lambda model_seed=0, data_seed=0: Small(),
            "custom/x takes model_seed, data_seed, and the seed of a run is for one of them; call that one seed",
        ),
        (lambda seed: 3, "custom/x returned int; expected a torch.nn.Module"),
        (lambda seed: Small(classes=7), r"logits of shape \(1, 10\) but \(1, 7\); use a classification network of 10"),
        (lambda seed: nn.Conv2d(3, 4, 3), r"custom/x does not run on images of shape \(1, 8, 8\)"),
        (None, "custom/x is built by a function of yours, and there is none here"),
    ],
)
def test_functions_that_build_no_network_are_refused(function: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(parse("custom/x"), classes=10, channels=1, image_size=8, seed=0, custom=function)


def test_a_located_function_may_want_its_seed_by_name(place: Path) -> None:
    (place / "mynet.py").write_text(SOURCE.replace("def make(seed):", "def make(*, seed):"))
    located = custom.locate("mynet.py:make")
    assert isinstance(custom.call(located, 3, "x"), nn.Module)


def test_finding_the_identity_draws_nothing_and_takes_lazy_layers() -> None:
    before = torch.random.get_rng_state()
    found = identity.identity_of(lazy, 0, "x")
    assert torch.equal(before, torch.random.get_rng_state())
    assert found == identity.identity_of(lazy, 1, "x")
    model = build(parse("custom/x"), classes=10, channels=1, image_size=8, seed=0, custom=lazy)
    assert model.state_dict()["1.weight"].shape == (10, 64)


def test_functions_that_no_other_process_finds_need_no_workers(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="functions that build networks, probe and inspect must stand at the top"):
        srblock.compare(
            {"a": plain, "b": lambda: Small()}, "digits", seeds=1, epochs=1, out=tmp_path, workers=2, quiet=True
        )


def test_images_that_come_as_an_object_are_not_resized(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image_size=24 resizes images that are loaded by their name"):
        srblock.compare({"a": plain, "b": Small}, load_data("digits"), image_size=24, out=tmp_path, quiet=True)


def test_there_are_no_trained_weights_to_download() -> None:
    with pytest.raises(ValueError, match="--pretrained is for networks of torchvision and timm; custom/x starts as"):
        build(parse("custom/x"), classes=10, channels=1, image_size=8, seed=0, custom=plain, pretrained=True)


def test_the_identity_is_source_and_structure(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which tells no two versions of one second apart
    function = custom.locate("mynet.py:make")
    first = identity.identity_of(function, 0, "mynet.py:make")
    assert first == identity.identity_of(function, 5, "mynet.py:make")

    def changed(old: str, new: str, file: str = "mynet.py") -> dict[str, Any]:
        text = (place / file).read_text()
        assert old in text
        (place / file).write_text(text.replace(old, new))
        custom._execute.cache_clear()
        sys.modules.pop("parts", None)
        found = identity.identity_of(custom.locate("mynet.py:make"), 0, "mynet.py:make")
        (place / file).write_text(text)
        return {key: found[key] == first[key] for key in found}

    assert changed("whatever", "something else") == {"source": True, "structure": True}
    assert changed("mean((2, 3))", "amax((2, 3))") == {"source": False, "structure": True}
    assert changed("WIDTH = 4", "WIDTH = 5", "parts.py") == {"source": True, "structure": False}
    assert changed("nn.ReLU()", "nn.ReLU(True)") == {"source": False, "structure": False}


def test_an_edited_file_is_imported_anew(place: Path) -> None:
    located = custom.locate("mynet.py:make")
    first = located.found
    assert located.found is first
    (place / "mynet.py").write_text(SOURCE.replace("def make(seed):", "def make(seed=3):"))
    assert inspect.signature(located.found).parameters["seed"].default == 3


def test_values_from_elsewhere_than_the_source_count() -> None:
    class Sloped(nn.Module):
        def __init__(self, slope: float) -> None:
            super().__init__()
            self.slope, self.sizes, self._act = slope, [4, slope], functools.partial(nn.LeakyReLU, slope)

    def around(slope: float) -> custom.Build:
        return lambda: Small() if slope else None

    def default(slope: float) -> custom.Build:
        return lambda seed, slope=slope: Small()

    def nested(slope: float) -> custom.Build:
        inner = around(slope)
        return lambda: inner()

    class Maker:
        def __init__(self, slope: float) -> None:
            self.slope = slope

        def __call__(self) -> nn.Module:
            return Small()

        def made(self) -> nn.Module:
            return Small()

    def partial(slope: float) -> custom.Build:
        return functools.partial(lambda seed, slope: Small(), slope=slope)

    def attribute(slope: float) -> custom.Build:
        return functools.partial(Sloped, slope)

    for make in (around, default, nested, Maker, lambda slope: Maker(slope).made, partial, attribute):
        first, again, other = (identity.identity_of(make(slope), 0, "x") for slope in (0.1, 0.1, -5.0))
        assert first == again
        assert (first["source"], first["structure"] == other["structure"]) == (other["source"], False)

    def endless() -> nn.Module:
        return endless() if endless is None else Small()

    assert identity.identity_of(endless, 0, "x") == identity.identity_of(endless, 1, "x")


HANDED: dict[str, Callable[[float], Any]] = {
    "a tensor": lambda value: torch.full((2, 2), value, dtype=torch.bfloat16),
    "an array": lambda value: np.full((2, 2), value),
    "a network": lambda value: nn.utils.skip_init(nn.Linear, 2, 2).apply(
        lambda layer: [nn.init.constant_(part, value) for part in layer.parameters()]
    ),
    "several": lambda value: {"weights": [torch.tensor(value)]},
}


@pytest.mark.parametrize("hand", HANDED.values(), ids=HANDED)
def test_weights_that_a_function_was_handed_count(hand: Callable[[float], Any]) -> None:
    def around(given: Any) -> custom.Build:
        return lambda seed: Small() if given is not None else None

    for make in (around, lambda given: functools.partial(lambda seed, given: Small(), given=given)):
        first, again, other = (identity.identity_of(make(hand(value)), 0, "x") for value in (0.5, 0.5, 0.25))
        assert first == again
        assert (first["source"], first["structure"] == other["structure"]) == (other["source"], False)


NOTEBOOK = """
import dataclasses, torch
from torch import nn
WIDTH = 4
@dataclasses.dataclass
class Setting:
    slope: float = 0.1
class Base(nn.Module):
    factor = 2
    def scaled(self, x): return self.factor * x
class Net(Base):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, WIDTH, 3), nn.Linear(WIDTH, 10)
    def forward(self, x): return self.scaled(self.head(pooled(self.conv(x))))
def pooled(x): return x.mean((2, 3)) * Setting().slope
def beside(x): return x
def make(seed): return Net()
"""


def test_networks_that_hold_themselves_have_an_identity_whatever_the_seed() -> None:
    def routed(seed: int) -> nn.Module:
        model = Small()
        model.route = lambda x: model.head(x)
        model.forward = functools.partial(Small.forward, model)
        return model

    class Maker:
        last: nn.Module | None = None

        def made(self, seed: int) -> nn.Module:
            self.last = Small()
            return self.last

    listed = np.array([object()])
    for function in (routed, Maker().made, lambda seed: Small() if len(listed) else None):
        assert identity.identity_of(function, 0, "x") == identity.identity_of(function, 1, "x")


def test_weights_that_an_object_holds_count_and_those_that_a_call_puts_there_do_not() -> None:
    class Factory:
        def __init__(self, value: float) -> None:
            self.trunk = nn.Linear(2, 2)
            nn.init.constant_(self.trunk.weight, value)
            nn.init.zeros_(self.trunk.bias)

        def make(self, seed: int) -> nn.Module:
            self.last = Small()
            return self.last

        __call__ = make

    for take in (lambda factory: factory.make, lambda factory: factory):
        first, again, other = (identity.identity_of(take(Factory(value)), 0, "x") for value in (0.5, 0.5, 0.25))
        assert first == again
        assert (first["source"], first["structure"] == other["structure"]) == (other["source"], False)


def test_what_was_set_is_no_place_for_the_seed(place: Path) -> None:
    (place / "mynet.py").write_text(
        SOURCE.replace(
            "def make(seed):\n    return Net(WIDTH)", "def made(data_seed=0):\n    return Net(WIDTH + data_seed)"
        )
        + "\n\nimport functools\nmake = functools.partial(made, data_seed=3)\n"
    )
    assert custom.call(custom.locate("mynet.py:make"), 7, "x").stem.out_channels == 7

    def make(width: int = 4, *, dropout_seed: int = 0) -> nn.Module:
        return Small(width + dropout_seed)

    def flags(width: int = 4, use_seed: bool = True, reseed: int = 1) -> nn.Module:
        return Small(width + use_seed + reseed)

    assert custom.call(functools.partial(make, dropout_seed=2), 7, "x").conv.out_channels == 6
    assert custom.call(make, 7, "x").conv.out_channels == 11
    assert custom.call(flags, 7, "x").conv.out_channels == 6


def test_in_a_notebook_all_counts_that_the_network_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells have no file; Python finds the source of their functions, and not that of their classes."""

    def of(text: str) -> dict[str, Any]:
        name = f"<cell {len(linecache.cache)}>"
        notebook = ModuleType("notebook")
        monkeypatch.setitem(linecache.cache, name, (len(text), None, text.splitlines(keepends=True), name))
        monkeypatch.setitem(sys.modules, "notebook", notebook)
        exec(compile(text, name, "exec"), vars(notebook))
        return identity.identity_of(vars(notebook)["make"], 0, "custom/make")

    before = of(NOTEBOOK)
    assert of(NOTEBOOK + "later = 3") == of(NOTEBOOK.replace("return x\n", "return -x\n")) == before
    for old, new in {
        "mean(": "amax(",
        "self.scaled(": "(",
        "slope: float = 0.1": "slope: float = 0.3",
        "factor = 2": "factor = 3",
        "self.factor * x": "self.factor + x",
        "return Net()": "return  Net()",
    }.items():
        assert of(NOTEBOOK.replace(old, new))["source"] != before["source"], old
    assert of(NOTEBOOK.replace("WIDTH = 4", "WIDTH = 5")) != before
    values = "\nFIRST, SECOND, THIRD = 1, 2, 1\ndef make(seed): return (FIRST, SECOND, THIRD) and Net()\n"
    assert of(NOTEBOOK + values) != of(NOTEBOOK + values.replace("1, 2, 1", "1, 2, 2"))
    named = "\nhead = 1\ndef make(seed):\n    model = Net()\n    model.head.bias.data.zero_()\n    return model\n"
    assert of(NOTEBOOK + named) == of(NOTEBOOK + named.replace("head = 1", "head = 2")), "an attribute of the network"
    for use in (
        "import functools\nPOOL = functools.partial(pooled)\ndef make(seed): return POOL and Net()\n",
        "POOLS = {'mean': [pooled]}\ndef make(seed): return POOLS and Net()\n",
        "def plain(f):\n    def inner(x): return f(x)\n    return inner\npool = plain(pooled)\n"
        "def make(seed): return pool and nn.Conv2d(1, 1, 1)\n",
    ):
        assert of(NOTEBOOK + use)["source"] != of(NOTEBOOK.replace("mean(", "amax(") + use)["source"]
    assert of(NOTEBOOK + "make = Net\n")["source"] != of(NOTEBOOK.replace("mean(", "amax(") + "make = Net\n")["source"]


def test_a_damaged_run_of_another_source_is_left_alone(place: Path) -> None:
    compared()
    name = next(folder.name for folder in (place / "out" / "runs").iterdir() if "trunk" not in folder.name)
    for number, config in enumerate(["{", "{}", '{"variant": 3}']):
        stray = place / "out" / "runs" / f"{name.rpartition('-')[0]}-0000000{number}"
        stray.mkdir()
        (stray / "result.json").write_text("{}")
        (stray / "config.json").write_text(config)
    compared()


def test_a_function_without_a_file_is_known_by_its_own_source_or_refused() -> None:
    assert identity.source_of(functools.partial(plain), "x") == identity.source_of(plain, "x")
    scope: dict[str, Any] = {}
    exec("def made(seed): return None", scope)
    with pytest.raises(ValueError, match=r"source of custom/made cannot be read .*write the function into a file"):
        identity.source_of(scope["made"], "custom/made")
    exec("class Made:\n    def __init__(self): self.n = 1", scope | {"__name__": "elsewhere"}, scope)
    with pytest.raises(ValueError, match=r"source of custom/Made cannot be read"):
        identity.source_of(scope["Made"], "custom/Made")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mynet.py:mak"], "mynet.py has no function 'mak'; did you mean make?"),
        (["nonet.py:make"], "there is no file"),
        (["broken.py:make"], "cannot be imported: ZeroDivisionError: division by zero (line 2)"),
        (["no.such.module:make"], "the module no.such.module cannot be imported: ModuleNotFoundError"),
        (["mynet.py"], "cannot read the network 'mynet.py'; write FILE.py:FUNCTION, such as mynet.py:make"),
        (["custom/made"], "there is no function for custom/made; name it by its place, mynet.py:make"),
        (["mynet.py:make + SR(after=trunk.9)"], "there is no module 'trunk.9' in the model"),
        (["mynet.py:of_colors"], "the images have 1 channel; a network for 3 channels needs another first layer"),
        (["mynet.py:make + D"], "D goes into our own networks only"),
        (["mynet.py:make", "--data", "cifar10"], "does not run on images of shape (3, 32, 32)"),
    ],
)
def test_what_a_hurried_user_would_write(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    (place / "broken.py").write_text("zero = 0\n1 / zero\n")
    (place / "mynet.py").write_text(SOURCE + "\n\ndef of_colors(seed):\n    return nn.Conv2d(3, 10, 8)\n")
    said = error(capsys, monkeypatch, "compare", "R8", *words, "--epochs", 1, "--dry-run")
    assert said.startswith("error: ")
    assert message in said


# --- from the shell --------------------------------------------------------------------------------------------------


def test_the_places_for_a_block_are_listed(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = invoke("stages", "mynet.py:make", "--input-size", 8, "--all")
    assert done.exit_code == 0, done.output
    assert re.search(r"^ *trunk\.2 +- +4 +8x8", done.output, re.MULTILINE)
    said = error(capsys, monkeypatch, "stages", f"mynet.py:make + {BLOCK}")
    assert "are asked for without its blocks; leave these away" in said


def test_a_file_is_compared_with_and_without_the_block(place: Path) -> None:
    said = compared("--workers", 2, "--seeds", 1)
    assert "mynet.py:make" in said
    runs = names(place / "out")
    assert {name.rpartition("-")[0] for name in runs} == {"mynet.py-make-s0", "mynet.py-make-sr-aftertrunk.2-p3-s0"}
    assert "cannot be reused" not in compared("--workers", 2, "--seeds", 1)
    assert names(place / "out") == runs
    (place / "mynet.py").write_text(SOURCE.replace("mean((2, 3))", "amax((2, 3))"))
    custom._execute.cache_clear()
    assert "2 finished runs of mynet.py:make here had another source or structure" in " ".join(compared().split())
    assert len(names(place / "out")) == 4


def test_a_run_of_a_file_is_used_with_its_function_alone(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared()
    folder = next((place / "out" / "runs").glob("*trunk*"))
    for command in ("evaluate", "analyze"):
        refused = error(capsys, monkeypatch, command, folder)
        assert "a run never says which code to execute: pass build=FUNCTION, or --build FILE.py:FUNCTION" in refused
    top1 = read_result(folder)["test_top1"]
    done = invoke("evaluate", folder, "--build", "mynet.py:make")
    assert f"test top-1 {top1:.2f}% (recorded: {top1:.2f}%)" in done.output
    with pytest.raises(ValueError, match="is built by a function of yours"):
        srblock.load_run(folder)
    loaded = srblock.load_run(folder, build="mynet.py:make")
    assert list(srblock.blocks(loaded.model)) == ["trunk.2"]
    data = load_data("digits")
    found = loaded.predict(data.test_images, top=1)
    hits = [int(one.classes[0]) == label for one, label in zip(found, data.test_labels.tolist(), strict=True)]
    assert 100 * np.mean(hits) == pytest.approx(top1)
    (place / "mynet.py").write_text(SOURCE.replace("mean((2, 3))", "amax((2, 3))"))
    custom._execute.cache_clear()
    with pytest.warns(UserWarning, match="mynet.py:make is not what the run was trained with"):
        reopen(folder, build="mynet.py:make")
    with pytest.warns(UserWarning, match="mynet.py:make.* is not what the run was trained with"):
        edited = srblock.load_run(folder, build="mynet.py:make")
    card = srblock.save_pretrained(edited, place / "saved") / "README.md"
    assert "None came with these weights." in card.read_text(), "they are of a network that is no more"
    plain_run = invoke("train", "R8", "--epochs", 1, "--out", place / "r8")
    assert plain_run.exit_code == 0
    with pytest.raises(ValueError, match="R8 is built by srblock"):
        srblock.load_run(place / "r8", build="mynet.py:make")


def test_it_is_exported_and_saved_for_others_who_have_the_function(place: Path) -> None:
    compared()
    folder = next((place / "out" / "runs").glob("*trunk*"))
    done = invoke("export", folder, "net.pt2", "--build", "mynet.py:make")
    assert done.exit_code == 0, done.output
    assert (place / "net.pt2").is_file()
    run = srblock.load_run(folder, build="mynet.py:make")
    srblock.save_pretrained(run, "saved")
    assert (
        "`mynet.py:make` is a function of its author's, which is not here." in (place / "saved/README.md").read_text()
    )
    with pytest.raises(ValueError, match="is built by a function of yours"):
        srblock.from_pretrained("saved")
    saved = json.loads((place / "saved/config.json").read_text())
    assert saved["run"]["code"] == json.loads((folder / "config.json").read_text())["code"]
    saved["run"]["code"]["source"] = "0" * 64
    (place / "edited").mkdir()
    (place / "edited/config.json").write_text(json.dumps(saved))
    shutil.copy(place / "saved/model.safetensors", place / "edited")
    with pytest.warns(UserWarning, match="is not what the run was trained with"):
        srblock.from_pretrained("edited", build="mynet.py:make")
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3)
    assert srblock.from_pretrained("saved", build="mynet.py:make").predict(image) == run.predict(image)


def test_its_runs_become_records(place: Path) -> None:
    compared()
    shutil.copytree(Path(__file__).parents[1] / "results", place / "results", ignore=shutil.ignore_patterns("records"))
    (place / "results" / "records").mkdir()
    shutil.rmtree(place / "results" / "protocols")
    added = invoke("results", "add", "out")
    assert added.exit_code == 0, added.output
    assert "2 added" in added.output
    record = json.loads(next((place / "results" / "records").glob("mynet*")).read_text())
    assert set(record["config"]["code"]) == {"source", "structure"}
    tables = invoke("results", "tables")
    assert tables.exit_code == 0, tables.output


# --- from Python -----------------------------------------------------------------------------------------------------


def test_python_and_the_shell_give_the_same_figures(place: Path) -> None:
    """With the same function under another name, and with other words for the same study."""
    compared("--seeds", 2)
    shell = {(str(run.variant).removeprefix("mynet.py:make"), run.seed): run.score for run in shell_runs(place / "out")}
    function = custom.locate("mynet.py:make")

    def block(seed: int) -> nn.Module:
        return build(parse(f"custom/x + {BLOCK}"), classes=10, channels=1, image_size=8, seed=seed, custom=function)

    found = srblock.compare({"a": function, "b": block}, "digits", seeds=2, epochs=1, out="again", quiet=True)
    assert [run.score for run in found.runs] == [
        shell[key] for key in (("", 0), (f" + {BLOCK}", 0), ("", 1), (f" + {BLOCK}", 1))
    ]


def test_the_page_about_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[1] / "docs" / "your-network.md"
    snippets = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert len(snippets) == 3
    (tmp_path / "page.py").write_text("\n".join(snippets))
    monkeypatch.chdir(tmp_path)
    names_ = runpy.run_path("page.py", run_name="__main__")
    assert "undecided" in capsys.readouterr().out
    assert [line["variant"] for line in names_["lines"]] == ["custom/plain", "custom/block"] * 2
    assert len(names(tmp_path / "out-sets")) == 2


def shell_runs(out: Path) -> list[Any]:
    return [read_run(folder) for folder in (out / "runs").iterdir()]


def test_a_comparison_comes_back_as_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = srblock.compare(
        {"plain": plain, "block": with_block}, "digits", seeds=2, epochs=1, out=tmp_path, workers=2, quiet=True
    )
    assert capsys.readouterr().out == ""
    assert [(str(run.variant), run.seed) for run in found.runs] == [
        ("custom/plain", 0), ("custom/block", 0), ("custom/plain", 1), ("custom/block", 1),
    ]  # fmt: skip
    assert [row.variant for row in found.rows] == ["custom/plain", "custom/block"]
    assert isinstance(found.verdict, Verdict)
    assert found.verdicts == {"custom/block": found.verdict}
    assert found.report is not None
    assert "custom/block" in found.report.read_text()
    assert repr(found.runs[0]).startswith(f"<Run custom/plain, seed 0: test top1 {found.runs[0].score:.2f}; {tmp_path}")
    assert repr(found).splitlines() == [  # what a notebook shows
        "<Comparison of 4 runs",
        f"  custom/plain: test top-1 {found.rows[0].mean:.2f} ± {found.rows[0].std:.2f}, n = 2",
        f"  custom/block: test top-1 {found.rows[1].mean:.2f} ± {found.rows[1].std:.2f}, n = 2; "
        f"{units.signed(found.rows[1].mean - found.rows[0].mean)} to custom/plain: {found.verdict.finding}",
        f"  report: {found.report}>",
    ]
    table = found.run_table()
    assert [line["test_top1"] for line in table] == [run.score for run in found.runs]
    assert (found.report.parent / str(table[0]["run"]) / "result.json").is_file()
    assert json.loads(json.dumps(found.variant_table()))[1]["baseline"] == "custom/plain"
    digits = json.loads(json.dumps(found.class_table()))
    assert [(line["variant"], line["class"]) for line in digits] == [("custom/block", str(n)) for n in range(10)]
    again = srblock.compare(
        {"plain": plain, "block": with_block}, "digits", seeds=[0, 1], epochs=1, out=tmp_path, quiet=True
    )
    assert again.run_table() == table
    assert not (found.report.parent / "study.toml").exists(), "there are functions in it"
    three = srblock.compare(["R8", "R8 + SR(M=2)"], "digits", seeds=1, epochs=1, out=tmp_path, quiet=True)
    assert three.verdict.finding == "one seed"
    assert three.report is not None
    assert tomllib.loads((three.report.parent / "study.toml").read_text()) == {
        "variants": ["R8", "R8 + SR(M=2)"], "seeds": "0-0", "data": "digits", "recipe": "auto", "epochs": 1,
    }  # fmt: skip
    gap = srblock.compare(["R8", "R8 + SR(M=2)"], "digits", seeds=[0, 2], epochs=1, out=tmp_path, quiet=True)
    assert gap.report == three.report
    assert not (three.report.parent / "study.toml").exists(), "the report is of seeds 0 and 2 now"


def test_a_function_of_another_structure_for_another_seed_fails_that_run(tmp_path: Path) -> None:
    found = srblock.compare({"a": plain, "b": lopsided}, "digits", seeds=2, epochs=1, out=tmp_path, quiet=True)
    assert [(str(run.variant), run.seed) for run in found.runs] == [
        ("custom/a", 0), ("custom/b", 0), ("custom/a", 1),
    ]  # fmt: skip
    assert found.done.failed == 1
    (log,) = (tmp_path / "runs").glob("custom-b-s1-*/log.txt")
    assert "custom/b builds another network for seed 1 than for seed 0" in log.read_text()


def test_a_recipe_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    mine = Recipe(epochs=1, batch_size=50, learning_rate=0.02, padding=1)
    found = srblock.compare({"a": plain, "b": Small}, "digits", seeds=1, recipe=mine, out=tmp_path, quiet=True)
    assert found.runs[0].config.recipe.identity == mine.identity | {"memory_format": "channels_last"}
    changed = srblock.compare(
        {"a": plain, "b": Small}, "digits", seeds=1, recipe=mine, batch_size=60, out=tmp_path, quiet=True
    )
    assert changed.runs[0].config.recipe.batch_size == 60


def test_scenes_are_compared_with_a_network_of_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRBLOCK_WORKERS", "0")
    source = f"camvid:{write_camvid(tmp_path / 'camvid')}"
    options: dict[str, Any] = {"seeds": 1, "epochs": 1, "crop_size": (32, 32), "batch_size": 3, "quiet": True}
    found = srblock.compare({"a": Dense, "b": lambda: Dense()}, source, out=tmp_path, **options)
    assert len(found.runs) == 2
    assert found.runs[0].figure.key == "miou"
    with pytest.raises(ValueError, match=r"logits of shape \(1, 11, 32, 32\) but \(1, 11\)"):
        srblock.compare({"a": Dense, "b": lambda: nn.Sequential(Dense(), Mean())}, source, out=tmp_path, **options)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


@pytest.mark.parametrize(
    ("networks", "options", "kind", "message"),
    [
        ("R8", {}, TypeError, "expected a mapping from names to functions, or several variants"),
        ({"a": plain, "b": 3}, {}, TypeError, r"b: expected a function \(seed\) -> nn.Module, got int"),
        ({"a": plain, "with block": plain}, {}, ValueError, "names are one word without .* got a, with block"),
        ({"a": plain}, {}, ValueError, "compare needs two variants or more, got 'custom/a' alone"),
        (["R8", "R8"], {}, ValueError, "R8 is named twice"),
        (["R8", "R20"], {"batchsize": 3}, TypeError, "no recipe has a field 'batchsize'; did you mean batch_size"),
        (["R8", "R20"], {"seeds": [1, 1]}, ValueError, "each once and at least 0"),
        (["R8", "R20"], {"seeds": 0}, ValueError, "expected one seed or more"),
        (["R8", "R20"], {"margin": 0.0}, ValueError, "margin must be above 0"),
        (["R8", "R20"], {"margin": float("inf")}, ValueError, "margin must be above 0 percentage points and finite"),
        (["R8", "R20"], {"data": 3}, TypeError, r"two datasets \(train, test\) of \(image, label\), got int"),
    ],
)
def test_wrong_calls_say_what_was_expected(
    tmp_path: Path, networks: Any, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        srblock.compare(networks, **({"data": "digits", "epochs": 1, "out": tmp_path, "quiet": True} | options))


# --- datasets --------------------------------------------------------------------------------------------------------


def digits(kind: str, count: int = 200) -> tuple[Any, Any]:
    """Two datasets of the same digits in another form."""
    data = load_data("digits")
    parts = []
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        images, labels = images[:count], labels[:count]
        if kind == "float":
            parts.append(TensorDataset(images / 255, labels))
        elif kind == "uint8":
            parts.append(TensorDataset(images, labels))
        else:
            parts.append(
                [(Image.fromarray(image[0].numpy()), int(label)) for image, label in zip(images, labels, strict=True)]
            )
    return parts[0], parts[1]


@pytest.mark.parametrize("kind", ["float", "uint8", "pillow"])
def test_datasets_become_the_images_they_hold(kind: str) -> None:
    data, held = load_data("digits"), from_datasets(*digits(kind), flip=False)
    assert torch.equal(held.train_images, data.train_images[:200])
    assert torch.equal(held.test_labels, data.test_labels[:200])
    assert held.classes == tuple("0123456789")
    assert held.name == ("list" if kind == "pillow" else "tensordataset")


def test_datasets_are_trained_on_and_tested_again(tmp_path: Path) -> None:
    sets = digits("uint8")
    found = srblock.compare({"a": plain, "b": Small}, sets, seeds=1, epochs=1, out=tmp_path, quiet=True)
    again = evaluate_run(found.runs[0].directory, source=from_datasets(*sets), build=plain, device=torch.device("cpu"))
    assert again.value == again.recorded


class Named:
    """A dataset as torchvision's: classes have names."""

    classes = ("even", "odd")

    def __len__(self) -> int:
        return 12

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        if number >= len(self):
            raise IndexError
        return torch.full((3, 4, 5), number, dtype=torch.uint8), torch.tensor(number % 2)


def test_classes_have_the_datasets_names() -> None:
    held = from_datasets(Named(), Named(), name="parity")
    assert (held.name, held.classes, held.size, held.channels) == ("parity", ("even", "odd"), (4, 5), 3)
    part = Subset(Subset(Named(), range(10)), range(8))  # type: ignore[arg-type]
    assert from_datasets(part, Named()).classes == ("even", "odd")


def test_images_that_a_sets_own_transform_would_have_prepared_warn(tmp_path: Path) -> None:
    """Squashed by the set: 24 columns to 8, of which the network's own way would cut the middle."""
    found = srblock.compare({"a": plain, "b": Small}, digits("pillow"), seeds=1, epochs=1, out=tmp_path, quiet=True)
    loaded = srblock.load_run(found.runs[0].directory, build=plain)
    assert loaded.input.prepared
    image = Image.fromarray(load_data("digits").test_images[0, 0].numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.predict(image)
    for other in (image.resize((24, 8)), image.convert("RGB")):
        with pytest.warns(UserWarning, match=r"takes images of 8x8 \(L\), and others .* apply that first"):
            loaded.predict(other)
    mine = srblock.compare({"a": plain, "b": Small}, "digits", seeds=1, epochs=1, out=tmp_path, quiet=True)
    assert not srblock.load_run(mine.runs[0].directory, build=plain).input.prepared


def test_images_of_datasets_are_turned_as_they_are_seen() -> None:
    sideways = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    sideways.getexif()[0x0112] = 6
    held = from_datasets([(sideways, 0), (sideways, 1)] * 2, [(sideways, 0), (sideways, 1)])
    assert torch.equal(held.train_images[0, 0], torch.from_numpy(np.rot90(np.asarray(sideways), -1).copy()))


def test_a_changed_set_is_another_set(tmp_path: Path) -> None:
    held = from_datasets(*digits("tensor"), flip=False)
    first = srblock.compare({"a": plain, "b": Small}, held, seeds=1, epochs=1, out=tmp_path, quiet=True)
    held.train_labels[:20] = (held.train_labels[:20] + 1) % 10
    second = srblock.compare({"a": plain, "b": Small}, held, seeds=1, epochs=1, out=tmp_path, quiet=True)
    assert not {run.directory for run in first.runs} & {run.directory for run in second.runs}
    held.test_images.div_(4, rounding_mode="floor")  # type: ignore[union-attr]
    with pytest.warns(UserWarning, match="is not the data that the run was trained on"):
        darker = evaluate_run(second.runs[0].directory, source=held, build=plain, device=torch.device("cpu"))
    loaded = srblock.load_run(second.runs[0].directory, build=plain)
    said = loaded.logits(loaded.preprocess(held.test_images)).argmax(1)
    right = float((said.cpu() == held.test_labels).double().mean())
    assert darker.value == pytest.approx(100 * right, abs=1e-9), "normalized as in training"


def item(image: Any, label: Any = 0) -> list[tuple[Any, Any]]:
    good = torch.zeros(1, 4, 4, dtype=torch.uint8)
    return [(good, 0), (image, label)]


class Random(Named):
    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return torch.randint(0, 255, (3, 4, 5), dtype=torch.uint8), torch.tensor(0)


class Drifting(Named):
    """One image is another one when it is read again."""

    times = 0

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        self.times += 1
        image, label = super().__getitem__(number)
        return image + (number == 7 and self.times > len(self)), label


class Renamed(Named):
    classes = ("odd", "even")


@pytest.mark.parametrize(
    ("dataset", "kind", "message"),
    [
        (item(torch.zeros(1, 5, 4, dtype=torch.uint8)), ValueError, r"image 1 of the training set is \(1, 5, 4\) and"),
        (item(torch.full((1, 4, 4), -0.5)), ValueError, "-0.5 to -0.5; expected uint8, or 0 to 1 as ToTensor"),
        (item(torch.zeros(1, 4, 4, dtype=torch.int64)), ValueError, "torch.int64, 0 to 0; expected uint8"),
        (item(torch.full((1, 4, 4), torch.nan)), ValueError, "nan to nan; expected uint8"),
        (item(np.zeros((4, 4))), TypeError, "expected an image of Pillow or a tensor .* got ndarray"),
        (item(Image.new("RGBA", (4, 4))), ValueError, "is of mode RGBA; convert it"),
        (item(torch.zeros(1, 4, 4, dtype=torch.uint8), -1), TypeError, "expected a label from 0 on, got -1"),
        (item(torch.zeros(1, 4, 4, dtype=torch.uint8), "cat"), TypeError, "expected a label from 0 on, got 'cat'"),
        ([torch.zeros(1, 4, 4)], TypeError, r"image 0 of the training set: expected \(image, label\), got Tensor"),
        ([], ValueError, "the training set is empty"),
        (iter([]), TypeError, r"must have a length and items \(image, label\), got list_iterator"),
        (Random(), ValueError, "image 0 of the training set is another one each time: leave random transforms"),
        (Drifting(), ValueError, r"image 7 of the training set is another one each time: leave random transforms"),
        (Renamed(), ValueError, "classes are odd, even and the test set's even, odd; a label means its place"),
    ],
)  # fmt: skip
def test_datasets_that_cannot_be_trained_on_are_refused(dataset: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        from_datasets(dataset, Named())
