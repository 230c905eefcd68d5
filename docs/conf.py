"""Sphinx: the pages of this folder, the published results and the API from docstrings; `make docs`."""

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
html_theme = "pydata_sphinx_theme"
html_title = f"srblock {version}"
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 3,
}
html_sidebars = {"docs/index": []}
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
suppress_warnings = ["toc.not_included"]  # tables of results: their index links to them
