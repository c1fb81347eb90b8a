"""How much memory a process may still take on this machine, before it is taken."""

from __future__ import annotations

from pathlib import Path


def read_available_bytes(root: Path = Path("/")) -> int | None:
    """Returns what the system could give without swapping, or what the container may still take if that is less.

    Args:
        root: Of the file system; another than `/` in tests.

    Returns:
        None where the system does not tell.
    """
    system = _read_table(root / "proc/meminfo").get("MemAvailable")
    known = [
        amount for amount in (None if system is None else system * 1024, _left_in_group(root)) if amount is not None
    ]
    return min(known, default=None)


def _left_in_group(root: Path) -> int | None:
    """Returns what the container's control group (v2) has left; files that are only cached count as free."""
    group = root / "sys/fs/cgroup"
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no group, no limit ("max"), or another system
        return None
    cached = _read_table(group / "memory.stat")
    return max(0, limit - used + cached.get("inactive_file", 0) + cached.get("active_file", 0))


def _read_table(path: Path) -> dict[str, int]:
    """Returns the numbers of a file with a name and a number in each line."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    rows = [line.replace(":", " ").split() for line in lines]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}
