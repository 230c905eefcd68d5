"""docs/block.svg is what docs/figure.py draws."""

from __future__ import annotations

import runpy
from pathlib import Path
from xml.etree import ElementTree

DOCS = Path(__file__).parents[1] / "docs"


def test_the_figure_is_the_one_that_the_code_draws() -> None:
    drawn = runpy.run_path(str(DOCS / "figure.py"))["draw"]()
    assert (DOCS / "block.svg").read_text(encoding="utf-8") == drawn, "run python docs/figure.py"
    assert ElementTree.fromstring(drawn).attrib["role"] == "img"
    assert "prefers-color-scheme: dark" in drawn
