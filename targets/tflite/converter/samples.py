"""Samples as the request names them: one memory-mapped `.npy` per input, [count, *input shape]."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Samples:
    """Feeds and, where given, the FP32 outputs that belong to them.

    Attributes:
        count: Number of samples.
    """

    def __init__(self, files: Mapping[str, Any]) -> None:
        """Opens the files.

        Args:
            files: `{"inputs": {name: path}, "outputs": {name: path} or absent}`.
        """
        self._inputs = {name: np.load(path, mmap_mode="r") for name, path in files["inputs"].items()}
        self._outputs = {name: np.load(path, mmap_mode="r") for name, path in (files.get("outputs") or {}).items()}
        self.count = min(len(array) for array in self._inputs.values())
        self.has_outputs = bool(self._outputs)

    def feeds(self, limit: int | None = None) -> Iterator[dict[str, Array]]:
        """Yields one sample's inputs after the other, reading no more than that from the files."""
        for index in range(self.count if limit is None else min(limit, self.count)):
            yield {name: np.array(array[index]) for name, array in self._inputs.items()}

    def outputs(self, index: int) -> dict[str, Array]:
        """Returns the FP32 outputs of one sample."""
        return {name: np.array(array[index]) for name, array in self._outputs.items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns input name -> the shape of one sample's feed."""
        return {name: tuple(array.shape[1:]) for name, array in self._inputs.items()}


def compare(actual: Array, expected: Array) -> float:
    """Returns how alike two arrays are: 1 where they are equal, 0 if one is not finite where the other is.

    It is 2 a.b / (a.a + b.b), the cosine where both are equally long and less where they are not: a cosine alone takes
    3 for 300. For integers and booleans it is the share of equal values.
    """
    if actual.shape != expected.shape:
        return 0.0
    if expected.dtype.kind in "iub":
        return float(np.mean(actual == expected)) if expected.size else 1.0
    a, b = actual.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    if not (np.isfinite(a) == np.isfinite(b)).all():
        return 0.0
    finite = np.isfinite(b)
    a, b = a[finite], b[finite]
    if np.allclose(a, b):
        return 1.0
    return float(2 * (a @ b) / (a @ a + b @ b))
