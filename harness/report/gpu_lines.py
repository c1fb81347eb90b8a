"""How a row's figures of a GPU read: label and value, for the reports' details."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright.harness.formatting import (
    clean_text,
    count_noun,
    format_bytes,
    format_interval,
    format_ms,
    format_percent,
    format_ratio,
    format_significant,
    join_words,
)
from modelwright.harness.results.gpu_facts import GpuFacts
from modelwright.harness.results.record import Row


def computation_lines(row: Row, baseline: str) -> list[tuple[str, str]]:
    """Returns the figures of the computation alone and of the device, as label and value; only what is known."""
    if row.device == "cpu":
        return []
    figures = (
        ("p50", row.compute_p50_ms),
        ("mean", row.compute_mean_ms),
        ("p90", row.compute_p90_ms),
        ("p95", row.compute_p95_ms),
        ("p99", row.compute_p99_ms),
    )
    times = [f"{name} {format_ms(value)}" for name, value in figures if value is not None]
    if row.compute_throughput_per_s is not None:
        times.append(f"{format_significant(row.compute_throughput_per_s)} per s")
    lines = [("ran on", f"{row.device}{_settings_text(row)}")]
    if times:
        lines.append(("computation alone", ", ".join(times)))
    if row.compute_speedup is not None and row.target != baseline:
        interval = row.compute_speedup_ci95
        spread = "" if interval is None else f" (95 % interval {format_interval(*interval, separator=' to ')})"
        versus = f" of {clean_text(baseline)}'s computation"
        lines.append(("speed-up of the computation", f"{format_ratio(row.compute_speedup)}{versus}{spread}"))
    if row.gpu_memory_bytes is not None:
        lines.append(("GPU memory of the process", format_bytes(row.gpu_memory_bytes)))
    return lines + ([] if row.gpu is None else _card_lines(row.gpu))


def _settings_text(row: Row) -> str:
    parts = [
        {True: "CUDA graph", False: "no CUDA graph"}.get(row.cuda_graph) if row.cuda_graph is not None else None,
        {True: "polling for results", False: "blocking for results"}.get(row.spin) if row.spin is not None else None,
        None if row.streams is None else count_noun(row.streams, "stream"),
        None if row.batch is None else f"batch {row.batch}",
    ]
    known = [part for part in parts if part]
    return f" ({', '.join(known)})" if known else ""


def _card_lines(gpu: GpuFacts) -> list[tuple[str, str]]:
    parts = []
    for name, spread in (("SM clock", gpu.sm_clock_mhz), ("memory clock", gpu.memory_clock_mhz)):
        if spread is not None:
            low, middle, high = spread
            around = "" if low == high else f" ({low:.0f} to {high:.0f})"
            parts.append(f"{name} {middle:.0f} MHz{around}")
    if gpu.temperature_c is not None:
        parts.append(f"up to {gpu.temperature_c:.0f} °C")
    if gpu.throttled_share == 0:
        parts.append("not throttled")
    elif gpu.throttled_share is not None:
        causes = f" by {join_words(gpu.throttle_causes)}" if gpu.throttle_causes else ""
        parts.append(f"throttled{causes} in {format_percent(gpu.throttled_share)} of the windows")
    if gpu.clock_settings:
        parts.append(f"clocks held by {join_words(list(gpu.clock_settings))}")
    lines = [("GPU meanwhile", ", ".join(parts))] if parts else []
    if gpu.flagged:
        lines.append(("windows under throttling", ", ".join(map(str, gpu.flagged))))
    if gpu.other_processes:
        lines.append(("other processes on the GPU", describe_processes(gpu.other_processes)))
    elif gpu.other_processes is None:
        why = dict(gpu.unavailable).get("processes")
        lines.append(("other processes on the GPU", f"not known{': ' + why if why else ''}"))
    return lines


def describe_processes(processes: Sequence[tuple[int, float | None]]) -> str:
    """Returns `999 (700 MB), 1000`."""
    shown = [f"{pid}{'' if used is None else f' ({format_bytes(used)})'}" for pid, used in processes]
    return ", ".join(shown)
