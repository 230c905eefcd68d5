"""What tells networks of the user's own apart: the source of the function that builds one, what it was given, and what
it builds.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import nn

from srblock.variants.custom import Build, Located, call, digest, takes_seed

GUARD = "if __name__ =="
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_OF_EVERY_MODULE = vars(nn.Module()).keys()  # "training" among them

OTHER_SOURCE = "{} is not what the run was trained with (other source)"


def identity_of(build: Build, seed: int, name: str) -> dict[str, Any]:
    """Return what tells a network apart: SHA-256 of its function's source and of its structure.

    The source is the file that the function stands in, without a block `if __name__ == "__main__":`; in a notebook it
    is the function, and what it uses of the notebook. What a function has from elsewhere shows only as far as the
    structure does: names, types, settings and shapes of its modules, parameters and buffers, and the values that the
    function was given by `functools.partial`, as defaults, or from around it, weights of networks among them.

    Raises: as `call`; ValueError if the source cannot be read.
    """
    holder = _holder(build)
    before = dict(getattr(holder, "__dict__", {}))
    with torch.random.fork_rng(devices=[]):  # what is drawn here is for nobody
        model = call(build, seed, name)
    structure = [*structure_of(model), given_to(build)]
    # What the call itself has put there, such as the network, is none of what it was given.
    held = {key: value for key, value in sorted(before.items()) if getattr(holder, "__dict__", {}).get(key) is value}
    if (whole := _plain(held)) != _plain(held, contents=False):
        structure.append(whole)
    takes = takes_seed(build, name)
    if takes is not None and takes.default is not inspect.Parameter.empty and takes.name != "seed":
        structure.append(takes.name)  # runs of before it was given the seed are others
    return {"source": digest(source_of(build, name)), "structure": digest(repr(structure))}


def structure_of(model: nn.Module) -> list[Any]:
    """List a network's modules, with their settings, and the shapes of its parameters and buffers."""
    modules = [
        (name, type(m).__qualname__, ADDRESS.sub("", m.extra_repr()), _settings(m)) for name, m in model.named_modules()
    ]
    state = [(name, v) for name, v in model.state_dict().items() if isinstance(v, torch.Tensor)]
    return [modules, [(name, None if nn.parameter.is_lazy(v) else tuple(v.shape), str(v.dtype)) for name, v in state]]


def given_to(build: Any, depth: int = 5, *, contents: bool = True) -> Any:
    """Return the values that a function has from elsewhere than its source: partial arguments, defaults, a closure.

    Args: contents: as `_plain` has it; of a method's object it does not count here, see `identity_of`.
    """
    plain = functools.partial(_plain, depth=depth, contents=contents)
    if isinstance(build, Located):
        return given_to(build.found, depth, contents=contents)
    if isinstance(build, functools.partial):
        return [given_to(build.func, depth, contents=contents), plain(build.args), plain(build.keywords)]
    if inspect.ismethod(build):
        held = _plain(getattr(build.__self__, "__dict__", {}), depth, contents=False)
        return [given_to(build.__func__, depth, contents=contents), held]
    if not inspect.isfunction(build):
        return None if inspect.isclass(build) else _plain(getattr(build, "__dict__", {}), depth, contents=False)
    cells = []
    for cell in build.__closure__ or ():
        with contextlib.suppress(ValueError):  # of a name that has no value yet
            cells.append(cell.cell_contents)
    return [plain(found) for found in (build.__defaults__, build.__kwdefaults__, cells)]


def _holder(build: Any) -> Any:
    """Return the object that a method is of, or that is called; None for a function or a class."""
    if isinstance(build, Located):
        return _holder(build.found)
    if isinstance(build, functools.partial):
        return _holder(build.func)
    if inspect.ismethod(build):
        return build.__self__
    return None if inspect.isfunction(build) or inspect.isclass(build) else build


def _settings(module: nn.Module) -> Any:
    """Collect a module's attributes that are plain values; PyTorch's own classes keep theirs under public names."""
    torchs = type(module).__module__.startswith("torch.")
    own = {name for name in vars(module).keys() - _OF_EVERY_MODULE if not (torchs and name.startswith("_"))}
    return _plain({name: vars(module)[name] for name in sorted(own)}, contents=False)


def _plain(value: Any, depth: int = 5, *, contents: bool = True) -> Any:
    """Return what a value is, in words that are the same in another process; only its type where there are none.

    Args: contents: whether that of tensors, arrays and networks counts, or their types alone.
    """
    kind = type(value).__qualname__
    if value is None or isinstance(
        value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device, enum.Enum)
    ):
        return repr(value)
    if contents and (isinstance(value, (torch.Tensor, nn.Module)) or _is_array(value)):
        return [kind, _contents(value)]
    if depth == 0:
        return kind
    plain = functools.partial(_plain, depth=depth - 1, contents=contents)
    if isinstance(value, (list, tuple)):
        return [kind, [plain(part) for part in value]]
    if isinstance(value, dict):
        return [kind, [(plain(key), plain(part)) for key, part in value.items()]]
    if isinstance(value, (set, frozenset)):
        return [kind, sorted(repr(plain(part)) for part in value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [kind, plain(vars(value) if hasattr(value, "__dict__") else None)]
    if isinstance(value, functools.partial) or inspect.isfunction(value):
        return [getattr(value, "__qualname__", kind), given_to(value, depth - 1, contents=contents)]
    return getattr(value, "__qualname__", kind)


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray) and not value.dtype.hasobject  # of objects it holds the addresses


def _contents(value: torch.Tensor | np.ndarray[Any, Any] | nn.Module) -> Any:
    """Fingerprint what a function was handed: an array, or a network with its weights."""
    if isinstance(value, nn.Module):
        state = [(name, _contents(part)) for name, part in value.state_dict().items() if isinstance(part, torch.Tensor)]
        return [structure_of(value), state]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if nn.parameter.is_lazy(value) or value.is_meta or value.layout is not torch.strided or value.is_quantized:
        return str(value.dtype)
    raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return [str(value.dtype), tuple(value.shape), hashlib.sha256(raw.tobytes()).hexdigest()]


def source_of(build: Build, name: str) -> str:
    """Return the source of the file that a function stands in.

    Where there is no file, in a notebook, it is that of the function and of all that it uses there, directly or not.

    Raises: ValueError if it cannot be read.
    """
    function = build.found if isinstance(build, Located) else build
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not (inspect.isfunction(function) or inspect.isclass(function) or inspect.ismethod(function)):
        function = type(function)
    try:
        file = _file_of(function)
        if file is not None and Path(file).is_file():
            return _without_guard(Path(file).read_text(encoding="utf-8"))
        return "\n".join([_own_source(function), *_around(function)])
    except (OSError, TypeError, SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(
            f"the source of {name} cannot be read ({error}), and a run is known by it; write the function into a file"
        ) from error


def _file_of(function: Any) -> str | None:
    try:
        return inspect.getsourcefile(function)
    except (OSError, TypeError):
        if inspect.isclass(function) and any(True for _ in _functions(function)):
            return None  # of a notebook
        raise


def _around(function: Any) -> list[str]:
    """Return the sources of functions and classes, and the values, that a function of a notebook uses from there."""
    scope = _scope(function)
    said: set[str] = set()
    known, waiting = {function}, [function]
    while waiting:
        user = waiting.pop()
        used = {name: scope[name] for code in _codes(user) for name in _globals_of(code) if name in scope}
        for name, value in used.items():
            inner = [*_within(value)]
            said.add(f"{name} = {[part.__qualname__ for part in inner] or _plain(value)}")
        for part in [*_within([*used.values(), *getattr(user, "__bases__", ())]), *_within(user)]:
            if part not in known and _scope(part) is scope:
                known.add(part)
                waiting.append(part)
                said.add(f"{part.__qualname__}: {_own_source(part)}")
    return sorted(said)


def _within(value: Any, depth: int = 3) -> Iterator[Any]:
    """Yield functions and classes: a value, and those in a partial, a container, or around a function."""
    if inspect.isclass(value):
        yield value
    elif inspect.isfunction(value):
        yield value
        cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        yield from _within(cells, depth - 1) if depth else ()
    elif depth and isinstance(value, functools.partial):
        yield from _within([value.func, *value.args, *value.keywords.values()], depth - 1)
    elif depth and isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _within(part, depth - 1)


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # of a name that has no value yet
        return False


def _globals_of(code: CodeType) -> set[str]:
    return {str(step.argval) for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}


def _scope(value: Any) -> dict[str, Any]:
    """Return the names of the module that a function or a class stands in."""
    if inspect.isclass(value):
        module = sys.modules.get(value.__module__)
        return {} if module is None else vars(module)
    scope: dict[str, Any] = inspect.unwrap(value).__globals__
    return scope


def _functions(value: Any) -> Iterator[Any]:
    """Yield a function, or those of a class."""
    for part in vars(value).values() if inspect.isclass(value) else (value,):
        found = getattr(part, "fget", None) or getattr(part, "__func__", None) or part
        if inspect.isfunction(found):
            yield inspect.unwrap(found)


def _codes(value: Any) -> Iterator[CodeType]:
    waiting = [function.__code__ for function in _functions(value)]
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [part for part in code.co_consts if isinstance(part, CodeType)]


def _own_source(value: Any) -> str:
    """Return the source of a function, or of a class: Python finds that of its functions, and not its own."""
    if not inspect.isclass(value):
        return inspect.getsource(value)
    said = [f"class ({', '.join(base.__qualname__ for base in value.__bases__)})"]
    functions = list(_functions(value))
    for function in functions:
        with contextlib.suppress(OSError, TypeError):  # of what a dataclass makes
            said.append(inspect.getsource(function))
    if functions and len(said) == 1 and not dataclasses.is_dataclass(value):
        raise OSError(f"no source of {value.__qualname__}")
    values = {name: part for name, part in vars(value).items() if not (name.startswith("__") or callable(part))}
    return "\n".join([*said, repr(_plain(values))])


def _without_guard(source: str) -> str:
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.If) and lines[node.lineno - 1].startswith(GUARD):
            del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines).rstrip()
