"""The two kinds of files a network is exported to, ONNX and a program of PyTorch (.pt2): written, and read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from srblock.runs.export_check import Network

NEEDED = ("onnx", "onnxscript", "onnxruntime")
ONNX_LIMIT_BYTES = 2**31 - 2**24  # of one file, less what is no weights


@dataclass(frozen=True)
class Kind:
    """How a kind of file is written, and read again to be run."""

    write: Callable[[ExportedProgram, dict[str, str], Path], None]
    read: Callable[[Path], Network]
    limit_bytes: int | None


class Unwritable(Exception):
    """A program cannot be brought into a file's format; the message says why."""


def kind_of(file: Path) -> Kind:
    """Tell a kind by the suffix.

    Raises: ValueError for another one, or if a library is missing.
    """
    if file.suffix == ".pt2":
        return Kind(_write_program, _read_program, None)
    if file.suffix != ".onnx":
        raise ValueError(f"networks are exported to NAME.onnx or NAME.pt2, got {file.name}")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(
            f'an export to ONNX needs {", ".join(missing)}: pip install "srblock[export]" (a .pt2 needs nothing more)'
        )
    return Kind(_write_onnx, _read_onnx, ONNX_LIMIT_BYTES)


def _write_program(program: ExportedProgram, metadata: dict[str, str], file: Path) -> None:
    torch.export.save(program, file, extra_files=metadata)


def _read_program(file: Path) -> Network:
    return torch.export.load(file).module()


def _write_onnx(program: ExportedProgram, metadata: dict[str, str], file: Path) -> None:
    axes = {0: "batch", 2: "height", 3: "width"}
    try:
        written = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({axis: axes[axis] for axis in free_axes(program)},),
        )
    except Exception as error:  # the exporter can refuse in any way
        raise Unwritable(first_line(error)) from error
    assert written is not None
    written.model.metadata_props.update(metadata)
    written.save(file, external_data=False)


def _read_onnx(file: Path) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def logits(batch: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": batch.contiguous().numpy()})[0])

    return logits


def free_axes(program: ExportedProgram) -> list[int]:
    """List the axes of the images that may have any length."""
    (image,) = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    symbols: Iterator[tuple[int, Any]] = enumerate(image.meta["val"].shape)
    return [axis for axis, length in symbols if isinstance(length, torch.SymInt)]


def first_line(error: Exception) -> str:
    """Shorten what an exporter says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
