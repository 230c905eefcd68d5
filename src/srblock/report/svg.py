"""Figures: drawn once by matplotlib, shown three ways.

    inline   an <svg> element of a page: no outside reference, the page's font and colors
    svg      a file by itself
    png      pixels

Colors are drawn as stand-ins. In a page they become CSS variables, so that a figure follows it into dark mode; in files
they become the page's light colors. Equal figures give equal text on any day.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib import colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from srblock.report.terminal import without_controls

# Stand-ins for colors that the page defines; no color map contains them.
INK, FAINT, PAPER = "#010203", "#040506", "#070809"
SERIES = tuple(f"#0a0b{index:02x}" for index in range(6))
VARIABLES = {INK: "--ink", FAINT: "--faint", PAPER: "--paper"} | {
    stand_in: f"--series-{index}" for index, stand_in in enumerate(SERIES)
}
LIGHT = {INK: "#1b1e23", FAINT: "#868e99", PAPER: "#ffffff"} | dict(
    zip(SERIES, ("#6b7280", "#0072b2", "#d55e00", "#009e73", "#b8629b", "#4aa3d8"), strict=True)
)
"""As in page.css."""
MARGIN = 12  # CSS pixels around a figure in a file
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


@dataclass(frozen=True)
class Plate:
    """A figure that can be drawn.

    Attributes:
        width, height: in CSS pixels.
        description: for those who do not see it.
        paint: draws it, with stand-in colors.
    """

    width: float
    height: float
    description: str
    paint: Callable[[Figure], None]

    def inline(self, name: str) -> str:
        """Return an <svg> element of a page; its ids start with `name`, which is unique there."""
        return without_controls(_inline(self._drawing, name, self._opening()))

    def svg(self) -> str:
        """Return a file by itself, in light colors on white."""
        text = self._drawing
        for stand_in, light in LIGHT.items():
            text = text.replace(stand_in, light)
        text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
        spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        opening = self._opening(spaces, MARGIN)
        ground = f'\n<rect x="{-MARGIN}" y="{-MARGIN}" width="100%" height="100%" fill="{LIGHT[PAPER]}"/>'
        text = re.sub(r"<svg[^>]*>", lambda _: opening + ground, text, count=1)
        text = without_controls(re.sub(r"\s*\n\s*", "\n", text).strip())
        return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'

    def png(self, scale: float = 2) -> bytes:
        """Return pixels in light colors on white, `scale` of them for each CSS pixel."""
        file = io.BytesIO()
        with _in_light_colors(), self._painted() as figure:
            FigureCanvasAgg(figure).print_figure(file, format="png", dpi=72 * scale, facecolor=LIGHT[PAPER])
        return _framed(file, round(MARGIN * scale))

    def _opening(self, spaces: str = "", margin: int = 0) -> str:
        width, height = self.width + 2 * margin, self.height + 2 * margin
        return (
            f'<svg {spaces}role="img" aria-label="{escape(self.description)}" width="{width:g}" '
            f'height="{height:g}" viewBox="{-margin} {-margin} {width:g} {height:g}">'
        )

    @cached_property
    def _drawing(self) -> str:
        """Matplotlib's SVG in stand-in colors, which an element and a file are made of."""
        text = io.StringIO()
        plain: dict[str, Any] = {"metadata": {"Date": None, "Creator": None, "Format": None, "Type": None}}
        with self._painted() as figure:
            FigureCanvasSVG(figure).print_figure(text, format="svg", dpi=72, **plain)
        # Images that are alike get the same id, which nothing refers to.
        return re.sub(r' id="image[0-9a-f]+"', "", text.getvalue())

    @contextmanager
    def _painted(self) -> Iterator[Figure]:
        """Paint under settings of our own."""
        with mpl.rc_context(), warnings.catch_warnings():
            # Names may be in any script: in an SVG the text stays text, and the reader's browser has the glyphs.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            mpl.rcdefaults()  # whatever the user's own matplotlibrc says
            mpl.rcParams.update(STYLE)
            figure = Figure(figsize=(self.width / 72, self.height / 72))
            self.paint(figure)
            yield figure


def draw(width: float, height: float, name: str, description: str, paint: Callable[[Figure], None]) -> str:
    """Return an <svg> element of this size in CSS pixels, drawn by `paint` (see `Plate`)."""
    return Plate(width, height, description, paint).inline(name)


def _framed(file: io.BytesIO, margin: int) -> bytes:
    """Add a white margin to a PNG."""
    with Image.open(file) as drawn:
        ground = Image.new("RGB", (drawn.width + 2 * margin, drawn.height + 2 * margin), LIGHT[PAPER])
        ground.paste(drawn.convert("RGB"), (margin, margin))
    framed = io.BytesIO()
    ground.save(framed, "PNG")
    return framed.getvalue()


@contextmanager
def _in_light_colors() -> Iterator[None]:
    """Let matplotlib take stand-ins for names of colors: it looks for a name before it reads a color's digits."""
    names = colors.get_named_colors_mapping()
    for stand_in, light in LIGHT.items():  # each by itself: update() keeps what is remembered
        names[stand_in] = light
    try:
        yield
    finally:
        for stand_in in LIGHT:
            del names[stand_in]


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
