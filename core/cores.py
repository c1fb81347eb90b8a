"""How many processors this process may use."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Returns the logical processors that the scheduler lets this process use; all, where the system does not tell."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
