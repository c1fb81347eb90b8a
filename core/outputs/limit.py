"""How much of FP32's quality an artifact may lose, as the user says it: `--max-drop`, by the user's own `--metric`.

Points are hundredths: of the share of right answers, of the share of FP32's answers that is kept, of the user's metric.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from modelwright.core.records.codec import Amount, Count, Line, Record, Sha256

LimitedBy = Literal["accuracy", "kept", "metric"]
"""What the drop is taken of: right answers, where the samples that judge have labels; what is kept of FP32's answers,
by the measure of the task; or the user's own metric."""


class Metric(Record):
    """A function of the user's that says how good all answers to all samples are.

    Attributes:
        path: Its file.
        function: Its name there.
        sha256: Of the file.
        higher_is_better: Whether more of it is better.
        points_per_unit: Points that a difference of 1 stands for: 100 for a share.
    """

    path: Path
    function: Line
    sha256: Sha256
    higher_is_better: bool = True
    points_per_unit: Amount = 100.0

    @property
    def name(self) -> str:
        """As the user wrote it, without the folder."""
        return f"{self.path.name}:{self.function}"


class Limit(Record):
    """What an artifact may lose at most.

    Attributes:
        max_drop: In points.
        by: What it is taken of.
        evaluated: Samples that judge in the end: a search must leave room for what chance does on so many.
        metric: The user's, where `by` says so.
    """

    max_drop: Amount
    by: LimitedBy
    evaluated: Count
    metric: Metric | None = None
