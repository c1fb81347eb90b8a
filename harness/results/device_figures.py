"""The figures of a row that only an accelerator has: the computation alone, memory, what was observed of the card."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.harness.results.statistics import estimate_ratio, round_log_ratios, summarize_latencies
from modelwright.harness.run.measure_artifacts import Measured

_ALIKE = ("batch", "streams", "cuda_graph", "spin")
"""Settings that two latencies of a computation must share to be compared."""


def describe_computation(
    name: str, measured: Measured, baseline_name: str, baseline: Measured | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the figures of the computation alone, and why some are missing.

    `compute_latency_ms` is the time between two CUDA events around the computation, its inputs on the device before
    and its outputs left there; `latency_ms` beside it is from inputs in host memory to outputs in host memory.

    Args:
        name: Of the row.
        measured: Its raw result, loaded without failure.
        baseline_name: Of the row that speed-ups are over.
        baseline: Its raw result, None where there is none.

    Returns:
        `device`, `compute_latency_ms`, `compute_throughput_per_s`, `compute_enqueue_ms` (what the host takes to queue
        one), `compute_speedup`, `gpu_memory_bytes`, `gpu`; all but the first None on a CPU. Reasons by the name of the
        figure.
    """
    assert measured.opened is not None
    settings = measured.opened["settings"]
    device = settings.get("device", "cpu")
    if device == "cpu":
        return {"device": device, **dict.fromkeys(_FIGURES)}, {}
    windows_ms = [window.compute_latencies_ms for _, window in sorted(measured.windows.items())]
    reasons: dict[str, str] = {}
    figures: dict[str, Any] = dict.fromkeys(_FIGURES)
    count = sum(map(len, windows_ms))
    if count == 0:
        reason = str(settings.get("computation_reason") or "its runtime gives no computation to time alone")
        reasons |= dict.fromkeys(("compute_latency_ms", "compute_throughput_per_s", "compute_speedup"), reason)
    else:
        figures["compute_latency_ms"], missing = summarize_latencies(windows_ms)
        reasons |= {f"compute_latency_ms.{key}": reason for key, reason in missing.items()}
        elapsed_s = sum(window.compute_elapsed_s for window in measured.windows.values())
        ran = sum(window.compute_inferences for window in measured.windows.values())
        figures["compute_throughput_per_s"] = ran * settings["batch"] / elapsed_s if elapsed_s > 0 else None
        queuing = [window.compute_enqueue_ms for window in measured.windows.values() if window.compute_enqueue_ms]
        figures["compute_enqueue_ms"] = statistics.median(queuing) if queuing else None
        figures["compute_speedup"], unlike = _compare(name, measured, baseline_name, baseline)
        if unlike is not None:
            reasons["compute_speedup"] = unlike
    if measured.on_gpu is None:
        reasons["gpu_memory_bytes"] = "the card was not observed"
        return {"device": device, **figures}, reasons
    figures["gpu_memory_bytes"], figures["gpu"] = measured.on_gpu.memory_bytes, dict(measured.on_gpu.observed)
    if measured.on_gpu.memory_reason is not None:
        reasons["gpu_memory_bytes"] = measured.on_gpu.memory_reason
    return {"device": device, **figures}, reasons


_FIGURES = (
    "compute_latency_ms",
    "compute_throughput_per_s",
    "compute_enqueue_ms",
    "compute_speedup",
    "gpu_memory_bytes",
    "gpu",
)


def _compare(
    name: str, measured: Measured, baseline_name: str, baseline: Measured | None
) -> tuple[dict[str, Any] | None, str | None]:
    """Returns the ratio to the baseline's computation, or why there is none: like is compared with like only."""
    if name == baseline_name:
        return {"ratio": 1.0, "ci95": [1.0, 1.0]}, None
    if baseline is None or baseline.opened is None or measured.opened is None:
        return None, f"{baseline_name} was not measured"
    own, other = measured.opened["settings"], baseline.opened["settings"]
    if other.get("device", "cpu") == "cpu":
        return None, f"{baseline_name} ran on the CPU, where a computation is not timed without its transfers"
    unlike = [key for key in _ALIKE if own.get(key) != other.get(key)]
    if unlike:
        said = ", ".join(f"{key} {own.get(key)} against {other.get(key)}" for key in unlike)
        return None, f"{baseline_name} ran with other settings: {said}"
    ratio = estimate_ratio(round_log_ratios(_by_round(baseline), _by_round(measured)))
    return ratio, None if ratio is not None else f"{baseline_name} and {name} share fewer than 5 rounds"


def _by_round(measured: Measured) -> Mapping[int, Sequence[float]]:
    return {index: window.compute_latencies_ms for index, window in measured.windows.items()}
