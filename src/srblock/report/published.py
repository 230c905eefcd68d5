"""The published tables: every record, grouped into studies, with the paper's figures beside ours.

A study is what can be compared: the same images, recipe, starting weights and numerics. In it, each variant with SR is
compared with the same network without it. A study with a protocol has a page of its own, which compares what the
protocol says, and shows no figure before all its seeds are in. The same records give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from srblock.data.offenders import counted
from srblock.paper.tables import CLASSES, IMAGE_SIZES, ROWS, PaperRow
from srblock.report import units
from srblock.report.comparison import ANALYSES, over_shared_seeds, pairings, without_looking
from srblock.report.control_lines import control_lines
from srblock.report.formats import markdown_table
from srblock.report.recipes import departures, describe, selection, start
from srblock.report.scenes import class_lines
from srblock.report.tables import DETECTABLE, DIFFERENCE, HOLM_P, INTERVAL, P_GREATER, N, P, mean, others, write_csv
from srblock.report.terminal import Column
from srblock.report.units import signed
from srblock.report.verdicts import words
from srblock.runs.archive import read_records
from srblock.runs.protocol import Protocol, read_protocols
from srblock.runs.records import Run, RunConfig
from srblock.statistics.comparison import Row, comparison, comparisons
from srblock.statistics.equivalence import tost_p
from srblock.training.files import remove_scrap, write_bytes
from srblock.training.recipe import RECIPES, Recipe
from srblock.variants.notation import Variant, parse

PAPER = ("paper", "paper's difference")
TEXT = ("variant", "verdict", "study", "data", "variants", "control", "class")  # columns that are not numbers
OVERHEAD: Column[Row] = (
    "overhead",
    lambda row: f"{row.overhead_percent:.2f}%" if parse(row.variant).sr_blocks else "-",
)
PARAMETERS: Column[Row] = ("parameters", lambda row: f"{row.parameters:,}")
MADE = "Made from `records/` by `srblock results tables`; changes by hand are lost."


@dataclass(frozen=True)
class PublishedStudy:
    """Runs that can be compared with each other.

    Attributes:
        name: of its files; the hash stands for images, recipe, weights and numerics.
        runs: in the table's order, the seeds of a variant together; of a protocol that is under way all of its study.
        rows: a line for each variant, each compared with the same network without SR, or as the protocol says; all
            judged together.
        protocol: by which it was planned, if it was.
        whole: how many of its seeds are in.
        contrasts: a line for each other pair that the protocol names.
    """

    name: str
    runs: list[Run]
    rows: list[Row]
    protocol: Protocol | None = None
    whole: int = 0
    contrasts: tuple[Row, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe of all runs."""
        return self.runs[0].config.recipe

    @property
    def paper(self) -> dict[str, PaperRow]:
        """The paper's rows on this data, by variant; empty for data that the paper has not."""
        return _paper(self.runs[0])

    def of(self, row: Row) -> list[Run]:
        """The runs that a row is of."""
        return [run for run in self.runs if str(run.variant) == row.variant]


def write_tables(results: Path) -> list[Path]:
    """Make `results/tables` from `results/records` anew: index.md, and for each study a .md and a .csv of all seeds.

    Raises: ValueError or FileNotFoundError as `read_records`; OSError if a file cannot be written.
    """
    studies = published(read_records(results), read_protocols(results))
    folder = results / "tables"
    folder.mkdir(exist_ok=True)
    remove_scrap(folder)
    written = [folder / "index.md"]
    write_bytes(written[0], index(studies).encode())
    for study in studies:
        table, seeds = folder / f"{study.name}.md", folder / f"{study.name}.csv"
        write_bytes(table, markdown(study).encode())
        written.append(table)
        if study.rows:
            write_csv(seeds, study.runs)
            written.append(seeds)
    for stale in {*folder.glob("*.md"), *folder.glob("*.csv")} - {*written}:
        stale.unlink()
    return written


def published(runs: Sequence[Run], protocols: Sequence[Protocol] = ()) -> list[PublishedStudy]:
    """Group runs into studies, sorted by name; runs that a protocol planned are on its page.

    Where there are others like them these have the usual page.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(study_name(run.config), []).append(run)
    planned = []
    for name in dict.fromkeys(protocol.study for protocol in protocols):
        runs = groups.pop(name, [])
        plans = [protocol for protocol in protocols if protocol.study == name and any(map(protocol.plans, runs))]
        if beside := _beside(plans, runs):
            groups[name] = beside
        planned += [_planned(protocol, runs) for protocol in plans]
    return sorted([*planned, *(_study(name, group) for name, group in groups.items())], key=lambda study: study.name)


def index(studies: Sequence[PublishedStudy]) -> str:
    """List the studies in Markdown."""
    lines = [
        (
            f"[{study.name}]({study.name}.md)",
            _data_name(study),
            str(study.recipe.epochs),
            str(len(study.runs) if study.protocol is None else sum(map(study.protocol.plans, study.runs))),
            ", ".join(f"{row.variant} (n = {row.n})" for row in study.rows)
            or f"{', '.join(study.protocol.variants if study.protocol else ())} (under way)",
        )
        for study in studies
    ]
    table = (
        markdown_table(("study", "data", "epochs", "runs", "variants"), lines, TEXT, escape=False)
        if lines
        else "No run has been published yet."
    )
    return f"# Published results\n\n{MADE}\n\n{table}\n"


def markdown(study: PublishedStudy) -> str:
    """Print a study: what was run on what, the table, what the columns mean, and what a reader must know."""
    if not study.rows:
        return "\n\n".join([f"# {_heading(study)}", MADE, _progress(study)]) + "\n"
    first, paper = study.runs[0].config, study.paper
    compared = any(row.variant in paper for row in study.rows)
    channels, height, width = first.data["size"]
    columns = (
        N,
        mean(study.rows),
        *others(study.rows),
        DIFFERENCE,
        INTERVAL,
        P,
        HOLM_P,
        P_GREATER,
        DETECTABLE,
        *((PARAMETERS,) if study.protocol else ()),
        OVERHEAD,
    )
    lines = [
        (row.variant, *(cell(row) for _, cell in columns), *(_paper_cells(row, paper) if compared else ()))
        for row in study.rows
    ]
    judged = [(row.variant, words(row.verdict)) for row in study.rows if row.verdict is not None]
    weights = f" Training starts {start(first.weights)}." if first.weights else ""
    parts = [
        f"# {_heading(study)}",
        MADE,
        *([_progress(study)] if study.protocol else []),
        f"{first.data['train']:,} training and {first.data['test']:,} test images of "
        f"{channels}x{height}x{width} in {len(first.data['classes'])} classes, fingerprint "
        f"{first.data['fingerprint'][:12]}. {_where(study.runs)} Every seed: [{study.name}.csv]({study.name}.csv).",
        f"Recipe: {describe(study.recipe)}.{weights}",
        markdown_table(("variant", *(name for name, _ in columns), *(PAPER if compared else ())), lines, TEXT),
        *([markdown_table(("variant", "verdict"), judged, TEXT)] if judged else []),
        _legend(study, compared),
        *(["\n".join(f"- {text}" for text in pairings(study.rows))] if pairings(study.rows) else []),
        *_contrasts(study),
        *_classes(study),
        *_controls(study),
        *_remarks(study, compared),
    ]
    return "\n\n".join(parts) + "\n"


def _study(name: str, runs: Sequence[Run]) -> PublishedStudy:
    order = list(_paper(runs[0]))
    variants = {run.variant for run in runs} | {run.variant.without_sr() for run in runs}
    pairs = sorted(
        ((variant, variant.without_sr()) for variant in variants),
        key=lambda pair: (_key(pair[1], order), _key(pair[0], order)),
    )
    rows = comparisons(sorted(runs, key=lambda run: run.seed), [(str(variant), str(base)) for variant, base in pairs])
    positions = {row.variant: position for position, row in enumerate(rows)}
    return PublishedStudy(name, sorted(runs, key=lambda run: (positions[str(run.variant)], run.seed)), rows)


def _beside(protocols: Sequence[Protocol], runs: Sequence[Run]) -> list[Run]:
    """Choose what no protocol planned and, where these are shown, the planned runs of its variants and baselines."""
    extra = [run for run in runs if not any(protocol.plans(run) for protocol in protocols)]
    variants = {variant for run in extra for variant in (run.variant, run.variant.without_sr())}
    shown = [protocol for protocol in protocols if protocol.complete(runs)]
    return extra + [run for run in runs if run.variant in variants and any(protocol.plans(run) for protocol in shown)]


def _planned(protocol: Protocol, runs: Sequence[Run]) -> PublishedStudy:
    """Compare what a protocol says, once it may be looked at."""
    counting = sorted(protocol.part_of(runs), key=lambda run: (protocol.variants.index(str(run.variant)), run.seed))
    whole = len(protocol.whole_seeds(runs))
    if not protocol.complete(runs):
        return PublishedStudy(protocol.name, list(runs), [], protocol, whole)
    rows = comparison(counting, protocol.variants, margin=protocol.margin)
    contrasts = comparisons(counting, protocol.contrasts, margin=protocol.margin)
    return PublishedStudy(protocol.name, counting if rows else list(runs), rows, protocol, whole, tuple(contrasts))


def _heading(study: PublishedStudy) -> str:
    name = f"{_data_name(study)}, {counted(study.recipe.epochs, 'epoch')}"
    return f"{study.protocol.title} ({name})" if study.protocol else name


def _progress(study: PublishedStudy) -> str:
    """Say which protocol was followed, and how far."""
    protocol = study.protocol
    assert protocol is not None
    text = (
        f"By a [protocol](../protocols/{protocol.name}.md) that was written before the first run: "
        f"{protocol.variants[0]} against {', '.join(protocol.variants[1:])}. "
        f"{study.whole} of {counted(protocol.seeds, 'seed')} {'is' if study.whole == 1 else 'are'} in."
    )
    if protocol.diverged:
        lost = ", ".join(f"{variant} with seed {seed}" for variant, seed in protocol.diverged)
        text += f" The loss of {lost} diverged; these seeds leave the comparison."
    if not study.rows and not protocol.complete(study.runs):
        return f"{text} No figure is shown before the last one."
    return f"{text} It ended before the last one: {protocol.ended}." if protocol.ended else text


def _key(variant: Variant, order: Sequence[str]) -> tuple[object, ...]:
    """Sort networks without blocks first, then as the paper does, then by place and size of their blocks."""
    text = str(variant)
    blocks = [(block.place, block.options.blocks, block.options.hidden) for block in variant.sr_blocks]
    return bool(blocks), order.index(text) if text in order else len(order), blocks, text


def study_name(config: RunConfig) -> str:
    """Name the study that a run belongs to; the hash stands for images, recipe, weights and numerics."""
    identity = config.data["fingerprint"], config.recipe.identity, config.start, config.numerics
    digits = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:6]
    name = "".join(letter if letter.isalnum() else "-" for letter in config.data["name"].lower())
    return f"{name}-{config.recipe.epochs}-epochs-{digits}"


def _paper(run: Run) -> dict[str, PaperRow]:
    """Find the paper's rows on a run's data; a folder that is only called like it has other classes or sizes."""
    data = run.config.data
    name, (_, height, width) = data["name"], data["size"]
    if (len(data["classes"]), (height, width)) != (CLASSES.get(name), IMAGE_SIZES.get(name)):
        return {}
    return {row.notation: row for row in ROWS if (row.data, row.metric) == (name, run.figure.key)}


def _paper_cells(row: Row, paper: dict[str, PaperRow]) -> tuple[str, str]:
    theirs, base = paper.get(row.variant), paper.get(row.baseline)
    if theirs is None:
        return "-", "-"
    difference = "-" if base is None or base is theirs else signed(theirs.mean - base.mean)
    return units.mean_and_std(theirs.mean, theirs.std), difference


def _legend(study: PublishedStudy, compared: bool) -> str:
    first, compares, winner = study.rows[0], "A variant with SR is compared with the same network without it", "SR"
    if study.protocol is not None:
        compares, winner = f"Every variant is compared with {first.baseline}", "the variant"
    text = (
        f"Test {first.figure.label} in percent of {selection(first.held_out)}, mean ± standard deviation "
        f"(ddof = 1) over n seeds. {compares}: difference in "
        f"percentage points; interval and p by {ANALYSES}; Holm p corrected over all comparisons of this "
        f"page, and the verdicts follow it. P(A > B): share of seed pairs in which {winner} wins. Detectable: the true "
        "difference that these seeds find four times in five, after that correction. Overhead: parameters of the SR "
        "block over those of the network without it."
    )
    return text + (" Paper: Cakaj, Mehnert, Yang, ICMLA 2024, 5 seeds a row (ImageNet 4)." if compared else "")


def _contrasts(study: PublishedStudy) -> list[str]:
    """Print the other pairs that a protocol names, each for itself."""
    if not study.contrasts:
        return []
    assert study.protocol is not None
    columns, margin = (N, DIFFERENCE, INTERVAL, P), study.protocol.margin
    lines = [
        (row.variant, row.baseline, *(cell(row) for _, cell in columns), _equivalence(row, margin))
        for row in study.contrasts
    ]
    text = (
        "Beside these comparisons the protocol names others, each tested alone and outside of Holm's correction; the "
        f"last p is that of equivalence, against a difference of {margin:g} or more (TOST):"
    )
    header = ("variant", "compared with", *(name for name, _ in columns), "p (TOST)")
    return [text, markdown_table(header, lines, (*TEXT, "compared with"))]


def _equivalence(row: Row, margin: float) -> str:
    return "-" if row.estimate is None else units.probability(float(tost_p(row.estimate, margin)))


def _classes(study: PublishedStudy) -> list[str]:
    """Print the IoU of every class of a segmentation."""
    groups = [(row.variant, study.of(row)) for row in study.rows]
    if any(run.confusion is None for _, runs in groups for run in runs):
        return []
    lines = class_lines(groups, study.runs[0].config.data["classes"])
    return [
        "Test IoU of every class in percent:",
        markdown_table(("class", *(variant for variant, _ in groups)), lines, TEXT),
    ]


def _controls(study: PublishedStudy) -> list[str]:
    """Print what the figures become under each control, where it was recorded."""
    lines = control_lines([(row.variant, study.of(row)) for row in study.rows])
    if not lines:
        return []
    text = (
        "Does what is recalled matter? The trained networks tested again, change of test "
        f"{study.rows[0].figure.label} in percentage points with its 95% interval over the seeds, both without "
        "test-time augmentation. (Recall weights are changed in all blocks of a network at once; their mean is over "
        "the test images.)"
    )
    return [text, markdown_table(("variant", "control", "n", "change", "95% interval"), lines, TEXT)]


def _remarks(study: PublishedStudy, compared: bool) -> list[str]:
    present = {row.variant for row in study.rows} | {row.baseline for row in study.rows if study.protocol}
    missing = dict.fromkeys(row.baseline for row in study.rows if row.baseline not in present)
    lines = [f"From the protocol: {study.protocol.scope}"] if study.protocol and study.protocol.scope else []
    lines += without_looking(study.rows)
    lines += over_shared_seeds(study.rows)
    lines += [f"No run of {base} is published: there is nothing to compare its SR variants with." for base in missing]
    other = departures(study.recipe, RECIPES[_data_name(study)], "full") if study.paper else []
    if other:
        text = (
            f"**Not the paper's full recipe**: {', '.join(other)}. Whether the block helps at this recipe says "
            "little about the full one."
        )
        if compared:
            text += " The paper's figures are of another training and stand here for orientation."
        lines.append(text)
    return lines


def _where(runs: Sequence[Run]) -> str:
    """Say on what the runs were made, and how long they took."""
    environments = [run.environment for run in runs]
    devices = _distinct(f"{found['device']} ({counted(found['threads'], 'thread')})" for found in environments)
    torch = _distinct(str(found.get("torch")) for found in environments)
    commits = _distinct(str(found.get("commit")) for found in environments)
    seconds = sum(run.wall_s or 0.0 for run in runs)
    return (
        f"{counted(len(runs), 'run')} on {devices}, torch {torch}, commit {commits}; "
        f"{units.duration(seconds)} of training in all."
    )


def _distinct(values: Iterable[str]) -> str:
    return " and ".join(sorted(set(values)))


def _data_name(study: PublishedStudy) -> str:
    return str(study.runs[0].config.data["name"])
