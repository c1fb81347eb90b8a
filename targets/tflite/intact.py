"""Whether a folder holds what was put there: every file by size and time, or by its content where those say no."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from modelwright.core.files import hash_file

_CACHES = "__pycache__/"
"""What whoever runs the packages may add to; what was there from the beginning counts all the same."""

_Entry = list[int | str]
"""Of a file its size, its time in ns and its SHA-256; of a link where it leads."""


def record_files(folder: Path, record: Path) -> None:
    """Writes down a folder's files and links, in a file that appears when it is whole."""
    files = {}
    for name, entry in _iterate(folder):
        files[name] = _describe(entry) + ([] if entry.is_symlink() else [hash_file(Path(entry.path))])
    unfinished = record.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(files), encoding="utf-8")
    unfinished.rename(record)


def find_damage(folder: Path, record: Path, *, every_byte: bool = False) -> str | None:
    """Returns what is not as it was recorded, in words that follow the folder's name; None where all is.

    Args:
        folder: To look at; the record may lie in it.
        record: From `record_files`.
        every_byte: Read files whose size and time are right, too.
    """
    files = _read_record(record)
    if files is None:
        return "is half made"
    found = set()
    own_name = record.relative_to(folder).as_posix() if record.is_relative_to(folder) else None
    for name, entry in _iterate(folder):
        if name == own_name:
            continue
        recorded = files.get(name)
        if recorded is None and _CACHES not in name:
            return f"has a file that does not belong there: {name}"
        if recorded is not None and not _is_as_recorded(entry, recorded, every_byte=every_byte):
            return f"has a file that was changed: {name}"
        found.add(name)
    missing = sorted(files.keys() - found)
    return f"lacks {len(missing)} of its files, {missing[0]} for one" if missing else None


def _read_record(record: Path) -> dict[str, _Entry] | None:
    try:
        files = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_whole = isinstance(files, dict) and all(isinstance(entry, list) for entry in files.values())
    return files if is_whole else None


def _iterate(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yields files and links by their names in the folder; it is asked for often, and holds thousands."""
    pending = [("", str(folder))]
    while pending:
        prefix, path = pending.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    yield prefix + entry.name, entry


def _describe(entry: os.DirEntry[str]) -> _Entry:
    if entry.is_symlink():
        return [os.readlink(entry.path)]  # noqa: PTH115 - no Path for each of thousands
    status = entry.stat()
    return [status.st_size, status.st_mtime_ns]


def _is_as_recorded(entry: os.DirEntry[str], recorded: _Entry, *, every_byte: bool) -> bool:
    try:
        described = _describe(entry)
        if entry.is_symlink() or (described == recorded[:2] and not every_byte):
            return described == recorded[: len(described)]
        # A copy of the folder has times of its own.
        return described[:1] == recorded[:1] and [hash_file(Path(entry.path))] == recorded[2:]
    except OSError:
        return False
