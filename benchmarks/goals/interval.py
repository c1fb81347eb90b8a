"""The mean of a few paired differences, and how far chance may move it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

_STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Seeds -> quantile of 97.5 % of Student's t with one degree of freedom less."""


def estimate_mean(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean of 2 to 10 values, and half of its 95 % interval."""
    return statistics.mean(values), _STUDENT_T[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
