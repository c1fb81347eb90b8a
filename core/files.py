"""Files on disk: hashing, and writing that leaves either the whole result or nothing."""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.scratch import scratch_directory
from modelwright.core.system_errors import explain_os_error

_BLOCK_BYTES = 2**20
_LIMIT_BYTES = 16 * 2**20
"""No record of ours comes near; a larger file is something else and would only fill the memory."""
_DEEPEST = 64
"""Levels of lists and objects in a record; Python's own recursion ends at some hundreds."""
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (lambda _mode: True, "a device"),
)


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file as hex, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def is_plain_file(folder: Path, name: str) -> bool:
    """Whether a file lies in a folder under a name that a record gives: a regular one, and no link on the way to it.

    Args:
        folder: Where it must lie.
        name: Relative, with `/` between folders; leads out of the folder nowhere.
    """
    path = folder
    try:
        for part in PurePosixPath(name).parts[:-1]:
            path /= part
            if not stat.S_ISDIR(path.lstat().st_mode):
                return False
        return stat.S_ISREG((folder / name).lstat().st_mode)
    except (OSError, ValueError):
        return False


def hash_json(value: Any) -> str:
    """Returns the SHA-256 of a JSON value in a canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Writes a text file as `write_bytes` does.

    Characters that UTF-8 lacks (halves of surrogate pairs, as in file names of another encoding) are escaped.
    """
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file under its final name only when it is whole; replaces a file, and nothing that is none.

    Raises:
        BuildFailedError: The disk is full.
        BadInputError: The folder is not writable, or something else than a file has that name.
    """
    with explain_os_error(path):
        require_no_other(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_directory(path.parent) as scratch:  # a folder of this process alone: nobody can plant links there
            staged = Path(scratch) / "new"
            staged.write_bytes(data)
            staged.replace(path)


def require_writable(path: Path) -> None:
    """Refuses a place where a file cannot be written, before hours are spent on what is to be written.

    Raises:
        BuildFailedError: The disk is full.
        BadInputError: The folder is not writable, or something else than a file has that name.
    """
    with explain_os_error(path):
        require_no_other(path)
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        with scratch_directory(parent) as scratch:
            (Path(scratch) / "probe").write_bytes(b"1")


def require_no_other(path: Path) -> None:
    """Refuses a place that a folder, a device, a pipe or a link has: files are replaced, and nothing else.

    Raises:
        BadInputError: Names what it is.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = next(word for is_one, word in _KINDS if is_one(mode))
        raise BadInputError(f"{path} is {kind}, not a file: nothing is written there", hint="choose another name")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON as `write_text` does."""
    write_text(path, render_json(value))


def render_json(value: Mapping[str, Any]) -> str:
    """Returns the text of a JSON file, indented for people.

    Raises:
        ValueError: It holds a number that JSON lacks.
        TypeError: It holds something else than JSON values.
    """
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        BadInputError: Missing, not a file, not JSON, or not an object; names the file and `what` it should be.
    """
    try:
        if path.exists() and not path.is_file():
            raise BadInputError(f"{path} cannot be read as {what}: it is not a regular file")
        if path.exists() and path.stat().st_size > _LIMIT_BYTES:
            raise BadInputError(f"{path} is not {what}: it is too large ({path.stat().st_size / 1e6:.0f} MB)")
        value = json.loads(path.read_text(encoding="utf-8"))
        _require_plain(value)
    except FileNotFoundError as error:
        raise BadInputError(f"no such file: {path} ({what})") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{path} cannot be read as {what}: {error}") from error
    if not isinstance(value, dict):
        raise BadInputError(f"{path} is not {what}: it holds a {type(value).__name__}, not an object")
    return value


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        BadInputError: Missing, not a file, not UTF-8, or not TOML, with the line; names the file and `what` it is.
    """
    import tomllib  # only commands that read a file of the user's need it

    if path.exists() and not path.is_file():
        raise BadInputError(f"{what} {path}: cannot be read: it is not a file", hint="check the path")
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise BadInputError(f"{what} {path}: it is too large ({path.stat().st_size / 1e6:.0f} MB)")
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise BadInputError(
            f"{what} {path}: cannot be read: {error.strerror or error}", hint="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{what} {path}: expected UTF-8 text, found another encoding at byte {error.start}",
            hint="save the file as UTF-8",
        ) from error
    except (RecursionError, ValueError) as error:
        raise BadInputError(
            f"{what} {path}: not valid TOML: {error}",
            hint="texts need quotes, tables look like [power]; see https://toml.io",
        ) from error


def _require_plain(value: object) -> None:
    """Refuses what Python reads as JSON and cannot write again as JSON, or not without ending its recursion."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        if any(isinstance(part, float) and not math.isfinite(part) for part in level):
            raise ValueError("it holds a number that is not finite")
        parts = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list))
        level = [item for part in parts for item in part]
    if level:
        raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
