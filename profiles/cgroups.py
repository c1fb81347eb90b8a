"""The limits that a container or a service manager puts on CPU time and memory (cgroups v1 and v2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modelwright.profiles.kernel_files import read_integer, read_text, smallest

# cgroups v1 says "no limit" with the largest number of pages, close to 2^63 bytes.
_NO_LIMIT_BYTES = 2**60


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the tightest control group on the way to the root allows; None where nothing limits.

    Attributes:
        cpus: CPU time per time, so 1.5 is one and a half CPUs.
        memory_bytes: Main memory.
    """

    cpus: float | None
    memory_bytes: int | None


def read_limits(root: Path) -> Limits:
    """Reads the limits of this process' control groups.

    Args:
        root: Of the file system; another than `/` in tests.
    """
    cpus: list[float | None] = []
    memory: list[float | None] = []
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if hierarchy == "0" and not controllers:
            # Hybrid systems mount v2 beside v1, in a folder of its own.
            for mount in (root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"):
                for folder in _groups(mount, group):
                    cpus.append(_cpus_v2(folder))
                    memory.append(read_integer(folder / "memory.max"))
        for controller in controllers.split(","):
            mounts = (root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup" / controller)
            if controller == "cpu":
                cpus += [_cpus_v1(folder) for mount in mounts for folder in _groups(mount, group)]
            elif controller == "memory":
                memory += [
                    read_integer(folder / "memory.limit_in_bytes")
                    for mount in mounts
                    for folder in _groups(mount, group)
                ]
    limit = smallest(memory)
    return Limits(
        cpus=smallest(cpus),
        memory_bytes=int(limit) if limit is not None and 0 < limit < _NO_LIMIT_BYTES else None,
    )


def _groups(mount: Path, group: str) -> Iterator[Path]:
    """Yields a group's folder and those above it, each of which may set a tighter limit."""
    parts = [part for part in PurePosixPath(group).parts if part != "/"]
    # A namespace shows groups outside itself as `/../..`; only the mount's own root is in sight then. The
    # same holds for the host's path seen from a container: those folders do not exist and read as no limit.
    if ".." in parts:
        parts = []
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _cpus_v2(folder: Path) -> float | None:
    quota, _, period = (read_text(folder / "cpu.max") or "").partition(" ")
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _cpus_v1(folder: Path) -> float | None:
    quota = read_integer(folder / "cpu.cfs_quota_us")
    period = read_integer(folder / "cpu.cfs_period_us")
    if quota is None or quota <= 0 or not period:
        return None
    return quota / period
