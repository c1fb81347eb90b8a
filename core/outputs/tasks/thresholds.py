"""Masks of one probability a pixel: which pixels are in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.checks import Check
from modelwright.core.outputs.tasks.roles import OutputRole

Array = npt.NDArray[Any]

THRESHOLD = 0.5
OVERLAP_LOSS = (0.02, 0.2)
"""1 - intersection over union with FP32's mask, over all samples: good, broken."""


class ThresholdMeter:
    """Counts the pixels that are in FP32's mask, the candidate's, and both."""

    def __init__(self, role: OutputRole) -> None:
        self.role = role
        self._level = THRESHOLD if role.is_probability else 0.0
        self._shared = self._either = 0

    def add(self, expected: Array, found: Array) -> None:
        """Takes FP32's mask and the candidate's."""
        wanted, have = np.asarray(expected) > self._level, np.asarray(found) > self._level
        self._shared += int(np.count_nonzero(wanted & have))
        self._either += int(np.count_nonzero(wanted | have))

    def kept(self) -> float | None:
        """Returns the overlap with FP32's mask."""
        return self._shared / self._either if self._either else None

    def checks(self) -> list[Check]:
        """Returns the finding; none where nothing is ever in."""
        if not self._either:
            return []
        overlap = self._shared / self._either
        good, broken = OVERLAP_LOSS
        text = f"its mask overlaps FP32's by {overlap:.1%} (intersection over union above {self._level:g})"
        return [Check(output=self.role.name, measure="iou", value=1 - overlap, good=good, broken=broken, text=text)]
