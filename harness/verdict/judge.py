"""Which target to ship, and why: applies the rules and words what they found.

Everything is derived from a comparison, so that a verdict can be given again from results.json at any time.
"""

from __future__ import annotations

from itertools import combinations

from msgspec.structs import replace

from modelwright.core.errors import ModelwrightError
from modelwright.core.faults import as_error
from modelwright.harness.results.limits import Limits
from modelwright.harness.results.record import Comparison, Verdict
from modelwright.harness.results.speed import Speeds
from modelwright.harness.verdict.cautions import find_cautions
from modelwright.harness.verdict.findings import Findings
from modelwright.harness.verdict.rules import (
    choose_axis,
    choose_target,
    find_candidates,
    find_front,
    find_reference,
    sort_rows,
)
from modelwright.harness.verdict.wording import write_sentence


def judge(comparison: Comparison) -> Verdict:
    """Says which target to ship and why; the same every time for the same measurements."""
    findings = examine(comparison)
    return Verdict(
        pareto=tuple(row.target for row in findings.front),
        ship=findings.ship.target if findings.ship else None,
        sentence=write_sentence(findings),
        warnings=tuple(find_cautions(findings)),
        indistinguishable=tuple((first.target, second.target) for first, second in findings.pairs),
        order=tuple(row.target for row in findings.order),
        quality=findings.axis,
    )


def finish_comparison(comparison: Comparison, limits: Limits | None) -> tuple[Comparison, ModelwrightError | None]:
    """Returns a comparison held against the user's limits and judged, and what went wrong with that, if anything.

    Where no verdict can be given, the comparison has one that says so: the figures are as good as before.
    """
    try:
        limited = (limits or Limits()).apply(comparison)
        return replace(limited, verdict=judge(limited)), None
    except Exception as error:
        fault = as_error(error, "judging the comparison")
    none = Verdict(
        pareto=(),
        ship=None,
        sentence=f"There is no verdict: {fault.message}",
        warnings=(),
        order=tuple(row.target for row in comparison.measurements),
    )
    return replace(comparison, verdict=none), fault


def examine(comparison: Comparison) -> Findings:
    """Applies the rules to a comparison."""
    speeds = Speeds(comparison)
    order = sort_rows(comparison.measurements)
    measured = [row for row in order if row.measured]
    reference = find_reference(comparison)
    axis = choose_axis(measured, reference, labels=comparison.labels)
    front = find_front(measured, axis, reference, comparison.evaluation_count, speeds)
    candidates, relaxed = find_candidates(measured, axis, reference, comparison, speeds)
    return Findings(
        comparison=comparison,
        speeds=speeds,
        reference=reference,
        axis=axis,
        order=tuple(order),
        front=tuple(front),
        candidates=tuple(candidates),
        ship=choose_target(candidates, axis, reference, comparison.evaluation_count, speeds),
        relaxed=relaxed,
        pairs=tuple((first, second) for first, second in combinations(measured, 2) if speeds.is_same(first, second)),
    )


def verdict_of(comparison: Comparison) -> Verdict:
    """Returns the comparison's own verdict, or a new one where it has none that fits its measurements."""
    saved = comparison.verdict
    if saved is not None and sorted(saved.order) == sorted(row.target for row in comparison.measurements):
        return saved
    return judge(comparison)
