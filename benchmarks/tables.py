"""Write the tables of docs/block.md and docs/folding.md from the records in benchmarks/results/.

    python benchmarks/tables.py

Between a line `<!-- NAME: python benchmarks/tables.py -->` and `<!-- end -->` stands a table for every NAME-*.csv. A
test makes them again and compares.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("block.md", "folding.md")
HALVES = ("forward + backward", "forward")
Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """Read the rows of a record."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def where(rows: list[Row]) -> str:
    """Say what was measured on, with what, when and how often."""
    first = rows[0]
    cores = f", {first['threads']} threads" if first["device"].startswith("CPU") else ""
    counts = sorted({int(row["rounds"]) for row in rows if "rounds" in row} or {max(int(row["round"]) for row in rows)})
    rounds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    dates = " to ".join(sorted({row["date"] for row in rows}))
    return f"{first['device']}{cores}, torch {first['torch']}, {dates}, {rounds} rounds"


def unique(values: Iterable[str]) -> list[str]:
    """Return the values once each, in their order."""
    return list(dict.fromkeys(values))


def table(head: list[str], rows: list[list[str]], words: int = 1) -> list[str]:
    """Lay out a table whose first columns are words and whose others are numbers."""
    line = "|---" * words + "|---:" * (len(head) - words) + "|"
    first, *others = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
    return [first, line, *others]


def block(rows: list[Row]) -> list[str]:
    """Lay out what the block costs by itself, a line for every map, dtype and engine."""
    found = {tuple(r[k] for k in ("shape", "dtype", "engine", "format", "what", "module")): r for r in rows}
    layouts = unique(row["format"] for row in rows)

    def cell(case: tuple[str, ...], half: str, column: str, module: str = "sr") -> str:
        values = [found.get((*case, layout, half, module), {}).get(column) or "-" for layout in layouts]
        return " / ".join(value if value == "-" else f"{float(value):.2f}" for value in values)

    def by_layout(case: tuple[str, ...]) -> str:
        try:
            first, last = (float(found[(*case, layout, HALVES[0], "sr")]["us"]) for layout in ("nchw", "channels_last"))
        except KeyError:
            return "-"
        return f"{last / first:.2f}"

    alone = f", {layouts[0]} alone" if len(layouts) == 1 else ""
    head = ["map", "dtype", f"engine{alone}", "÷ SE, forward + backward", "forward", "÷ floor, forward + backward",
            "forward", "÷ reading the memory, forward", "channels_last ÷ NCHW",
            "CBAM ÷ SE, forward + backward"]  # fmt: skip
    lines = [
        [*case, *(cell(case, half, "to_se") for half in HALVES),
         *(cell(case, half, "to_constant") for half in HALVES), cell(case, "forward", "to_memory"), by_layout(case),
         cell(case, HALVES[0], "to_se", "cbam")]
        for case in dict.fromkeys((row["shape"], row["dtype"], row["engine"]) for row in rows)
    ]  # fmt: skip
    return table(head, lines, 3)


def network(rows: list[Row]) -> list[str]:
    """Lay out what blocks cost whole networks, a line for every part of a case."""
    head, lines = ["network", "part", "engine", "plain, ms per image"], []
    for case, what, engine in dict.fromkeys((row["case"], row["what"], row["engine"]) for row in rows):
        plain, *others = (r for r in rows if (r["case"], r["what"], r["engine"]) == (case, what, engine))
        head[4:] = [re.split(r"[ (]", row["network"].partition(" + ")[2])[0] for row in others]
        side = "224x224" if case == "imagenet" else "32x32"
        ratios = ([float(row[key]) for key in ("ratio", "low", "high")] for row in others)
        cells = [f"{middle:.3f} ({low:.3f} to {high:.3f})" for middle, low, high in ratios]
        lines.append([f"{plain['network']}, {side}", what, engine, plain["ms_per_image"], *cells])
    return table(head, lines, 3)


def fold(rows: list[Row]) -> list[str]:
    """Lay out what folding saves, a line for every network."""
    head = ["network", "images", "block's parameters", "folded", "time without the block, ms", "with", "folded",
            "folded ÷ with", "largest difference"]  # fmt: skip
    lines = []
    for what in unique(row["what"] for row in rows):
        own = [row for row in rows if row["what"] == what]
        times = [median(float(row[f"{way}_ms"]) for row in own) for way in ("without", "with", "folded")]
        ratios = [float(row["folded_over_with"]) for row in own]
        sizes = [f"{int(own[0][key]):,}" for key in ("block_parameters", "folded_parameters")]
        reach = f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        spent = (f"{ms:.2f}" if ms < 100 else f"{ms:.0f}" for ms in times)
        lines.append([what, own[0]["batch_size"], *sizes, *spent, reach, own[0]["largest_difference"]])
    return table(head, lines)


LAYOUTS: dict[str, Callable[[list[Row]], list[str]]] = {"block": block, "network": network, "fold": fold}


def section(name: str, folder: Path) -> str:
    """Lay out every record of a name, each below what it was measured on."""
    parts = []
    for path in sorted(folder.glob(f"{name}-*.csv")):
        rows = read(path)
        parts += [f"{where(rows)} (`{path.name}`):", "", *LAYOUTS[name](rows), ""]
    return "\n".join(["", *parts])


def filled(page: str, folder: Path = RESULTS) -> str:
    """Return a page with its tables made from the records of a folder."""
    return re.sub(
        r"(<!-- (\w+): python benchmarks/tables\.py -->\n).*?(<!-- end -->)",
        lambda found: found[1] + section(found[2], folder) + "\n" + found[3],
        page,
        flags=re.DOTALL,
    )


def main() -> None:
    """Write the pages."""
    for name in PAGES:
        path = DOCS / name
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
