"""The comparison, assembled from manifests, windows and meters.

A number that was not measured is None, with the reason beside it under `unavailable`.
"""

from __future__ import annotations

import datetime as dt
import platform
import statistics
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError
from modelwright.core.faults import as_error
from modelwright.core.files import render_json
from modelwright.core.records.artifact import Artifact
from modelwright.core.records.codec import encode
from modelwright.harness.meters.energy import Energy, estimate_carbon
from modelwright.harness.meters.host_energy import describe_measured
from modelwright.harness.meters.power_model import estimate_energy
from modelwright.harness.results.device_figures import describe_computation
from modelwright.harness.results.kept import renew_row
from modelwright.harness.results.quality import describe_proof, describe_quality, doubt_arithmetic, quality_fields
from modelwright.harness.results.record import (
    SCHEMA,
    Comparison,
    Environment,
    Executed,
    Measurement,
    Memory,
    Samples,
    Settings,
    Source,
    Variant,
    tell_devices_apart,
)
from modelwright.harness.results.statistics import (
    SpeedRatio,
    count_effective,
    estimate_ratio,
    round_log_ratios,
    summarize_latencies,
)
from modelwright.harness.run.interleave import Window
from modelwright.harness.run.measure_artifacts import Measured, Measurements
from modelwright.harness.run.runner import MeasureSettings
from modelwright.profiles.grid import GridRegion
from modelwright.profiles.power import power_on
from modelwright.profiles.schema import Profile
from modelwright.targets.building.limits import OverLimitError
from modelwright.targets.readiness import find_distributions, package_versions
from modelwright.targets.table import get_target, target_names


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
        variant: The model that it would be of, where several are compared.
        status: `skipped` when it cannot be built here, `failed` when it should have been.
        error: Why.
    """

    target: str
    status: Literal["skipped", "failed"]
    error: ModelwrightError
    variant: str | None = None

    @property
    def name(self) -> str:
        """Of its row."""
        return name_row(self.variant, self.target)


def assemble_comparison(
    context: Context,
    *,
    source: Source,
    samples: Samples,
    artifacts: Mapping[str, Artifact],
    reused: Mapping[str, bool],
    measurements: Measurements | Comparison,
    absent: Sequence[Absent],
    warnings: Sequence[str] = (),
    variants: Sequence[Variant] = (),
) -> Comparison:
    """Returns the comparison, not yet judged.

    Args:
        context: What all rows share.
        source: The model; of several, the first.
        samples: That calibrated and judged.
        artifacts: By the names of their rows.
        reused: Which of them were there from an earlier run.
        measurements: Of this run; or an earlier comparison of the same artifacts, whose figures are taken.
        absent: What could not be built.
        warnings: What was noticed on the way.
        variants: The models, where there are several.
    """
    kept = measurements if isinstance(measurements, Comparison) else None
    rows = [
        _describe_safely(context, name, artifacts[name], measurements, reused=reused.get(name, False))
        for name in artifacts
    ]
    rows += [
        replace(
            _add_figures(_describe_absent(item.name, item.target, item.status, item.error), item), variant=item.variant
        )
        for item in absent
    ]
    effort = context.settings.effort
    return Comparison(
        schema=SCHEMA,
        run_id=kept.run_id if kept else uuid.uuid4().hex[:12],
        timestamp=kept.timestamp if kept else dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        source=source,
        samples=samples,
        environment=describe_environment(context.host),
        profile=context.profile.name,
        baseline=context.baseline,
        effort=effort.name,
        settings=Settings(
            threads=context.settings.threads or 1,
            batch=context.settings.batch,
            seed=context.settings.seed,
            device=context.settings.device,
            cuda_graph=context.settings.cuda_graph,
            spin=context.settings.spin,
            streams=context.settings.streams,
            effort=effort.name,
            launches=effort.launches,
            rounds=effort.total_rounds,
            window_s=effort.window_s,
        ),
        warnings=tuple(warnings),
        measurements=tell_devices_apart([_add_variant(row, variants) for row in rows]),
        variants=tuple(variants),
    )


def name_row(variant: str | None, target: str) -> str:
    """Returns the name of a target's row, of one of several models or of the only one."""
    return target if variant is None else f"{variant}/{target}"


def _add_variant(row: Measurement, variants: Sequence[Variant]) -> Measurement:
    """Says which model a row is of."""
    variant = next((each for each in variants if row.target.startswith(f"{each.name}/")), None)
    if variant is None:  # the only model's, or of one that could not be prepared
        return row if row.variant is None else replace(row, title=f"{row.title} of {row.variant}")
    return replace(
        row,
        title=f"{row.title} of {variant.name}",
        variant=variant.name,
        num_parameters=variant.source.num_parameters,
        macs=variant.macs,
    )


def describe_environment(host: Profile) -> Environment:
    """Returns what the machine is and what is installed on it."""
    records = [get_target(name).record for name in target_names()]
    imports = [name for record in records for name in (*record.build_packages, *record.run_packages)]
    return Environment(
        device=f"{host.board or host.cpu_model or host.architecture}, {host.cores} cores",
        cpu_model=host.cpu_model,
        architecture=host.architecture,
        cores=host.cores,
        memory_bytes=host.memory_bytes,
        instruction_sets=tuple(sorted(host.machine().instruction_sets)),
        accelerators=host.accelerators,
        virtual_machine=host.virtual_machine,
        meters=tuple(host.meters),
        meters_denied=tuple(host.meters_denied),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=package_versions("modelwright", "numpy", *find_distributions(imports)),
    )


def _describe_absent(
    name: str, target: str, status: Literal["skipped", "failed"], error: ModelwrightError
) -> Measurement:
    """Returns the row of what has no figures, and why; an artifact's target may be one that this version lacks."""
    record = get_target(target).record if target in target_names() else None
    runtime, _, precision = target.partition("-")
    return Measurement(
        target=name,
        title=record.title if record else target,
        runtime=record.runtime if record else runtime,
        precision=record.precision if record else precision,
        is_float=record is not None and record.is_float,
        status=status,
        reason=error.message,
        hint=error.hint,
        detail=error.detail,
        exit_code=error.exit_code,
    )


def _add_figures(row: Measurement, absent: Absent) -> Measurement:
    """Returns the row of an artifact that loses too much with what was found of its quality."""
    if not isinstance(absent.error, OverLimitError):
        return row
    proof = absent.error.proof
    quality = describe_proof(proof)
    return replace(
        row,
        **quality_fields(quality),
        chain=proof.chain,
        device=proof.device,
        unavailable=dict(quality.reasons),
    )


def _describe_safely(
    context: Context, name: str, artifact: Artifact, measurements: Measurements | Comparison, *, reused: bool
) -> Measurement:
    """Returns the row of an artifact; one with the reason where its figures cannot be derived or written."""
    try:
        if isinstance(measurements, Comparison):
            known = measurements.find(name)
            assert known is not None
            row = renew_row(known, artifact, context.region, reused=reused)
        else:
            row = _describe_row(context, name, artifact, measurements, reused=reused)
        render_json(encode(row))
    except Exception as error:
        return _describe_absent(name, artifact.manifest.target, "failed", as_error(error, f"describing {name}"))
    return row


def _describe_row(
    context: Context, name: str, artifact: Artifact, measurements: Measurements, *, reused: bool
) -> Measurement:
    measured = measurements.by_name[name]
    manifest = artifact.manifest
    if measured.failure is not None or measured.opened is None:
        failure = measured.failure or MeasurementInvalidError("it was not loaded")
        return _describe_absent(name, manifest.target, "failed", failure)
    record, opened, finished = get_target(manifest.target).record, measured.opened, measured.finished
    windows_ms = [window.latencies_ms for _, window in sorted(measured.windows.items())]
    latency_ms, reasons = summarize_latencies(windows_ms)
    unavailable = {f"latency_ms.{key}": reason for key, reason in reasons.items()}
    count = sum(len(window) for window in windows_ms)
    measured_s = sum(sum(window) for window in windows_ms) / 1e3
    if finished is not None and finished.peak_memory_bytes is None:
        unavailable["peak_memory_bytes"] = "this system has no /proc, which tells it"
    energy = _describe_energy(context, measured, measurements, latency_ms.mean)
    if energy.per_inference_j is None:
        unavailable["energy"] = str(energy.reason)
    else:
        energy = replace(energy, total_j=energy.per_inference_j * count)
    quality = describe_quality(artifact, measured)
    unavailable |= quality.reasons
    if measured.no_operators is not None:
        unavailable["operators"] = measured.no_operators
    launches = {index: window.launch for index, window in sorted(measured.windows.items())}
    ratios = round_log_ratios(_by_round(measurements.by_name.get(context.baseline)), _by_round(measured))
    speedup = SpeedRatio(ratio=1.0, ci95=(1.0, 1.0)) if name == context.baseline else estimate_ratio(ratios, launches)
    if speedup is None:
        unavailable["speedup"] = _explain_no_speedup(context.baseline, name, measurements)
    on_device = describe_computation(name, measured, context.baseline, measurements.by_name.get(context.baseline))
    unavailable |= on_device.reasons
    return Measurement(
        target=name,
        title=record.title,
        runtime=record.runtime,
        precision=record.precision,
        is_float=record.is_float,
        status="measured",
        size_bytes=manifest.size_bytes,
        build_s=manifest.build_s,
        reused=reused,
        import_ms=opened.import_ms,
        load_ms=opened.load_ms,
        first_inference_ms=opened.first_inference_ms,
        latency_ms=latency_ms,
        num_inferences=count,
        warm_up_inferences=sum(window.inferences for window in measured.windows.values()) - count,
        effective_inferences=round(count_effective(windows_ms), 1),
        throughput_per_s=(
            # Requests in flight share the time that each of them measured.
            count * context.settings.batch * opened.settings.requests / measured_s if measured_s > 0 else None
        ),
        peak_memory_bytes=finished.peak_memory_bytes if finished else None,
        memory=_describe_memory(opened.runtime_bytes, finished.steady_memory_bytes if finished else None),
        **quality_fields(quality),
        chain=None if manifest.proof is None else manifest.proof.chain,
        energy=energy,
        carbon=estimate_carbon(energy, context.region),
        speedup=speedup,
        device=opened.settings.device,
        compute_latency_ms=on_device.latency_ms,
        num_computations=on_device.count,
        warm_up_computations=on_device.warm_ups,
        compute_throughput_per_s=on_device.throughput_per_s,
        compute_enqueue_ms=on_device.enqueue_ms,
        compute_speedup=on_device.speedup,
        gpu_memory_bytes=on_device.memory_bytes,
        device_memory=finished.device_memory if finished else None,
        gpu=on_device.gpu,
        round_log_ratios=tuple(ratios.values()),
        rounds=tuple(launches),
        launches=tuple(launches.values()),
        window_median_ms=tuple(statistics.median(window) for window in windows_ms),
        compute_window_median_ms=tuple(statistics.median(window.compute_latencies_ms) for window in _ordered(measured)),
        precision_executed=(finished.precision_executed if finished else Executed()).profiled(measured.operators),
        operators=measured.operators,
        settings=opened.settings,
        recipe=dict(manifest.recipe),
        notes=(*manifest.notes, *doubt_arithmetic(manifest)),
        unavailable=unavailable,
    )


def _explain_no_speedup(baseline: str, name: str, measurements: Measurements) -> str:
    measured = measurements.by_name.get(baseline)
    if measured is None or not measured.windows:
        return f"the baseline {baseline} was not measured"
    return f"{baseline} and {name} share fewer than 5 rounds of a launch"


def _by_round(measured: Measured | None) -> dict[int, Sequence[float]]:
    if measured is None:
        return {}
    return {index: window.latencies_ms for index, window in measured.windows.items()}


def _ordered(measured: Measured) -> list[Window]:
    """Returns the windows that hold computations alone, by round."""
    return [window for _, window in sorted(measured.windows.items()) if window.compute_latencies_ms]


def _describe_memory(runtime_bytes: int | None, steady_bytes: int | None) -> Memory:
    """Tells the runtime's own share from what the model adds to it."""
    model_bytes = None
    if runtime_bytes is not None and steady_bytes is not None:
        model_bytes = max(0, steady_bytes - runtime_bytes)
    return Memory(runtime_bytes=runtime_bytes, steady_bytes=steady_bytes, model_bytes=model_bytes)


def _describe_energy(context: Context, measured: Measured, measurements: Measurements, mean_ms: float | None) -> Energy:
    if measured.on_gpu is not None and measured.on_gpu.energy.per_inference_j is not None:
        return measured.on_gpu.energy
    device = "cpu" if measured.opened is None else measured.opened.settings.device
    meter = measurements.meter
    if meter is not None and device == "cpu":
        metered = [window for window in measured.windows.values() if window.energy_j is not None]
        return describe_measured(
            meter,
            sum(window.energy_j or 0.0 for window in metered),
            sum(window.inferences for window in metered),
            sum(window.elapsed_s for window in metered),
            measurements.idle_power_w,
            [power for window in metered for power in window.power],
        )
    cores = (context.host if context.profile.is_class else context.profile).cores
    ran = None if measured.opened is None else measured.opened.settings
    threads = 1 if ran is None else (ran.threads or 1) * ran.requests
    estimate = estimate_energy(
        power_on(context.profile, context.host),
        mean_ms,
        context.profile,
        device,
        threads=threads,
        cores=cores,
    )
    if measured.on_gpu is not None and estimate.per_inference_j is None:
        return measured.on_gpu.energy  # why the card could not be metered says more
    return estimate
