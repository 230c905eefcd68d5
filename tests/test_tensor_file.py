"""Safetensors files written here are the library's, and take no memory besides."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from srblock.training import tensor_file
from srblock.training.files import write_pieces
from srblock.training.tensor_file import NAMES, serialized

HEADER = {"name": 'a "quoted" Müller\n', "metrics": "[1, 2]"}


def tensors() -> dict[str, torch.Tensor]:
    kinds = {str(dtype): torch.arange(5).to(dtype) for dtype in NAMES}
    wide = torch.arange(120, dtype=torch.float32).reshape(2, 3, 4, 5)
    others = {
        "channels last": wide.to(memory_format=torch.channels_last), "turned": wide[0, 0].T, "none": wide[:, :0],
        "number": torch.tensor(7.0), "a part": wide[1], "bytes": torch.arange(3, dtype=torch.uint8),
    }  # fmt: skip
    return kinds | others


def test_the_library_reads_what_went_in(tmp_path: Path) -> None:
    write_pieces(tmp_path / "a", serialized(tensors(), HEADER))
    with safe_open(tmp_path / "a", "pt") as file:
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        assert file.metadata() == HEADER
    assert found.keys() == tensors().keys()
    for key, value in tensors().items():
        assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape)
        assert torch.equal(found[key].float(), value.float())


def test_the_bytes_are_the_librarys() -> None:
    few = {key: value.contiguous() for key, value in tensors().items() if value.dtype in (torch.float32, torch.int64)}
    assert b"".join(serialized(few, {"name": "x"})) == save(few, {"name": "x"})


def test_what_no_file_can_hold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (torch.ones(2, dtype=torch.complex64), torch.eye(2).to_sparse()):
        with pytest.raises(ValueError, match=r"a/b is a tensor of .*which a safetensors file cannot hold"):
            next(serialized({"a/b": value}))
    monkeypatch.setattr(tensor_file, "LARGEST_HEADER", 1000)
    with pytest.raises(ValueError, match=r"the header would have 1,0\d\d bytes, more than the 1,000 that can be read"):
        next(serialized({}, {"metrics": "x" * 1000}))
