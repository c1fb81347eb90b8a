"""Locks between processes, on files and folders. The system frees them however their holder ends.

Where it has none, or none on this file system, nothing is held: two processes may then get in each other's way.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

_POLL_S = 0.2


class Lock(Enum):
    """What came of trying to lock a file."""

    HELD = "held"
    TAKEN = "another process holds it"
    UNKNOWN = "this system or file system has no locks"


def try_lock(handle: int, *, shared: bool = False) -> Lock:
    """Locks an open file, or a folder where the system can open one, until it is closed; does not wait.

    Args:
        handle: Of the file.
        shared: Hold it beside others who share it: all keep those away who want it alone.
    """
    try:
        _lock(handle, shared=shared)
    except (BlockingIOError, PermissionError):  # the second is how Windows says it
        return Lock.TAKEN
    except (ImportError, OSError):
        return Lock.UNKNOWN
    return Lock.HELD


def _lock(handle: int, *, shared: bool) -> None:
    if sys.platform == "win32":
        if shared:
            raise OSError("locks of this system are not shared")
        import msvcrt

        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


@contextlib.contextmanager
def lock_file(
    path: Path, what: str, progress: Callable[[str], None] | None = None, *, shared: bool = False
) -> Iterator[None]:
    """Holds a lock file, which stays behind; waits as long as another process has it, and says so.

    Args:
        path: The file; made where it is not there, but to share it.
        what: It guards, as it reads in those lines.
        progress: Takes a line about the waiting, or that nothing can be held here; None for nobody to tell.
        shared: See `try_lock`; needs no more than the right to read.
    """
    tell = progress or _tell_nobody
    with path.open("rb" if shared else "ab") as file:
        state = try_lock(file.fileno(), shared=shared)
        if state is Lock.TAKEN:
            tell(f"waiting for another process that is making {what}" + ("" if shared else ", or using it"))
            while state is Lock.TAKEN:
                time.sleep(_POLL_S)
                state = try_lock(file.fileno(), shared=shared)
        if state is Lock.UNKNOWN and not shared:
            tell(f"nothing here locks {path}: let no other process make {what} at the same time")
        yield


def _tell_nobody(line: str) -> None:
    """Takes a line."""
    del line
