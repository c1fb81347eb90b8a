"""What all runtimes share of profiling operators: how many inferences, and how their times become a profile."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelwright.core.records.operators import Kind, Operator, OperatorProfile, OperatorType, Remedy

WARM_UPS = 2
"""Inferences under the profiler that do not count: memory and caches are filled in the first."""
LEAST_INFERENCES, MOST_INFERENCES = 3, 50
BUDGET_S = 0.3
"""No further inference is begun after this, so that a large model costs a few inferences and a small one a moment."""
LISTED = 40
"""Operators in a profile, the longest; the others are in the sums of their types."""
_LISTED_NODES, _NAME_LENGTH = 16, 200
_FENCE, _CLOCK_US = 1.5, 1.0
"""Of the spread between the quartiles, and the step of the coarsest clock: what lies further out was disturbed."""


@dataclass(frozen=True, kw_only=True)
class TimedOperator:
    """An operator as a runtime tells of it; see `Operator`.

    Attributes:
        times_us: One for each inference that counts.
    """

    name: str
    type: str
    kind: Kind
    precision: str | None
    nodes: tuple[str, ...] = ()
    times_us: Sequence[float]


def run_inferences(call: Callable[[], object], after: Callable[[], object] = lambda: None) -> list[float]:
    """Runs a few inferences; returns the microseconds that each took, without the `WARM_UPS` that ran before them.

    Args:
        call: Runs one.
        after: Called after each that counts, outside of its time.
    """
    for _ in range(WARM_UPS):
        call()
    walls_us: list[float] = []
    end = time.perf_counter() + BUDGET_S
    while len(walls_us) < LEAST_INFERENCES or (len(walls_us) < MOST_INFERENCES and time.perf_counter() < end):
        started = time.perf_counter()
        call()
        walls_us.append((time.perf_counter() - started) * 1e6)
        after()
    return walls_us


def make_profile(
    source: str, operators: Iterable[TimedOperator], walls_us: Sequence[float], remedies: Mapping[str, Remedy]
) -> OperatorProfile:
    """Sums up what a runtime's profiler told.

    Args:
        source: Which profiler told.
        operators: All that ran.
        walls_us: What each inference took.
        remedies: Type -> what is known of its float operators in integer artifacts; empty for a float artifact.
    """
    timed = [(operator, typical(operator.times_us)) for operator in operators]
    total_us = sum(time_us for _, time_us in timed)

    def share(time_us: float) -> float:
        return min(1.0, time_us / total_us) if total_us else 0.0

    times: dict[tuple[str, Kind, str | None], list[float]] = defaultdict(list)
    for operator, time_us in timed:
        times[operator.type[:_NAME_LENGTH], operator.kind, operator.precision].append(time_us)
    types = [
        OperatorType(type=name, kind=kind, precision=precision, count=len(own), time_us=sum(own), share=share(sum(own)))
        for (name, kind, precision), own in times.items()
    ]
    types.sort(key=lambda entry: -entry.time_us)
    in_float = dict.fromkeys(entry.type for entry in types if entry.precision not in (None, "int8"))
    return OperatorProfile(
        source=source,
        inferences=len(walls_us),
        inference_us=min(walls_us, default=0.0),
        operators_us=total_us,
        count=len(timed),
        types=tuple(types),
        operators=tuple(
            Operator(
                name=operator.name[:_NAME_LENGTH],
                type=operator.type[:_NAME_LENGTH],
                kind=operator.kind,
                precision=operator.precision,
                nodes=tuple(node[:_NAME_LENGTH] for node in operator.nodes[:_LISTED_NODES]),
                time_us=time_us,
                share=share(time_us),
            )
            for operator, time_us in sorted(timed, key=lambda pair: -pair[1])[:LISTED]
        ),
        remedies=tuple(remedies[name] for name in in_float if name in remedies),
    )


def typical(values: Sequence[float]) -> float:
    """Returns the mean of what no disturbance made long (Tukey's fence), in µs.

    Clocks of whole microseconds average out in it: an operator of 0.3 µs takes none mostly, and one sometimes.
    """
    ordered = sorted(values)
    if not ordered:
        return 0.0
    quartile = len(ordered) // 4
    low, high = ordered[quartile], ordered[len(ordered) - 1 - quartile]
    kept = [value for value in ordered if value <= high + _FENCE * (high - low) + _CLOCK_US]
    return sum(kept) / len(kept)
