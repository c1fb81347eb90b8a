"""The memory of this process, as the system tells it."""

from __future__ import annotations

import os
from pathlib import Path


def read_peak_bytes() -> int | None:
    """Returns the largest resident set of this process since it started (`VmHWM`), which fork does not inherit."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def read_private_bytes(folder: Path) -> int | None:
    """Returns what only this process needs now: its anonymous memory, and what it has mapped of the files in a folder.

    The code of libraries is left out, which siblings share: it would be this process's own while no other has the
    library loaded, and not any more afterwards, without anything having changed here. A proportional set size moves
    with the siblings just so.

    Args:
        folder: The artifact's, whose mapped files are its memory as what is read from them would be.
    """
    own, total = False, 0
    inside = f"{folder.resolve()}{os.sep}"
    try:
        with Path("/proc/self/smaps").open(errors="surrogateescape") as mappings:
            for line in mappings:
                first, *others = line.split(None, 5)
                if not first.endswith(":"):  # the head of a mapping: range, permissions, offset, device, inode, path
                    own = len(others) == 5 and others[4].startswith(inside)
                elif first == ("Rss:" if own else "Anonymous:"):
                    total += int(others[0]) * 1024
    except OSError:
        return None
    return total
