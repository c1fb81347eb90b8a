"""Reads a results document (results.json) into typed rows. Lenient: what is absent or not a number is None.

The reports are rendered again from files that older or newer versions wrote, so nothing here refuses a document;
a field that cannot be read shows as not measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from modelwright.harness.report.formatting import clean_text


@dataclass(frozen=True, kw_only=True)
class Row:
    """One target of a comparison. Units as in the names; shares are 0..1; None is "not known".

    Attributes:
        target: The key, exactly as in the document.
        title: For people, cleaned.
        reason: Why it was skipped or failed, cleaned.
        log_ratios: Per round, log(baseline latency / this latency); NaN for a round that this target missed.
        rounds: The rounds in which this target had a turn; empty when the document does not say.
        limits_missed: What it misses of the limits that the user set.
        accuracy_fp32: Of the FP32 source on the same samples.
        evaluated: Samples that its quality was taken on.
        fidelity_ok: False when the artifact was found not to follow FP32.
        executed: The precision that the runtime says it ran, such as `bf16`.
    """

    target: str
    title: str
    runtime: str
    precision: str
    is_float: bool
    status: str
    reason: str | None = None
    hint: str | None = None
    size_bytes: float | None = None
    build_s: float | None = None
    reused: bool = False
    load_ms: float | None = None
    first_inference_ms: float | None = None
    mean_ms: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    num_inferences: int | None = None
    throughput_per_s: float | None = None
    peak_memory_bytes: float | None = None
    model_memory_bytes: float | None = None
    accuracy: float | None = None
    accuracy_ci95: tuple[float, float] | None = None
    accuracy_fp32: float | None = None
    evaluated: int | None = None
    agreement: float | None = None
    cosine: float | None = None
    fidelity_ok: bool | None = None
    energy_j: float | None = None
    energy_source: str | None = None
    energy_reason: str | None = None
    carbon_g: float | None = None
    speedup: float | None = None
    speedup_ci95: tuple[float, float] | None = None
    log_ratios: tuple[float, ...] = ()
    rounds: tuple[int, ...] = ()
    limits_missed: tuple[str, ...] = ()
    executed: str | None = None
    notes: tuple[str, ...] = ()
    unavailable: tuple[tuple[str, str], ...] = ()

    @property
    def measured(self) -> bool:
        return self.status == "measured"

    @property
    def typical_ms(self) -> float | None:
        """The median latency, or the mean where too few inferences support a median."""
        return self.p50_ms if self.p50_ms is not None else self.mean_ms

    @property
    def energy_estimated(self) -> bool:
        return self.energy_j is not None and not (self.energy_source or "").startswith("measured")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A results document, read.

    Attributes:
        rows: In the document's order.
        baseline: Target that the speed-ups refer to.
        evaluation_count: Samples that the accuracy and the agreement were taken on.
        random: Whether the samples are random numbers.
        raw: The document itself, for the parts that are only shown.
    """

    rows: tuple[Row, ...]
    baseline: str
    evaluation_count: int | None
    labels: bool
    random: bool
    instruction_sets: frozenset[str]
    virtual_machine: bool
    rounds: int | None
    raw: Mapping[str, Any]

    @property
    def measured(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.measured)

    def find(self, target: str | None) -> Row | None:
        return next((row for row in self.rows if row.target == target), None)

    @property
    def model_name(self) -> str:
        path = _mapping(self.raw.get("source")).get("path")
        text = clean_text(path) if path else ""
        return PurePath(text).name or text or "model"


def read_comparison(document: Mapping[str, Any]) -> Comparison:
    """Reads a results document."""
    samples = _mapping(document.get("samples"))
    evaluation = _mapping(samples.get("evaluation"))
    environment = _mapping(document.get("environment"))
    rows = tuple(_read_row(_mapping(item)) for item in _sequence(document.get("measurements")))
    # Long sets are judged on a part of their samples; what the rows say goes before the size of the set.
    evaluated = max((row.evaluated for row in rows if row.evaluated), default=None)
    return Comparison(
        rows=rows,
        baseline=str(document.get("baseline") or ""),
        evaluation_count=evaluated or _count(evaluation.get("count")) or None,
        labels=bool(evaluation.get("labels")),
        random=bool(samples.get("random")),
        instruction_sets=frozenset(str(name) for name in _sequence(environment.get("instruction_sets"))),
        virtual_machine=environment.get("virtual_machine") is True,
        rounds=_count(_mapping(document.get("settings")).get("rounds")),
        raw=document,
    )


def verdict_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the document's own verdict, or a new one where it has none that fits its measurements."""
    # The rules import the documents' reader: importing them at the top would be a circle.
    from modelwright.harness.verdict import judge

    saved = _mapping(document.get("verdict"))
    targets = sorted(row.target for row in read_comparison(document).rows)
    complete = {"pareto", "ship", "sentence", "warnings"} <= set(saved)
    if complete and sorted(map(str, _sequence(saved.get("order")))) == targets:
        return saved
    return judge(document)


def number(value: object) -> float | None:
    """Returns a finite number, or None for anything else: NaN, text, booleans."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _read_row(item: Mapping[str, Any]) -> Row:
    target = str(item.get("target") or "?")
    latency, energy = _mapping(item.get("latency_ms")), _mapping(item.get("energy"))
    speedup, memory = _mapping(item.get("speedup")), _mapping(item.get("memory"))
    unavailable = {str(key): str(value) for key, value in _mapping(item.get("unavailable")).items()}
    for percentile, reason in _mapping(item.get("latency_notes")).items():
        unavailable.setdefault(f"latency_ms.{percentile}", str(reason))
    runtime, _, precision = target.partition("-")
    return Row(
        target=target,
        title=clean_text(item.get("title") or target),
        runtime=clean_text(item.get("runtime") or runtime),
        precision=clean_text(item.get("precision") or precision),
        is_float=bool(item.get("is_float")),
        status=str(item.get("status") or "failed"),
        reason=_text(item.get("reason")),
        hint=_text(item.get("hint")),
        size_bytes=number(item.get("size_bytes")),
        build_s=number(item.get("build_s")),
        reused=bool(item.get("reused")),
        load_ms=number(item.get("load_ms")),
        first_inference_ms=number(item.get("first_inference_ms")),
        mean_ms=number(latency.get("mean")),
        p50_ms=number(latency.get("p50")),
        p90_ms=number(latency.get("p90")),
        p95_ms=number(latency.get("p95")),
        p99_ms=number(latency.get("p99")),
        num_inferences=_count(item.get("num_inferences")),
        throughput_per_s=number(item.get("throughput_per_s")),
        peak_memory_bytes=number(item.get("peak_memory_bytes")),
        model_memory_bytes=number(memory.get("model_bytes")),
        accuracy=number(item.get("accuracy")),
        accuracy_ci95=_interval(item.get("accuracy_ci95")),
        accuracy_fp32=number(item.get("accuracy_fp32")),
        evaluated=_count(item.get("evaluated")),
        agreement=number(item.get("agreement")),
        cosine=number(item.get("cosine")),
        fidelity_ok=_read_fidelity(item.get("fidelity")),
        energy_j=number(energy.get("per_inference_j")),
        energy_source=_text(energy.get("source")),
        energy_reason=_text(energy.get("reason")),
        carbon_g=number(_mapping(item.get("carbon")).get("per_inference_g")),
        speedup=_positive(speedup.get("ratio")),
        speedup_ci95=_positive_interval(speedup.get("ci95")),
        log_ratios=tuple(_number_or_nan(value) for value in _sequence(item.get("round_log_ratios"))),
        rounds=tuple(value for value in _sequence(item.get("rounds")) if isinstance(value, int)),
        limits_missed=tuple(clean_text(miss) for miss in _sequence(item.get("limits_missed"))),
        executed=_text(_mapping(item.get("precision_executed")).get("precision")),
        notes=tuple(clean_text(note) for note in _sequence(item.get("notes"))),
        unavailable=tuple((clean_text(key), clean_text(reason)) for key, reason in unavailable.items()),
    )


def _read_fidelity(value: object) -> bool | None:
    """Reads whether the artifact follows FP32: the fidelity record's `passed` or `ok`."""
    record = _mapping(value)
    for key in ("passed", "ok"):
        if isinstance(record.get(key), bool):
            return bool(record[key])
    return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()


def _count(value: object) -> int | None:
    found = number(value)
    return None if found is None or found < 0 else int(found)


def _text(value: object) -> str | None:
    return clean_text(value) if value is not None and value != "" else None


def _positive(value: object) -> float | None:
    found = number(value)
    return found if found is not None and found > 0 else None


def _number_or_nan(value: object) -> float:
    found = number(value)
    return math.nan if found is None else found


def _positive_interval(value: object) -> tuple[float, float] | None:
    ends = _interval(value)
    return ends if ends is not None and ends[0] > 0 else None


def _interval(value: object) -> tuple[float, float] | None:
    ends = [number(end) for end in _sequence(value)]
    if len(ends) != 2 or ends[0] is None or ends[1] is None or ends[0] > ends[1]:
        return None
    return ends[0], ends[1]
