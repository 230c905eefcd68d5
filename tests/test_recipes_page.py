"""Every snippet of docs/recipes.md runs as it stands, in an empty folder; what a snippet imports must be installed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"


def snippets() -> list[tuple[str, int, str]]:
    """Read the page's Python blocks, each with the heading above it and the line where it begins."""
    found, heading, start, inside = [], "", 0, list[str]()
    for number, line in enumerate(PAGE.read_text().splitlines(), 1):
        if start and line == "```":
            found.append((heading, start, "\n".join(inside)))
            start, inside = 0, []
        elif start:
            inside.append(line)
        elif line == "```python":
            start = number
        elif line.startswith("## "):
            heading = line[3:]
    return found


def imported(tree: ast.Module) -> list[str]:
    """Name the modules that a snippet imports."""
    nodes = list(ast.walk(tree))
    direct = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return direct + [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]


def test_the_page_has_its_recipes() -> None:
    assert 2 * len(snippets()) == PAGE.read_text().count("```")
    headings = " ".join(heading for heading, _, _ in snippets())
    for topic in ("optimizer", "Lightning", "EMA", "extractor", "Hugging Face", "ONNX", "torchao", "checkpointing"):
        assert topic in headings


# What these libraries do to torch and Python, not the snippets: Lightning asks for a class that torch renames, and a
# docstring of torchao (which transformers imports) has a backslash too few.
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning:lightning.pytorch.utilities._pytree")
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning:.*torchao")
@pytest.mark.filterwarnings("ignore:.*invalid escape sequence:SyntaxWarning:.*torchao")  # from Python 3.12 on
@pytest.mark.parametrize(
    ("start", "source"),
    [pytest.param(start, source, id=f"{heading}:{start}".replace(" ", "-")) for heading, start, source in snippets()],
)
def test_snippet(start: int, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = ast.parse(source)
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree.body[-1])), "a snippet ends with a check"
    for name in imported(tree):
        pytest.importorskip(name.partition(".")[0])
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    # Lines as in the page, so that a traceback points there.
    exec(compile("\n" * start + source, str(PAGE), "exec"), {"__name__": "__main__"})
