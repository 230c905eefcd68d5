"""Export a finished run's network: to ONNX, or to a program of PyTorch (.pt2), checked before the file is there.

The file holds the plain network, logits for a batch of any size, and in its metadata what it takes:

    srblock.input     JSON of `runs.input.Input`: classes, mean and std, how images are resized
    srblock.logits    what one answer is, in words
    srblock.folded    if blocks were folded: what of them was, and what was left, in words

ONNX has both in `metadata_props`, a .pt2 in its `extra_files`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from srblock.data.offenders import counted
from srblock.folding import Folding, fold
from srblock.runs.export_check import Agreement, agreement, inputs_of, own_images, resized
from srblock.runs.export_files import Kind, Unwritable, first_line, free_axes, kind_of
from srblock.runs.input import Input
from srblock.runs.trained import TrainedRun
from srblock.surgery import blocks
from srblock.tracing import duplicate

OTHER = (37, 51)  # how much larger, and odd, the images are on which other sizes are checked


@dataclass(frozen=True)
class Export:
    """What was exported, and how it agrees with the network.

    Attributes:
        logits: what one answer of it is, in words.
        any_size: whether it takes images of other sizes than (H, W) `size`.
        found: the agreement at that size.
        other: with `any_size` the same of images resized to `other_size`.
        folding: what of the blocks was folded, if that was asked for.
    """

    file: Path
    logits: str
    size: tuple[int, int]
    any_size: bool
    found: Agreement
    other_size: tuple[int, int]
    other: Agreement | None
    folding: Folding | None = None

    def __str__(self) -> str:
        height, width = self.size
        runs_it = "ONNX Runtime" if self.file.suffix == ".onnx" else "the program, read again,"
        sizes = "height and width: free" if self.any_size else f"height and width: {height}x{width}"
        lines = [
            f"{self.file}: {self.logits}; batch: any, {sizes}",
            f"{runs_it} against PyTorch on the CPU, {_agreed(self.found, self.size)}",
        ]
        if self.other is not None:
            lines.append(f"and resized, {_agreed(self.other, self.other_size)}")
        if self.folding is not None:
            lines += str(self.folding).splitlines()
        return "\n".join(lines)


def _agreed(found: Agreement, size: tuple[int, int]) -> str:
    what, whose = ("image", "") if found.answers == found.images else ("window", " pixels")
    classes = f"all {found.answers:,}" if found.equal == found.answers else f"{found.equal:,} of {found.answers:,}"
    return (
        f"{counted(found.images, what)} of {size[0]}x{size[1]}: largest difference {found.difference:.1e} of logits up "
        f"to {found.scale:.3g}, the same class for {classes}{whose}"
    )


def export_run(
    run: TrainedRun,
    file: str | os.PathLike[str],
    images: Iterable[Image.Image | Tensor] | None = None,
    *,
    folded: bool = False,
) -> Export:
    """Export a run's network and check it; the file is there only if it computes what the network computes.

    Height and width may be any where the network takes other sizes: its blocks resize, or it has none, and it ran and
    agreed at a second one. Else they are those of `input.size`; of scenes these are the windows.

    Args:
        file: NAME.onnx or NAME.pt2.
        images: of Pillow or uint8 (C, H, W), to check it on; None for some of the run's own test images.
        folded: fold the blocks first (`srblock.fold`); the check is against the network as it was.

    Raises: ValueError for another suffix, a missing library, a network that cannot be exported, or has no block to
    fold, or logits that differ by more than a thousandth of the largest; OSError if the file cannot be written.
    """
    file = Path(file).expanduser()
    kind = kind_of(file)
    if not file.parent.is_dir():
        raise ValueError(f"there is no folder {file.parent}; make it, or name another place")
    model = duplicate(run.model).cpu().to(memory_format=torch.contiguous_format).eval()
    if kind.limit_bytes is not None and _size_bytes(model) > kind.limit_bytes:
        raise ValueError(f"the weights of {run.variant} are too many for one ONNX file; export a .pt2 instead")
    network, folding = model, None
    if folded:
        network, folding = fold(model, (run.input.channels, *run.input.size))
    job = Job(network, model, run.input, _metadata(run.input, folding), kind)
    inputs = inputs_of(run, own_images(run) if images is None else images)
    first = list(islice(inputs, 2))
    height, width = run.input.size
    other = (height + OTHER[0], width + OTHER[1])
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".export-") as scrap:
        trial = Path(scrap, file.name)
        there = None
        if _takes(network, run.input.channels, other):
            there = _at_any_size(job, trial, first, other)
        if there is None:
            job.write(trial, any_size=False)
        found = agreement(kind.read(trial), model, chain(first, inputs))
        if not found.close:
            raise ValueError(
                f"the exported network of {run.variant} is not the network: {_agreed(found, run.input.size)}; no file "
                "was written. Please report it, with the versions of torch, onnx and onnxruntime"
            )
        os.replace(trial, file)
    return Export(file, said_of(run.input), run.input.size, there is not None, found, other, there, folding)


def said_of(said: Input) -> str:
    """Say what one answer of the plain network is, and how it differs from what the run's test asked."""
    if said.crop_size is not None:
        height, width = said.crop_size
        what = f"logits of each pixel of a window of {height}x{width}"
    else:
        what = "logits of one view of an image"
    return what if said.tta == "none" else f"{what} (the run's test averaged over views: {said.tta})"


# --- the file ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What is exported: a network, the one that it must be equal to, and what the file says of it."""

    network: nn.Module
    model: nn.Module
    said: Input
    metadata: dict[str, str]
    kind: Kind

    def write(self, file: Path, *, any_size: bool) -> ExportedProgram:
        """Trace the network and write it.

        Raises: ValueError if it can be neither traced nor written.
        """
        program = _exported(self.network, self.said, any_size=any_size)
        try:
            self.kind.write(program, self.metadata, file)
        except Unwritable as error:
            raise ValueError(f"{self.said.variant} cannot be written as ONNX: {error}; export a .pt2") from error
        return program


def _metadata(said: Input, folding: Folding | None) -> dict[str, str]:
    words = {"srblock.input": json.dumps(said.as_dict()), "srblock.logits": said_of(said)}
    if folding is not None and folding.folded:
        words["srblock.folded"] = str(folding)
    return words


# --- sizes -----------------------------------------------------------------------------------------------------------


def _takes(model: nn.Module, channels: int, size: tuple[int, int]) -> bool:
    """Tell whether a network takes images of another size than its own."""
    if any(block.options.resize is None for block in blocks(model).values()):
        return False
    try:
        with torch.inference_mode():
            model(torch.zeros(2, channels, *size))
    except Exception:  # a library's network can refuse in any way
        return False
    return True


def _at_any_size(job: Job, file: Path, first: list[Tensor], other: tuple[int, int]) -> Agreement | None:
    """Export for any size and return how that agrees at another one; None if it cannot be, or does not agree."""
    try:
        program = job.write(file, any_size=True)
        if free_axes(program) != [0, 2, 3]:
            return None
        found = agreement(job.kind.read(file), job.model, resized(first, other))
    except Exception:  # exporters and runtimes can refuse in any way; the export for one size says why
        return None
    return found if found.close else None


def _exported(model: nn.Module, said: Input, *, any_size: bool) -> ExportedProgram:
    """Trace a network for batches of any size, without notes of where its source lies on this machine.

    Raises: ValueError if it cannot be traced.
    """
    shape: dict[int, Any] = {0: Dim("batch")} | ({2: Dim.AUTO, 3: Dim.AUTO} if any_size else {})
    example = torch.zeros(2, said.channels, *said.size)
    try:
        program = torch.export.export(model, (example,), dynamic_shapes=(shape,))
    except Exception as error:  # the exporter can refuse in any way
        raise ValueError(f"{said.variant} cannot be exported: {first_line(error)}") from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def _size_bytes(model: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in (*model.parameters(), *model.buffers()))
