"""How paths are written into what other people get: nothing of the machine they lie on, and enough to know the file.

A file that is given on carries the SHA-256 of what it speaks of; its name is for people.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePath


def drop_folders(text: str) -> str:
    """Returns the name of an absolute path; a relative one, and what is no path, as it is.

    Args:
        text: As the user wrote it; `file.py:function` keeps the function.
    """
    return PurePath(text).name if PurePath(text).is_absolute() and PurePath(text).name else text


def relate_path(text: str, folder: Path) -> str:
    """Returns the way from a folder to a file; only its name where that way would lead through the root or past a home.

    Such a way is an absolute path in disguise: `../../home/ann/model.onnx`.

    Args:
        text: As the user wrote it, from the working directory; `file.py:function` keeps the function. What is no file
            here, such as `random:64`, stays as it is, and of an absolute path the name.
        folder: Where the file lies that is to hold it.
    """
    file = text if _is_there(text) else text.rpartition(":")[0]
    if not _is_there(file):
        return drop_folders(text)
    path, start = Path(file).resolve(), folder.resolve()
    shared = Path(os.path.commonpath([path, start]))
    if shared == Path(shared.anchor) or shared == find_homes():
        return PurePath(text).name
    return os.path.relpath(path, start) + text[len(file) :]


def _is_there(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except OSError:  # a name that is too long, in a manifest from elsewhere
        return False


def find_homes() -> Path | None:
    """Returns the folder that holds the users' homes, such as `/home`; None where there is none."""
    home = find_home()
    return None if home is None else home.parent


def find_home() -> Path | None:
    """Returns the user's home; None where nobody knows."""
    try:
        return Path.home()
    except RuntimeError:
        return None
