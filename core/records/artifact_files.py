"""The files in an artifact's folder: listed, hashed, and compared with what they were."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelwright.core.errors import BadInputError

MANIFEST = "artifact.json"
REFERENCE = "reference.npz"
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Follows no link, and does not wait for who writes into a pipe."""


def is_reserved(name: str) -> bool:
    """Whether a file of an artifact would lie where the manifest or the reference outputs go, in any spelling.

    Devices may have file systems that take `Artifact.JSON` for the same name.

    Args:
        name: Relative to the artifact's folder, with `/` between folders.
    """
    return name.partition("/")[0].casefold() in (MANIFEST, REFERENCE)


def hash_files(directory: Path) -> dict[str, str]:
    """Returns relative path -> SHA-256 for every file of a folder but the manifest in it.

    Raises:
        BadInputError: Something lies there that is no file: a link, a pipe, a device, an empty folder.
        OSError: A file cannot be read.
    """
    return {name: _hash_plain_file(path) for name, path in _list_files(directory) if name != MANIFEST}


def measure_size(directory: Path) -> int:
    """Returns the bytes that a device needs: every file but the manifest and the reference outputs."""
    return sum(path.stat().st_size for name, path in _list_files(directory) if name not in (MANIFEST, REFERENCE))


def _list_files(directory: Path) -> list[tuple[str, Path]]:
    """Returns the files of a folder and of those in it, by relative path; see `hash_files`."""
    found: list[tuple[str, Path]] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        entries = list(os.scandir(directory / prefix))
        if prefix and not entries:
            raise _refuse_entry(directory, prefix.rstrip("/"), "an empty folder")
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.is_symlink():
                raise _refuse_entry(directory, name, "a link")
            if entry.is_dir(follow_symlinks=False):
                waiting.append(f"{name}/")
            elif entry.is_file(follow_symlinks=False):
                found.append((name, Path(entry.path)))
            else:
                raise _refuse_entry(directory, name, "no file, but a pipe, socket or device")
    return sorted(found)


def _refuse_entry(directory: Path, name: str, what: str) -> BadInputError:
    return BadInputError(
        f"artifact {directory} is not what was built: {name} is {what}",
        hint="copy the whole folder again, with files in the place of links: cp -rL",
    )


def _hash_plain_file(path: Path) -> str:
    """Hashes a file, unless it became something else since it was listed."""
    with os.fdopen(os.open(path, _OPEN), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is not a regular file", str(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_changes(directory: Path, expected: Mapping[str, str]) -> Iterator[str]:
    """Yields what differs from the files that a folder should hold: a sentence each.

    Args:
        directory: The folder, hashed anew.
        expected: As `hash_files` returned it.

    Raises:
        BadInputError: A file cannot be read, or something lies there that is no file.
    """
    try:
        found = hash_files(directory)
    except OSError as error:
        raise BadInputError(f"artifact {directory} cannot be read: {error}") from error
    yield from (f"{name} is missing" for name in sorted(expected.keys() - found.keys()))
    yield from (f"{name} is not in the manifest" for name in sorted(found.keys() - expected.keys()))
    for name in sorted(found.keys() & expected.keys()):
        if found[name] != expected[name]:
            yield f"{name} was changed (SHA-256 {found[name][:12]}..., it was {expected[name][:12]}...)"
