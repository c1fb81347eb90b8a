"""What a row of a results document tells of the GPU that it ran on, and how that reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from modelwright.harness.results.values import count_of, mapping_of, number, sequence_of

if TYPE_CHECKING:
    from modelwright.harness.results.record import Row

_REASONS = {
    "SwPowerCap": "its power limit",
    "SwThermalSlowdown": "heat",
    "HwThermalSlowdown": "heat",
    "HwPowerBrakeSlowdown": "the power supply's brake",
    "HwSlowdown": "the hardware's protection (heat or power)",
}


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """What was observed of the card around a row's windows; None where it could not be read.

    Attributes:
        sm_clock_mhz: Lowest, median and highest after a window.
        memory_clock_mhz: Likewise.
        temperature_c: The highest.
        windows: That were observed.
        flagged: Of them, those under throttling, counted from 0.
        throttled_share: Of the windows of which it is known.
        throttle_reasons: NVML's names.
        clock_settings: What else held the clocks, such as clocks that somebody set; NVML's names.
        other_processes: Id and memory of others on the card; None when that could not be told.
    """

    sm_clock_mhz: tuple[float, float, float] | None = None
    memory_clock_mhz: tuple[float, float, float] | None = None
    temperature_c: float | None = None
    windows: int = 0
    flagged: tuple[int, ...] = ()
    throttled_share: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    clock_settings: tuple[str, ...] = ()
    other_processes: tuple[tuple[int, float | None], ...] | None = None
    unavailable: tuple[tuple[str, str], ...] = ()

    @property
    def throttle_causes(self) -> list[str]:
        """The reasons in words, each once."""
        return list(dict.fromkeys(_REASONS.get(name, name) for name in self.throttle_reasons))


def read_gpu(value: object) -> GpuFacts | None:
    """Reads a row's `gpu`; lenient as the whole document's reader is."""
    record = mapping_of(value)
    if not record:
        return None
    temperature, others = _read_spread(record.get("temperature_c")), record.get("other_processes")
    return GpuFacts(
        sm_clock_mhz=_read_spread(record.get("sm_clock_mhz")),
        memory_clock_mhz=_read_spread(record.get("memory_clock_mhz")),
        temperature_c=None if temperature is None else temperature[2],
        windows=count_of(record.get("windows")) or 0,
        flagged=tuple(index for item in sequence_of(record.get("flagged")) if (index := count_of(item)) is not None),
        throttled_share=number(record.get("throttled_share")),
        throttle_reasons=tuple(clean_text(name) for name in mapping_of(record.get("throttle_reasons"))),
        clock_settings=tuple(clean_text(name) for name in sequence_of(record.get("clock_settings"))),
        other_processes=None if others is None else _read_processes(sequence_of(others)),
        unavailable=tuple(
            (clean_text(key), clean_text(reason)) for key, reason in mapping_of(record.get("unavailable")).items()
        ),
    )


def _read_spread(value: object) -> tuple[float, float, float] | None:
    record = mapping_of(value)
    low, middle, high = (number(record.get(key)) for key in ("min", "median", "max"))
    return None if low is None or middle is None or high is None else (low, middle, high)


def _read_processes(items: Sequence[Any]) -> tuple[tuple[int, float | None], ...]:
    found = []
    for item in items:
        record: Mapping[str, Any] = mapping_of(item)
        pid = count_of(record.get("pid"))
        if pid is not None:
            found.append((pid, number(record.get("used_bytes"))))
    return tuple(found)


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
