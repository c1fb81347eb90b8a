"""Files on disk: hashing, and writing that leaves either the whole result or nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, BuildFailedError, ModelwrightError
from modelwright.core.locks import Lock, try_lock

SCRATCH_PREFIX = ".modelwright-"
"""How everything begins that is not finished yet; what a killed run left is told by it."""
_BLOCK_BYTES = 2**20
_LIMIT_BYTES = 16 * 2**20
"""No record of ours comes near; a larger file is something else and would only fill the memory."""
_DEEPEST = 64
"""Levels of lists and objects in a record; Python's own recursion ends at some hundreds."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSALS = (
    errno.EACCES, errno.EEXIST, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR,
    errno.ENOTEMPTY, errno.EPERM, errno.EROFS, errno.ETXTBSY,
)  # fmt: skip
_SHORTAGES = (errno.EAGAIN, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file as hex, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """Returns the SHA-256 of a JSON value in a canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Writes a text file under its final name only when it is whole.

    Characters that UTF-8 lacks (halves of surrogate pairs, as in file names of another encoding) are escaped.

    Raises:
        BuildFailedError: The disk is full.
        BadInputError: The folder is not writable.
    """
    temporary = path.with_name(f"{SCRATCH_PREFIX}{os.getpid()}.tmp")
    with explain_os_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON as `write_text` does, indented for people."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


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


@contextlib.contextmanager
def scratch_directory(parent: Path | None = None) -> Iterator[str]:
    """Yields a temporary folder for intermediate files, next to the result when `parent` is given."""
    with explain_os_error(Path(tempfile.gettempdir()) if parent is None else parent):
        directory = tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=parent)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def staged_directory(final: Path) -> Iterator[Path]:
    """Yields an empty folder next to `final` that takes its name when the block ends well, else disappears.

    An older folder of that name is replaced in the same moment; it is untouched when the block fails.
    """
    with explain_os_error(final):
        final.parent.mkdir(parents=True, exist_ok=True)
    with scratch_directory(final.parent) as scratch, explain_os_error(final):
        staging, retired = Path(scratch) / "new", Path(scratch) / "old"
        staging.mkdir()
        yield staging
        if not final.exists():
            staging.rename(final)
            return
        final.rename(retired)
        try:
            staging.rename(final)
        except BaseException:
            retired.rename(final)
            raise


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Makes a folder, and takes it away again with its parents if the block fails and nothing lies in it.

    Raises:
        BadInputError: It is a file, or cannot be made.
    """
    with explain_os_error(folder):
        if folder.exists() and not folder.is_dir():
            raise BadInputError(f"{folder} is a file, not a folder", hint="choose another --out")
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Holds a folder for this process alone, and clears away what a killed one left half-made in it.

    The lock lies on the folder itself: no file stays behind, and the system frees it however the process ends. Where
    the system or the file system cannot lock, nothing is held and nothing is cleared away.

    Raises:
        BadInputError: Another process holds it.
    """
    with explain_os_error(folder):
        handle = _open_to_lock(folder)
    try:
        state = try_lock(handle)
        if state is Lock.TAKEN:
            raise BadInputError(
                f"another modelwright is working in {folder}", hint="wait until it is done, or choose another --out"
            )
        if state is Lock.HELD:
            _clear_leftovers(folder)
        yield
    finally:
        os.close(handle)


def _open_to_lock(folder: Path) -> int:
    if sys.platform == "win32":  # where a folder cannot be opened
        return os.open(folder / f"{SCRATCH_PREFIX}lock", os.O_RDWR | os.O_CREAT)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def _clear_leftovers(folder: Path) -> None:
    for pattern in (f"{SCRATCH_PREFIX}*", f"*/{SCRATCH_PREFIX}*"):
        for path in folder.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def explain_os_error(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals into errors that name the folder and the cure."""
    try:
        yield
    except OSError as error:
        explained = describe_os_error(error, path)
        if explained is None:
            raise
        raise explained from error


def describe_os_error(error: OSError, path: Path | None = None) -> ModelwrightError | None:
    """Returns what a refusal of the operating system means to the user; None when it looks like a fault of ours.

    Args:
        error: A full disk, a folder that may not be written, too many open files, ...
        path: What was to be written, in the user's words; None when only the system's own words say it.
    """
    named = path is not None
    if path is None and isinstance(error.filename, str):
        path = Path(error.filename)
    where = "" if path is None else f" {path}"
    if error.errno in _NO_SPACE:
        return BuildFailedError(
            f"no space left on the disk{f' while writing{where}' if where else ''}",
            hint="free some space or choose another --out; what was finished before is kept",
            detail=str(error),
        )
    if error.errno in _REFUSALS or (named and error.errno == errno.ENOENT):
        if not named:
            return BadInputError(f"cannot use{where or ' a file'}: {error.strerror}")
        return BadInputError(f"cannot write{where}: {error.strerror}", hint="choose another --out", detail=str(error))
    if error.errno in _SHORTAGES:
        return BuildFailedError(f"the system refused{where and f' work on{where}'}: {error.strerror}")
    if "temporary directory" in str(error):
        return BadInputError(
            "no folder for temporary files can be written", hint="set TMPDIR to one", detail=str(error)
        )
    return None
