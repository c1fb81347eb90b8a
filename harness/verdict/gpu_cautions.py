"""Cautions about what ran on a GPU: throttling, other processes, settings, what the figures cover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelwright.harness.formatting import count_noun, format_bytes, join_words

if TYPE_CHECKING:
    from modelwright.harness.results.record import CardObservations, Measurement, RanWith
    from modelwright.harness.verdict.findings import Findings

_CAUSES = {
    "SwPowerCap": "its power limit",
    "SwThermalSlowdown": "heat",
    "HwThermalSlowdown": "heat",
    "HwPowerBrakeSlowdown": "the power supply's brake",
    "HwSlowdown": "the hardware's protection (heat or power)",
}
"""NVML's names -> words."""

_CURES = {
    "its power limit": "raise the limit (nvidia-smi -pl) or lock lower clocks (nvidia-smi -lgc), then measure again",
    "heat": "cool the card, or lock lower clocks (nvidia-smi -lgc), then measure again",
}


_HOST_BOUND_SHARE = 0.9
"""Of the computation's latency: from there on queuing, not computing, decides it."""


def find_gpu_cautions(findings: Findings) -> list[str]:
    """Returns the cautions, the most important first; none without a row on a GPU."""
    on_gpu = [row for row in findings.order if row.measured and row.on_gpu]
    return [
        *_about_throttling(on_gpu),
        *_about_others(on_gpu),
        *_about_queuing(on_gpu),
        *_about_settings(on_gpu),
        *_about_emulation(findings),
        *_about_scopes(findings),
    ]


def list_throttle_causes(gpu: CardObservations) -> list[str]:
    """Returns why a card was throttled, in words, each once."""
    return list(dict.fromkeys(_CAUSES.get(name, name) for name in gpu.throttle_reasons))


def _about_throttling(rows: Sequence[Measurement]) -> list[str]:
    """One caution for all rows: on one card they are throttled for one reason."""
    throttled = [(row, row.gpu) for row in rows if row.gpu is not None and row.gpu.flagged]
    if not throttled:
        return []
    shares = join_words([f"{row.title} {len(gpu.flagged)} of {gpu.windows}" for row, gpu in throttled])
    causes = list(dict.fromkeys(cause for _, gpu in throttled for cause in list_throttle_causes(gpu)))
    cure = next((_CURES[cause] for cause in causes if cause in _CURES), "see nvidia-smi -q -d PERFORMANCE")
    because = f" by {join_words(causes)}" if causes else ""
    return [
        f"The GPU was throttled{because} while it was measured (windows: {shares}): the latencies are those of lowered "
        f"clocks. To know the card's own speed, {cure}."
    ]


def _about_others(rows: Sequence[Measurement]) -> list[str]:
    found: dict[int, float | None] = {}
    for row in rows:
        for process in (row.gpu.other_processes or ()) if row.gpu is not None else ():
            sizes = [size for size in (found.get(process.pid), process.used_bytes) if size is not None]
            found[process.pid] = max(sizes, default=None)
    if not found:
        return []
    shown = [f"{pid}{'' if used is None else f' with {format_bytes(used)}'}" for pid, used in sorted(found.items())]
    noun = "Another process was" if len(found) == 1 else "Other processes were"
    return [
        f"{noun} on the GPU meanwhile (process {join_words(shown)}): they share its time, its memory and its energy. "
        "Stop them and measure again."
    ]


def _about_queuing(rows: Sequence[Measurement]) -> list[str]:
    """Names rows whose computation the host cannot queue as fast as the device runs it: the gaps count."""
    bound = [
        row
        for row in rows
        if row.compute_latency_ms is not None
        and row.compute_latency_ms.p50 is not None
        and row.compute_enqueue_ms is not None
        and row.compute_enqueue_ms >= row.compute_latency_ms.p50 * _HOST_BOUND_SHARE
    ]
    if not bound:
        return []
    graph = (
        ""
        if all(row.settings is not None and row.settings.cuda_graph for row in bound)
        else " --cuda-graph queues it in one piece."
    )
    return [
        f"{join_words([row.title for row in bound])} waited for the host: queuing an inference takes the CPU as long "
        f"as the GPU needs for it, so the latency of the computation holds gaps.{graph}"
    ]


def _about_settings(rows: Sequence[Measurement]) -> list[str]:
    """Names rows whose latencies were taken in different ways."""
    cautions = []
    for name, describe in (("CUDA graph", _say_graph), ("waiting", _say_waiting), ("streams", _say_streams)):
        groups: dict[str, list[str]] = {}
        for row in rows:
            said = None if row.settings is None else describe(row.settings)
            if said is not None:
                groups.setdefault(said, []).append(row.title)
        if len(groups) > 1:
            parts = [f"{join_words(titles)} ran {said}" for said, titles in groups.items()]
            cautions.append(
                f"Not measured alike ({name}): {'; '.join(parts)}. Their latencies differ for that reason too."
            )
    return cautions


def _say_graph(settings: RanWith) -> str | None:
    if settings.cuda_graph is None:
        return None
    return "with a CUDA graph" if settings.cuda_graph else "without a CUDA graph"


def _say_waiting(settings: RanWith) -> str | None:
    if settings.spin is None:
        return None
    return "polling for results" if settings.spin else "blocking until they came"


def _say_streams(settings: RanWith) -> str | None:
    return None if settings.streams is None else f"with {count_noun(settings.streams, 'stream')}"


def _about_emulation(findings: Findings) -> list[str]:
    emulated = [row.title for row in findings.comparison.measurements if row.emulated]
    if not emulated:
        return []
    it = "it" if len(emulated) == 1 else "each"
    return [
        f"The quality of {join_words(emulated)} is that of the graph that {it} was built from, evaluated by ONNX "
        "Runtime: no engine was run on the samples. Measure on the GPU that it is for before you ship it."
    ]


def _about_scopes(findings: Findings) -> list[str]:
    """Says that energies of a GPU's board and of a CPU are no ranking."""
    comparison = findings.comparison
    if len(comparison.energy_scopes) < 2:
        return []
    parts = []
    for scope in comparison.energy_scopes:
        rows = [row for row in comparison.measured if row.energy_j is not None and row.energy_scope == scope]
        parts.append(f"the {scope or 'machine'} for {join_words([row.title for row in rows])}")
    return [
        f"Energy and carbon are of {join_words(parts)}: each leaves out what the other counts, so compare them within "
        "one of these groups only."
    ]
