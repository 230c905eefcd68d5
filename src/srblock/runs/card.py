"""The model card of a saved network: what it is, how it is used, its figures with their n, how they are had again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from srblock.runs.again import again
from srblock.runs.input import Input
from srblock.runs.records import Run, check_of_one_make, finished, read_config, read_run
from srblock.variants.notation import parse

TAGS = ("squeeze-and-remember", "pytorch", "convolutional-network")
PIPELINES = {"classification": "image-classification", "segmentation": "image-segmentation"}


def run_card(said: Input, repository: str, folder: Path | None, license: str | None) -> str:
    """Write the card of a run.

    Args:
        said: what its network takes.
        repository: where it will be had from, owner/name.
        folder: of the run, for its figures and those of other runs of its study beside it; None for none.
    """
    height, width = said.size
    what = "a class for every pixel" if said.task == "segmentation" else "one class of an image"
    lines = [
        *_front(license, PIPELINES.get(said.task)),
        f"# {said.variant}",
        "",
        f"A convolutional network that says {what}, of {len(said.classes)}, trained with "
        f"srblock {said.srblock} on images of {said.channels}x{height}x{width}. How images are brought to it stands in "
        "the header of `model.safetensors`, with the names of the classes.",
        "",
        *_use(
            f'run = srblock.from_pretrained("{repository}")',
            'print(run.predict(Image.open("photo.jpg")))',
            image=True,
        ),
        *(_figures(folder) if folder is not None else ["## Figures", "", "None came with these weights.", ""]),
    ]
    return "\n".join(lines)


def model_card(name: str, places: Sequence[dict[str, Any]], repository: str, license: str | None) -> str:
    """Write the card of a model of one's own.

    Args: name of its class; places of its blocks, as `placement.places` lists them.
    """
    blocks = [
        f"- after `{entry['after']}`, for maps of {entry['channels']}x{entry['size'][0]}x{entry['size'][1]}: P = "
        f"{entry['options']['blocks']}, U = {entry['options']['hidden']}"
        for entry in places
    ]
    return "\n".join(
        [
            *_front(license, None),
            f"# {name} with Squeeze-and-Remember blocks" if places else f"# {name}",
            "",
            "The weights of a model whose code is its author's. " + ("Its blocks:" if places else "It has no blocks."),
            "",
            *blocks,
            *([""] if blocks else []),
            *_use(
                "model = ...  # built by its own code, without blocks",
                f'srblock.from_pretrained("{repository}", model=model)',
            ),
            "## Figures",
            "",
            "None are given: nothing was measured here.",
            "",
        ]
    )


def _front(license: str | None, pipeline: str | None) -> list[str]:
    if license is not None and not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", license):
        raise ValueError(f"license is an identifier such as apache-2.0 or other, got {license!r}")
    entries = ["library_name: srblock"]
    entries += [f"license: {license}"] if license else []
    entries += [f"pipeline_tag: {pipeline}"] if pipeline else []
    return ["---", *entries, "tags:", *(f"- {tag}" for tag in TAGS), "---", ""]


def _use(*code: str, image: bool = False) -> list[str]:
    imports = ["from PIL import Image", ""] if image else []
    return ['`pip install "srblock[hub]"`, then', "", "```python", "import srblock", *imports, *code, "```", ""]


def _figures(folder: Path) -> list[str]:
    """Say what a run and those beside it measured."""
    run, started = read_run(folder), read_config(folder)
    study = _beside(run)
    data, environment = run.config.data, run.environment
    labels = [figure for figure in run.config.figures if figure.key in run.test]
    epoch = "of the epoch selected on validation" if run.validation else "of the last epoch: all images were trained on"
    several = max(len(seeds) for seeds in study.values()) > 1
    spread = ", mean ± standard deviation (divided by n - 1) over n seeds" if several else ""
    repeated = again(run.config, started)
    own = ", ".join(f"{figure.label} {run.test[figure.key]:.2f}%" for figure in labels)
    tta = f"Averaged over views ({run.config.recipe.tta}). " if run.config.recipe.tta != "none" else ""
    one = "" if several else " One seed: it says nothing of how far another would be from it."
    tested = f"On the {data['test']:,} test images of {_code(data['name'])}, in percent, {epoch}"
    whose = "PATH stands for where the data lies, with" if "PATH" in repeated.options else "The data has"
    heading = ["network", "n", *(figure.label for figure in labels), "parameters", f"each seed, {labels[0].label}"]
    return [
        "## Figures",
        "",
        f"{tested}{spread}. {tta}These weights are those of seed {run.seed}: {own}.{one}",
        "",
        f"| {' | '.join(heading)} |",
        f"|---|---:|{'---:|' * len(labels)}---:|---|",
        *(_row(run, seeds, [figure.key for figure in labels]) for seeds in study.values()),
        "",
        "## Again",
        "",
        "```sh",
        f"{_command(run, study)} {repeated.options}",
        "```",
        "",
        f"{whose} {data['train']:,} images to train on and the fingerprint `{data['fingerprint'][:16]}`. It ran on "
        f"{environment.get('device')} with torch {environment.get('torch')}; other machines give other last "
        "digits, other seeds other figures.",
        *(
            [f"{_code(run.variant.network)} is a function of its author's, which is not here."]
            if run.variant.custom
            else []
        ),
        *(f"No option says that {unsaid}." for unsaid in repeated.unsaid),
        "",
    ]


def _beside(run: Run) -> dict[str, list[Run]]:
    """Collect a run and the finished ones beside it that can be compared with it, by variant; without blocks first."""
    found, configs = {str(run.variant): {run.seed: run}}, [run.config]
    for folder in sorted(run.directory.parent.iterdir()):
        if not finished(folder) or folder.resolve() == run.directory.resolve():
            continue
        other = read_run(folder)
        known = found.get(str(other.variant), {})
        if other.config.study != run.config.study or other.seed in known:
            continue
        with suppress(ValueError):  # of a network that was built, or began, otherwise
            check_of_one_make([*configs, other.config])
            configs.append(other.config)
            found[str(other.variant)] = known | {other.seed: other}
    order = sorted(found, key=lambda variant: (bool(parse(variant).sr_blocks), variant))
    return {variant: [found[variant][seed] for seed in sorted(found[variant])] for variant in order}


def _row(run: Run, runs: Sequence[Run], keys: Sequence[str]) -> str:
    """Print a line of the table; of the run's own network in bold."""
    cells = []
    for key in keys:
        values = [other.test[key] for other in runs]
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        cells.append(f"{fmean(values):.2f}{spread}")
    each = ", ".join(f"{other.test[keys[0]]:.2f} (seed {other.seed})" for other in runs)
    name = f"**{run.variant}**" if runs[0].variant == run.variant else str(runs[0].variant)
    return f"| {name} | {len(runs)} | {' | '.join(cells)} | {runs[0].parameters:,} | {each} |"


def _command(run: Run, study: dict[str, list[Run]]) -> str:
    """Name the command of the study if it is one with the same seeds in a row for all, else that of the run."""
    seeds = {tuple(other.seed for other in runs) for runs in study.values()}
    if len(seeds) == 1 and len(study) > 1:
        (each,) = seeds
        if each == tuple(range(each[0], each[0] + len(each))):
            reach = str(len(each)) if each[0] == 0 else f"{each[0]}-{each[-1]}"
            return shlex.join(["srblock", "compare", *study, "--seeds", reach])
    return shlex.join(["srblock", "train", str(run.variant), "--seed", str(run.seed)])


def _code(text: str) -> str:
    return f"`{''.join(c if c.isprintable() and c != '`' else '?' for c in text)}`"
