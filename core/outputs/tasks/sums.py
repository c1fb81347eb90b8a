"""Sums over samples of an output's values and errors, in one pass: of every element, and of every channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


class ElementSums:
    """Count, mean, variation (Welford 1962), error and its sum with FP32's deviation, of every element over samples."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = np.zeros(shape)
        self.mean = np.zeros(shape)
        self.variation = np.zeros(shape)
        self.error = np.zeros(shape)
        self.shared = np.zeros(shape)
        self._bias = np.zeros(shape)

    def add(self, usable: Array, reference: Floats, error: Floats) -> None:
        """Takes one sample's values; what is not usable is 0 in both."""
        self.count += usable
        offset = np.where(usable, reference - self.mean, 0.0)
        self.mean += offset / np.maximum(self.count, 1)
        self.variation += offset * np.where(usable, reference - self.mean, 0.0)
        self.error += error**2
        self._bias += np.where(usable, error - self._bias, 0.0) / np.maximum(self.count, 1)
        self.shared += offset * np.where(usable, error - self._bias, 0.0)

    def sums(self) -> tuple[Floats, Floats, Floats]:
        """Returns count, energy and variation of every element."""
        return self.count, self.variation + self.count * self.mean**2, self.variation


class ChannelSums:
    """The same of every channel over samples and positions, for outputs whose shape changes."""

    def __init__(self) -> None:
        self.count = self.mean = self.spread = self.error = self.energy = self.shared = self.bias = np.zeros(0)
        self.low = self.high = self._fourth = np.zeros(0)

    def add(self, usable: Array, reference: Floats, error: Floats) -> None:
        """Takes [channels, positions] each."""
        if not self.count.size:
            channels = len(reference)
            self.count, self.mean, self.spread, self.error = (np.zeros(channels) for _ in range(4))
            self.energy, self.shared, self.bias, self._fourth = (np.zeros(channels) for _ in range(4))
            self.low, self.high = np.full(channels, np.inf), np.full(channels, -np.inf)
        if len(reference) != len(self.count) or not reference.shape[1]:
            return
        added = usable.sum(axis=1).astype(np.float64)
        mean, bias = (value.sum(axis=1) / np.maximum(added, 1) for value in (reference, error))
        deviation = np.where(usable, reference - mean[:, None], 0.0)
        total = self.count + added
        # Two groups joined (Chan, Golub, LeVeque 1979).
        weight = self.count * added / np.maximum(total, 1)
        self.spread += (deviation**2).sum(axis=1) + (mean - self.mean) ** 2 * weight
        self.shared += (deviation * error).sum(axis=1) + (mean - self.mean) * (bias - self.bias) * weight
        self.mean += (mean - self.mean) * added / np.maximum(total, 1)
        self.bias += (bias - self.bias) * added / np.maximum(total, 1)
        self.count = total
        self.error += (error**2).sum(axis=1)
        squares = reference**2
        self.energy += squares.sum(axis=1)
        self._fourth += (squares**2).sum(axis=1)
        self.low = np.minimum(self.low, np.where(usable, reference, np.inf).min(axis=1))
        self.high = np.maximum(self.high, np.where(usable, reference, -np.inf).max(axis=1))

    def find_weight(self) -> Floats:
        """Returns how many positions carry each channel's energy (participation ratio): 1 where a single one does."""
        return np.where(self._fourth > 0, self.energy**2 / np.where(self._fourth > 0, self._fourth, 1.0), 0.0)
