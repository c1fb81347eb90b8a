"""Reads a results document (results.json) into typed rows. Lenient: what is absent or not a number is None.

The reports are rendered again from files that older or newer versions wrote, so nothing here refuses a document;
a field that cannot be read shows as not measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from modelwright.harness.formatting import clean_text
from modelwright.harness.results.gpu_facts import GpuFacts, read_gpu
from modelwright.harness.results.values import (
    count_of,
    flag_of,
    interval_of,
    mapping_of,
    number,
    number_or_nan,
    positive,
    positive_interval_of,
    sequence_of,
    text_of,
)


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
        energy_scope: What the energy covers, such as `GPU board`; figures of two scopes are not comparable.
        device: Where it ran: `cpu` or `cuda`. Latencies are from host memory to host memory on both.
        compute_p50_ms: Of the computation alone, its inputs and outputs on the device; so all `compute_` figures.
        gpu_memory_bytes: That its process held on the GPU.
        gpu: What was observed of the card meanwhile.
        cuda_graph: Whether the computation was launched as a CUDA graph.
        spin: Whether results were polled for.
        streams: Inferences in flight on the device.
        emulated: Whether its quality is that of the graph it was built from, evaluated by ONNX Runtime.
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
    energy_scope: str | None = None
    device: str = "cpu"
    compute_mean_ms: float | None = None
    compute_p50_ms: float | None = None
    compute_p90_ms: float | None = None
    compute_p95_ms: float | None = None
    compute_p99_ms: float | None = None
    compute_throughput_per_s: float | None = None
    compute_enqueue_ms: float | None = None
    compute_speedup: float | None = None
    compute_speedup_ci95: tuple[float, float] | None = None
    gpu_memory_bytes: float | None = None
    gpu: GpuFacts | None = None
    cuda_graph: bool | None = None
    spin: bool | None = None
    streams: int | None = None
    batch: int | None = None
    emulated: bool = False

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

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"


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

    @property
    def energy_scopes(self) -> tuple[str, ...]:
        """What the energies cover, each once; with more than one, energies are compared within a scope only."""
        return tuple(dict.fromkeys(row.energy_scope or "" for row in self.measured if row.energy_j is not None))

    def find(self, target: str | None) -> Row | None:
        return next((row for row in self.rows if row.target == target), None)

    @property
    def model_name(self) -> str:
        path = mapping_of(self.raw.get("source")).get("path")
        text = clean_text(path) if path else ""
        return PurePath(text).name or text or "model"


def read_comparison(document: Mapping[str, Any]) -> Comparison:
    """Reads a results document."""
    samples = mapping_of(document.get("samples"))
    evaluation = mapping_of(samples.get("evaluation"))
    environment = mapping_of(document.get("environment"))
    rows = _tell_devices_apart([_read_row(mapping_of(item)) for item in sequence_of(document.get("measurements"))])
    # Long sets are judged on a part of their samples; what the rows say goes before the size of the set.
    evaluated = max((row.evaluated for row in rows if row.evaluated), default=None)
    return Comparison(
        rows=rows,
        baseline=str(document.get("baseline") or ""),
        evaluation_count=evaluated or count_of(evaluation.get("count")) or None,
        labels=bool(evaluation.get("labels")),
        random=bool(samples.get("random")),
        instruction_sets=frozenset(str(name) for name in sequence_of(environment.get("instruction_sets"))),
        virtual_machine=environment.get("virtual_machine") is True,
        rounds=count_of(mapping_of(document.get("settings")).get("rounds")),
        raw=document,
    )


def _read_row(item: Mapping[str, Any]) -> Row:
    target = str(item.get("target") or "?")
    latency, energy = mapping_of(item.get("latency_ms")), mapping_of(item.get("energy"))
    speedup, memory = mapping_of(item.get("speedup")), mapping_of(item.get("memory"))
    unavailable = {str(key): str(value) for key, value in mapping_of(item.get("unavailable")).items()}
    for percentile, reason in mapping_of(item.get("latency_notes")).items():
        unavailable.setdefault(f"latency_ms.{percentile}", str(reason))
    runtime, _, precision = target.partition("-")
    compute, compute_speedup = mapping_of(item.get("compute_latency_ms")), mapping_of(item.get("compute_speedup"))
    settings = mapping_of(item.get("settings"))
    return Row(
        target=target,
        title=clean_text(item.get("title") or target),
        runtime=clean_text(item.get("runtime") or runtime),
        precision=clean_text(item.get("precision") or precision),
        is_float=bool(item.get("is_float")),
        status=str(item.get("status") or "failed"),
        reason=text_of(item.get("reason")),
        hint=text_of(item.get("hint")),
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
        num_inferences=count_of(item.get("num_inferences")),
        throughput_per_s=number(item.get("throughput_per_s")),
        peak_memory_bytes=number(item.get("peak_memory_bytes")),
        model_memory_bytes=number(memory.get("model_bytes")),
        accuracy=number(item.get("accuracy")),
        accuracy_ci95=interval_of(item.get("accuracy_ci95")),
        accuracy_fp32=number(item.get("accuracy_fp32")),
        evaluated=count_of(item.get("evaluated")),
        agreement=number(item.get("agreement")),
        cosine=number(item.get("cosine")),
        fidelity_ok=_read_fidelity(item.get("fidelity")),
        energy_j=number(energy.get("per_inference_j")),
        energy_source=text_of(energy.get("source")),
        energy_reason=text_of(energy.get("reason")),
        carbon_g=number(mapping_of(item.get("carbon")).get("per_inference_g")),
        speedup=positive(speedup.get("ratio")),
        speedup_ci95=positive_interval_of(speedup.get("ci95")),
        log_ratios=tuple(number_or_nan(value) for value in sequence_of(item.get("round_log_ratios"))),
        rounds=tuple(value for value in sequence_of(item.get("rounds")) if isinstance(value, int)),
        limits_missed=tuple(clean_text(miss) for miss in sequence_of(item.get("limits_missed"))),
        executed=text_of(mapping_of(item.get("precision_executed")).get("precision")),
        notes=tuple(clean_text(note) for note in sequence_of(item.get("notes"))),
        unavailable=tuple((clean_text(key), clean_text(reason)) for key, reason in unavailable.items()),
        energy_scope=text_of(energy.get("scope")),
        device=text_of(item.get("device") or settings.get("device")) or "cpu",
        compute_mean_ms=number(compute.get("mean")),
        compute_p50_ms=number(compute.get("p50")),
        compute_p90_ms=number(compute.get("p90")),
        compute_p95_ms=number(compute.get("p95")),
        compute_p99_ms=number(compute.get("p99")),
        compute_throughput_per_s=number(item.get("compute_throughput_per_s")),
        compute_enqueue_ms=number(item.get("compute_enqueue_ms")),
        compute_speedup=positive(compute_speedup.get("ratio")),
        compute_speedup_ci95=positive_interval_of(compute_speedup.get("ci95")),
        gpu_memory_bytes=number(item.get("gpu_memory_bytes")),
        gpu=read_gpu(item.get("gpu")),
        cuda_graph=flag_of(settings.get("cuda_graph")),
        spin=flag_of(settings.get("spin")),
        streams=count_of(settings.get("streams")),
        batch=count_of(settings.get("batch")),
        emulated=item.get("emulated") is True,
    )


def _tell_devices_apart(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Adds the device to the titles of rows that would have the same one on two devices."""
    devices = Counter(title for title, _ in {(row.title, row.device) for row in rows if row.measured})
    return tuple(
        replace(row, title=f"{row.title} on {row.device.upper()}") if row.measured and devices[row.title] > 1 else row
        for row in rows
    )


def _read_fidelity(value: object) -> bool | None:
    """Reads whether the artifact follows FP32: the fidelity record's `passed` or `ok`."""
    record = mapping_of(value)
    for key in ("passed", "ok"):
        if isinstance(record.get(key), bool):
            return bool(record[key])
    return None
