"""The figures of a row that only an accelerator has: the computation alone, memory, what was observed of the card."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelwright.harness.meters.gpu_watch import CardObservations
from modelwright.harness.results.statistics import (
    Latency,
    SpeedRatio,
    estimate_ratio,
    round_log_ratios,
    summarize_latencies,
)
from modelwright.harness.run.measure_artifacts import Measured

_ALIKE = ("batch", "streams", "cuda_graph", "spin")
"""Settings that two latencies of a computation must share to be compared."""


@dataclass(frozen=True, kw_only=True)
class DeviceFigures:
    """Of the computation alone and of the card.

    Attributes:
        count: Computations that were measured.
        warm_ups: Those that ran before them, at the start of each turn.
        enqueue_ms: What the host takes to queue a computation.
        memory_bytes: That the process held on the card.
        gpu: What was observed of it.
        reasons: Key of the row -> why it is null.
    """

    latency_ms: Latency | None = None
    count: int | None = None
    warm_ups: int | None = None
    throughput_per_s: float | None = None
    enqueue_ms: float | None = None
    speedup: SpeedRatio | None = None
    memory_bytes: int | None = None
    gpu: CardObservations | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)


def describe_computation(name: str, measured: Measured, baseline_name: str, baseline: Measured | None) -> DeviceFigures:
    """Returns the figures of the computation alone, and why some are missing.

    Its latency is the time between two CUDA events around the computation, its inputs on the device before
    and its outputs left there; the row's `latency_ms` is from inputs in host memory to outputs in host memory.

    Args:
        name: Of the row.
        measured: Its raw result, loaded without failure.
        baseline_name: Of the row that speed-ups are over.
        baseline: Its raw result, None where there is none.

    Returns:
        The figures; all None on a CPU.
    """
    assert measured.opened is not None
    settings = measured.opened.settings
    if settings.device == "cpu":
        return DeviceFigures()
    windows_ms = [window.compute_latencies_ms for _, window in sorted(measured.windows.items())]
    reasons: dict[str, str] = {}
    figures = DeviceFigures(reasons=reasons)
    if any(windows_ms):
        latency_ms, missing = summarize_latencies(windows_ms)
        reasons |= {f"compute_latency_ms.{key}": reason for key, reason in missing.items()}
        elapsed_s = sum(window.compute_elapsed_s for window in measured.windows.values())
        ran = sum(window.compute_inferences for window in measured.windows.values())
        queuing = [window.compute_enqueue_ms for window in measured.windows.values() if window.compute_enqueue_ms]
        speedup, unlike = _compare(name, measured, baseline_name, baseline)
        if unlike is not None:
            reasons["compute_speedup"] = unlike
        figures = replace(
            figures,
            latency_ms=latency_ms,
            count=sum(map(len, windows_ms)),
            warm_ups=ran - sum(map(len, windows_ms)),
            throughput_per_s=ran * settings.batch / elapsed_s if elapsed_s > 0 else None,
            enqueue_ms=statistics.median(queuing) if queuing else None,
            speedup=speedup,
        )
    else:
        reason = settings.computation_reason or "its runtime gives no computation to time alone"
        reasons |= dict.fromkeys(("compute_latency_ms", "compute_throughput_per_s", "compute_speedup"), reason)
    if measured.on_gpu is None:
        reasons["gpu_memory_bytes"] = "the card was not observed"
        return figures
    if measured.on_gpu.memory_reason is not None:
        reasons["gpu_memory_bytes"] = measured.on_gpu.memory_reason
    return replace(figures, memory_bytes=measured.on_gpu.memory_bytes, gpu=measured.on_gpu.observed)


def _compare(
    name: str, measured: Measured, baseline_name: str, baseline: Measured | None
) -> tuple[SpeedRatio | None, str | None]:
    """Returns the ratio to the baseline's computation, or why there is none: like is compared with like only."""
    if name == baseline_name:
        return SpeedRatio(ratio=1.0, ci95=(1.0, 1.0)), None
    if baseline is None or baseline.opened is None or measured.opened is None:
        return None, f"{baseline_name} was not measured"
    own, other = measured.opened.settings, baseline.opened.settings
    if other.device == "cpu":
        return None, f"{baseline_name} ran on the CPU, where a computation is not timed without its transfers"
    unlike = [key for key in _ALIKE if getattr(own, key) != getattr(other, key)]
    if unlike:
        said = ", ".join(f"{key} {getattr(own, key)} against {getattr(other, key)}" for key in unlike)
        return None, f"{baseline_name} ran with other settings: {said}"
    launches = {index: window.launch for index, window in measured.windows.items()}
    ratio = estimate_ratio(round_log_ratios(_by_round(baseline), _by_round(measured)), launches)
    return ratio, None if ratio is not None else f"{baseline_name} and {name} share fewer than 5 rounds of a launch"


def _by_round(measured: Measured) -> Mapping[int, Sequence[float]]:
    return {index: window.compute_latencies_ms for index, window in measured.windows.items()}
