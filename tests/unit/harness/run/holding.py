"""Child side of test_memory.py: holds memory and looks at it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modelwright.harness.run.memory import read_private_bytes

_held: list[np.ndarray] = []


def look(folder: str) -> int | None:
    return read_private_bytes(Path(folder))


def hold(size_bytes: int) -> None:
    _held.append(np.ones(size_bytes, dtype=np.uint8))
