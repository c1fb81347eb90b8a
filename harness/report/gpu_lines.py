"""How a row's figures of a GPU read: label and value, for the reports' details."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright.harness.formatting import (
    count_noun,
    format_bytes,
    format_interval,
    format_percent,
    format_ratio,
    join_words,
)
from modelwright.harness.results.metrics import list_details
from modelwright.harness.results.record import CardObservations, Measurement, OtherProcess, RanWith
from modelwright.harness.verdict.gpu_cautions import list_throttle_causes


def computation_lines(row: Measurement, baseline: str) -> list[tuple[str, str]]:
    """Returns the figures of the computation alone and of the device, as label and value; only what is known."""
    if not row.on_gpu:
        return []
    lines = [("ran on", f"{row.device}{_settings_text(row.settings)}"), *list_details(row, on_device=True)]
    if row.compute_speedup is not None and row.target != baseline:
        interval = row.compute_speedup.ci95
        spread = "" if interval is None else f" (95 % interval {format_interval(*interval, separator=' to ')})"
        versus = f" of {baseline}'s computation"
        lines.append(("speed-up of the computation", f"{format_ratio(row.compute_speedup.ratio)}{versus}{spread}"))
    return lines + ([] if row.gpu is None else _card_lines(row.gpu))


def _settings_text(settings: RanWith | None) -> str:
    if settings is None:
        return ""
    parts = [
        None if settings.cuda_graph is None else "CUDA graph" if settings.cuda_graph else "no CUDA graph",
        None if settings.spin is None else "polling for results" if settings.spin else "blocking for results",
        None if settings.streams is None else count_noun(settings.streams, "stream"),
        f"batch {settings.batch}",
    ]
    return f" ({', '.join(part for part in parts if part)})"


def _card_lines(gpu: CardObservations) -> list[tuple[str, str]]:
    parts = []
    for name, spread in (("SM clock", gpu.sm_clock_mhz), ("memory clock", gpu.memory_clock_mhz)):
        if spread is not None:
            around = "" if spread.min == spread.max else f" ({spread.min:.0f} to {spread.max:.0f})"
            parts.append(f"{name} {spread.median:.0f} MHz{around}")
    if gpu.temperature_c is not None:
        parts.append(f"up to {gpu.temperature_c.max:.0f} °C")
    if gpu.throttled_share == 0:
        parts.append("not throttled")
    elif gpu.throttled_share is not None:
        causes = list_throttle_causes(gpu)
        because = f" by {join_words(causes)}" if causes else ""
        parts.append(f"throttled{because} in {format_percent(gpu.throttled_share)} of the windows")
    if gpu.clock_settings:
        parts.append(f"clocks held by {join_words(list(gpu.clock_settings))}")
    lines = [("GPU meanwhile", ", ".join(parts))] if parts else []
    if gpu.flagged:
        lines.append(("windows under throttling", ", ".join(map(str, gpu.flagged))))
    if gpu.other_processes:
        lines.append(("other processes on the GPU", _describe_processes(gpu.other_processes)))
    elif gpu.other_processes is None:
        why = gpu.unavailable.get("processes")
        lines.append(("other processes on the GPU", f"not known{': ' + why if why else ''}"))
    return lines


def _describe_processes(processes: Sequence[OtherProcess]) -> str:
    """Returns `999 (700 MB), 1000`."""
    return ", ".join(
        f"{process.pid}{'' if process.used_bytes is None else f' ({format_bytes(process.used_bytes)})'}"
        for process in processes
    )
