"""Arrays in files that are written as they are mapped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def create_mapped(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Returns the array of a new .npy file, mapped for writing.

    Its place on the disk is taken at once: where the disk were full only later, writing would kill the process.

    Args:
        path: The file.
        dtype: Of the array.
        shape: Of the array.

    Raises:
        OSError: The disk is full.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
