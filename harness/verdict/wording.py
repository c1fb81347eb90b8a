"""The sentences that say which target to ship and why, as a helpful colleague would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelwright.harness.formatting import (
    format_bytes,
    format_cosine,
    format_interval,
    format_percent,
    format_significant,
    join_words,
    ratio_decimals,
)
from modelwright.harness.verdict.findings import find_doubt

if TYPE_CHECKING:
    from modelwright.core.outputs.tasks.judge import TaskFidelity
    from modelwright.harness.results.record import Axis, Comparison, Measurement
    from modelwright.harness.results.statistics import SpeedRatio
    from modelwright.harness.verdict.findings import Findings

MAX_REJECTED = 2
"""Faster targets that the sentence names as rejected; the table shows the others."""

NOTABLY_SMALLER = 1.2
MUCH_SMALLER = 1.6

KEPT_WORDS = {
    "agreement": "agreement with FP32",
    "detections": "FP32's detections kept",
    "overlap": "overlap with what FP32 says yes to",
    "cosine": "cosine with FP32's vectors",
    "R squared": "FP32's variation followed",
}
"""Measure of a task -> how its share reads."""


def write_sentence(findings: Findings) -> str:
    """Says what to ship and why, then what else is worth knowing, in a few sentences."""
    comparison = findings.comparison
    measured = [row for row in findings.order if row.measured]
    if not measured:
        counts = [
            f"{sum(row.status == status for row in comparison.measurements)} {status}"
            for status in ("skipped", "failed")
            if any(row.status == status for row in comparison.measurements)
        ]
        return f"Nothing was measured, so there is nothing to recommend ({join_words(counts) or 'no targets'})."
    parts = [_ship_sentence(findings, measured), *_alternatives(findings), *_rejected(findings)]
    if comparison.samples.random:
        parts.append(
            "The samples were random numbers: the speeds hold, the quality says nothing about your data. "
            "Compare again with real samples before you ship."
        )
    return " ".join(parts)


def name_quality(comparison: Comparison, axis: Axis | None) -> str:
    """Returns what the quality axis shows: `accuracy`, `agreement`, or the task's own measure in words."""
    if axis != "kept":
        return axis or "quality"
    measures = dict.fromkeys(row.task.measure for row in comparison.measured if row.task is not None)
    return KEPT_WORDS[next(iter(measures))] if len(measures) == 1 else "what is kept of FP32's answers"


def times_as_fast(found: SpeedRatio) -> str:
    """Returns `4.6 times as fast`."""
    return f"{_ratio_text(found)} times as fast"


def interval_text(found: SpeedRatio) -> str:
    """Returns ` (95 % interval 4.5 to 4.7)`, or nothing when the rounds do not support one."""
    return "" if found.ci95 is None else f" (95 % interval {format_interval(*found.ci95, separator=' to ')})"


def short_title(row: Measurement, beside: Measurement) -> str:
    """Returns `INT8` for `OpenVINO INT8` beside another OpenVINO target, else the whole title."""
    words, other = row.title.split(), beside.title.split()
    shared = 0
    while shared < min(len(words), len(other)) - 1 and words[shared] == other[shared]:
        shared += 1
    return " ".join(words[shared:]) if row.runtime == beside.runtime else row.title


def describe_loss(row: Measurement, findings: Findings) -> str:
    """Returns what a row costs against FP32: `loses 4.2 points of accuracy (15 of 360 samples)`."""
    count = findings.comparison.evaluation_count
    of_count = f" on {count} samples" if count else ""
    best = findings.fp32_accuracy(row)
    if row.limits_missed:
        return f"misses your limits: {join_words(list(row.limits_missed))}"
    if findings.axis == "accuracy" and row.accuracy is not None and best is not None and row.accuracy < best:
        points = f"{format_significant((best - row.accuracy) * 100, 2)} points of accuracy"
        lost = f" ({round((best - row.accuracy) * count)} of {count} samples)" if count else ""
        return f"loses {points}{lost}"
    doubt = find_doubt(row, findings.comparison)
    if findings.axis == "accuracy" and doubt is not None:
        return f"gives other answers{of_count} so often that its accuracy may be {doubt * 100:.1f} points off by chance"
    if row.agreement is not None and row.agreement < 1.0 and (row.task is None or _is_about_answers(row.task)):
        return f"gives FP32's answer only in {format_percent(row.agreement)}{of_count}"
    if row.task is not None and row.task.worst is not None:
        return f"loses too much: output {row.task.worst.output}: {row.task.worst.text}"
    if row.cosine is not None:
        return f"follows FP32 only to a cosine of {format_cosine(row.cosine)}"
    return "has no quality figure, so nothing says that it follows FP32"


def _is_about_answers(task: TaskFidelity) -> bool:
    """Whether the worst finding is that other answers are given, which the agreement says more shortly."""
    return task.worst is None or task.worst.measure == "flips"


def _ship_sentence(findings: Findings, measured: list[Measurement]) -> str:
    ship, reference = findings.ship, findings.reference
    if ship is None:
        if all(row.limits_missed for row in measured):
            return "No recommendation: every measured target misses a limit that you set."
        return (
            "No recommendation: none of the measured targets is known to keep FP32's quality. "
            "Give evaluation samples (--eval), or build a float target."
        )
    latency = "" if ship.typical_ms is None else f" ({format_significant(ship.typical_ms)} ms)"
    if len(measured) == 1:
        return f"{ship.title}{latency} is the only target that was measured: there is nothing to compare it with."
    if ship is reference:
        faster = any(findings.speeds.is_faster(row, ship) for row in measured if row is not ship)
        why = "what is faster does not keep its quality" if faster else "nothing measured here is faster"
        return f"Ship {ship.title}{latency}: {why}."
    quality = _quality_phrase(ship, findings)
    if reference is None:
        return f"Ship {ship.title}{latency}: the fastest that keeps its quality{', ' + quality if quality else ''}."
    found = findings.speeds.ratio(ship, reference)
    if found is None:
        return f"Ship {ship.title}{latency}{': ' + quality if quality else ''}."
    facts = [f"{times_as_fast(found)} as {reference.title}{interval_text(found)}", quality]
    if ship.size_bytes and reference.size_bytes and reference.size_bytes >= NOTABLY_SMALLER * ship.size_bytes:
        facts.append(f"{format_bytes(ship.size_bytes)} instead of {format_bytes(reference.size_bytes)}")
    return f"Ship {ship.title}: {', '.join(fact for fact in facts if fact)}."


def _quality_phrase(row: Measurement, findings: Findings) -> str:
    """Returns `agreement 99.4 %, accuracy unchanged (98.9 %)`, with what is known."""
    count = findings.comparison.evaluation_count
    parts = []
    if row.agreement is not None:
        samples = f" on {count} samples" if count and findings.axis == "agreement" else ""
        parts.append(f"agreement with FP32 {format_percent(row.agreement)}{samples}")
    best = findings.fp32_accuracy(row)
    if row.accuracy is not None and findings.axis == "accuracy":
        parts.append(_accuracy_phrase(row.accuracy, best, count) + _doubt_phrase(row, findings))
    if row.drop is not None and row.drop.by == "metric":
        parts.append(f"{row.drop.measure} {row.drop.artifact:.4g} (FP32 {row.drop.fp32:.4g})")
    if not parts and row.task is not None and row.task.kept is not None:
        parts.append(f"{KEPT_WORDS[row.task.measure]} {format_percent(row.task.kept)}")
    if not parts and row.cosine is not None:
        parts.append(f"cosine with FP32 {format_cosine(row.cosine)}")
    return ", ".join(parts)


def _doubt_phrase(row: Measurement, findings: Findings) -> str:
    """Returns what chance may make of another model's accuracy; empty of what is only another form of the first."""
    doubt = find_doubt(row, findings.comparison)
    return "" if not doubt else f" (on as many others the difference may be {doubt * 100:.1f} points another)"


def _accuracy_phrase(accuracy: float, best: float | None, count: int | None) -> str:
    shown = format_percent(accuracy)
    if best is None:
        return f"accuracy {shown}"
    if count is None:
        return f"accuracy {shown} against {format_percent(best)}"
    change = round((accuracy - best) * count)
    if change == 0:
        return f"accuracy unchanged ({shown})"
    return f"accuracy {shown}, {abs(change)} of {count} samples {'more' if change > 0 else 'fewer'} than FP32"


def _alternatives(findings: Findings) -> list[str]:
    """Names what is as good for another reason: a float of the same speed, a loss-free one, a smaller one."""
    ship = findings.ship
    if ship is None:
        return []
    others = [row for row in findings.order if row.measured and row is not ship and row is not findings.reference]
    if ship is findings.reference:
        return _smaller_alternative(ship, others, findings)
    if ship.is_float:
        return _equal_int8(ship, others, findings)
    return _float_alternative(ship, others, findings)


def _equal_int8(ship: Measurement, others: list[Measurement], findings: Findings) -> list[str]:
    rivals = [row for row in others if not row.is_float and findings.speeds.is_same(ship, row)]
    rivals.sort(key=lambda row: row.runtime != ship.runtime)
    found = findings.speeds.ratio(ship, rivals[0]) if rivals else None
    if found is None:
        return []
    gain = "loses nothing" if findings.keeps_quality(ship) else "is the float one"
    return [f"{ship.title} {_as_fast_as(found, short_title(rivals[0], ship))} and {gain}."]


def _float_alternative(ship: Measurement, others: list[Measurement], findings: Findings) -> list[str]:
    reference = findings.reference
    if reference is None:
        return []
    for row in others:
        found = findings.speeds.ratio(row, reference)
        if row.is_float and row in findings.candidates and found is not None and found.is_faster:
            if findings.keeps_quality(row) and not findings.keeps_quality(ship):
                return [f"If nothing may be lost, ship {row.title}: {times_as_fast(found)} as {reference.title}."]
            return [f"The fastest float target is {row.title}, {times_as_fast(found)} as {reference.title}."]
    return []


def _smaller_alternative(ship: Measurement, others: list[Measurement], findings: Findings) -> list[str]:
    for row in others:
        if row in findings.candidates and findings.speeds.is_same(row, ship) and _is_much_smaller(row, ship):
            sizes = f"{format_bytes(row.size_bytes)} instead of {format_bytes(ship.size_bytes)}"
            return [f"If size matters, {row.title} is as fast and smaller ({sizes})."]
    return []


def _as_fast_as(found: SpeedRatio, rival: str) -> str:
    """Says `is as fast as`, or that the rounds cannot tell where the interval is wide."""
    narrow = found.ci95 is None or found.ci95[1] / found.ci95[0] <= 1.15
    return f"is as fast as {rival} here" if narrow else f"cannot be told from {rival} in speed here"


def _rejected(findings: Findings) -> list[str]:
    """Names targets that are faster than the recommended one, and why they are not it."""
    ship = findings.ship
    if ship is None:
        return []
    rejected = [
        row
        for row in findings.order
        if row.measured and row not in findings.candidates and findings.speeds.is_faster(row, ship)
    ]
    sentences = []
    for row in rejected[:MAX_REJECTED]:
        base = findings.reference or ship
        found = findings.speeds.ratio(row, base)
        assert found is not None, "a faster target has a ratio"
        sentences.append(f"{row.title} is faster ({_ratio_text(found)} times) but {describe_loss(row, findings)}.")
    return sentences


def _is_much_smaller(row: Measurement, other: Measurement) -> bool:
    return bool(row.size_bytes and other.size_bytes and other.size_bytes >= MUCH_SMALLER * row.size_bytes)


def _ratio_text(found: SpeedRatio) -> str:
    """Returns the ratio with the decimals of its interval, so that it never shows outside of it."""
    low, high = found.ci95 or (found.ratio, found.ratio)
    return f"{found.ratio:.{ratio_decimals(low, high)}f}"
