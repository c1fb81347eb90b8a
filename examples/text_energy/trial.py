"""A trial: one artifact at one batch, measured once; a JSON file, and a row of the table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec.structs import fields, replace

from modelwright.core.files import write_json, write_text
from modelwright.core.records.codec import Count, Record, Share, encode, read_record
from modelwright.harness.formatting import format_number
from modelwright.harness.kinds import Figure
from modelwright.harness.results.record import Comparison, Measurement

HINT = "remove it, and the trial is run again"
_MJ_PER_J = 1000.0
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class Trial(Record, kw_only=True):
    """What one trial found; null is what was not measured, and `unavailable` says why.

    Attributes:
        model: Name of its folder.
        device: `cpu` or `cuda`.
        target: Runtime and precision.
        batch: Texts an inference; null for a target that no trial could be made of, as `trial`.
        trial: Counted from 1.
        status: `skipped` where the machine or the model lacks what the target needs, `failed` where it went wrong.
        dtype: What it really computed in, for most of the time.
        parameters: Of the model.
        size_bytes: Of the artifact's files.
        correct: Right answers on the test's texts.
        latency_of: `inference`, from the bound inputs to readable outputs; on a GPU `computation`, inputs and outputs
            staying there.
        warm_up_steps: Inferences before the measured ones.
        throughput_per_s: Texts a second.
        sampling_interval_s: Of a sample of the power, which is a mean.
        energy_total_j: Of all measured inferences, by a meter.
        energy_per_text_j: Of one text of a batch.
        energy_source: Which meter.
        energy_scope: What it covers.
        estimated_energy_per_inference_j: By the power that a profile names, where there is no meter.
        estimated_by: Where that power comes from.
        memory_of: Whose the three figures are: the process's, or those of the runtime's allocator on the GPU.
        memory_allocated_bytes: After the last turn; of a process what only it needs.
        memory_peak_bytes: The most; of a process, its largest resident set.
        memory_reserved_bytes: Taken from the driver by the allocator.
        measured: When, ISO 8601, UTC.
        machine: That it was measured on.
        versions: Of the packages there.
    """

    schema: Literal[1] = 1
    model: str
    device: str
    target: str
    runtime: str
    precision: str
    batch: Count | None = None
    trial: Count | None = None
    status: Literal["measured", "skipped", "failed"]
    reason: str | None = None
    dtype: str | None = None
    parameters: Count | None = None
    size_bytes: Count | None = None
    threads: Count | None = None
    accuracy: Share | None = None
    correct: Count | None = None
    evaluated: Count | None = None
    latency_of: Literal["inference", "computation"] | None = None
    latency_mean_ms: Figure | None = None
    latency_std_ms: Figure | None = None
    latency_min_ms: Figure | None = None
    latency_median_ms: Figure | None = None
    latency_max_ms: Figure | None = None
    inferences: Count | None = None
    warm_up_steps: Count | None = None
    throughput_per_s: Figure | None = None
    power_mean_w: Figure | None = None
    power_std_w: Figure | None = None
    power_min_w: Figure | None = None
    power_median_w: Figure | None = None
    power_max_w: Figure | None = None
    power_samples: Count | None = None
    sampling_interval_s: Figure | None = None
    energy_total_j: Figure | None = None
    energy_per_inference_j: Figure | None = None
    energy_per_inference_mj: Figure | None = None
    energy_per_text_j: Figure | None = None
    inferences_per_j: Figure | None = None
    energy_source: str | None = None
    energy_scope: str | None = None
    estimated_energy_per_inference_j: Figure | None = None
    estimated_by: str | None = None
    memory_of: Literal["process", "allocator"] | None = None
    memory_allocated_bytes: Count | None = None
    memory_peak_bytes: Count | None = None
    memory_reserved_bytes: Count | None = None
    measured: str | None = None
    machine: str | None = None
    versions: dict[str, str] | None = None
    unavailable: dict[str, str] | None = None

    @property
    def file_name(self) -> str:
        """In the folder of trials; unique in a study."""
        place = "" if self.trial is None else f"-batch{self.batch}-trial{self.trial}"
        return f"{self.device}-{self.target}{place}.json"


TABLE = tuple(field.name for field in fields(Trial) if field.name not in ("schema", "versions", "unavailable"))
"""Columns of the table: all that is one number or one text."""


def describe_trial(row: Measurement, comparison: Comparison, *, model: str, device: str, trial: int) -> Trial:
    """Returns the trial of a row of the harness.

    Args:
        row: Of one artifact.
        comparison: That it stands in.
        model: Name of the model's folder.
        device: That was asked for.
        trial: Counted from 1.
    """
    batch = comparison.settings.batch
    known = Trial(
        model=model, device=device, target=row.target, runtime=row.runtime, precision=row.precision, batch=batch,
        trial=trial, status=row.status, reason=row.reason, measured=comparison.timestamp,
        machine=comparison.environment.device, versions=comparison.environment.versions,
        threads=comparison.settings.threads, parameters=comparison.source.num_parameters,
    )  # fmt: skip
    if not row.measured:
        return known
    on_device = row.compute_latency_ms is not None
    latency = row.compute_latency_ms if on_device else row.latency_ms
    unavailable = dict(row.unavailable)
    energy = row.energy if row.energy is not None and not row.energy_estimated else None
    each_j = None if energy is None else energy.per_inference_j
    if each_j is None:
        unavailable["energy"] = _explain_no_meter(row, comparison)
    power = None if energy is None else energy.power
    allocator = row.device_memory
    if allocator is None:
        unavailable["memory_reserved_bytes"] = "a process on the CPU has no allocator that reserves memory for it"
    inferences = row.num_computations if on_device else row.num_inferences
    return replace(
        known,
        dtype=row.executed,
        size_bytes=row.size_bytes,
        accuracy=row.accuracy,
        correct=row.correct,
        evaluated=row.evaluated,
        latency_of="computation" if on_device else "inference",
        latency_mean_ms=None if latency is None else latency.mean,
        latency_std_ms=None if latency is None else latency.std,
        latency_min_ms=None if latency is None else latency.min,
        latency_median_ms=None if latency is None else latency.p50,
        latency_max_ms=None if latency is None else latency.max,
        inferences=inferences,
        warm_up_steps=row.warm_up_computations if on_device else row.warm_up_inferences,
        throughput_per_s=row.compute_throughput_per_s if on_device else row.throughput_per_s,
        power_mean_w=None if energy is None else energy.mean_power_w,
        power_std_w=None if power is None else power.std_w,
        power_min_w=None if power is None else power.min_w,
        power_median_w=None if power is None else power.median_w,
        power_max_w=None if power is None else power.max_w,
        power_samples=None if power is None else power.count,
        sampling_interval_s=None if power is None else power.interval_s,
        energy_total_j=None if each_j is None or inferences is None else each_j * inferences,
        energy_per_inference_j=each_j,
        energy_per_inference_mj=None if each_j is None else each_j * _MJ_PER_J,
        energy_per_text_j=None if each_j is None else each_j / batch,
        inferences_per_j=1 / each_j if each_j else None,
        energy_source=None if energy is None else energy.source,
        energy_scope=None if energy is None else energy.scope,
        estimated_energy_per_inference_j=row.energy_j if row.energy_estimated else None,
        estimated_by=row.energy.model if row.energy is not None and row.energy_estimated else None,
        memory_of="process" if allocator is None else "allocator",
        memory_allocated_bytes=_read_steady(row) if allocator is None else allocator.allocated_bytes,
        memory_peak_bytes=row.peak_memory_bytes if allocator is None else allocator.peak_bytes,
        memory_reserved_bytes=None if allocator is None else allocator.reserved_bytes,
        unavailable=unavailable,
    )


def _read_steady(row: Measurement) -> int | None:
    return None if row.memory is None else row.memory.steady_bytes


def _explain_no_meter(row: Measurement, comparison: Comparison) -> str:
    if row.energy is not None and row.energy.reason is not None:
        return row.energy.reason
    denied = comparison.environment.meters_denied
    return f"this machine has no meter that can be read{f' ({denied[0]})' if denied else ''}"


def write_trial(folder: Path, trial: Trial) -> None:
    """Writes a trial's file.

    Args:
        folder: Of trials.
        trial: What was found.
    """
    write_json(folder / trial.file_name, encode(trial))


def read_trials(folder: Path) -> list[Trial]:
    """Returns the trials of a folder, in the order of their files.

    Args:
        folder: That may not be there.

    Raises:
        BadInputError: A file is no trial.
    """
    return [read_record(Trial, path, what="a trial", hint=HINT) for path in sorted(folder.glob("*.json"))]


def write_table(path: Path, trials: Sequence[Trial]) -> None:
    """Writes the table of trials, a row each; what was not measured is an empty cell.

    Args:
        path: Of the CSV file.
        trials: In their order.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TABLE)
    for trial in trials:
        writer.writerow([_show(getattr(trial, name)) for name in TABLE])
    write_text(path, text.getvalue())


def _show(value: object) -> object:
    """Returns a cell that a spreadsheet will not run as a formula."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA_STARTS) else value
    return "" if value is None else format_number(value) if isinstance(value, float) else value
