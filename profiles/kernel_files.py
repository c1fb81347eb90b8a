"""Reads the small files in which Linux describes the machine, none of which is sure to exist."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def read_text(path: Path) -> str | None:
    """Returns a file's text without surrounding blanks and NULs; None if it is absent or unreadable."""
    try:
        # Device-tree texts end in NUL; firmware strings are not always UTF-8.
        return path.read_text(encoding="utf-8", errors="replace").replace("\0", " ").strip()
    except OSError:
        return None


def read_integer(path: Path) -> int | None:
    """Returns a file's whole number; None if it is absent, unreadable or something else."""
    text = read_text(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def list_paths(folder: Path, pattern: str) -> tuple[Path, ...]:
    """Returns the sorted matches of a glob pattern; none where the folder is absent or closed."""
    try:
        return tuple(sorted(folder.glob(pattern)))
    except OSError:
        return ()


def parse_cpu_list(text: str) -> frozenset[int]:
    """Parses the kernel's lists of CPUs, such as `0-3,8`; malformed parts are left out."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def smallest(values: Iterable[float | None]) -> float | None:
    """Returns the smallest of those that are known; None if none is."""
    return min((value for value in values if value is not None), default=None)
