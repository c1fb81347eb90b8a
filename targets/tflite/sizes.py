"""Sizes that a model leaves open besides the batch: heights, widths, lengths; and samples brought to other ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modelwright.core.records.signature import Signature
from modelwright.targets.contract import Array, Feeds

Sizes = Mapping[str, int]
"""Dimension's name -> its size."""


def find_free_sizes(signature: Signature, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Returns the sizes that the samples have where the model leaves them open, but for the batch."""
    batches = {spec.shape[0] for spec in signature.inputs if spec.shape}
    return {
        name: int(size)
        for spec in signature.inputs
        for name, size in zip(spec.shape or (), shapes[spec.name], strict=True)
        if isinstance(name, str) and name not in batches
    }


class Resizer:
    """Brings feeds to other sizes.

    Args:
        signature: The model's.
        sizes: Those that the samples have.

    Attributes:
        doubled: Twice as large: whatever has to divide the sizes still does.
        odd: Larger by one, where what a converter derived from even sizes shows.
    """

    def __init__(self, signature: Signature, sizes: Sizes) -> None:
        self._axes = {
            spec.name: {axis: name for axis, name in enumerate(spec.shape or ()) if name in sizes}
            for spec in signature.inputs
        }
        self.doubled = {name: 2 * size for name, size in sizes.items()}
        self.odd = {name: size + 1 for name, size in sizes.items()}

    def shapes(self, shapes: Mapping[str, Sequence[int]], sizes: Sizes) -> dict[str, list[int]]:
        """Returns the shapes of the inputs at other sizes."""
        return {
            name: [sizes[str(axes[axis])] if axis in axes else int(size) for axis, size in enumerate(shapes[name])]
            for name, axes in self._axes.items()
        }

    def resize(self, feeds: Feeds, sizes: Sizes) -> dict[str, Array]:
        """Returns feeds at other sizes, their values repeated from the beginning where they do not suffice."""
        resized = {}
        for name, value in feeds.items():
            for axis, dimension in self._axes[name].items():
                value = np.take(value, np.arange(sizes[str(dimension)]) % value.shape[axis], axis)
            resized[name] = np.ascontiguousarray(value) if value.ndim else value
        return resized

    @staticmethod
    def describe(sizes: Sizes) -> str:
        """Returns for instance `h 64 w 96`."""
        return " ".join(f"{name} {size}" for name, size in sizes.items())
