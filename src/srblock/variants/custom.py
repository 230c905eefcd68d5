"""A network of the user's own: a function that builds it, and what tells two such networks apart.

In the notation it is "mynet.py:make" or "package.module:make", a function by its place, or "custom/NAME", a function
that Python code hands over.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import enum
import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from srblock.variants.variant import LOCATED, Variant

Build = Callable[..., nn.Module]
GUARD = "if __name__ =="
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_OF_EVERY_MODULE = vars(nn.Module()).keys()  # "training" among them


@dataclass(frozen=True)
class Located:
    """A function by its place, which another process finds too.

    Attributes:
        module: the path of a file, absolute, or the name of a module.
        function: its name there.
    """

    module: str
    function: str

    @property
    def found(self) -> Build:
        """The function itself.

        Raises: ValueError if there is no such file, it cannot be imported, or it has no such function.
        """
        module = _import_file(self.module) if self.module.endswith(".py") else _import_module(self.module)
        value = getattr(module, self.function, None)
        if callable(value):
            build: Build = value
            return build
        names = [name for name, other in vars(module).items() if callable(other) and not name.startswith("_")]
        near = difflib.get_close_matches(self.function, names, n=3, cutoff=0.3)
        hint = f"did you mean {' or '.join(near)}?" if near else "check its name there"
        raise ValueError(f"{self.module} has no function {self.function!r}; {hint}")

    def __call__(self, *args: Any, **kwargs: Any) -> nn.Module:
        return self.found(*args, **kwargs)


def locate(network: str) -> Located:
    """Read "mynet.py:make" or "package.module:make"; a path is taken from the current folder.

    Raises: as `Located.found`.
    """
    if not LOCATED.fullmatch(network):
        raise ValueError(f"a function is named FILE.py:FUNCTION or MODULE:FUNCTION, got {network!r}")
    module, _, function = network.rpartition(":")
    located = Located(str(Path(module).expanduser().resolve()) if module.endswith(".py") else module, function)
    _ = located.found
    return located


def function_of(variant: Variant, build: Build | str | None) -> Build | None:
    """Return what builds a variant's network if it is one of the user's own, from the function or its place.

    Raises: ValueError if such a network lacks it, or another one has it; as `locate`.
    """
    if not variant.custom:
        if build is not None:
            raise ValueError(f"{variant.network} is built by srblock; a function is for networks of your own")
        return None
    if build is None:
        raise ValueError(
            f"{variant.network} is built by a function of yours, and a run never says which code to execute: pass "
            "build=FUNCTION, or --build FILE.py:FUNCTION"
        )
    return locate(build) if isinstance(build, str) else build


def call(build: Build, seed: int, name: str) -> nn.Module:
    """Build a network; a function that takes no seed draws from torch's random state, which the seed decides.

    Raises: ValueError for a function that wants anything but a seed, or returns no network.
    """
    takes = inspect.signature(build.found if isinstance(build, Located) else build).parameters.values()
    empty = inspect.Parameter.empty
    needed = [p for p in takes if p.default is empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1 or not all(re.match("_|.*seed", parameter.name) for parameter in needed):
        wants = ", ".join(parameter.name for parameter in needed)
        raise ValueError(f"{name} is called with a seed alone, and wants {wants}; give what is no seed a default")
    if needed and needed[0].kind is not inspect.Parameter.KEYWORD_ONLY:
        model = build(seed)
    elif any(parameter.name == "seed" for parameter in takes):
        model = functools.partial(build, seed=seed)()
    else:
        model = build()
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} returned {type(model).__name__}; expected a torch.nn.Module")
    return model


OTHER_SOURCE = "{} is not what the run was trained with (other source)"


def identity_of(build: Build, seed: int, name: str) -> dict[str, Any]:
    """Return what tells a network apart: SHA-256 of its function's source file and of its structure.

    Of the file a block `if __name__ == "__main__":` does not count. What a function has from other files shows only as
    far as the structure does: names, types, settings and shapes of its modules, parameters and buffers, and the values
    that the function was given by `functools.partial`, as defaults, or from around it.

    Raises: as `call`; ValueError if the source cannot be read.
    """
    with torch.random.fork_rng(devices=[]):  # what is drawn here is for nobody
        model = call(build, seed, name)
    structure = [*structure_of(model), given_to(build)]
    return {"source": _digest(source_of(build, name)), "structure": _digest(repr(structure))}


def structure_of(model: nn.Module) -> list[Any]:
    """List a network's modules, with their settings, and the shapes of its parameters and buffers."""
    modules = [
        (name, type(m).__qualname__, ADDRESS.sub("", m.extra_repr()), _settings(m)) for name, m in model.named_modules()
    ]
    state = [(name, v) for name, v in model.state_dict().items() if isinstance(v, torch.Tensor)]
    return [modules, [(name, None if nn.parameter.is_lazy(v) else tuple(v.shape), str(v.dtype)) for name, v in state]]


def given_to(build: Any, depth: int = 5) -> Any:
    """Return the values that a function has from elsewhere than its source: partial arguments, defaults, a closure."""
    if isinstance(build, Located):
        return given_to(build.found, depth)
    if isinstance(build, functools.partial):
        return [given_to(build.func, depth), _plain(build.args, depth), _plain(build.keywords, depth)]
    if inspect.ismethod(build):
        return [given_to(build.__func__, depth), _plain(getattr(build.__self__, "__dict__", {}), depth)]
    if not inspect.isfunction(build):
        return None if inspect.isclass(build) else _plain(getattr(build, "__dict__", {}), depth)
    cells = []
    for cell in build.__closure__ or ():
        with contextlib.suppress(ValueError):  # of a name that has no value yet
            cells.append(cell.cell_contents)
    return [_plain(found, depth) for found in (build.__defaults__, build.__kwdefaults__, cells)]


def _settings(module: nn.Module) -> Any:
    """Collect a module's attributes that are plain values; PyTorch's own classes keep theirs under public names."""
    torchs = type(module).__module__.startswith("torch.")
    own = {name for name in vars(module).keys() - _OF_EVERY_MODULE if not (torchs and name.startswith("_"))}
    return _plain({name: vars(module)[name] for name in sorted(own)})


def _plain(value: Any, depth: int = 5) -> Any:
    """Return what a value is, in words that are the same in another process; only its type where there are none."""
    kind = type(value).__qualname__
    if value is None or isinstance(
        value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device, enum.Enum)
    ):
        return repr(value)
    if depth == 0:
        return kind
    if isinstance(value, (list, tuple)):
        return [kind, [_plain(part, depth - 1) for part in value]]
    if isinstance(value, dict):
        return [kind, [(_plain(key, depth - 1), _plain(part, depth - 1)) for key, part in value.items()]]
    if isinstance(value, (set, frozenset)):
        return [kind, sorted(repr(_plain(part, depth - 1)) for part in value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [kind, _plain(vars(value) if hasattr(value, "__dict__") else None, depth - 1)]
    if isinstance(value, functools.partial) or inspect.isfunction(value):
        return [getattr(value, "__qualname__", kind), given_to(value, depth - 1)]
    return getattr(value, "__qualname__", kind)


def source_of(build: Build, name: str) -> str:
    """Return the source of the file that a function stands in, or of the function where there is no file.

    Raises: ValueError if neither can be read.
    """
    function = build.found if isinstance(build, Located) else build
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not (inspect.isfunction(function) or inspect.isclass(function) or inspect.ismethod(function)):
        function = type(function)
    try:
        file = inspect.getsourcefile(function)
        if file is not None and Path(file).is_file():
            return _without_guard(Path(file).read_text(encoding="utf-8"))
        return inspect.getsource(function)
    except (OSError, TypeError, SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(
            f"the source of {name} cannot be read ({error}), and a run is known by it; write the function into a file"
        ) from error


def _without_guard(source: str) -> str:
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.If) and lines[node.lineno - 1].startswith(GUARD):
            del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines).rstrip()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _import_file(file: str) -> ModuleType:
    """Import a file, once as long as it stays as it is; beside it lies what it imports, as if it were run."""
    if not Path(file).is_file():
        raise ValueError(f"there is no file {file}; check the path")
    return _execute(file, Path(file).read_bytes())


@functools.lru_cache(maxsize=64)
def _execute(file: str, content: bytes) -> ModuleType:
    path = Path(file)
    name = f"srblock_custom_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{_digest(file)[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        exec(compile(content, file, "exec", dont_inherit=True), vars(module))  # no bytecode of an older text
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{file} cannot be imported: {_where(error, file)}") from error
    return module


def _import_module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:  # a console script has its own folder there instead
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ValueError(f"the module {name} cannot be imported: {_where(error, name)}") from error


def _where(error: Exception, file: str) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    said = f"{type(error).__name__}: {error}"
    return f"{said} (line {lines[-1]})" if lines else said
