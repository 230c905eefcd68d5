"""From a matplotlib figure to SVG that lives inside a page: no outside reference, the page's font and colors.

Colors are drawn as stand-ins and become CSS variables, so that a figure follows the page into dark mode. Equal figures
give equal text on any day.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Stand-ins for colors that the page defines; no color map contains them.
INK, FAINT, PAPER = "#010203", "#040506", "#070809"
SERIES = tuple(f"#0a0b{index:02x}" for index in range(6))
VARIABLES = {INK: "--ink", FAINT: "--faint", PAPER: "--paper"} | {
    stand_in: f"--series-{index}" for index, stand_in in enumerate(SERIES)
}
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "srblock",  # the same ids on every run
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the layout is the same everywhere
    "font.size": 12,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "figure.dpi": 72,  # a point is a pixel
}


def draw(width: float, height: float, name: str, description: str, paint: Callable[[Figure], None]) -> str:
    """Return an <svg> element of this size in CSS pixels, drawn by `paint`.

    Args:
        name: unique in the page; the element's ids start with it.
        description: for those who do not see the figure.
    """
    text = io.StringIO()
    with mpl.rc_context(), warnings.catch_warnings():
        # Names may be in any script: the text stays text, and the reader's browser has the glyphs.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        mpl.rcdefaults()  # whatever the user's own matplotlibrc says
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(width / 72, height / 72))
        paint(figure)
        plain: dict[str, Any] = {"metadata": {"Date": None, "Creator": None, "Format": None, "Type": None}}
        FigureCanvasSVG(figure).print_figure(text, format="svg", dpi=72, **plain)
    opening = (
        f'<svg role="img" aria-label="{escape(description)}" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}">'
    )
    return _inline(text.getvalue(), name, opening)


def _inline(svg: str, name: str, opening: str) -> str:
    """Turn a file into an element: own ids, no namespaces, no style sheet (it would hold for the whole page)."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("xlink:href=", "href=").replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    svg = re.sub(r'href="data:[^"]*"', lambda match: re.sub(r"\s", "", match[0]), svg)
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, f"var({variable})")
    return re.sub(r"\s*\n\s*", "\n", svg).strip()
