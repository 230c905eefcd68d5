"""Sphinx: the pages of this folder, the published results and the API from docstrings; `make docs`."""

import re
from typing import Any

import srblock

project = "srblock"
author = "The srblock developers"
copyright = "The srblock developers"
version = release = srblock.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
# The source is the repository, so that pages and the tables made from records link to each other as they do there.
root_doc = "docs/index"
include_patterns = ["docs/*.md", "results/LOG.md", "results/tables/*.md", "results/protocols/*.md"]
highlight_language = "none"  # of blocks that name none: trees, tables, commands
html_theme = "pydata_sphinx_theme"
html_title = f"srblock {version}"
html_show_sourcelink = html_use_index = False
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_center": [],  # the pages stand at the left
    "show_toc_level": 2,
}
html_sidebars = {"**": ["sidebar-collapse", "pages"]}
templates_path = html_static_path = ["site"]
html_css_files = ["site.css"]
default_role = "code"  # `name` in a docstring
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
toc_object_entries_show_parents = "hide"
suppress_warnings = ["toc.not_included"]  # tables of results: their index links to them


def join_lines(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Let "Raises: ValueError if ..." go on in indented lines, which reST would take for a definition."""
    inside = False
    for number, line in enumerate(lines):
        labeled = re.match(r"(\w+): (\S.*)", line)
        inside = bool(labeled) or (inside and line.startswith(" "))
        if inside:
            lines[number] = f"**{labeled[1]}:** {labeled[2]}" if labeled else line.strip()


def setup(app: Any) -> None:
    """Connect what changes docstrings, before Napoleon reads them."""
    app.connect("autodoc-process-docstring", join_lines, priority=400)
