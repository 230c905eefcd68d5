"""Open a finished run again: its data, and its network with the weights of the selected epoch."""

from __future__ import annotations

import warnings
from pathlib import Path

from torch import nn

from srblock.data import ImageData, SceneData, load_data
from srblock.models.dilated import stem_of
from srblock.runs.records import Run, RunConfig, damaged, read_config, read_run
from srblock.runs.seal import WEIGHTS, is_sealed
from srblock.runs.study import Study
from srblock.training.checkpoint import CheckpointError
from srblock.training.fields import require
from srblock.variants.custom import Build, function_of
from srblock.variants.identity import OTHER_SOURCE
from srblock.variants.weights import read_weights, refuse_unusable


def reopen(
    directory: Path, *, source: str | ImageData | SceneData | None = None, build: Build | str | None = None
) -> tuple[Run, Study, nn.Module]:
    """Open a finished run: its record, a study of this run alone, and its network, on the CPU.

    Args:
        source: the data, or where it is now; None for where it was. Other data of the same classes warns, and so do
            other weights than the run was finished with.
        build: of a network of the user's own the function that builds it, see `variants.custom.function_of`.

    Raises: FileNotFoundError if the run is not finished; ValueError if the data has other classes or another size;
    CheckpointError if the weights are damaged.
    """
    run = read_run(directory)
    config = run.config
    recorded, image_size = _began(directory, config)
    data: ImageData | SceneData
    if isinstance(source, (ImageData, SceneData)):
        data = source.known_anew() if isinstance(source, ImageData) else source
        source = source.name
    elif source is None:
        try:
            data = load_data(recorded, image_size=image_size)
        except ValueError as error:
            raise ValueError(f"the data was {recorded!r}; say where it is now with --data ({error})") from error
    else:
        data = load_data(source, image_size=image_size)
    source = source or recorded
    classes, (channels, height, width) = config.data["classes"], config.data["size"]
    other_size = config.recipe.crop_size is None and (data.channels, *data.size) != (channels, height, width)
    if data.task != config.data.get("task", "classification") or list(data.classes) != classes or other_size:
        raise ValueError(
            f"the run was trained on {len(classes)} classes of {height}x{width} images; {source} has "
            f"{len(data.classes)} classes, {data.size[0]}x{data.size[1]}: name the data it was trained on with --data"
        )
    if data.fingerprint != config.data["fingerprint"]:
        warnings.warn(f"{source} is not the data that the run was trained on (other content)", stacklevel=2)
    function = function_of(config.variant, build)
    networks = {} if function is None else {config.variant.network: function}
    study = Study((config.variant,), (config.seed,), data, source, config.recipe, networks=networks)
    if study.runs[0].code != config.code:
        warnings.warn(OTHER_SOURCE.format(config.variant.network), stacklevel=2)
    weights = directory / WEIGHTS
    try:
        state = read_weights(weights)
        model = study.build(config.variant, config.seed, stem=stem_of(state))
        refuse_unusable(state, model.state_dict(), str(weights))
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{weights} does not fit {run.variant}: {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{error}; or delete the folder {directory} to train the run anew") from error
    if not is_sealed(run):
        warnings.warn(
            f"{directory / WEIGHTS} is not the file that the run was finished with (another SHA-256): what follows is "
            "of other weights than the record",
            stacklevel=2,
        )
    return run, study, model


def _began(directory: Path, config: RunConfig) -> tuple[str, int | None]:
    """Read where a run's data was, and the side that its images were brought to.

    Raises: ValueError if config.json is damaged, or of another run.
    """
    try:
        started = read_config(directory)
        source, image_size = started["source"], started["image_size"]
        began = RunConfig.from_dict(started).name
        require(began == config.name, "it", began, f"{config.name}, as result.json")
        sides = config.data["size"][1:]
        fit = image_size is None or image_size in sides or config.recipe.crop_size is not None
        require(fit, "image_size", image_size, f"a side of {sides}, as the data has")
    except (OSError, ValueError, KeyError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise damaged(directory, f"config.json: {said}") from error
    return source, image_size
