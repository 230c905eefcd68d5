"""The state of an unfinished run in one safetensors file, so that a kill at any moment leaves a whole one.

Tensors `model/*`, `best/*` (weights of the epoch best on validation), `momentum/*`, `rng/*`; the header holds the
run's identity and the metrics of all finished epochs. No pickle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from srblock.training.files import write_bytes

FORMAT = "srblock-trainer-1"
Weights = dict[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint that is damaged, foreign, or of another run."""


@dataclass
class TrainerState:
    """Where a run stands after `len(metrics)` epochs."""

    metrics: list[dict[str, Any]]
    best: Weights

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.metrics)


def save_trainer(
    path: Path, run: str, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainerState, device: torch.device
) -> None:
    """Write model, optimizer, random state and metrics atomically."""
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"best/{key}": value for key, value in state.best.items()}
    for index, parameter in enumerate(_parameters(optimizer)):
        buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            tensors[f"momentum/{index}"] = buffer
    tensors["rng/cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["rng/cuda"] = torch.cuda.get_rng_state(device)
    header = {"format": FORMAT, "run": run, "metrics": json.dumps(state.metrics, allow_nan=False)}
    write_bytes(path, save({key: _plain(value) for key, value in tensors.items()}, header))


def load_trainer(
    path: Path, run: str, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> TrainerState:
    """Restore what `save_trainer` wrote and return where the run stands.

    Raises: CheckpointError if the file is damaged, was not written by srblock, or belongs to another run.
    """
    tensors, header = _read(path)
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a trainer state of this version of srblock ({FORMAT}); move it away")
    if header.get("run") != run:
        raise CheckpointError(
            f"{path} belongs to run {header.get('run')!r}, expected {run!r}; move it away or use another --out"
        )
    parts: dict[str, Weights] = {"model": {}, "best": {}, "momentum": {}, "rng": {}}
    for key, value in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = value
    try:
        model.load_state_dict(parts["model"])
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the network: {error}") from error
    for index, parameter in enumerate(_parameters(optimizer)):
        if str(index) in parts["momentum"]:
            buffer = torch.empty_like(parameter).copy_(parts["momentum"][str(index)])
            optimizer.state[parameter]["momentum_buffer"] = buffer
    torch.set_rng_state(parts["rng"]["cpu"])
    if device.type == "cuda" and "cuda" in parts["rng"]:
        torch.cuda.set_rng_state(parts["rng"]["cuda"], device)
    return TrainerState(json.loads(header["metrics"]), parts["best"])


def copy_weights(model: nn.Module) -> Weights:
    """Copy a model's weights and buffers."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def save_weights(path: Path, weights: Weights) -> None:
    """Write weights atomically as safetensors."""
    write_bytes(path, save({key: _plain(value) for key, value in weights.items()}))


def load_weights(path: Path) -> Weights:
    """Read a safetensors file of weights.

    Raises: CheckpointError if it is damaged.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[Weights, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): it is missing, damaged or no safetensors file; put a whole copy in its "
            f"place, or delete the folder {path.parent} to train the run anew"
        ) from error


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _plain(value: Tensor) -> Tensor:
    """Safetensors holds dense row-major tensors that share no memory: channels_last and views are copied."""
    return value.detach().cpu().contiguous().clone()
