"""The bytes of a safetensors file, one tensor after another.

The library's `save` holds all of them twice in memory, and where there is none it ends the process from within Rust.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint64: "U64", torch.uint32: "U32",
    torch.uint16: "U16", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
LARGEST_HEADER = 100_000_000  # bytes that the library reads


def serialized(tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> Iterator[bytes | memoryview]:
    """Yield a safetensors file in pieces. Dense tensors of any device and memory format are written row-major.

    Args:
        header: what is to stand in it besides the tensors, texts by name.

    Raises: ValueError for a kind of numbers that the format has not, and for a header that no library would read.
    """
    for key, value in tensors.items():
        if value.dtype not in NAMES or value.layout != torch.strided:
            raise ValueError(
                f"{key} is a tensor of {value.dtype} ({value.layout}), which a safetensors file cannot hold"
            )
    # Wide numbers first, so that all are aligned.
    order = sorted(tensors, key=lambda key: (-tensors[key].itemsize, NAMES[tensors[key].dtype], key))
    entries: dict[str, object] = {} if header is None else {"__metadata__": dict(header)}
    end = 0
    for key in order:
        start, end = end, end + tensors[key].nbytes
        shape = list(tensors[key].shape)
        entries[key] = {"dtype": NAMES[tensors[key].dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise ValueError(
            f"the header would have {len(text):,} bytes, more than the {LARGEST_HEADER:,} that can be read; train for "
            "fewer epochs"
        )
    yield len(text).to_bytes(8, "little") + text
    for key in order:
        yield raw(tensors[key])


def raw(value: Tensor) -> memoryview:
    """Return a dense tensor's bytes, row-major."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
