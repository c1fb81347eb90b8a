"""Which target to ship, and why: applies the rules and words what they found.

Everything is derived from a results document, so that a verdict can be given again from results.json at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from modelwright.harness.results.record import Comparison, read_comparison
from modelwright.harness.results.speed import Speeds
from modelwright.harness.results.values import mapping_of, sequence_of
from modelwright.harness.verdict.cautions import find_cautions
from modelwright.harness.verdict.findings import Findings, Verdict
from modelwright.harness.verdict.rules import (
    choose_axis,
    choose_target,
    find_candidates,
    find_front,
    find_reference,
    sort_rows,
)
from modelwright.harness.verdict.wording import write_sentence


def judge(document: Mapping[str, Any]) -> Verdict:
    """Says which target to ship and why.

    Args:
        document: A results document as in results.json; its own `verdict` is not read.

    Returns:
        The verdict, the same every time for the same document.
    """
    findings = examine(read_comparison(document))
    return {
        "pareto": [row.target for row in findings.front],
        "ship": findings.ship.target if findings.ship else None,
        "sentence": write_sentence(findings),
        "warnings": find_cautions(findings),
        "indistinguishable": [[first.target, second.target] for first, second in findings.pairs],
        "order": [row.target for row in findings.order],
        "quality": findings.axis,
    }


def examine(comparison: Comparison) -> Findings:
    """Applies the rules to a comparison."""
    speeds = Speeds(comparison)
    order = sort_rows(comparison.rows)
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


def verdict_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the document's own verdict, or a new one where it has none that fits its measurements."""
    saved = mapping_of(document.get("verdict"))
    targets = sorted(row.target for row in read_comparison(document).rows)
    complete = {"pareto", "ship", "sentence", "warnings"} <= set(saved)
    if complete and sorted(map(str, sequence_of(saved.get("order")))) == targets:
        return saved
    return judge(document)
