"""What the rules found in a comparison, and when qualities are alike.

Differences within noise are ties everywhere: in speed by the interval over rounds, in accuracy and agreement by
counting samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from modelwright.harness.results.record import Axis, Comparison, Measurement
from modelwright.harness.results.speed import Speeds

COSINE_RESOLUTION = 0.0005
SHARE_RESOLUTION = 0.001
"""A difference in accuracy or agreement that is a tie when the number of samples is not known."""

_Z95 = 1.96
EPSILON = 1e-9
"""Of the comparison of shares: what rounding in floating point may cost."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the rules found; the wording is made from it.

    Attributes:
        reference: The FP32 row that quality and speed are judged against; None when none was measured.
        axis: The quality axis.
        candidates: Rows whose quality may ship.
        relaxed: Whether the agreement limit was lowered to `RELAXED_AGREEMENT`.
        pairs: Measured pairs that cannot be told apart in speed.
    """

    comparison: Comparison
    speeds: Speeds
    reference: Measurement | None
    axis: Axis | None
    order: tuple[Measurement, ...]
    front: tuple[Measurement, ...]
    candidates: tuple[Measurement, ...]
    ship: Measurement | None
    relaxed: bool
    pairs: tuple[tuple[Measurement, Measurement], ...]

    def quality(self, row: Measurement) -> float | None:
        return quality_of(row, self.axis, self.reference)

    def fp32_accuracy(self, row: Measurement) -> float | None:
        """The accuracy that a row is held against: of the FP32 row, else of the source itself on its samples."""
        return fp32_accuracy(row, self.reference)

    def keeps_quality(self, row: Measurement) -> bool:
        """Whether nothing measurable was lost against FP32, on any axis that was measured."""
        return loses_nothing(row, self.reference, self.comparison)


def quality_of(row: Measurement, axis: Axis | None, reference: Measurement | None) -> float | None:
    """Returns a row's figure on the quality axis; FP32 agrees with itself even where nobody wrote that down."""
    if axis is None:
        return None
    value: float | None = getattr(row, axis)
    if value is None and axis != "accuracy" and row is reference:
        return 1.0
    return value


def fp32_accuracy(row: Measurement, reference: Measurement | None) -> float | None:
    """Returns the accuracy of the FP32 row, else what the source had on the row's own samples."""
    if reference is not None and reference.accuracy is not None:
        return reference.accuracy
    return row.accuracy_fp32


def loses_nothing(row: Measurement, reference: Measurement | None, comparison: Comparison) -> bool:
    """Whether accuracy and agreement (without them, cosine) are within one sample of FP32; False when unknown."""
    if row is reference:
        return True
    step = quality_resolution("agreement", comparison.evaluation_count)
    known = False
    best = fp32_accuracy(row, reference)
    if row.accuracy is not None and best is not None:
        known = True
        if is_worse(row.accuracy, best, step):
            return False
    if row.agreement is not None:
        return not is_worse(row.agreement, 1.0, max(step, SHARE_RESOLUTION))
    if row.task is not None:
        return row.task.severity <= _NOTHING
    return known or (row.cosine is not None and not is_worse(row.cosine, 1.0, COSINE_RESOLUTION))


_NOTHING = 0.1
"""Severity of a loss that is a tenth of what nobody would notice."""


def is_other_model(row: Measurement, comparison: Comparison) -> bool:
    """Whether a row is of another model than the one that all are held against."""
    return bool(comparison.variants) and row.variant != comparison.variants[0].name


def find_doubt(row: Measurement, comparison: Comparison) -> float | None:
    """Returns what chance makes of the accuracy of another model against the first one's: half of a 95 % interval.

    Right answers differ only where answers do, so their difference on n samples has at most the variance of the share
    of answers that differ, over n (McNemar 1947). None where nothing says how many do, or it is no other model.
    """
    count = comparison.evaluation_count
    if not count or row.agreement is None or row.accuracy is None or not is_other_model(row, comparison):
        return None
    return _Z95 * math.sqrt((1 - row.agreement) / count)


def is_worse(value: float | None, other: float | None, resolution: float) -> bool:
    """Whether a quality is lower than another by more than the resolution. Unknown is worse than known."""
    if other is None:
        return False
    return value is None or value < other - resolution - EPSILON


def quality_resolution(axis: Axis | None, count: int | None) -> float:
    """Returns the difference on the axis that is still a tie: one sample, where samples are counted."""
    if axis in ("cosine", "kept"):
        return COSINE_RESOLUTION
    return 1 / count if count else SHARE_RESOLUTION
