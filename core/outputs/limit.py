"""How much of FP32's quality an artifact may lose, as the user says it: `--max-drop`, by the user's own `--metric`.

Points are hundredths: of the share of right answers, of the share of FP32's answers that is kept, of the user's metric.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from modelwright.core.errors import UsageError
from modelwright.core.records.codec import Amount, Count, Line, Record, Sha256

SHARE_POINTS = 100.0
ROOMS = (0.6745, 1.2816, 2.3263)
"""Room for chance that a search leaves, one after the other while what it chose loses too much where it is judged: the
normal quantiles that 3 in 4, 9 in 10 and 99 in 100 lie below. Most that pass with the first have more; beginning with
the second took 38 layers of a MiniLM to float, for half a point on 500 samples, and it still was not had."""
LimitedBy = Literal["accuracy", "kept", "metric"]
"""What the drop is taken of: right answers, where the samples that judge have labels; what is kept of FP32's answers,
by the measure of the task; or the user's own metric."""


def require_limiting(max_drop: float) -> None:
    """Refuses a limit that every artifact keeps to, where a point is a hundredth of a share.

    Args:
        max_drop: In points.

    Raises:
        UsageError: No more can be lost.
    """
    if max_drop >= SHARE_POINTS:
        raise UsageError(
            f"--max-drop {max_drop:g} limits nothing: right answers and kept ones are shares, of which a point is a "
            f"hundredth, and no more than {SHARE_POINTS:g} can be lost",
            hint="give for instance --max-drop 0.5; leave it out for no limit",
        )


class Metric(Record):
    """A function of the user's that says how good all answers to all samples are.

    Attributes:
        path: Its file.
        function: Its name there.
        sha256: Of the file.
        higher_is_better: Whether more of it is better.
        points_per_unit: Points that a difference of 1 stands for, where the function says so; None is a share's 100.
    """

    path: Path
    function: Line
    sha256: Sha256
    higher_is_better: bool = True
    points_per_unit: Amount | None = None

    @property
    def name(self) -> str:
        """As the user wrote it, without the folder."""
        return f"{self.path.name}:{self.function}"

    def points_lost(self, fp32: float, artifact: float) -> float:
        """Returns how much worse an artifact's figure is than FP32's; negative where it is better."""
        lost = fp32 - artifact if self.higher_is_better else artifact - fp32
        return lost * (SHARE_POINTS if self.points_per_unit is None else self.points_per_unit)


class Limit(Record):
    """What an artifact may lose at most.

    Attributes:
        max_drop: In points.
        by: What it is taken of.
        evaluated: Samples that judge in the end: a search must leave room for what chance does on so many.
        metric: The user's, where `by` says so.
        metric_chooses: Whether the metric can be asked about the samples that choose: they come from the file that
            those that judge come from, or what their answers are held against is among the samples.
        room: For chance on the samples that judge, as a normal quantile.
    """

    max_drop: Amount
    by: LimitedBy
    evaluated: Count
    metric: Metric | None = None
    metric_chooses: bool = False
    room: Amount = ROOMS[0]
