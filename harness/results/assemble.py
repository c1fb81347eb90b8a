"""The results document: what `results.json` holds, assembled from manifests, windows and meters.

A number that was not measured is None, with the reason beside it under `unavailable`.
"""

from __future__ import annotations

import datetime as dt
import platform
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.core.errors import ModelwrightError
from modelwright.core.records.artifact import Artifact
from modelwright.core.records.codec import encode
from modelwright.harness.meters.host_energy import describe_measured
from modelwright.harness.meters.power_model import estimate_carbon, estimate_energy
from modelwright.harness.results.device_figures import describe_computation
from modelwright.harness.results.statistics import (
    count_effective,
    estimate_ratio,
    round_log_ratios,
    summarize_latencies,
    wilson_interval,
)
from modelwright.harness.run.interleave import Window
from modelwright.harness.run.measure_artifacts import Measured, Measurements
from modelwright.harness.run.runner import MeasureSettings
from modelwright.profiles.grid import GridRegion
from modelwright.profiles.power import power_on
from modelwright.profiles.schema import Profile
from modelwright.targets.readiness import find_distributions, package_versions
from modelwright.targets.table import get_target, target_names

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Context:
    """What all rows of a document share.

    Attributes:
        settings: How it was measured.
        profile: The machine the numbers are for.
        host: The machine they were taken on.
        region: Of the grid, for carbon.
        baseline: The name of the row that speed-ups are over.
    """

    settings: MeasureSettings
    profile: Profile
    host: Profile
    region: GridRegion
    baseline: str


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A target without an artifact.

    Attributes:
        target: Its name.
        status: `skipped` when it cannot be built here, `failed` when it should have been.
        error: Why.
    """

    target: str
    status: str
    error: ModelwrightError


def assemble_document(
    context: Context,
    *,
    source: Mapping[str, Any],
    samples: Mapping[str, Any],
    artifacts: Mapping[str, Artifact],
    reused: Mapping[str, bool],
    measurements: Measurements,
    absent: Sequence[Absent],
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns the document; JSON values only, no NaN."""
    rows = [
        _measured_row(context, name, artifacts[name], measurements, reused=reused.get(name, False))
        for name in artifacts
    ]
    rows += [_absent_row(item) for item in absent]
    return {
        "schema": SCHEMA,
        "run_id": uuid.uuid4().hex[:12],
        "timestamp": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "source": dict(source),
        "samples": dict(samples),
        "environment": describe_environment(context.host),
        "profile": context.profile.name,
        "baseline": context.baseline,
        "effort": context.settings.effort.name,
        "settings": context.settings.to_dict(),
        "warnings": list(warnings),
        "measurements": rows,
    }


def describe_environment(host: Profile) -> dict[str, Any]:
    """Returns what the machine is and what is installed on it."""
    records = [get_target(name).record for name in target_names()]
    imports = [name for record in records for name in (*record.build_packages, *record.run_packages)]
    versions = package_versions("modelwright", "numpy", *find_distributions(imports))
    return {
        "device": f"{host.board or host.cpu_model or host.architecture}, {host.cores} cores",
        "cpu_model": host.cpu_model,
        "architecture": host.architecture,
        "cores": host.cores,
        "memory_bytes": host.memory_bytes,
        "instruction_sets": sorted(host.machine().instruction_sets),
        "accelerators": encode(host.accelerators),
        "virtual_machine": host.virtual_machine,
        "meters": list(host.meters),
        "meters_denied": list(host.meters_denied),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def _head(target_name: str) -> dict[str, Any]:
    record = get_target(target_name).record
    return {
        "target": target_name,
        "title": record.title,
        "runtime": record.runtime,
        "precision": record.precision,
        "is_float": record.is_float,
    }


def _absent_row(absent: Absent) -> dict[str, Any]:
    return {
        **_head(absent.target),
        "status": absent.status,
        "reason": absent.error.message,
        "hint": absent.error.hint,
        "detail": absent.error.detail,
        "exit_code": absent.error.exit_code,
    }


def _measured_row(
    context: Context, name: str, artifact: Artifact, measurements: Measurements, *, reused: bool
) -> dict[str, Any]:
    measured = measurements.by_name[name]
    manifest = artifact.manifest
    head = {**_head(manifest.target), "target": name}
    if measured.failure is not None or measured.opened is None:
        error = measured.failure
        return {
            **head,
            "status": "failed",
            "reason": error.message if error else "it was not loaded",
            "hint": error.hint if error else None,
            "detail": error.detail if error else None,
            "exit_code": error.exit_code if error else 6,
        }
    windows_ms = [window.latencies_ms for _, window in sorted(measured.windows.items())]
    latency_ms, unavailable = summarize_latencies(windows_ms)
    unavailable = {f"latency_ms.{key}": reason for key, reason in unavailable.items()}
    count = sum(len(window) for window in windows_ms)
    measured_s = sum(sum(window) for window in windows_ms) / 1e3
    batch = context.settings.batch
    finished = measured.finished or {}
    if finished and finished["peak_memory_bytes"] is None:
        unavailable["peak_memory_bytes"] = "this system has no /proc, which tells it"
    energy = _describe_energy(context, measured, measurements, latency_ms["mean"])
    if energy["per_inference_j"] is not None:
        energy["total_j"] = energy["per_inference_j"] * count
    else:
        energy["total_j"] = None
        unavailable["energy"] = str(energy["reason"])
    quality, quality_reasons = _describe_quality(artifact, measured)
    unavailable |= quality_reasons
    ratios = round_log_ratios(_by_round(measurements.by_name.get(context.baseline)), _by_round(measured))
    speedup = {"ratio": 1.0, "ci95": [1.0, 1.0]} if name == context.baseline else estimate_ratio(ratios)
    if speedup is None:
        unavailable["speedup"] = _explain_no_speedup(context.baseline, name, measurements)
    on_device, device_reasons = describe_computation(
        name, measured, context.baseline, measurements.by_name.get(context.baseline)
    )
    unavailable |= device_reasons
    return {
        **head,
        "status": "measured",
        "reason": None,
        "hint": None,
        "size_bytes": manifest.size_bytes,
        "build_s": manifest.build_s,
        "reused": reused,
        "import_ms": measured.opened["import_ms"],
        "load_ms": measured.opened["load_ms"],
        "first_inference_ms": measured.opened["first_inference_ms"],
        "latency_ms": latency_ms,
        "num_inferences": count,
        "effective_inferences": round(count_effective(windows_ms), 1),
        "throughput_per_s": count * batch / measured_s if measured_s > 0 else None,
        "peak_memory_bytes": finished.get("peak_memory_bytes"),
        "memory": _describe_memory(measured.opened, finished),
        **quality,
        "energy": energy,
        "carbon": estimate_carbon(energy, context.region),
        "speedup": speedup,
        **on_device,
        "round_log_ratios": [float(value) for value in ratios],
        "rounds": sorted(measured.windows),
        "window_median_ms": [_median(window) for window in windows_ms],
        "compute_window_median_ms": [_median(window.compute_latencies_ms) for window in _ordered(measured)],
        "precision_executed": finished.get("precision_executed") or {},
        "settings": dict(measured.opened["settings"]),
        "recipe": dict(manifest.recipe),
        "notes": list(manifest.notes),
        "unavailable": unavailable,
    }


def _explain_no_speedup(baseline: str, name: str, measurements: Measurements) -> str:
    measured = measurements.by_name.get(baseline)
    if measured is None or not measured.windows:
        return f"the baseline {baseline} was not measured"
    return f"{baseline} and {name} share fewer than 5 rounds"


def _by_round(measured: Measured | None) -> dict[int, Sequence[float]]:
    if measured is None:
        return {}
    return {index: window.latencies_ms for index, window in measured.windows.items()}


def _ordered(measured: Measured) -> list[Window]:
    """Returns the windows that hold computations alone, by round."""
    return [window for _, window in sorted(measured.windows.items()) if window.compute_latencies_ms]


def _median(window: Sequence[float]) -> float:
    ordered = sorted(window)
    return ordered[len(ordered) // 2]


def _describe_memory(opened: Mapping[str, Any], finished: Mapping[str, Any]) -> dict[str, Any]:
    """Tells the runtime's own share from what the model adds to it."""
    runtime_bytes, steady_bytes = opened.get("runtime_bytes"), finished.get("steady_memory_bytes")
    model_bytes = None
    if runtime_bytes is not None and steady_bytes is not None:
        model_bytes = max(0, steady_bytes - runtime_bytes)
    return {"runtime_bytes": runtime_bytes, "steady_bytes": steady_bytes, "model_bytes": model_bytes}


def _describe_energy(
    context: Context, measured: Measured, measurements: Measurements, mean_ms: float | None
) -> dict[str, Any]:
    if measured.on_gpu is not None and measured.on_gpu.energy["per_inference_j"] is not None:
        return dict(measured.on_gpu.energy)
    device = "cpu" if measured.opened is None else measured.opened["settings"].get("device", "cpu")
    meter = measurements.meter
    if meter is not None and device == "cpu":
        metered = [window for window in measured.windows.values() if window.energy_j is not None]
        return describe_measured(
            meter,
            sum(window.energy_j or 0.0 for window in metered),
            sum(window.inferences for window in metered),
            sum(window.elapsed_s for window in metered),
            measurements.idle_power_w,
        )
    estimate = estimate_energy(power_on(context.profile, context.host), mean_ms, context.profile, device)
    if measured.on_gpu is not None and estimate["per_inference_j"] is None:
        return dict(measured.on_gpu.energy)  # why the card could not be metered says more
    return estimate


def _describe_quality(artifact: Artifact, measured: Measured) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns accuracy, agreement and cosine, from the proof in the manifest or from the one just taken."""
    reasons: dict[str, str] = {}
    proof = artifact.manifest.proof
    if measured.proof is not None:
        proof = _merge_proofs(measured.proof)
    if proof is None:
        reason = artifact.manifest.proof_reason or "the artifact was not compared with FP32"
        reasons |= dict.fromkeys(("accuracy", "agreement", "cosine"), reason)
        return {
            "accuracy": None,
            "accuracy_ci95": None,
            "agreement": None,
            "cosine": None,
            "fidelity": None,
            "emulated": False,
        }, reasons
    fidelity = proof["fidelity"] or {}
    correct, count = proof["correct"], proof.get("labelled_count") or proof["count"]
    if correct is None:
        reasons["accuracy"] = "the samples have no labels"
    if fidelity.get("agreement") is None:
        reasons["agreement"] = fidelity.get("agreement_reason") or "no output reads as class scores"
    return {
        "accuracy": None if correct is None else correct / count,
        "accuracy_ci95": None if correct is None else wilson_interval(correct, count),
        "accuracy_fp32": None if proof.get("correct_fp32") is None else proof["correct_fp32"] / count,
        "evaluated": count,
        "agreement": fidelity.get("agreement"),
        "cosine": fidelity.get("cosine"),
        "fidelity": fidelity,
        "emulated": bool(proof.get("emulated")),
    }, reasons


def _merge_proofs(taken: Mapping[str, Any]) -> dict[str, Any]:
    packed, counted = taken.get("packed"), taken.get("counted")
    return {
        "fidelity": None if packed is None else packed["fidelity"],
        "count": 0 if packed is None else packed["count"],
        "correct": None if counted is None else counted["correct"],
        "labelled_count": None if counted is None else counted["count"],
    }
