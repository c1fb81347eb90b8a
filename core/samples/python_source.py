"""Functions of the user's own Python files, written `file.py:function`: found, listed and called."""

from __future__ import annotations

import ast
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from modelwright.core.errors import BadInputError

_LISTED = 12
"""Functions of a file that a hint names."""
_TRACED = 20
"""Lines of a traceback that an error shows."""
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def split_function(spec: str) -> tuple[Path, str | None]:
    """Splits `file.py:function`; the function is None when it is not named."""
    path, colon, name = spec.rpartition(":")
    if colon and path.endswith(".py"):
        return Path(path), name or None
    return Path(spec), None


def is_python(spec: str) -> bool:
    """Says whether a text names a Python file, with or without a function."""
    return split_function(spec)[0].suffix == ".py"


def _list_choices(path: Path, names: list[str], wanted: str | None) -> str:
    """Returns functions of a file as they are given, those that read like what was wanted before the others."""
    import difflib  # only needed on the way to an error, and slow to import

    near = difflib.get_close_matches(wanted or "", names, n=_LISTED, cutoff=0.5)
    ordered = [*near, *(name for name in names if name not in near)]
    more = f" and {len(ordered) - _LISTED} more" if len(ordered) > _LISTED else ""
    return ", ".join(f"{path}:{name}" for name in ordered[:_LISTED]) + more or "none so far"


def require_function(spec: str, purpose: str) -> tuple[Path, str]:
    """Splits `file.py:function` and checks that the file defines it, without running the file.

    Args:
        spec: As the user wrote it.
        purpose: What the function is for: `returns an nn.Module`.

    Raises:
        BadInputError: No such file or function, or a syntax error; the hint lists the functions that there are.
    """
    path, name = split_function(spec)
    names = list_functions(path)
    choices = _list_choices(path, list(names), name)
    if name is None:
        raise BadInputError(
            f"{path} is a Python file: name the function in it that {purpose}, as {path}:FUNCTION",
            hint=f"functions in it: {choices}",
        )
    if name not in names and not _may_define(path, name):
        raise BadInputError(f"{path} defines no function {name}", hint=f"functions in it: {choices}")
    return path, name


def list_functions(path: Path) -> list[str]:
    """Returns the public functions and classes at the top of a file, in order, without running it.

    Raises:
        BadInputError: The file is missing, unreadable or not Python.
    """
    nodes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for node in _parse(path).body if isinstance(node, nodes) and not node.name.startswith("_")]


def load_function(path: Path, name: str) -> Callable[..., Any]:
    """Runs a file and returns a function of it; for child processes only.

    The file's folder comes first on the import path, as with `python file.py`, so that its neighbours are found.

    Raises:
        BadInputError: Running the file failed, or it defines no such function.
    """
    path = path.resolve()
    sys.path.insert(0, str(path.parent))
    sys.dont_write_bytecode = True  # the user's folder is read, not written to
    spec = importlib.util.spec_from_file_location(f"modelwright_source_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up by name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise BadInputError(
            f"running {path.name} failed: {type(error).__name__}: {error}",
            hint=f"it must import without arguments, as `python -c 'import {path.stem}'` does in its folder",
            detail=shorten_traceback(error),
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        found = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        choices = _list_choices(path, found, name)
        fault = f"{name} in {path} is {type(function).__name__}, not a function"
        raise BadInputError(
            fault if hasattr(module, name) else f"{path} defines no function {name}", hint=f"functions in it: {choices}"
        )
    return function  # type: ignore[no-any-return]  # `callable` says no more than that


def shorten_traceback(error: BaseException) -> str:
    """Returns the part of a traceback that is of the user's own files; nothing where all of it is of packages."""
    lines: list[str] = []
    seen: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in seen:
        seen.append(each)
        own = ((frame, line) for frame, line in traceback.walk_tb(each.__traceback__) if _is_own(frame))
        frames = traceback.StackSummary.extract(own).format()
        if frames:
            lines = [*frames, *traceback.format_exception_only(each), *lines]
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return "\n".join("".join(lines).splitlines()[-_TRACED:])


def _is_own(frame: FrameType) -> bool:
    """Whether code is the user's: neither of this package, nor of Python or of what is installed in it."""
    name, path = str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
    is_ours = name.partition(".")[0] == "modelwright"
    return not is_ours and not path.startswith("<") and not path.startswith(_INSTALLED)


def _parse(path: Path) -> ast.Module:
    if not path.is_file():
        raise BadInputError(f"no such file: {path}", hint="give FILE.py:FUNCTION, relative to the working directory")
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (MemoryError, RecursionError, SyntaxError, ValueError) as error:
        raise BadInputError(f"{path} is not valid Python: {error}") from error


def _may_define(path: Path, name: str) -> bool:
    """Whether a name is bound at the top in another way: imported, assigned, or inside an `if`."""
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.alias) and (node.asname or node.name) in (name, "*"):
            return True
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name:
            return True
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return True
    return False
