"""Which target to ship, and why: the rules. Their wording is in `wording.py`.

Everything is derived from a results document, so that a verdict can be given again from results.json at any time.
Differences within noise are ties everywhere: in speed by the interval over rounds, in accuracy and agreement by
counting samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from modelwright.harness.results.record import Axis, Comparison, Measurement
from modelwright.harness.results.speed import Speeds
from modelwright.harness.verdict.findings import (
    EPSILON,
    find_doubt,
    fp32_accuracy,
    is_other_model,
    is_worse,
    quality_of,
    quality_resolution,
)

MAX_ACCURACY_LOSS = 0.01
"""One point: what the quantization literature calls lossless, and MLPerf Inference's 99 % targets ask for."""

MIN_AGREEMENT = 0.99
RELAXED_AGREEMENT = 0.98
"""Taken only when nothing faster than FP32 reaches `MIN_AGREEMENT`."""

MIN_AGREEMENT_WITH_ACCURACY = 0.90
"""With labels, the accuracy decides; but equal accuracy with other answers to a tenth of the samples is luck."""

MAX_DOUBT = 0.05
"""Of the accuracy of another model than the first: what chance may make of its difference, at most. A choice of ours:
above it, what is lost may be more than anybody would give for speed."""

RELAXED_SEVERITY = 1.5
"""Half of the way from what nobody would notice to what is broken: taken only together with `RELAXED_AGREEMENT`."""
MIN_COSINE = 0.999

SIZE_RESOLUTION = 1.02


def sort_rows(rows: Iterable[Measurement]) -> list[Measurement]:
    """Sorts by median latency, fastest first; what has none follows, then skipped, then failed."""
    ranks = {"measured": 0, "skipped": 1}

    def key(row: Measurement) -> tuple[int, float, str]:
        latency = row.typical_ms if row.measured else None
        return ranks.get(row.status, 2), float("inf") if latency is None else latency, row.target

    return sorted(rows, key=key)


def find_reference(comparison: Comparison) -> Measurement | None:
    """Returns the FP32 row to judge against: the baseline if it is FP32, else another FP32, its runtime first.

    Of several models only the first one's is: all are held against it.
    """
    baseline = comparison.find(comparison.baseline)
    if baseline is not None and baseline.measured and baseline.precision == "fp32":
        return baseline
    named = comparison.baseline.rpartition("/")[2]
    runtime = baseline.runtime if baseline is not None else named.partition("-")[0]
    rows = [row for row in comparison.measured if not is_other_model(row, comparison)]
    fp32 = [row for row in sort_rows(rows) if row.precision == "fp32"]
    return next((row for row in fp32 if row.runtime == runtime), fp32[0] if fp32 else None)


def choose_axis(measured: Sequence[Measurement], reference: Measurement | None, *, labels: bool) -> Axis | None:
    """Chooses what quality means here: accuracy where there are labels, else agreement, else what the task keeps."""
    others = [row for row in measured if row is not reference] or measured
    if labels and any(row.accuracy is not None for row in others):
        return "accuracy"
    if any(row.agreement is not None for row in others):
        return "agreement"
    if any(row.kept is not None for row in others):
        return "kept"
    return "cosine" if any(row.cosine is not None for row in others) else None


def find_front(
    measured: Sequence[Measurement], axis: Axis | None, reference: Measurement | None, count: int | None, speeds: Speeds
) -> list[Measurement]:
    """Returns the rows that no other row beats: faster without being worse, or better without being slower.

    Differences within noise count as equal, so two rows that tie in both are both on the front.
    """
    resolution = quality_resolution(axis, count)
    rated = [row for row in measured if axis is None or quality_of(row, axis, reference) is not None]
    rated = [row for row in rated if row.typical_ms is not None]

    def beats(row: Measurement, other: Measurement) -> bool:
        quality, other_quality = quality_of(row, axis, reference), quality_of(other, axis, reference)
        if speeds.is_faster(other, row) or is_worse(quality, other_quality, resolution):
            return False
        return speeds.is_faster(row, other) or is_worse(other_quality, quality, resolution)

    front = [row for row in rated if not any(beats(other, row) for other in rated if other is not row)]
    # Ties are not transitive, so noise could in principle make rows beat each other in a ring.
    return front or rated[:1]


def find_candidates(
    measured: Sequence[Measurement],
    axis: Axis | None,
    reference: Measurement | None,
    comparison: Comparison,
    speeds: Speeds,
) -> tuple[list[Measurement], bool]:
    """Returns the rows whose quality may ship, and whether the agreement limit had to be lowered for it."""
    strict = [row for row in measured if _may_ship(row, axis, reference, comparison, relaxed=False)]
    if axis == "accuracy" or reference is None or any(speeds.is_faster(row, reference) for row in strict):
        return strict, False
    relaxed = [row for row in measured if _may_ship(row, axis, reference, comparison, relaxed=True)]
    return (relaxed, True) if any(speeds.is_faster(row, reference) for row in relaxed) else (strict, False)


def _may_ship(
    row: Measurement, axis: Axis | None, reference: Measurement | None, comparison: Comparison, *, relaxed: bool
) -> bool:
    """Whether a row's quality is good enough to ship. FP32's always is; what was not judged never is."""
    if row.limits_missed:
        return False
    if row is reference:
        return True
    one_sample = quality_resolution("agreement", comparison.evaluation_count)
    if "max_drop" in comparison.limits and row.drop is not None:
        return _keeps_users_limit(row, comparison)
    if axis == "accuracy":
        best = fp32_accuracy(row, reference)
        if best is None:
            best = max((other.accuracy for other in comparison.measured if other.accuracy is not None), default=None)
        # One sample is no loss, even where it is more than a point because there are few of them.
        loses = is_worse(row.accuracy, best, max(MAX_ACCURACY_LOSS, one_sample))
        return row.accuracy is not None and not loses and _is_sound(row, comparison)
    if row.task is not None:
        if not relaxed:
            return row.task.severity <= 1.0
        agrees = row.agreement is None or row.agreement >= min(RELAXED_AGREEMENT, 1 - one_sample) - EPSILON
        return row.task.severity <= RELAXED_SEVERITY and agrees
    min_agreement = RELAXED_AGREEMENT if relaxed else MIN_AGREEMENT
    if axis == "agreement":
        return row.agreement is not None and row.agreement >= min(min_agreement, 1 - one_sample) - EPSILON
    return row.cosine is not None and row.cosine >= MIN_COSINE


def _keeps_users_limit(row: Measurement, comparison: Comparison) -> bool:
    """Whether a row that misses no limit may ship: users who say what may be lost are held to no other loss."""
    return _is_sound(row, comparison) if row.drop is not None and row.drop.by == "accuracy" else not _is_broken(row)


def _is_sound(row: Measurement, comparison: Comparison) -> bool:
    """Whether equal accuracy is no luck: most answers are FP32's, and nothing is broken.

    Another model, such as a student, gives answers of its own: there it is no luck where labels are so many that chance
    decides little. Of its other outputs no labels speak.
    """
    doubt = find_doubt(row, comparison)
    if doubt is not None and doubt <= MAX_DOUBT and row.fidelity is not None and len(row.fidelity.outputs) == 1:
        return True
    differs = row.agreement is not None and row.agreement < MIN_AGREEMENT_WITH_ACCURACY - EPSILON
    return not differs and not _is_broken(row)


def _is_broken(row: Measurement) -> bool:
    return row.task is not None and row.task.is_broken


def choose_target(
    candidates: Sequence[Measurement],
    axis: Axis | None,
    reference: Measurement | None,
    count: int | None,
    speeds: Speeds,
) -> Measurement | None:
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


def _keep_best(
    rows: list[Measurement], value_of: Callable[[Measurement], float | None], resolution: float
) -> list[Measurement]:
    """Returns the rows within the resolution of the best one."""
    best = max((value for row in rows if (value := value_of(row)) is not None), default=None)
    return [row for row in rows if not is_worse(value_of(row), best, resolution)]
