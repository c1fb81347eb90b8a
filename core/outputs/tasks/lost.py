"""Samples that are lost altogether: one answer in twenty that is none hardly shows in a mean over all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LOST_SHARE = 0.5
"""A sample is lost whose error is more than this share of what samples vary, and of what this one differs by."""
_MOST_SUMS = 2**22
"""Sums kept, over samples and channels."""


@dataclass(frozen=True, kw_only=True)
class LostSamples:
    """How many samples are lost, of how many."""

    lost: int
    count: int


class LostMeter:
    """Keeps the error and FP32's deviation of every sample, channel by channel."""

    def __init__(self) -> None:
        self._errors: list[Floats] = []
        self._deviations: list[Floats] = []
        self._kept = 0

    def add(self, error: Floats, deviation: Floats) -> None:
        """Takes one sample's error and FP32's deviation from its mean so far: float64 [channels, positions] each."""
        fits = not self._errors or len(error) == len(self._errors[0])
        if not fits or not error.shape[1] or self._kept + len(error) > _MOST_SUMS:
            return
        self._kept += len(error)
        self._errors.append(np.square(error).mean(axis=1))
        self._deviations.append(np.square(deviation).mean(axis=1))

    def result(self, variation: Floats) -> LostSamples:
        """Returns what was counted.

        Args:
            variation: float64 [channels]: what FP32's samples vary, a mean of squares; it makes channels comparable.
        """
        usable = variation > 0.0
        if len(self._errors) < 2 or not usable.any():
            return LostSamples(lost=0, count=len(self._errors))
        errors, deviations = (
            (np.array(sums)[:, usable] / variation[usable]).mean(axis=1) for sums in (self._errors, self._deviations)
        )
        # The first sample was held against nothing, later ones against a mean that settles. Where few samples vary at
        # all, half of what they vary on average stands for the typical one.
        typical = max(float(np.median(deviations[1:])), 0.5)
        lost = errors > LOST_SHARE * np.maximum(deviations, typical)
        return LostSamples(lost=int(np.count_nonzero(lost)), count=len(errors))
