"""Limits that the user sets: what an artifact must meet to be shipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a target must meet; None asks for nothing.

    Attributes:
        max_p50_ms: Median latency in milliseconds.
        min_accuracy: Share of right answers, 0 to 1; needs labels.
        min_agreement: Share of top-1 agreement with FP32, 0 to 1.
        max_size_mb: Size of the artifact in 10^6 bytes.
    """

    max_p50_ms: float | None = None
    min_accuracy: float | None = None
    min_agreement: float | None = None
    max_size_mb: float | None = None

    def explain_misses(self, row: Mapping[str, Any]) -> list[str]:
        """Returns what a measured row misses; a figure that is not there misses its limit."""
        size = row.get("size_bytes")
        checks = (
            ("p50", (row.get("latency_ms") or {}).get("p50"), self.max_p50_ms, "ms", -1),
            ("accuracy", row.get("accuracy"), self.min_accuracy, "", 1),
            ("agreement", row.get("agreement"), self.min_agreement, "", 1),
            ("size", None if size is None else size / 1e6, self.max_size_mb, "MB", -1),
        )
        misses = []
        for what, value, limit, unit, sign in checks:
            if limit is None:
                continue
            if value is None:
                misses.append(f"{what} is not known")
            elif (value - limit) * sign < 0:
                word = "over" if sign < 0 else "under"
                misses.append(f"{what} {value:.4g} {unit}".rstrip() + f" is {word} {limit:g}")
        return misses

    def apply(self, document: dict[str, Any]) -> None:
        """Writes into every measured row what it misses, as `limits_missed`."""
        document["limits"] = {name: value for name, value in vars(self).items() if value is not None}
        for row in document["measurements"]:
            if row["status"] == "measured":
                row["limits_missed"] = self.explain_misses(row)

    @property
    def any_set(self) -> bool:
        """Whether any limit is asked for."""
        return any(value is not None for value in vars(self).values())
