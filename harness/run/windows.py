"""Inferences of what is loaded, in windows of time: end to end, and on a GPU the computation alone.

For measuring processes, whose parents call `run_window` and `run_energy_window` by name.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Iterator
from typing import Any

from modelwright.harness.run.device_timing import time_computations
from modelwright.harness.run.loaded import explaining_gpu_memory, loaded

WARM_UP_SHARE = 0.1
"""Part of a window spent unmeasured at its start: other artifacts ran in between and took the caches."""
GPU_WARM_UP_S = 0.1
"""The least of it on a GPU, whose clocks fall while it waits for its turn and take tens of milliseconds to rise again;
with the inferences end to end that follow, the computation alone gets the 0.2 s that `trtexec` warms up for."""
END_TO_END_SHARE = 0.5
"""Part of a GPU session's window for inferences end to end; the rest is for the computation alone."""


def run_window(window_s: float) -> dict[str, Any]:
    """Runs inferences for about `window_s` seconds, at least one.

    Returns:
        `latencies_ns`: of every measured inference, from inputs to outputs in the host's memory. `inferences`: all that
        ran, warm-up included, and `elapsed_s` over all of them, for meters that saw them all. On a GPU the window has a
        second part, whose inferences are in none of these: `compute_latencies_ns`, `compute_inferences` and
        `compute_elapsed_s` are the same for the computation alone, by the device's own clock, and `compute_enqueue_ns`
        is the median of what the host took to queue it; all None where there is no such part.
    """
    with explaining_gpu_memory("the inference cannot run"), _without_collecting():
        warm_up_s = max(window_s * WARM_UP_SHARE, GPU_WARM_UP_S if loaded.gpu is not None else 0.0)
        if not loaded.lanes:
            return {**_time_calls(window_s, warm_up_s), **_time_lanes(0.0)}
        compute_s = window_s * (1 - END_TO_END_SHARE)
        return {**_time_calls(window_s - compute_s, warm_up_s), **_time_lanes(compute_s)}


def _time_calls(window_s: float, warm_up_s: float) -> dict[str, Any]:
    """Times inferences end to end by the wall clock."""
    if loaded.crew is not None:
        told = zip(("latencies_ns", "inferences", "elapsed_s"), loaded.crew.run(window_s, warm_up_s), strict=True)
        return dict(told)
    clock = time.perf_counter_ns
    calls, turn = loaded.calls, loaded.turn
    count = len(calls)
    latencies: list[int] = []
    warm_up_ns = int(warm_up_s * 1e9)
    warmed = 0
    begin = clock()
    while clock() - begin < warm_up_ns:
        calls[turn % count]()
        turn += 1
        warmed += 1
    end = clock() + int(window_s * 1e9)
    while True:
        call = calls[turn % count]
        started = clock()
        call()
        stopped = clock()
        latencies.append(stopped - started)
        turn += 1
        if stopped >= end:
            break
    elapsed_s = (clock() - begin) / 1e9
    loaded.turn = turn
    return {"latencies_ns": latencies, "inferences": warmed + len(latencies), "elapsed_s": elapsed_s}


def _time_lanes(window_s: float) -> dict[str, Any]:
    """Times computations alone by the device's events; None for everything where there are none to time."""
    if not loaded.lanes:
        names = ("compute_latencies_ns", "compute_inferences", "compute_elapsed_s", "compute_enqueue_ns")
        return dict.fromkeys(names)
    times = time_computations(loaded.lanes, window_s, warm_up_s=window_s * WARM_UP_SHARE, turn=loaded.compute_turn)
    loaded.compute_turn += times.inferences
    return {
        "compute_latencies_ns": times.latencies_ns,
        "compute_inferences": times.inferences,
        "compute_elapsed_s": times.elapsed_s,
        "compute_enqueue_ns": statistics.median(times.enqueue_ns),
    }


def run_energy_window(duration_s: float, computation: bool = False) -> dict[str, Any]:
    """Runs inferences without a pause, while the parent reads a slow meter.

    Args:
        duration_s: How long; at least one inference runs.
        computation: Whether the computation alone is to run, on inputs that lie on the accelerator since the artifact
            was loaded; end to end where a session has no such computation, and on a CPU.

    Returns:
        `inferences`, `elapsed_s`, and `transfers`: whether inputs and outputs were copied in each of them.
    """
    if computation and loaded.lanes:
        with explaining_gpu_memory("the inference cannot run"), _without_collecting():
            times = time_computations(loaded.lanes, duration_s, turn=loaded.compute_turn)
        loaded.compute_turn += times.inferences
        return {"inferences": times.inferences, "elapsed_s": times.elapsed_s, "transfers": False}
    clock = time.perf_counter
    calls, turn = loaded.calls, loaded.turn
    inferences = 0
    with explaining_gpu_memory("the inference cannot run"), _without_collecting():
        begin = clock()
        while True:
            calls[turn % len(calls)]()
            turn += 1
            inferences += 1
            elapsed_s = clock() - begin
            if elapsed_s >= duration_s:
                break
    loaded.turn = turn
    return {"inferences": inferences, "elapsed_s": elapsed_s, "transfers": True}


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Keeps the garbage collector out of what is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
