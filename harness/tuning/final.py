"""What a search found is measured anew: the best of many trials owes a part of its lead to luck.

Only figures from here are reported: winner and defaults loaded several times, in turns, in rounds that nothing was
chosen by.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from modelwright.core.errors import ModelwrightError
from modelwright.harness.results.statistics import SpeedRatio, estimate_ratio
from modelwright.harness.run.effort import Effort
from modelwright.harness.run.interleave import Runner, interleave
from modelwright.harness.tuning.race import CostOf, Open
from modelwright.harness.tuning.record import Configuration, Final, FinalRole


def measure_finals(
    start: Configuration,
    defaults: Configuration,
    chosen: Configuration,
    open_runner: Open,
    cost_of: CostOf,
    effort: Effort,
    *,
    seed: int,
    on_round: Callable[[int, int], None] | None = None,
) -> tuple[Final, ...]:
    """Measures the chosen configuration beside what is to be had without a search.

    Args:
        start: The first artifact with the defaults.
        defaults: The chosen artifact with the defaults.
        chosen: What was found.
        open_runner: Loads a configuration.
        cost_of: The cost of an inference in a window.
        effort: Launches and rounds.
        seed: Of the order of turns.
        on_round: Called with finished rounds and all rounds.

    Returns:
        A row for each of the three that differ, with ratios over the first and over the second.

    Raises:
        ModelwrightError: One of them does not run.
    """
    rows: dict[FinalRole, Configuration] = {"start": start}
    if defaults.key != start.key:
        rows["own defaults"] = defaults
    if chosen.key != defaults.key:
        rows["found"] = chosen
    costs: dict[FinalRole, dict[int, float]] = {role: {} for role in rows}
    launches: dict[int, int] = {}
    for launch in range(effort.launches):
        with contextlib.ExitStack() as stack:
            loaded: list[Runner] = [stack.enter_context(open_runner(rows[role], role)) for role in _turn(rows, launch)]
            found = interleave(loaded, effort, seed=seed, launch=launch, on_round=on_round)
        for role, configuration in rows.items():
            _require_whole(found[role].failure)
            for index, window in found[role].windows.items():
                costs[role][index] = cost_of(window, configuration)
                launches[index] = launch
    own: FinalRole = "own defaults" if "own defaults" in rows else "start"
    return tuple(
        Final(
            role=role,
            configuration=configuration,
            cost=statistics.median(costs[role].values()),
            over_start=None if role == "start" else _compare(costs["start"], costs[role], launches),
            over_defaults=_compare(costs[own], costs[role], launches) if role == "found" else None,
        )
        for role, configuration in rows.items()
    )


def _turn(rows: Mapping[FinalRole, Configuration], launch: int) -> Sequence[FinalRole]:
    """Returns the order to load in: another one first in each launch, as what is loaded later is slower."""
    roles = list(rows)
    first = launch % len(roles)
    return [*roles[first:], *roles[:first]]


def _require_whole(failure: ModelwrightError | None) -> None:
    if failure is not None:
        raise failure


def _compare(over: Mapping[int, float], cost: Mapping[int, float], launches: Mapping[int, int]) -> SpeedRatio | None:
    ratios = {index: math.log(over[index] / cost[index]) for index in sorted(over.keys() & cost.keys())}
    return estimate_ratio(ratios, launches)


def settle_finals(finals: Sequence[Final]) -> Final:
    """Returns what the model is to be run as: nothing but the defaults where the lead of others is in doubt.

    The settings count where they are better than their artifact's defaults beyond doubt, the artifact where it is
    better, as it is then run, than the first one.
    """
    by_role = {final.role: final for final in finals}
    start = by_role["start"]
    own = by_role.get("own defaults", start)
    chosen = by_role.get("found", own)
    if chosen is not own and not _is_better(chosen.over_defaults):
        chosen = own
    return chosen if chosen is start or _is_better(chosen.over_start) else start


def _is_better(ratio: SpeedRatio | None) -> bool:
    return ratio is not None and ratio.is_faster
