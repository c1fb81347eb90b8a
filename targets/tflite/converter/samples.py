"""Samples as the request names them: one memory-mapped `.npy` per input, [count, *input shape]."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Samples:
    """The inputs of samples.

    Attributes:
        count: Number of samples.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        """Opens the files: input name -> path."""
        self._inputs = {name: np.load(path, mmap_mode="r") for name, path in files.items()}
        self.count = min(len(array) for array in self._inputs.values())

    def feeds(self, limit: int | None = None) -> Iterator[dict[str, Array]]:
        """Yields one sample's inputs after the other, reading no more than that from the files."""
        for index in range(self.count if limit is None else min(limit, self.count)):
            yield {name: np.array(array[index]) for name, array in self._inputs.items()}
