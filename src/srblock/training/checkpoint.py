"""The state of an unfinished run in one safetensors file, so that a kill at any moment leaves a whole one.

Tensors `model/*`, `best/*` (weights of the selected epoch), `momentum/*` of SGD, `exp_avg/*`,
`exp_avg_sq/*` and `step/*` of AdamW, `slow/*` (the average of the weights), `rng/*`; the header
holds the run's identity, the metrics of all finished epochs, and a SHA-256 of it all, which states
written before 2026-11-25 lack. No pickle.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from srblock.training.average import Average
from srblock.training.fields import read_json
from srblock.training.files import write_pieces
from srblock.training.history import check_history
from srblock.training.task import Figure
from srblock.training.tensor_file import raw, serialized

FORMAT = "srblock-trainer-1"
RARITY = 20  # a pause between two saves is at least so many times what the last one took
Weights = dict[str, Tensor]
# Parts of the file that hold what an optimizer keeps of each parameter, and torch's names for it.
BUFFERS = {"momentum": "momentum_buffer", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "step": "step"}


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


@dataclass(frozen=True)
class Saved:
    """What a file written by `Saver` holds, on the CPU.

    Attributes:
        buffers: what the optimizer keeps, by the keys of `BUFFERS`, of each parameter by its number.
        slow: the average of the weights.
    """

    path: Path
    model: Weights
    buffers: dict[str, Weights]
    slow: Weights
    rng: Weights
    state: TrainerState


class Saver:
    """Write model, optimizer, random state and metrics atomically, as often as it costs little time.

    Args:
        path: the file.
        run: the run's identity, which `read_trainer` asks for.
    """

    def __init__(
        self,
        path: Path,
        run: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        average: Average | None = None,
    ) -> None:
        self._path, self._run, self._device = path, run, device
        self._model, self._optimizer, self._average = model, optimizer, average
        self._ended = self._took_s = 0.0
        self._epoch: int | None = None  # at which this process saved last

    def due(self) -> bool:
        """Tell whether saving now keeps its share of the time under 1/RARITY: the pause was long enough."""
        return self._epoch is None or time.monotonic() - self._ended >= RARITY * self._took_s

    def save(self, state: TrainerState) -> None:
        """Save, unless this state is saved already. Moves `state.best` to the CPU, where it stays for the next time.

        Raises: OSError if the file cannot be written.
        """
        if self._epoch == state.epoch:
            return
        start = time.monotonic()
        state.best = {key: value.cpu().contiguous() for key, value in state.best.items()}
        tensors = {f"model/{key}": value for key, value in self._model.state_dict().items()}
        tensors |= {f"best/{key}": value for key, value in state.best.items()}
        for index, parameter in enumerate(_parameters(self._optimizer)):
            kept = self._optimizer.state.get(parameter, {})
            tensors |= {f"{part}/{index}": kept[name] for part, name in BUFFERS.items() if kept.get(name) is not None}
        if self._average is not None:
            tensors |= {f"slow/{key}": value for key, value in self._average.slow.items()}
        tensors["rng/cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors["rng/cuda"] = torch.cuda.get_rng_state(self._device)
        header = {"format": FORMAT, "run": self._run, "metrics": json.dumps(state.metrics, allow_nan=False)}
        write_pieces(self._path, serialized(tensors, header | {"sha256": _digest(tensors, header)}))
        self._epoch, self._ended = state.epoch, time.monotonic()
        self._took_s = self._ended - start


def read_trainer(path: Path, run: str, epochs: int | None = None, figures: Sequence[Figure] = ()) -> Saved:
    """Read what `Saver` wrote.

    Args:
        epochs: how many the run has; it cannot have finished more.
        figures: what its epochs measure; without any the records of epochs are taken as they are.

    Raises: CheckpointError if the file is damaged, was not written by srblock, or belongs to another run.
    """
    tensors, header = _read(path)
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a trainer state of this version of srblock ({FORMAT}); move it away")
    if header.get("run") != run:
        raise CheckpointError(
            f"{path} belongs to run {header.get('run')!r}, expected {run!r}; move it away or use another --out"
        )
    if "sha256" in header and header["sha256"] != _digest(tensors, header):
        raise damaged(path, "its content is not what its SHA-256 is of")
    parts: dict[str, Weights] = {part: {} for part in ("model", "best", *BUFFERS, "slow", "rng")}
    for key, value in tensors.items():
        part, _, name = key.partition("/")
        if part not in parts:
            raise damaged(path, f"it has {key!r}, expected one of {', '.join(parts)}")
        parts[part][name] = value
    if missing := [part for part in ("model", "best", "rng") if not parts[part]]:
        raise damaged(path, f"it lacks {', '.join(missing)}")
    buffers = {part: parts[part] for part in BUFFERS}
    metrics = _metrics(path, header, epochs, figures)
    return Saved(path, parts["model"], buffers, parts["slow"], parts["rng"], TrainerState(metrics, parts["best"]))


def _metrics(path: Path, header: dict[str, str], epochs: int | None, figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Read the records of the finished epochs."""
    try:
        metrics = read_json(header.get("metrics", "null"))
        if figures:
            check_history(metrics, figures)
    except ValueError as error:
        raise damaged(path, error) from error
    if not isinstance(metrics, list) or not metrics:
        raise damaged(path, "it has no record of a finished epoch")
    if epochs is not None and len(metrics) > epochs:
        raise damaged(path, f"it has {len(metrics)} finished epochs, and the run has {epochs}")
    return metrics


def damaged(path: Path, why: object) -> CheckpointError:
    """Say that a state cannot be gone on from, why, and what to do."""
    return CheckpointError(f"{path} is damaged ({why}); delete it to start this run again")


def restore(
    saved: Saved,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    average: Average | None = None,
) -> None:
    """Put weights, the optimizer's buffers, their average and random state back.

    Raises: CheckpointError if they do not fit the network, naming what came and what was expected.
    """
    state = model.state_dict()
    for part, found in (("best", saved.state.best), ("model", saved.model)):
        shared = found.keys() & state.keys()  # a network may know older names of others
        _check_alike(saved.path, part, {key: found[key] for key in shared}, {key: state[key] for key in shared})
        try:
            model.load_state_dict(found)
        except RuntimeError as error:
            raise damaged(saved.path, f"{part} does not fit the network: {error}") from error
    _check_alike(saved.path, "slow", saved.slow, {} if average is None else average.slow)
    _check_buffers(saved, optimizer)
    if average is not None:
        average.load(saved.slow)
    for index, parameter in enumerate(_parameters(optimizer)):
        for part, name in BUFFERS.items():
            if (kept := saved.buffers[part].get(str(index))) is not None:
                buffer = torch.empty_like(parameter).copy_(kept) if kept.dim() else kept.to(parameter.device)
                optimizer.state[parameter][name] = buffer
    try:
        torch.set_rng_state(saved.rng["cpu"])
        if device.type == "cuda" and "cuda" in saved.rng:
            torch.cuda.set_rng_state(saved.rng["cuda"], device)
    except (RuntimeError, TypeError, KeyError) as error:
        raise damaged(saved.path, f"its random state: {error}") from error


def _check_alike(path: Path, part: str, found: Weights, expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors with other names, shapes or kinds of numbers."""
    if found.keys() != expected.keys():
        other = sorted(found.keys() ^ expected.keys())
        raise damaged(path, f"{part} does not fit the network: {', '.join(other[:3])} is in one of them alone")
    for key, value in found.items():
        if (value.shape, value.dtype) != (expected[key].shape, expected[key].dtype):
            came, wanted = (f"{tuple(one.shape)} {one.dtype}" for one in (value, expected[key]))
            raise damaged(path, f"{part} does not fit the network: {key} is {came}, expected {wanted}")


def _check_buffers(saved: Saved, optimizer: torch.optim.Optimizer) -> None:
    """Refuse buffers that the optimizer does not keep, of parameters that it has not or not trained yet, or too few.

    A parameter that no loss depends on has none, which is why one without is no damage by itself.
    """
    adam, epoch = isinstance(optimizer, torch.optim.AdamW), saved.state.epoch
    kept = ("exp_avg", "exp_avg_sq", "step") if adam else ("momentum",) if optimizer.defaults["momentum"] else ()
    expected: dict[str, Tensor] = {}
    trained = [epoch > group.get("frozen", 0) for group in optimizer.param_groups for _ in group["params"]]
    for index, parameter in enumerate(_parameters(optimizer)):
        present = any(str(index) in saved.buffers[part] for part in BUFFERS)
        if trained[index] and present:
            expected |= {f"{part}/{index}": parameter for part in kept if part != "step"}
            expected |= {f"step/{index}": torch.zeros(())} if adam else {}
    found = {f"{part}/{index}": value for part in BUFFERS for index, value in saved.buffers[part].items()}
    _check_alike(saved.path, "the optimizer's state", found, expected)
    if kept and any(trained) and not found:
        raise damaged(saved.path, f"it lacks {', '.join(kept)}, the state of the optimizer")


def copy_weights(model: nn.Module) -> Weights:
    """Copy a model's weights and buffers."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def save_weights(path: Path, weights: Weights, header: dict[str, str] | None = None) -> None:
    """Write weights atomically as safetensors, with what is to stand in the file's header."""
    write_pieces(path, serialized(weights, header))


def _read(path: Path) -> tuple[Weights, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): it is missing, damaged or no safetensors file; put a whole copy in its "
            f"place, or delete the folder {path.parent} to train the run anew"
        ) from error


def _digest(tensors: Weights, header: Mapping[str, str]) -> str:
    """Return the SHA-256 of all that a state says."""
    found = hashlib.sha256(json.dumps([header.get(key) for key in ("format", "run", "metrics")]).encode())
    for key, value in sorted(tensors.items()):
        found.update(json.dumps([key, str(value.dtype), list(value.shape)]).encode())
        found.update(raw(value))
    return found.hexdigest()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
