"""Channels that stop at an end which FP32's go beyond: as of a range that calibration chose too small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

LEAST_AT_END = 3
LEAST_SHARE = 1e-4
"""Share of a channel's values that stop at the end. Of fewer it is outliers that are cut off, as calibration often
means to."""
_SAME_END = 0.005
"""Values this near to the end, as a share of FP32's range, are at it: about one step of 8 bits."""


@dataclass(frozen=True, kw_only=True)
class Saturation:
    """Where a channel stops.

    Attributes:
        channel: Which.
        stop: Its last value.
        reach: How far FP32 goes.
        lost: Of the way from FP32's mean to its end the share that is missing.
    """

    channel: int
    stop: float
    reach: float
    lost: float


class SaturationMeter:
    """Follows the ends of every channel, an inference at a time."""

    def __init__(self, channels: int) -> None:
        self._reach, self._stop = np.full((2, channels), -np.inf), np.full((2, channels), -np.inf)
        self._at_end = np.zeros((2, channels), np.int64)
        self._count, self._sum = np.zeros(channels, np.int64), np.zeros(channels)

    def add(self, usable: Array, reference: Floats, error: Floats) -> None:
        """Takes [channels, positions] each."""
        if len(reference) != len(self._count) or not reference.shape[1]:
            return
        self._count += usable.sum(axis=1)
        self._sum += reference.sum(axis=1)
        for end, sign in enumerate((1.0, -1.0)):
            wanted = np.where(usable, sign * reference, -np.inf)
            have = np.where(usable, sign * (reference + error), -np.inf)
            self._reach[end] = np.maximum(self._reach[end], wanted.max(axis=1))
            self._add_end(end, wanted, have)

    def _add_end(self, end: int, wanted: Floats, have: Floats) -> None:
        mean = (1.0, -1.0)[end] * self._sum / np.maximum(self._count, 1)
        near = _SAME_END * np.maximum(np.nan_to_num(self._reach[end] - mean, neginf=0.0), 0.0)
        stop = have.max(axis=1)
        # An end that moves on was none.
        self._at_end[end][stop > self._stop[end] + near] = 0
        self._stop[end] = np.maximum(self._stop[end], stop)
        at_end = (have >= (self._stop[end] - near)[:, None]) & (wanted > (self._stop[end] + near)[:, None])
        self._at_end[end] += at_end.sum(axis=1)

    def result(self, varying: npt.NDArray[np.bool_]) -> Saturation | None:
        """Returns the channel that loses most at an end; None where none stops.

        Args:
            varying: bool [channels]: those that vary enough for an end to mean anything.
        """
        worst: Saturation | None = None
        for end, sign in enumerate((1.0, -1.0)):
            mean = sign * self._sum / np.maximum(self._count, 1)
            way = self._reach[end] - mean
            stops = self._at_end[end] >= np.maximum(LEAST_AT_END, LEAST_SHARE * self._count)
            stops &= varying & (way > 0)
            for channel in np.flatnonzero(stops):
                lost = float((self._reach[end][channel] - self._stop[end][channel]) / way[channel])
                if worst is None or lost > worst.lost:
                    stop, reach = (float(sign * value[end][channel]) for value in (self._stop, self._reach))
                    worst = Saturation(channel=int(channel), stop=stop, reach=reach, lost=lost)
        return worst
