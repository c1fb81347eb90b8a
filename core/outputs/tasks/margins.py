"""How many answers an error turns: estimated from margins, where too few samples were seen to count them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ESTIMATE_WEIGHT = 200.0
"""Rows that the estimate of flips counts for beside those that were seen: of some thousand rows, counting decides."""
_MOST_MARGINS = 2**16
_MARGINS_USED = 4096


class Margins:
    """How far FP32's answers are ahead of the next class, and by how much a candidate is off in that."""

    def __init__(self) -> None:
        self._margins: list[Floats] = []
        self._gaps: list[Floats] = []
        self._kept = self._count = 0
        self._energy = self._shared = self._size = 0.0

    def add(self, margin: Floats, error: Floats, gap: Floats, doubtful: npt.NDArray[np.bool_]) -> None:
        """Takes a value a row each.

        Args:
            margin: Of the scores.
            error: The candidate's in it.
            gap: What the next class is less likely by.
            doubtful: Rows whose error counts.
        """
        self._count += int(np.count_nonzero(doubtful))
        self._energy += float(np.square(error[doubtful]).sum())
        self._shared += float((error * margin)[doubtful].sum())
        self._size += float(np.square(margin[doubtful]).sum())
        left = _MOST_MARGINS - self._kept
        if left > 0:
            self._margins.append(margin[:left])
            self._gaps.append(gap[:left])
            self._kept += len(self._margins[-1])

    def estimate(self) -> tuple[float, float]:
        """Returns the mean chance that an error as large as those seen turns an answer, and the regret of it.

        An error in proportion to the margin turns none, however large: scores are only steeper or flatter.
        """
        if not self._count or not self._energy:
            return 0.0, 0.0
        slope = self._shared / self._size if self._size else 0.0
        sigma = math.sqrt(max(self._energy - slope * self._shared, 0.0) / self._count)
        margins, gaps = (np.concatenate(values)[:_MARGINS_USED] for values in (self._margins, self._gaps))
        reach = max(sigma * math.sqrt(2), 1e-300)
        chances = np.array([0.5 * math.erfc((1 + slope) * margin / reach) for margin in margins])
        return (float(chances.mean()), float((chances * gaps).mean())) if len(chances) else (0.0, 0.0)


def weigh_estimate(seen: float, estimated: float, rows: int) -> float:
    """Returns the mean of what was counted and what is to be expected: of few rows the latter says more."""
    return (rows * seen + ESTIMATE_WEIGHT * estimated) / (rows + ESTIMATE_WEIGHT)
