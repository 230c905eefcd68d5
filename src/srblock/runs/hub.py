"""Save a network so that others can have it, in a folder or on the Hugging Face Hub, and take one from there.

config.json          where the blocks stand; of a run what its network takes and what it was trained with
model.safetensors    the weights; of a run `load_run` reads it too
README.md            the model card
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from srblock import __version__
from srblock.checkpoints import load_state
from srblock.data.permissions import as_any_file
from srblock.runs.card import model_card, run_card
from srblock.runs.placement import InputSize, places, put_back, take_out
from srblock.runs.records import finished, read_config, read_run
from srblock.runs.seal import is_sealed
from srblock.runs.trained import TrainedRun, load_run
from srblock.training.files import write_bytes, write_json
from srblock.variants.custom import Build
from srblock.variants.weights import read_weights

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT = 1
"""Of config.json; raised when an older version could not read what is written."""
OF_A_RUN = ("variant", "seed", "recipe", "weights", "numerics", "code")
OF_ITS_DATA = ("name", "fingerprint", "train", "test", "size")
M = TypeVar("M", bound=nn.Module)


def save_pretrained(
    network: TrainedRun | nn.Module,
    folder: str | os.PathLike[str],
    *,
    license: str | None = None,
    input_size: InputSize | None = None,
    repo_id: str | None = None,
) -> Path:
    """Save a run, or a model of one's own with the places of its blocks, for `from_pretrained`.

    Files of these names that are in the folder are replaced. The card has the figures of the run if these are the
    weights that it was tested with, and of runs of its study beside it.

    Args:
        license: an identifier for the card, such as "apache-2.0"; without one it names none.
        input_size: of a model's images, as `insert` takes it: `from_pretrained` then compares the maps. A run has its
            own.
        repo_id: owner/name of the Hub, for the card's example; None for the folder's name.

    Returns: the folder.

    Raises: ValueError for a wrapped, compiled or scripted model, a state_dict with more than tensors, or a license
    that is no identifier; OSError if a file cannot be written.
    """
    folder = Path(folder).expanduser()
    if finished(folder):
        raise ValueError(f"{folder} is the folder of a run, whose config.json would be replaced; name another one")
    repository = repo_id or folder.resolve().name
    config: dict[str, Any] = {"library_name": "srblock", "srblock": __version__, "format": FORMAT}
    if isinstance(network, TrainedRun):
        if input_size is not None:
            raise ValueError(f"a run has its own input_size, {network.input.size}; leave it out")
        model, header = network.model, network.input.header
        said = network.input
        record = _record(network)
        config |= {"blocks": places(model), "input_size": [said.channels, *said.size], "input": said.as_dict()}
        config |= {} if record is None else {"run": _of_the_run(read_config(record))}
        card = run_card(said, repository, record, license)
    else:
        model, header = network, {}
        config |= {"blocks": places(model), "input_size": _plain(input_size)}
        card = model_card(type(model).__name__, config["blocks"], repository, license)
    _refuse_what_is_no_tensor(model)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".save-") as scrap:
        state, names = _named_once(model)
        save_file(state, os.path.join(scrap, WEIGHTS), {"format": "pt", **names, **header})
        as_any_file(Path(scrap, WEIGHTS))
        os.replace(os.path.join(scrap, WEIGHTS), folder / WEIGHTS)
    write_json(folder / CONFIG, config)
    write_bytes(folder / CARD, card.encode())
    return folder


@overload
def from_pretrained(
    source: str | os.PathLike[str],
    *,
    model: None = None,
    build: Build | str | None = None,
    device: str | torch.device = "auto",
    revision: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> TrainedRun: ...


@overload
def from_pretrained(
    source: str | os.PathLike[str],
    *,
    model: M,
    revision: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> M: ...


def from_pretrained(
    source: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    build: Build | str | None = None,
    device: str | torch.device = "auto",
    revision: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> TrainedRun | nn.Module:
    """Take a run from a folder or the Hub; or put the saved blocks into a model of one's own and load its weights.

    Args:
        source: a folder that `save_pretrained` wrote, or owner/name on the Hub.
        model: built as it was when it was saved, its blocks left out or in it already. It stays on its device, and as
            it was if this raises.
        build, device: of a run, as `load_run` has them.
        revision: of the Hub: a branch, a tag or a commit.
        token, endpoint: as `huggingface_hub` takes them; None for its own settings.

    Returns: the run, or the model.

    Raises: FileNotFoundError if there is no such folder or repository; ImportError without the extra `hub`; ValueError
    if what is there was not saved by `save_pretrained`, needs a `model`, or does not fit it.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = _download(os.fspath(source), revision, token, endpoint)
    elif revision is not None:
        raise ValueError(f"{source} is a folder, which has no revision {revision!r}; leave it out")
    config = _config(folder, os.fspath(source))
    if model is None:
        if "input" not in config:
            raise ValueError(
                f"{source} has the weights of a model, not its code: build it as it was and pass it, "
                "srblock.from_pretrained(..., model=model)"
            )
        return load_run(folder / WEIGHTS, build=build, device=device)
    size = config["input_size"]
    fresh = put_back(model, config["blocks"], tuple(size) if isinstance(size, list) else size)
    try:
        load_state(model, read_weights(folder / WEIGHTS))
    except BaseException:
        take_out(model, fresh)
        raise
    return model


def push_to_hub(
    network: TrainedRun | nn.Module,
    repo_id: str,
    *,
    license: str | None = None,
    input_size: InputSize | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> str:
    """Save a network as `save_pretrained` does and commit it to a repository of the Hub, made if there is none.

    Args:
        repo_id: owner/name; a card that is there is replaced.
        private: of a new repository; None for the Hub's default.
        token, endpoint: as `huggingface_hub` takes them; None for its own settings.

    Returns: the address of the repository.

    Raises: as `save_pretrained`; ImportError without the extra `hub`; what `huggingface_hub` raises if it may not.
    """
    api = _api(token, endpoint)
    from huggingface_hub import CommitOperationAdd

    with tempfile.TemporaryDirectory(prefix="srblock-") as scrap:
        folder = save_pretrained(network, scrap, license=license, input_size=input_size, repo_id=repo_id)
        there = api.create_repo(repo_id, private=private, exist_ok=True)
        files = [CommitOperationAdd(name, str(folder / name)) for name in (CONFIG, WEIGHTS, CARD)]
        api.create_commit(there.repo_id, files, commit_message=f"Save with srblock {__version__}")
    return str(there)


# --- a run -----------------------------------------------------------------------------------------------------------


def _record(run: TrainedRun) -> Path | None:
    """Return the folder with the record of a run, if there is one and the model still is what it is of."""
    folder = run.path.parent
    if not run.as_trained or not finished(folder) or not (folder / "config.json").is_file():
        return None
    if not is_sealed(read_run(folder)):
        return None
    then, now = read_weights(run.path), run.model.state_dict()
    same = then.keys() == now.keys() and all(torch.equal(then[key], now[key].cpu()) for key in then)
    return folder if same else None


def _of_the_run(config: dict[str, Any]) -> dict[str, Any]:
    """Pick what a run is from its config.json, without the places and machines of its owner."""
    return {key: config.get(key) for key in OF_A_RUN} | {"data": {key: config["data"][key] for key in OF_ITS_DATA}}


# --- weights ---------------------------------------------------------------------------------------------------------


def _plain(input_size: InputSize | None) -> int | list[int] | None:
    return input_size if input_size is None or isinstance(input_size, int) else list(input_size)


def _refuse_what_is_no_tensor(model: nn.Module) -> None:
    others = [key for key, value in model.state_dict().items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"the state_dict has {others[0]!r}, which is no tensor; safetensors hold tensors alone")


def _named_once(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the weights, a tensor of several names under its first, and of each other name which that is."""
    state: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    others: dict[str, str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if (known := first.setdefault(id(value), name)) != name:
            others[name] = known
        else:
            state[name] = value.detach().clone(memory_format=torch.contiguous_format)
    return state, others


def _config(folder: Path, source: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        ours = config["library_name"] == "srblock" and "blocks" in config
    except (OSError, ValueError, TypeError, KeyError):
        ours = False
    if not ours:
        raise ValueError(
            f"{source} has no {CONFIG} of srblock.save_pretrained; a run's own folder is loaded by srblock.load_run"
        )
    if config["format"] > FORMAT:
        raise ValueError(f"{source} was saved by srblock {config['srblock']}, this is {__version__}; take a newer one")
    return config


# --- the Hub ---------------------------------------------------------------------------------------------------------


def _api(token: str | bool | None, endpoint: str | None) -> HfApi:
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError as error:
        raise ImportError(f'the Hub needs {error.name}; pip install "srblock[hub]"') from error
    return HfApi(endpoint, token, "srblock", __version__)


def _download(repo_id: str, revision: str | None, token: str | bool | None, endpoint: str | None) -> Path:
    """Download the files of one commit into the Hub's cache, and return their folder."""
    api = _api(token, endpoint)
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(api.snapshot_download(repo_id, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"the Hub's {repo_id} has no revision {revision!r}") from error
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f"there is no folder {repo_id}, and no such repository on the Hub that this token may see"
        ) from error
