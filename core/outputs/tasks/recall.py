"""The class that loses most: of the rows in which FP32 finds it, those in which a candidate finds it too."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.checks import Check, bound_share
from modelwright.core.outputs.tasks.roles import OutputRole

RECALL_LOSS = (0.05, 0.2)
"""Share of a class's rows that are lost, at least, with 95 % confidence."""
MIN_CLASS_ROWS = 5


def find_worst_class(expected: npt.NDArray[np.int64], hits: npt.NDArray[np.int64]) -> int | None:
    """Returns the class of `MIN_CLASS_ROWS` rows or more that surely loses most of them; None without one."""
    counted = np.flatnonzero(expected >= MIN_CLASS_ROWS)
    if not counted.size:
        return None
    return int(min(counted, key=lambda name: bound_share(int(hits[name]), int(expected[name]), upper=True)))


def check_recall(role: OutputRole, expected: npt.NDArray[np.int64], hits: npt.NDArray[np.int64]) -> list[Check]:
    """Returns the finding about the class that loses most; none where no class has enough rows.

    Args:
        role: Of the output.
        expected: Rows in which FP32 finds each class.
        hits: Those in which the candidate finds it too.
    """
    worst = find_worst_class(expected, hits)
    if worst is None:
        return []
    found, rows = int(hits[worst]), int(expected[worst])
    return [
        Check(
            output=role.name,
            measure="recall",
            value=1 - bound_share(found, rows, upper=True, among=int(np.count_nonzero(expected >= MIN_CLASS_ROWS))),
            good=RECALL_LOSS[0],
            broken=RECALL_LOSS[1],
            text=f"class {worst} is found in {found} of the {rows} {name_rows(role)} where FP32 finds it",
        )
    ]


def name_rows(role: OutputRole) -> str:
    """Returns what the rows of an output are called."""
    return {"mask": "pixels", "tokens": "positions"}.get(role.role, "samples")
