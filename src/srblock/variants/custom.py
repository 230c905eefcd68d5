"""A network of the user's own: a function that builds it.

In the notation it is "mynet.py:make" or "package.module:make", a function by its place, or "custom/NAME", a function
that Python code hands over.
"""

from __future__ import annotations

import difflib
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

from torch import nn

from srblock.variants.variant import LOCATED, Variant

Build = Callable[..., nn.Module]


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
    takes = takes_seed(build, name)
    if takes is None:
        model = build()
    elif takes.default is takes.empty and takes.kind is not takes.KEYWORD_ONLY:
        model = build(seed)
    else:
        model = functools.partial(build, **{takes.name: seed})()
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} returned {type(model).__name__}; expected a torch.nn.Module")
    return model


def takes_seed(build: Build, name: str) -> inspect.Parameter | None:
    """Return the argument of a function that the seed is for: one without a default, "seed", or the one "..._seed".

    The last is not meant where `functools.partial` has set it, or its default is True or False.

    Raises: ValueError if there is another one without a default, or several that may be meant.
    """
    function = build.found if isinstance(build, Located) else build
    takes = [
        p for p in inspect.signature(function).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    needed = [p for p in takes if p.default is p.empty]
    named = [p for p in takes if p.kind is not p.POSITIONAL_ONLY]
    if len(needed) > 1 or not all(re.match("_|.*seed", parameter.name) for parameter in needed):
        wants = ", ".join(parameter.name for parameter in needed)
        raise ValueError(f"{name} is called with a seed alone, and wants {wants}; give what is no seed a default")
    given = function.keywords if isinstance(function, functools.partial) else {}
    others = [p for p in named if p.name.endswith("_seed") and p.name not in given and not isinstance(p.default, bool)]
    meant = needed or [p for p in named if p.name == "seed"] or others
    if len(meant) > 1:
        wants = ", ".join(parameter.name for parameter in meant)
        raise ValueError(f"{name} takes {wants}, and the seed of a run is for one of them; call that one seed")
    return meant[0] if meant else None


def digest(text: str) -> str:
    """Return the SHA-256 of a text, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _import_file(file: str) -> ModuleType:
    """Import a file, once as long as it stays as it is; beside it lies what it imports, as if it were run."""
    if not Path(file).is_file():
        raise ValueError(f"there is no file {file}; check the path")
    return _execute(file, Path(file).read_bytes())


@functools.lru_cache(maxsize=64)
def _execute(file: str, content: bytes) -> ModuleType:
    path = Path(file)
    name = f"srblock_custom_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{digest(file)[:8]}"
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
