"""Which files belong to a transformers folder: those in it, and those that a hub's cache keeps beside it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from modelwright.core.files import is_plain_file


def has_file(folder: Path, name: str) -> bool:
    """Whether a folder has a file of its own: no link to anywhere else, which an export would copy and give on.

    The cache of a hub keeps `snapshots/REVISION/NAME` as a link to `blobs/HASH`; that is the one link that counts.
    """
    return Path(name).name == name and has_nested_file(folder, name)  # the index of shards may name anything


def has_nested_file(folder: Path, name: str) -> bool:
    """The same of a file that may lie in a folder inside."""
    path, parts = folder / name, PurePosixPath(name).parts
    if ".." in parts or PurePosixPath(name).is_absolute():
        return False
    if is_plain_file(folder, name):
        return True
    if not path.is_symlink() or not path.is_file():
        return False
    place = folder.resolve()
    return place.parent.name == "snapshots" and path.resolve().parent == place.parent.parent / "blobs"
