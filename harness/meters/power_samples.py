"""Power over time, from looks at a counter of joules: how much it varied while something ran, not only its mean."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from modelwright.core.records.codec import Count, Record
from modelwright.harness.kinds import Figure


class Sample(NamedTuple):
    """A look at a meter: the time in seconds, and joules of a counter or watts."""

    at_s: float
    value: float


class Power(NamedTuple):
    """The mean power of a while."""

    watts: float
    seconds: float


class PowerSamples(Record, kw_only=True):
    """The power of successive whiles in which something ran; each is a mean, so that shorter peaks are not in it.

    Attributes:
        count: How many there are.
        interval_s: How long each took, in the median.
        std_w: Standard deviation; null for one sample.
        min_w: The lowest.
        median_w: The middle one.
        max_w: The highest.
    """

    count: Count
    interval_s: Figure
    std_w: Figure | None = None
    min_w: Figure
    median_w: Figure
    max_w: Figure


def list_power(looks: Sequence[Sample], least_s: float) -> tuple[Power, ...]:
    """Returns the mean power between looks at a counter.

    Args:
        looks: In order.
        least_s: How far apart two looks are at least: closer ones would tell more of the counter's steps than of the
            power. What remains at the end belongs to the last while.
    """
    marks = list(looks[:1])
    for look in looks[1:]:
        if look.at_s - marks[-1].at_s >= least_s:
            marks.append(look)
    if looks and marks[-1] is not looks[-1]:
        marks[1 if len(marks) == 1 else -1 :] = looks[-1:]
    return tuple(
        Power((after.value - before.value) / (after.at_s - before.at_s), after.at_s - before.at_s)
        for before, after in pairwise(marks)
        if after.at_s > before.at_s
    )


def summarize_power(samples: Sequence[Power]) -> PowerSamples | None:
    """Returns how the power varied; None without samples."""
    if not samples:
        return None
    watts = [max(0.0, sample.watts) for sample in samples]
    return PowerSamples(
        count=len(watts),
        interval_s=statistics.median(sample.seconds for sample in samples),
        std_w=statistics.stdev(watts) if len(watts) > 1 else None,
        min_w=min(watts),
        median_w=statistics.median(watts),
        max_w=max(watts),
    )
