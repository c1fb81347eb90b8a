"""What a comparison finds: one number a check, all of them losses, each with the limits that it is held against."""

from __future__ import annotations

import math
from statistics import NormalDist

from modelwright.core.records.codec import Amount, Line, Record

_LARGEST = 1e6
Z_ONE_SIDED = 1.6449
"""The normal quantile of a one-sided 95 % bound."""


class Check(Record):
    """One thing that a candidate may lose against FP32.

    Attributes:
        output: The output's name.
        measure: What is lost: `noise`, `flips`, `recall`, `kappa`, `lost`, `found`, `box_error`, `neighbours`, ...
        value: The loss; 0 is FP32 itself.
        good: Up to it nobody who uses the model for this task would notice.
        broken: From it on they would call it broken.
        text: The finding in words, complete but for its subject: `channel 5 of 7 carries 40 % noise`.
    """

    output: str
    measure: Line
    value: Amount
    good: Amount
    broken: Amount
    text: str

    @property
    def severity(self) -> float:
        """0 as FP32, 1 at the limit of good, 2 at the limit of broken; on in proportion."""
        if self.value <= self.good:
            return self.value / self.good if self.good else 0.0
        span = self.broken - self.good
        # A manifest may come from anywhere, and hold limits that are none.
        return 1.0 + (self.value - self.good) / span if span > 0 else 2.0

    @property
    def is_broken(self) -> bool:
        return self.severity >= 2.0


def as_loss(value: float) -> float:
    """Returns a loss that a record can hold: what is not a number, or beyond all bounds, is the largest loss."""
    return min(value, _LARGEST) if value >= 0.0 else (_LARGEST if math.isnan(value) else 0.0)


def bound_share(hits: float, count: float, *, upper: bool, among: int = 1) -> float:
    """Returns a one-sided 95 % bound of a share (Wilson 1927); 1 or 0 where nothing was counted.

    Args:
        hits: Of the share.
        count: Of all.
        upper: Which side.
        among: Shares of which this is the extreme one: of many, one is far off by chance (Bonferroni).
    """
    if count <= 0:
        return 1.0 if upper else 0.0
    z = Z_ONE_SIDED if among <= 1 else NormalDist().inv_cdf(1 - 0.05 / among)
    share = hits / count
    centre = share + z * z / (2 * count)
    width = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    bound = (centre + (width if upper else -width)) / (1 + z * z / count)
    return min(1.0, max(0.0, bound))


def format_share(share: float) -> str:
    """Returns a share in percent with two significant digits, and no fewer than says something."""
    percent = 100 * share
    if percent >= 1000:
        return "over 1000 %"
    if percent >= 10 or percent == 0:
        return f"{percent:.0f} %"
    return f"{percent:.1g} %" if percent < 0.1 else f"{percent:.2g} %"
