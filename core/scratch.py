"""Folders that are not finished yet: made beside the result, taken away however the work ends, held while it lasts.

Each is locked by whoever works in it. The system frees the lock when that process is gone, however it went, so that the
next run knows what a killed one left behind from what another one is working in at this moment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.locks import Lock, try_lock
from modelwright.core.system_errors import explain_os_error

SCRATCH_PREFIX = ".modelwright-"
"""How everything begins that is not finished yet."""
_TRIES = 16
"""To make a folder that another process, which clears away what is nobody's, does not take away at once."""


@contextlib.contextmanager
def scratch_directory(parent: Path | None = None) -> Iterator[str]:
    """Yields a temporary folder for intermediate files, next to the result when `parent` is given.

    What killed processes left there is cleared away first.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    with explain_os_error(place):
        clear_leftovers(place)
        directory, handle = _make_held_folder(parent)
    try:
        yield str(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(handle)


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
    """Holds a folder for this process alone, and clears away what killed ones left half-made in it.

    The lock lies on the folder itself: no file stays behind, and the system frees it however the process ends. Where
    the system or the file system cannot lock, nothing is held and nothing is cleared away.

    Raises:
        BadInputError: Another process holds it.
    """
    with explain_os_error(folder):
        handle = _open_output(folder)
    try:
        if try_lock(handle) is Lock.TAKEN:
            raise BadInputError(
                f"another modelwright is working in {folder}", hint="wait until it is done, or choose another --out"
            )
        for place in (folder, *(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())):
            clear_leftovers(place)
        yield
    finally:
        os.close(handle)


def clear_leftovers(place: Path) -> None:
    """Removes the temporary folders in a place whose processes are gone: those that nobody holds.

    Where nothing can be locked nothing can be told, and all stays.
    """
    if sys.platform == "win32" or not hasattr(os, "geteuid"):
        return
    for path in place.glob(f"{SCRATCH_PREFIX}*"):
        with contextlib.suppress(OSError):
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            handle = _open_folder(path)
            try:
                if try_lock(handle) is Lock.HELD:
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(handle)


def _make_held_folder(parent: Path | None) -> tuple[Path, int]:
    """Makes a folder and locks it; tries again where it was taken for a leftover in between."""
    for _ in range(_TRIES):
        directory = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=parent))
        try:
            handle = _open_folder(directory)
        except FileNotFoundError:
            continue
        if try_lock(handle) is not Lock.TAKEN and directory.exists():
            return directory, handle
        os.close(handle)
    raise BuildFailedError(
        f"no temporary folder can be kept in {parent or tempfile.gettempdir()}: each is removed at once",
        hint="end what clears that folder, or choose another --out",
    )


def _open_folder(folder: Path) -> int:
    """Opens a folder to lock it; a file in its stead where folders cannot be opened."""
    if sys.platform == "win32":
        return os.open(os.devnull, os.O_RDONLY)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _open_output(folder: Path) -> int:
    if sys.platform == "win32":  # where a folder cannot be opened
        return os.open(folder / f"{SCRATCH_PREFIX}lock", os.O_RDWR | os.O_CREAT)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
