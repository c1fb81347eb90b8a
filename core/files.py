"""Files on disk: hashing, and writing that leaves either the whole result or nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, BuildFailedError, ModelwrightError

_BLOCK_BYTES = 2**20


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

    Raises:
        BuildFailedError: The disk is full or the folder not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explain_os_error(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON as `write_text` does, indented for people."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        BadInputError: Missing, not JSON, or not an object; names the file and `what` it should be.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInputError(f"no such file: {path} ({what})") from error
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read as {what}: {error}") from error
    if not isinstance(value, dict):
        raise BadInputError(f"{path} is not {what}: it holds a {type(value).__name__}, not an object")
    return value


@contextlib.contextmanager
def staged_directory(final: Path) -> Iterator[Path]:
    """Yields an empty folder next to `final` that takes its name when the block ends well, else disappears.

    An older folder of that name is replaced in the same moment; it is untouched when the block fails.
    """
    with explain_os_error(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        with explain_os_error(final):
            yield staging
            staging.chmod(0o755)
            if final.exists():
                retired = Path(tempfile.mkdtemp(prefix=f".{final.name}.old.", dir=final.parent))
                final.rename(retired / final.name)
                staging.rename(final)
                shutil.rmtree(retired, ignore_errors=True)
            else:
                staging.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def explain_os_error(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals into errors that name the folder and the cure."""
    try:
        yield
    except ModelwrightError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BuildFailedError(
                f"no space left on the disk while writing {path}",
                hint="free some space or choose another --out; what was finished before is kept",
                detail=str(error),
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise BadInputError(
                f"cannot write {path}: {error.strerror}", hint="choose another --out that you may write to"
            ) from error
        raise
