"""The commands that use a finished run."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from srblock.cli.app import FAILED, app
from srblock.cli.numbers import AT_LEAST_1
from srblock.cli.options import BuildOption, Device

if TYPE_CHECKING:
    from srblock.runs.trained import Prediction

OF_A_RUN = ("config.json", "result.json")
RunPath = Annotated[
    Path, Parameter(help="the folder of a finished run, its checkpoint.safetensors, or a study's --out")
]
WhichVariant = Annotated[str | None, Parameter(help="of a study: which variant, in the notation")]
WhichSeed = Annotated[int | None, Parameter(help="of a study: which seed")]


@app.command(sort_key=6, help_epilogue="Example: srblock predict out/runs/r18-s0-1f33aea2 photos/ --csv said.csv")
def predict(
    run: RunPath,
    images: Annotated[list[Path], Parameter(help="files, folders, zips")],
    /,
    *,
    top: Annotated[int, Parameter(help="how many classes to name", validator=AT_LEAST_1)] = 5,
    csv_file: Annotated[Path | None, Parameter(name="--csv", help="write what is said to this file too")] = None,
    masks: Annotated[
        Path | None, Parameter(help="of scenes: a folder for the class of each pixel, a PNG for each scene")
    ] = None,
    variant: WhichVariant = None,
    seed: WhichSeed = None,
    build: BuildOption = None,
    device: Device = "auto",
) -> int:
    """Say what a trained network sees on images: a line each, as it goes.

    A file that cannot be read is a line too; the others are done, and the status
    is 1.
    """
    from srblock.report.terminal import escaped
    from srblock.runs.predict import identities, mask_file, overwrites, predict_files, write_mask
    from srblock.runs.trained import Prediction, load_run
    from srblock.training.csv_lines import lines_text

    if runs := [str(path) for path in images if all(os.path.isfile(path / name) for name in OF_A_RUN)]:
        raise ValueError(f"{runs[0]} is a run and no images; name one run (does a * stand for several?)")
    trained = load_run(run, variant=variant, seed=seed, build=build, device=device)
    if masks is not None and trained.input.task != "segmentation":
        raise ValueError(f"--masks is for scenes, and {trained.variant} says one class of an image; leave it out")
    if csv_file is not None and not csv_file.parent.is_dir():
        raise ValueError(f"--csv: there is no folder {csv_file.parent}; make it, or name another place")
    most = min(top, len(trained.classes))
    failed, taken, given = False, set(), identities(images)
    with ExitStack() as stack:
        table = None
        if csv_file is not None:
            file = stack.enter_context(csv_file.open("w", newline="", encoding="utf-8", errors="surrogateescape"))
            table = file
            columns = (f"{what}_{n}" for n in range(1, most + 1) for what in ("class", "share"))
            table.write(lines_text([["file", "error", *columns]]))
        for name, found in predict_files(trained, images, top=most):
            if masks is not None and isinstance(found, Prediction):
                mask = mask_file(masks, name)
                if overwrites(mask, given):
                    found = f"its mask, {mask}, would take the place of a file given; name another folder for --masks"
                elif mask in taken:
                    found = f"its mask would overwrite another one, {mask}; rename the image"
                else:
                    taken.add(mask)
                    write_mask(trained, found, mask)
            error = found if isinstance(found, str) else ""
            failed = failed or bool(error)
            print(f"{escaped(name)}: {escaped(f'error: {error}' if error else str(found))}", flush=True)
            if table is not None:
                table.write(lines_text([[name, error, *_said(found, most)]]))
    return FAILED if failed else 0


def _said(found: Prediction | str, most: int) -> list[str]:
    """Return classes and shares in turns, empty ones for a file that could not be read."""
    if isinstance(found, str):
        return [""] * (2 * most)
    return [text for name, share in zip(found.classes, found.shares, strict=True) for text in (name, f"{share:.6f}")]


@app.command(sort_key=7, help_epilogue="Example: srblock export out/runs/r18-s0-1f33aea2 r18.onnx --images photos/")
def export(
    run: RunPath,
    file: Annotated[Path, Parameter(help="to write: NAME.onnx, or NAME.pt2 for torch.export.load")],
    /,
    *,
    images: Annotated[
        list[Path] | None,
        Parameter(
            help="files, folders, zips to check it on (default: some of the run's test images)",
            consume_multiple=True,
            negative="",
        ),
    ] = None,
    fold: Annotated[
        bool, Parameter(help="fold the blocks where that is exact, and say what was folded", negative="")
    ] = False,
    variant: WhichVariant = None,
    seed: WhichSeed = None,
    build: BuildOption = None,
) -> None:
    """Export a trained network, checked against PyTorch before the file is there.

    It takes images prepared as the file's metadata say (srblock.input) and gives
    logits: of one view of an image, of scenes through one window.
    """
    from srblock.report.terminal import escaped
    from srblock.runs.export import export_run
    from srblock.runs.predict import read_images
    from srblock.runs.trained import load_run

    trained = load_run(run, variant=variant, seed=seed, build=build, device="cpu")
    given = None if images is None else read_images(images, gray=trained.input.channels == 1)
    for line in str(export_run(trained, file, given, folded=fold)).splitlines():
        print(escaped(line))
