"""Limits that the user sets: what an artifact must meet to be shipped."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from modelwright.core.errors import UsageError, suggest
from modelwright.harness.results.metrics import LIMITS
from modelwright.harness.results.record import Comparison, Measurement


class Limits:
    """What every target must meet.

    Args:
        asked: Limits of the table of metrics, such as `max_p50_ms=5` or `min_accuracy=0.9`; None asks for nothing.

    Raises:
        UsageError: There is no such limit.
    """

    def __init__(self, **asked: float | None) -> None:
        for name in asked.keys() - LIMITS.keys():
            raise UsageError(
                f"there is no limit {name!r}", hint=suggest(name, LIMITS) or f"limits: {', '.join(LIMITS)}"
            )
        self.asked: Mapping[str, float] = {name: value for name, value in asked.items() if value is not None}

    def explain_misses(self, row: Measurement) -> tuple[str, ...]:
        """Returns what a measured row misses; a figure that is not there misses its limit.

        What an artifact may lose stands in its manifest where it was built with a limit, and holds unless another one
        is asked for.
        """
        misses = []
        for name, (metric, limit) in LIMITS.items():
            if name in self.asked:
                misses.append(limit.explain_miss(metric.read(row), self.asked[name]))
        if "max_drop" not in self.asked and row.drop is not None and row.drop.is_over:
            misses.append(f"{row.drop.points:.4g} points are lost, over the {row.drop.max_points:g} of its own limit")
        return tuple(miss for miss in misses if miss is not None)

    def apply(self, comparison: Comparison) -> Comparison:
        """Returns the comparison with what was asked, and in every measured row what it misses."""
        rows = tuple(
            replace(row, limits_missed=self.explain_misses(row)) if row.measured else row
            for row in comparison.measurements
        )
        return replace(comparison, limits=dict(self.asked), measurements=rows)
