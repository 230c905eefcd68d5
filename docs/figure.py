"""Draw docs/block.svg, the block's three steps (Sec. III, Fig. 1 says the same in its own way): python docs/figure.py

One file that reads in light and dark surroundings: its colors, and what it stands on, follow `prefers-color-scheme`.
"""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).with_name("block.svg")
WIDTH, HEIGHT = 880, 330
STYLE = """
  .page { fill: #ffffff }
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .name { font: italic 15px Georgia, serif }
  .step { font-weight: 600; font-size: 14px }
  .small { font-size: 12px; fill: #57606a }
  .map { fill: #ddf4ff; stroke: #0969da }
  .one { fill: #fff8c5; stroke: #9a6700 }
  .memory { fill: #dafbe1; stroke: #1a7f37 }
  .bar { fill: #9a6700 }
  .wire { fill: none; stroke: #57606a; stroke-width: 1.4 }
  .head { fill: #57606a }
  .zone { fill: none; stroke: #d0d7de; stroke-dasharray: 4 4 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #14181e }
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .map { fill: #0c2d6b; stroke: #58a6ff }
    .one { fill: #4b3700; stroke: #d29922 }
    .memory { fill: #0f3d1c; stroke: #3fb950 }
    .bar { fill: #d29922 }
    .wire { stroke: #9198a1 }
    .head { fill: #9198a1 }
    .zone { stroke: #3d444d }
  }
"""
WEIGHTS = (0.15, 0.55, 0.2, 0.1)  # as an example; they sum to one
TIMES = "\u00d7"
MAP, ONE = (f" {TIMES} ".join(sides) for sides in ("CHW", "1HW"))
LABELS = ("1", "2", "…", "P")


def cuboid(kind: str, x: float, y: float, side: float, depth: float) -> str:
    """Draw a feature map: a square of positions, its channels going back."""
    top = f"{x},{y} {x + depth},{y - depth} {x + side + depth},{y - depth} {x + side},{y}"
    right = f"{x + side},{y} {x + side + depth},{y - depth} {x + side + depth},{y + side - depth} {x + side},{y + side}"
    return (
        f'<polygon class="{kind}" points="{top}"/><polygon class="{kind}" points="{right}"/>'
        f'<rect class="{kind}" x="{x}" y="{y}" width="{side}" height="{side}"/>'
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    """Write words."""
    of = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{of}>{words}</text>'


def arrow(*points: tuple[float, float]) -> str:
    """Draw a line through points, with a head at its end."""
    return f'<polyline class="wire" marker-end="url(#head)" points="{" ".join(f"{x},{y}" for x, y in points)}"/>'


def sub(name: str, index: str) -> str:
    """Give a name an index."""
    return f"{name}<tspan baseline-shift='sub' font-size='10'>{index}</tspan>"


def draw() -> str:
    """Return the figure."""
    parts = [text(x, 24, words, "step") for x, words in ((205, "1  Squeeze"), (420, "2  Remember"), (655, "3  Recall"))]
    parts += [f'<line class="zone" x1="{x}" y1="38" x2="{x}" y2="232"/>' for x in (276, 535)]
    parts += [
        cuboid("map", 20, 100, 70, 26), text(55, 141, "X", "name"), text(68, 192, MAP, "small"),
        arrow((120, 130), (182, 130)), text(150, 120, f"1{TIMES}1 conv", "small"),
        cuboid("one", 190, 100, 70, 3), text(225, 141, "q", "name"), text(227, 192, ONE, "small"),
        arrow((268, 130), (340, 130)), text(312, 104, "linear", "small"), text(312, 120, "HW → U", "small"),
        *(f'<circle class="one" cx="354" cy="{y}" r="6"/>' for y in (100, 120, 140, 160)),
        arrow((368, 130), (440, 130)), text(404, 88, "linear", "small"), text(404, 104, "U → P", "small"),
        text(404, 120, "softmax", "small"), text(476, 192, "sum to 1", "small"), arrow((516, 130), (556, 130)),
    ]  # fmt: skip
    for place, (weight, label) in enumerate(zip(WEIGHTS, LABELS, strict=True)):
        y, long = 94 + 20 * place, 64 * weight
        parts.append(f'<rect class="bar" x="448" y="{y}" width="{long:g}" height="13" rx="2"/>')
        parts.append(text(455 + long, y + 11, label if label == "…" else sub("a", label), "small", "start"))
    for place, label in enumerate(LABELS):
        y = 60 + 44 * place
        parts.append(cuboid("memory", 566, y, 26, 9))
        parts.append(text(612, y + 16, label if label == "…" else sub("M", label), "small", "start"))
        parts.append(arrow((636, y + 12), (691, 124 + 4 * place)))
    weighted = f"{sub('a', 'p')} {sub('M', 'p')}"
    parts += [
        text(600, 246, "learned memory, zero at the start", "small"),
        '<circle class="wire" cx="706" cy="130" r="14"/>', text(706, 136, "Σ"), text(706, 164, weighted, "small"),
        arrow((720, 130), (750, 130)), text(735, 120, "R", "name"),
        '<circle class="wire" cx="764" cy="130" r="12"/>', text(764, 135, "+"), arrow((776, 130), (790, 130)),
        cuboid("map", 796, 105, 50, 18), text(821, 135, "Y", "name"), text(832, 178, MAP, "small"),
        arrow((55, 200), (55, 286), (764, 286), (764, 146)),
        text(410, 278, "the map itself, which a fresh block returns", "small"),
        text(440, 318, f"Y = X + Σ {weighted},    a = softmax(W₂ W₁ q),    q = conv(X)", "name"),
    ]  # fmt: skip
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="The block squeezes a map to one channel, turns that into weights over P memory maps, and adds '
        'their weighted sum to the map">\n'
        f"<style>{STYLE}</style>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="head" d="M0,0 L8,4 L0,8 z"/></marker></defs>\n'
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="6"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    FILE.write_text(draw(), encoding="utf-8")
