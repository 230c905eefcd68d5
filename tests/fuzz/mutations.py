"""Seeded accidents and attacks on files: bytes that flip, ends that are cut, JSON values that become others."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

OTHERS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, 10**400, 0.5, -0.5, 1e9, 1e308, float("inf"), float("nan"), "", "x",
    "a/../../evil", "\ud800", "a\nb", "7", [], [1], [[]], {}, {"a": 1}, {"a": {"b": []}}, ["x"] * 3,
)  # fmt: skip


def mutated(value: Any, draw: random.Random) -> tuple[Any, str]:
    """Return a copy of a JSON value with one of its parts replaced, removed, doubled or named otherwise, and where."""
    whole = {"": copy.deepcopy(value)}
    parent, key, path = whole, "", []
    while isinstance(here := parent[key], dict | list) and here and (key == "" or draw.random() < 0.8):
        parent, key = here, draw.choice(sorted(here) if isinstance(here, dict) else range(len(here)))
        path.append(str(key))
    kind = draw.choice(("replace", "replace", "replace", "remove", "double"))
    if kind == "remove" and parent is not whole:
        del parent[key]
    elif kind == "double" and parent is not whole:
        if isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        else:
            parent[draw.choice((f"{key}_", f"test_{key}", "seed", "environment"))] = copy.deepcopy(parent[key])
    else:
        parent[key] = copy.deepcopy(draw.choice(OTHERS))
    return whole[""], f"{kind} {'/'.join(path)}"


def spoiled(data: bytes, draw: random.Random) -> bytes:
    """Return bytes of which some flipped, or which were cut, doubled, or mixed with others."""
    match draw.randrange(5):
        case 0:
            return data[: draw.randrange(len(data))]
        case 1:
            return data + data[: draw.randrange(1, 100)]
        case 2:
            start = draw.randrange(len(data))
            return data[:start] + draw.randbytes(draw.randrange(1, 40)) + data[start:]
    flipped = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 3, 20))):
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def mutated_arrays(file: Path, draw: random.Random) -> str:
    """Change the arrays of a safetensors file: dropped, called otherwise, of another shape or kind, or not finite."""
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
        arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    key = draw.choice(sorted(arrays))
    value = arrays.pop(key)
    kind = draw.choice(("drop", "rename", "flatten", "cut", "double", "scalar", "half", "whole", "nan", "large", "add"))
    floating = value.is_floating_point()
    match kind:
        case "rename":
            arrays[draw.choice(("x", "a/b/c", f"{key}/memory", ""))] = value
        case "flatten":
            arrays[key] = value.flatten()
        case "cut":
            arrays[key] = value[: len(value) // 2].clone() if value.dim() else value[None]
        case "double":
            arrays[key] = torch.cat([value, value]) if value.dim() else value[None]
        case "scalar":
            arrays[key] = torch.zeros((), dtype=value.dtype)
        case "half":
            arrays[key] = value.to(torch.bfloat16)
        case "whole":
            arrays[key] = value.nan_to_num().to(torch.int64)
        case "nan":
            arrays[key] = torch.full_like(value, float("nan")) if floating else torch.full_like(value, 99)
        case "large":
            arrays[key] = value * 1e30 if floating else value + 100
        case "add":
            arrays |= {key: value, "foreign": torch.ones(2, 3)}
    save_file(arrays, file, header)
    return f"{kind} {key}"
