"""Answers that are decided each by itself: labels of which several may be right, masks of one probability a pixel.

No class is chosen among others here, so nothing is counted by the largest value: what counts is which ones are above a
threshold, and whether they are above it in FP32 too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.checks import Check, bound_share
from modelwright.core.outputs.tasks.recall import MIN_CLASS_ROWS, RECALL_LOSS, check_recall
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.outputs.tasks.signs import is_sentinel

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

LEVELS = (0.5, 0.25, 0.1)
"""Where probabilities are cut: the highest one that FP32 reaches `MIN_CLASS_ROWS` times."""
_LOGIT_LEVELS = (0.0,)
OVERLAP_LOSS = (0.05, 0.2)
"""1 - intersection over union with FP32's yeses, over all samples: good, broken. One lost counts as one invented."""
MASK_OVERLAP_LOSS = (0.02, 0.2)
"""The same of pixels, most of which are far inside or outside."""
_TOSS_SHARE, _TOSS_LEAST = 0.1, 0.02
"""FP32's own answer within this share of the threshold, or this near to it, is a toss of a coin: 0.52 or 0.48."""
_TOSS_LOGIT = 0.2
"""The same of logits."""


@dataclass(frozen=True, kw_only=True)
class DecisionFidelity:
    """How far the yeses are FP32's, class by class.

    Attributes:
        level: The threshold.
        expected: int64 [classes]: FP32's yeses.
        found: The candidate's.
        shared: Those of both.
    """

    level: float
    expected: Counts
    found: Counts
    shared: Counts

    @property
    def overlap(self) -> float:
        """Intersection over union of all yeses."""
        return float(self.shared.sum() / self.either)

    @property
    def either(self) -> int:
        return int((self.expected + self.found - self.shared).sum())


class DecisionMeter:
    """Counts what is above a threshold in FP32, in the candidate, and in both."""

    def __init__(self, role: OutputRole) -> None:
        self.role = role
        self._levels = LEVELS if role.is_probability else _LOGIT_LEVELS
        self._counts: list[Counts] = []

    def add(self, expected: Array, found: Array) -> None:
        """Takes FP32's values and the candidate's, of the same shape."""
        wanted, have = self._by_class(expected), self._by_class(found)
        usable = np.isfinite(wanted) & ~is_sentinel(wanted, self.role.sentinel)
        if not self._counts:
            self._counts = [np.zeros((3, len(wanted)), np.int64) for _ in self._levels]
        for level, counts in zip(self._levels, self._counts, strict=True):
            yes, given = usable & (wanted > level), usable & (have > level)
            toss = max(_TOSS_SHARE * level, _TOSS_LEAST) if self.role.is_probability else _TOSS_LOGIT
            given = np.where(np.abs(wanted - level) <= toss, yes, given)
            counts += np.array([yes.sum(axis=1), given.sum(axis=1), (yes & given).sum(axis=1)])

    def _by_class(self, value: Array) -> npt.NDArray[np.float64]:
        array, axis = np.asarray(value, np.float64), self.role.axis
        if axis is None or axis >= array.ndim:
            return array.reshape(1, -1)
        return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)

    def result(self) -> DecisionFidelity | None:
        """Returns what was counted; None where nothing is ever above the lowest threshold."""
        for level, counts in zip(self._levels, self._counts, strict=False):
            found = DecisionFidelity(level=level, expected=counts[0], found=counts[1], shared=counts[2])
            if counts[0].sum() >= MIN_CLASS_ROWS or (level == self._levels[-1] and found.either):
                return found
        return None

    def kept(self) -> float | None:
        """Returns the overlap with FP32's yeses."""
        seen = self.result()
        return None if seen is None else seen.overlap

    def checks(self) -> list[Check]:
        """Returns the findings: the overlap, the class that loses most, the one that is said where FP32 does not."""
        seen = self.result()
        if seen is None:
            return []
        is_one = len(seen.expected) == 1
        whose = "its mask overlaps FP32's" if self.role.role == "mask" and is_one else "what it says yes to is FP32's"
        good, broken = MASK_OVERLAP_LOSS if self.role.role == "mask" else OVERLAP_LOSS
        overlap = Check(
            output=self.role.name,
            measure="iou",
            value=1 - bound_share(float(seen.shared.sum()), seen.either, upper=True),
            good=good,
            broken=broken,
            text=f"{whose} by {seen.overlap:.1%} (intersection over union above {seen.level:g})",
        )
        if is_one:
            return [overlap]
        return [overlap, *check_recall(self.role, seen.expected, seen.shared), *self._check_invented(seen)]

    def _check_invented(self, seen: DecisionFidelity) -> list[Check]:
        """Returns the finding about the class of which most yeses are none of FP32's."""
        counted = np.flatnonzero(seen.found >= MIN_CLASS_ROWS)
        if not counted.size:
            return []
        right = [
            bound_share(int(seen.shared[name]), int(seen.found[name]), upper=True, among=len(counted))
            for name in counted
        ]
        worst = int(counted[int(np.argmin(right))])
        new, count = int(seen.found[worst] - seen.shared[worst]), int(seen.found[worst])
        return [
            Check(
                output=self.role.name,
                measure="invented",
                value=1 - min(right),
                good=RECALL_LOSS[0],
                broken=RECALL_LOSS[1],
                text=f"class {worst} is said {count} times, {new} of them where FP32 does not say it",
            )
        ]
