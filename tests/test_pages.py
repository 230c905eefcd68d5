"""README.md and docs/: every `srblock ...` line is a command, every Python block runs, every link leads to a file."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from cyclopts import App, CycloptsError
from scene_fixture import write_camvid
from torch import Tensor, nn

import srblock
from srblock.cli import app
from srblock.variants.grid import expand
from srblock.variants.notation import parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINKED = (*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "results/LOG.md")))
OTHERS = {"--only", "--resolution", "--shm-size", "--version"}  # of other programs, and of no command
READ: dict[str, Callable[[str], object]] = {"compare": parse, "train": parse, "sweep": expand}
RUN_ELSEWHERE = {"memory.md", "recipes.md", "using.md", "your-network.md"}  # test_kinds, _recipes_page, _using, _custom
each_page = pytest.mark.parametrize("page", [pytest.param(path, id=path.name) for path in PAGES])


def shell_lines(page: Path) -> Iterator[str]:
    """Yield the lines of a page's shell blocks, fenced or indented; those that go on after a backslash are joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for language, block in FENCED.findall(text):
        if language in ("sh", ""):
            yield from block.splitlines()
    yield from re.findall(r"^ {4}(\S.*)$", FENCED.sub("", text), re.MULTILINE)


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words after `srblock` of each line that runs it, alone or behind others (`env`, `torchrun -m`)."""
    for line in shell_lines(page):
        if re.search(r"(^|\s)srblock [a-z]", line):
            words = shlex.split(line, comments=True)
            yield words[words.index("srblock") + 1 :]


def mentions(page: Path) -> Iterator[list[str]]:
    """Yield the words after `srblock` of each command in running text, where values may be left out."""
    prose = FENCED.sub("", page.read_text(encoding="utf-8"))
    for code in re.findall(r"`(?:[^`]* )?srblock ([a-z][^`]*)`", "\n".join(re.findall(r"`[^`]+`", prose))):
        yield code.replace("\n", " ").split()


def option_names(command: App) -> set[str]:
    return {name for argument in command.assemble_argument_collection() for name in argument.names}


@each_page
def test_every_command_line_can_be_given(page: Path) -> None:
    for words in commands(page):
        try:
            command, given, _ = app.parse_args(words)
        except CycloptsError as error:
            pytest.fail(f"{shlex.join(words)}: {error}")
        if command.__name__ in READ:
            for text in given.args:
                READ[command.__name__](text)
    for words in mentions(page):
        command_app = app[words[0]][words[1]] if words[0] == "results" else app[words[0]]
        named = {word.rstrip(",;") for word in words if word.startswith("--")}
        assert named <= option_names(command_app) | {"--help"}, " ".join(words)


def test_every_option_in_running_text_is_an_option() -> None:
    names = [name for name in app if not name.startswith("-") and name != "results"]
    known = OTHERS.union(*(option_names(app[name]) for name in names))
    for page in PAGES:
        named = re.findall(r"`(--[a-z][a-z0-9-]*)", FENCED.sub("", page.read_text(encoding="utf-8")))
        assert set(named) <= known, page.name


@pytest.mark.parametrize("page", [pytest.param(path, id=path.name) for path in LINKED])
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text(encoding="utf-8"))):
        name, _, heading = link.partition("#")
        if not link.startswith(("http:", "https:")):
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not heading or heading in anchors(target), link


def anchors(page: Path) -> set[str]:
    """Name the headings of a page as links do."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- Python ----------------------------------------------------------------------------------------------------------


class Fused(nn.Module):
    """A network of three inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.views, self.fused = nn.Embedding(4, 4), nn.Conv2d(4, 8, 3)

    def forward(self, image: Tensor, depth: Tensor, view: Tensor) -> Tensor:
        out: Tensor = self.fused(torch.cat([image, depth], 1) + self.views(view)[:, :, None, None])
        return out


class Small(nn.Sequential):
    """A network whose input has torchvision's name."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x


def small(size: int, **options: Any) -> nn.Module:
    """Return a small network with a block, for images of one size."""
    model = Small(nn.Conv2d(3, 4, 3, stride=32, padding=1), nn.ReLU())
    srblock.insert(model, after="1", input_size=size, blocks=2, hidden=2, **options)
    return model


def checkpoint() -> dict[str, object]:
    torch.save(small(96).state_dict(), "run.pth")
    return {"model": small(64)}


def detector() -> dict[str, object]:
    make = torchvision.models.detection.retinanet_resnet50_fpn
    return {"model": make(weights=None, weights_backbone=None)}


def scenes() -> dict[str, object]:
    write_camvid(Path("FOLDER"))
    return {}


GIVEN: dict[str, Callable[[], dict[str, object]]] = {  # by what is in a snippet: the names and files that it builds on
    'after="fused"': lambda: {"model": Fused()},
    "model.backbone": detector,
    "torch.onnx.export": lambda: {"model": small(224, resize="bilinear")},
    'torch.load("run.pth"': checkpoint,
    "load_scenes": scenes,
}
SMALLER = {"(800, 1088)": "(160, 224)"}  # what takes long at its own size


def snippets() -> list[tuple[Path, int, str]]:
    """Read the Python blocks of all pages that no other test runs, each with the line where it begins."""
    pages = {page: page.read_text(encoding="utf-8") for page in PAGES if page.name not in RUN_ELSEWHERE}
    blocks = ((page, text, block) for page, text in pages.items() for block in FENCED.finditer(text))
    return [(page, text.count("\n", 0, at.start()) + 1, at[2]) for page, text, at in blocks if at[1] == "python"]


@pytest.mark.parametrize(
    ("page", "line", "source"), [pytest.param(*found, id=f"{found[0].name}:{found[1]}") for found in snippets()]
)
def test_python(page: Path, line: int, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for large, little in SMALLER.items():
        source = source.replace(large, little)
    names: dict[str, object] = {"srblock": srblock, "torch": torch, "torchvision": torchvision}
    names |= next((given() for part, given in GIVEN.items() if part in source), {})
    with warnings.catch_warnings():
        if "torch.export" in source:
            warnings.simplefilter("ignore")  # of the exporter about itself
        exec(compile("\n" * line + source, str(page), "exec"), names)
