"""Which target to ship, and why: the rules. Their wording is in `report/wording.py`.

Everything is derived from a results document, so that a verdict can be given again from results.json at any time.
Differences within noise are ties everywhere: in speed by the interval over rounds, in accuracy and agreement by
counting samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, TypedDict

from modelwright.harness.results.record import Comparison, Row, read_comparison
from modelwright.harness.results.speed import Speeds

Axis = Literal["accuracy", "agreement", "cosine"]

MAX_ACCURACY_LOSS = 0.01
"""One point: what the quantization literature calls lossless, and MLPerf Inference's 99 % targets ask for."""

MIN_AGREEMENT = 0.99
RELAXED_AGREEMENT = 0.98
"""Taken only when nothing faster than FP32 reaches `MIN_AGREEMENT`."""

MIN_AGREEMENT_WITH_ACCURACY = 0.90
"""With labels, the accuracy decides; but equal accuracy with other answers to a tenth of the samples is luck."""

MIN_COSINE = 0.999
COSINE_RESOLUTION = 0.0005
SHARE_RESOLUTION = 0.001
"""A difference in accuracy or agreement that is a tie when the number of samples is not known."""

SIZE_RESOLUTION = 1.02
_EPSILON = 1e-9


class Verdict(TypedDict):
    """What `judge` returns; JSON-serialisable.

    Attributes:
        pareto: Targets on the front of latency and quality, fastest first.
        ship: The target to ship; None when nothing can be recommended.
        sentence: What to ship and why, in sentences for people.
        warnings: What to know before believing it.
        indistinguishable: Pairs of targets whose speed cannot be told apart.
        order: All targets: measured by p50, fastest first, then skipped, then failed.
        quality: The quality axis that was used, None when there was no quality figure at all.
    """

    pareto: list[str]
    ship: str | None
    sentence: str
    warnings: list[str]
    indistinguishable: list[list[str]]
    order: list[str]
    quality: str | None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the rules found; the wording is made from it.

    Attributes:
        reference: The FP32 row that quality and speed are judged against; None when none was measured.
        axis: The quality axis.
        candidates: Rows whose quality may ship.
        relaxed: Whether the agreement limit was lowered to `RELAXED_AGREEMENT`.
        pairs: Measured pairs that cannot be told apart in speed.
    """

    comparison: Comparison
    speeds: Speeds
    reference: Row | None
    axis: Axis | None
    order: tuple[Row, ...]
    front: tuple[Row, ...]
    candidates: tuple[Row, ...]
    ship: Row | None
    relaxed: bool
    pairs: tuple[tuple[Row, Row], ...]

    def quality(self, row: Row) -> float | None:
        return quality_of(row, self.axis, self.reference)

    def fp32_accuracy(self, row: Row) -> float | None:
        """The accuracy that a row is held against: of the FP32 row, else of the source itself on its samples."""
        return fp32_accuracy(row, self.reference)

    def keeps_quality(self, row: Row) -> bool:
        """Whether nothing measurable was lost against FP32, on any axis that was measured."""
        return loses_nothing(row, self.reference, self.comparison)


def judge(document: Mapping[str, Any]) -> Verdict:
    """Says which target to ship and why.

    Args:
        document: A results document as in results.json; its own `verdict` is not read.

    Returns:
        The verdict, the same every time for the same document.
    """
    from modelwright.harness.verdict.cautions import find_cautions
    from modelwright.harness.verdict.wording import write_sentence

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
    candidates, relaxed = _find_candidates(measured, axis, reference, comparison, speeds)
    return Findings(
        comparison=comparison,
        speeds=speeds,
        reference=reference,
        axis=axis,
        order=tuple(order),
        front=tuple(front),
        candidates=tuple(candidates),
        ship=_choose(candidates, axis, reference, comparison.evaluation_count, speeds),
        relaxed=relaxed,
        pairs=tuple((first, second) for first, second in combinations(measured, 2) if speeds.is_same(first, second)),
    )


def sort_rows(rows: Iterable[Row]) -> list[Row]:
    """Sorts by median latency, fastest first; what has none follows, then skipped, then failed."""
    ranks = {"measured": 0, "skipped": 1}

    def key(row: Row) -> tuple[int, float, str]:
        latency = row.typical_ms if row.measured else None
        return ranks.get(row.status, 2), float("inf") if latency is None else latency, row.target

    return sorted(rows, key=key)


def find_reference(comparison: Comparison) -> Row | None:
    """Returns the FP32 row to judge against: the baseline if it is FP32, else another FP32, its runtime first."""
    baseline = comparison.find(comparison.baseline)
    if baseline is not None and baseline.measured and baseline.precision == "fp32":
        return baseline
    runtime = baseline.runtime if baseline is not None else comparison.baseline.partition("-")[0]
    fp32 = [row for row in sort_rows(comparison.measured) if row.precision == "fp32"]
    return next((row for row in fp32 if row.runtime == runtime), fp32[0] if fp32 else None)


def choose_axis(measured: Sequence[Row], reference: Row | None, *, labels: bool) -> Axis | None:
    """Chooses what quality means here: accuracy where there are labels, else agreement with FP32, else cosine."""
    others = [row for row in measured if row is not reference] or measured
    if labels and any(row.accuracy is not None for row in others):
        return "accuracy"
    if any(row.agreement is not None for row in others):
        return "agreement"
    return "cosine" if any(row.cosine is not None for row in others) else None


def quality_of(row: Row, axis: Axis | None, reference: Row | None) -> float | None:
    """Returns a row's figure on the quality axis; FP32 agrees with itself even where nobody wrote that down."""
    if axis is None:
        return None
    value: float | None = getattr(row, axis)
    if value is None and axis != "accuracy" and row is reference:
        return 1.0
    return value


def quality_resolution(axis: Axis | None, count: int | None) -> float:
    """Returns the difference on the axis that is still a tie: one sample, where samples are counted."""
    if axis == "cosine":
        return COSINE_RESOLUTION
    return 1 / count if count else SHARE_RESOLUTION


def is_worse(value: float | None, other: float | None, resolution: float) -> bool:
    """Whether a quality is lower than another by more than the resolution. Unknown is worse than known."""
    if other is None:
        return False
    return value is None or value < other - resolution - _EPSILON


def loses_nothing(row: Row, reference: Row | None, comparison: Comparison) -> bool:
    """Whether accuracy and agreement (without them, cosine) are within one sample of FP32; False when unknown."""
    if row is reference:
        return True
    step = quality_resolution("agreement", comparison.evaluation_count)
    known = False
    best = fp32_accuracy(row, reference)
    if row.accuracy is not None and best is not None:
        known = True
        if is_worse(row.accuracy, best, step):
            return False
    if row.agreement is not None:
        return not is_worse(row.agreement, 1.0, max(step, SHARE_RESOLUTION))
    return known or (row.cosine is not None and not is_worse(row.cosine, 1.0, COSINE_RESOLUTION))


def fp32_accuracy(row: Row, reference: Row | None) -> float | None:
    """Returns the accuracy of the FP32 row, else what the source had on the row's own samples."""
    if reference is not None and reference.accuracy is not None:
        return reference.accuracy
    return row.accuracy_fp32


def find_front(
    measured: Sequence[Row], axis: Axis | None, reference: Row | None, count: int | None, speeds: Speeds
) -> list[Row]:
    """Returns the rows that no other row beats: faster without being worse, or better without being slower.

    Differences within noise count as equal, so two rows that tie in both are both on the front.
    """
    resolution = quality_resolution(axis, count)
    rated = [row for row in measured if axis is None or quality_of(row, axis, reference) is not None]
    rated = [row for row in rated if row.typical_ms is not None and row.fidelity_ok is not False]

    def beats(row: Row, other: Row) -> bool:
        quality, other_quality = quality_of(row, axis, reference), quality_of(other, axis, reference)
        if speeds.is_faster(other, row) or is_worse(quality, other_quality, resolution):
            return False
        return speeds.is_faster(row, other) or is_worse(other_quality, quality, resolution)

    front = [row for row in rated if not any(beats(other, row) for other in rated if other is not row)]
    # Ties are not transitive, so noise could in principle make rows beat each other in a ring.
    return front or rated[:1]


def _find_candidates(
    measured: Sequence[Row], axis: Axis | None, reference: Row | None, comparison: Comparison, speeds: Speeds
) -> tuple[list[Row], bool]:
    """Returns the rows whose quality may ship, and whether the agreement limit had to be lowered for it."""
    strict = [row for row in measured if _may_ship(row, axis, reference, comparison, MIN_AGREEMENT)]
    if axis != "agreement" or reference is None or any(speeds.is_faster(row, reference) for row in strict):
        return strict, False
    relaxed = [row for row in measured if _may_ship(row, axis, reference, comparison, RELAXED_AGREEMENT)]
    return (relaxed, True) if any(speeds.is_faster(row, reference) for row in relaxed) else (strict, False)


def _may_ship(row: Row, axis: Axis | None, reference: Row | None, comparison: Comparison, min_agreement: float) -> bool:
    """Whether a row's quality is good enough to ship. FP32's always is; what was not judged never is."""
    if row.limits_missed:
        return False
    if row is reference:
        return True
    if row.fidelity_ok is False:
        return False
    one_sample = quality_resolution("agreement", comparison.evaluation_count)
    if axis == "accuracy":
        best = fp32_accuracy(row, reference)
        if best is None:
            best = max((other.accuracy for other in comparison.measured if other.accuracy is not None), default=None)
        # One sample is no loss, even where it is more than a point because there are few of them.
        loses = is_worse(row.accuracy, best, max(MAX_ACCURACY_LOSS, one_sample))
        differs = row.agreement is not None and row.agreement < MIN_AGREEMENT_WITH_ACCURACY - _EPSILON
        return row.accuracy is not None and not loses and not differs
    if axis == "agreement":
        return row.agreement is not None and row.agreement >= min(min_agreement, 1 - one_sample) - _EPSILON
    return row.cosine is not None and row.cosine >= MIN_COSINE


def _choose(
    candidates: Sequence[Row], axis: Axis | None, reference: Row | None, count: int | None, speeds: Speeds
) -> Row | None:
    """Chooses the fastest candidate; among those as fast, by quality, then float before INT8, then size."""
    pool = list(candidates)
    if reference is not None:
        # What is not faster than FP32 is not worth the doubt; the wording still names what is smaller.
        pool = [row for row in pool if row is not reference and speeds.is_faster(row, reference)]
        if not pool and reference in candidates:
            return reference
        # FP32 itself can miss a limit that the user set, such as a size; then the rest need not be faster.
        pool = pool or list(candidates)
    fastest = [row for row in pool if not any(speeds.is_faster(other, row) for other in pool if other is not row)]
    left = fastest or pool[:1]
    if not left:
        return None
    left = _keep_best(left, lambda row: quality_of(row, axis, reference), quality_resolution(axis, count))
    left = [row for row in left if row.is_float] or left
    left = _keep_best(left, lambda row: row.agreement, quality_resolution("agreement", count))
    smallest = min((row.size_bytes for row in left if row.size_bytes), default=None)
    if smallest is not None:
        left = [row for row in left if row.size_bytes and row.size_bytes <= smallest * SIZE_RESOLUTION]
    return sort_rows(left)[0]


def _keep_best(rows: list[Row], value_of: Callable[[Row], float | None], resolution: float) -> list[Row]:
    """Returns the rows within the resolution of the best one."""
    best = max((value for row in rows if (value := value_of(row)) is not None), default=None)
    return [row for row in rows if not is_worse(value_of(row), best, resolution)]
