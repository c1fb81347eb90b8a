"""Builds artifacts: what is the same for all targets.

A build runs in a child process, into a staging folder. Another child then loads what came out, runs it on the
evaluation samples one after the other and compares it with FP32; only an artifact that follows FP32 gets a manifest
and its final name. An artifact whose inputs have not changed is not built again.
"""

from __future__ import annotations

import datetime as dt
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.artifact import (
    MANIFEST,
    REFERENCE,
    Artifact,
    Manifest,
    hash_files,
    measure_size,
    open_artifact,
    verify_files,
    write_manifest,
)
from modelwright.core.child import Progress, run_in_child
from modelwright.core.errors import BadInputError, BuildFailedError, ModelwrightError, ToolchainMissingError
from modelwright.core.exported import ExportedModel
from modelwright.core.fidelity import Fidelity, FidelityMeter, count_correct, explain_divergence
from modelwright.core.files import hash_json, scratch_directory, staged_directory
from modelwright.core.machine import Machine
from modelwright.core.reference import read_reference
from modelwright.core.samples import SampleRef, SampleSet, open_samples
from modelwright.core.signature import Signature
from modelwright.targets.base import BuildRequest, Readiness, RunSettings, Target, package_versions
from modelwright.targets.evidence import Evidence
from modelwright.targets.table import get_target

BUILD_TIMEOUT_S = 3600.0
PROOF_TIMEOUT_S = 1800.0
REFERENCE_SAMPLES = 16
"""Samples packed with an artifact, so that a device can prove it without the FP32 model."""
REFERENCE_BYTES = 4 * 2**20


def build(
    target_name: str,
    exported: ExportedModel,
    evidence: Evidence,
    directory: Path,
    *,
    machine: Machine,
    host: Machine,
    threads: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Artifact, bool]:
    """Builds one artifact, or finds that the one in `directory` is still right.

    Args:
        target_name: As in the table of targets.
        exported: The verified FP32 model.
        evidence: The samples and FP32's outputs on them.
        directory: The artifact's folder.
        machine: The machine it is for.
        host: This machine; the artifact is proved here when it can run here.
        threads: That it is proved with; runtimes fuse differently by their number.
        overwrite: Replace an artifact that was built from other inputs.
        progress: Takes a line about what is going on.

    Returns:
        The artifact, and whether it was reused.

    Raises:
        ToolchainMissingError: This host cannot build the target.
        BadInputError: The folder exists and is not this artifact; or there are too few samples.
        BuildFailedError: The toolchain failed, crashed, or its result does not follow FP32.
    """
    target = get_target(target_name)
    report = progress or (lambda _text: None)
    _require(target_name, target.check_build(machine))
    if target.record.needs_calibration and evidence.calibration is None:
        raise BadInputError(
            f"{target_name} needs samples to calibrate on besides those that judge it; the file holds too few",
            hint="give at least 2 samples (100 or more are better), or other ones to judge with --eval",
        )
    key = _artifact_key(target, exported, evidence, machine)
    if directory.exists():
        reusable = _find_reusable(directory, key)
        if reusable is not None:
            return _prove_again(reusable, target, exported, evidence, host, threads, report), True
        if not overwrite:
            raise BadInputError(
                f"{directory} exists and was not built from these inputs",
                hint="choose another --out, or add --overwrite",
            )
    with staged_directory(directory) as staging:
        started = time.monotonic()
        built = _build_in_staging(target, exported, evidence, machine, staging, report)
        build_s = time.monotonic() - started
        proof, reason = _prove(target, built, staging, exported, evidence, host, threads, report)
        _pack_reference(staging / REFERENCE, exported.signature, evidence)
        size_bytes = measure_size(staging)
        write_manifest(
            staging,
            Manifest(
                target=target_name,
                model_file=built["model_file"],
                files=hash_files(staging),
                size_bytes=size_bytes,
                signature=exported.signature,
                source=exported.describe_source(),
                samples=dict(evidence.described) | {"random": evidence.random},
                machine=machine.to_dict(),
                requires=built["requires"],
                recipe=built["recipe"],
                versions=built["versions"] | package_versions("modelwright"),
                build_host={
                    "architecture": host.architecture,
                    "system": f"{platform.system()} {platform.release()}",
                    "python": platform.python_version(),
                },
                build_s=round(build_s, 3),
                proof=proof,
                proof_reason=reason,
                notes=built["notes"],
                key=key,
                created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            ),
        )
    return open_artifact(directory), False


def _require(target_name: str, readiness: Readiness) -> None:
    if not readiness.ok:
        raise ToolchainMissingError(f"{target_name} cannot be built here: {readiness.reason}", hint=readiness.hint)


def _artifact_key(target: Target, exported: ExportedModel, evidence: Evidence, machine: Machine) -> str:
    """Hashes all that decides an artifact's files."""
    record = target.record
    distributions = [name.split("|")[0].replace("_", "-") for name in record.build_packages]
    samples = {}
    if record.uses_samples:
        samples = {part: (evidence.described[part] or {}).get("sha256") for part in ("calibration", "tuning")}
    return hash_json(
        {
            "target": record.name,
            "recipe_version": record.recipe_version,
            "model": exported.sha256,
            "samples": samples,
            "machine": {k: v for k, v in machine.to_dict().items() if k != "name"},
            "packages": package_versions("modelwright", *distributions),
        }
    )


def _find_reusable(directory: Path, key: str) -> Artifact | None:
    try:
        artifact = open_artifact(directory)
        if artifact.manifest.key != key:
            return None
        verify_files(artifact)
    except BadInputError:
        return None  # damaged or foreign: built again where the user allows it
    return artifact


def _build_in_staging(
    target: Target, exported: ExportedModel, evidence: Evidence, machine: Machine, staging: Path, report: Progress
) -> dict[str, Any]:
    with scratch_directory(staging.parent) as scratch:
        built = run_in_child(
            "modelwright.targets.building:build_in_child",
            {
                "target": target.record.name,
                "model_path": str(exported.model_path),
                "signature": exported.signature.to_dict(),
                "directory": str(staging),
                "machine": machine.to_dict(),
                "calibration": evidence.calibration.to_dict() if evidence.calibration else None,
                "tuning": evidence.tuning.to_dict() if evidence.tuning else None,
                "reference": str(evidence.reference / "tuning"),
                "scratch": scratch,
                "shared": str(evidence.shared),
            },
            purpose=f"building {target.record.name}",
            timeout_s=BUILD_TIMEOUT_S,
            progress=report,
        )
    assert isinstance(built, dict)
    if not (staging / built["model_file"]).is_file():
        raise BuildFailedError(f"building {target.record.name} left no file {built['model_file']}")
    return built


def build_in_child(
    target: str,
    model_path: str,
    signature: dict[str, Any],
    directory: str,
    machine: dict[str, Any],
    calibration: dict[str, Any] | None,
    tuning: dict[str, Any] | None,
    reference: str,
    scratch: str,
    shared: str,
    progress: Progress,
) -> dict[str, Any]:
    """Child side of a build: runs the target's own code; returns its `BuildResult` as JSON values."""
    backend = get_target(target)
    parsed = Signature.from_dict(signature)
    uses_samples = backend.record.uses_samples
    request = BuildRequest(
        model_path=Path(model_path),
        signature=parsed,
        directory=Path(directory),
        machine=Machine.from_dict(machine),
        calibration=_open_part(calibration, parsed) if uses_samples else None,
        tuning=_open_part(tuning, parsed) if uses_samples else None,
        reference=read_reference(Path(reference)) if tuning and uses_samples else None,
        scratch=Path(scratch),
        shared=Path(shared),
        progress=progress,
    )
    result = backend.build(request)
    return {
        "model_file": result.model_file,
        "recipe": dict(result.recipe),
        "requires": dict(result.requires),
        "versions": dict(result.versions),
        "notes": list(result.notes),
    }


def _open_part(ref: Mapping[str, Any] | None, signature: Signature) -> SampleSet | None:
    """Opens samples whose values were checked when the evidence was prepared."""
    return None if ref is None else open_samples(SampleRef.from_dict(ref), signature, checked=True)


def _prove(
    target: Target,
    built: Mapping[str, Any],
    directory: Path,
    exported: ExportedModel,
    evidence: Evidence,
    host: Machine,
    threads: int,
    report: Progress,
) -> tuple[dict[str, Any] | None, str | None]:
    """Compares an artifact with FP32 on the evaluation samples; returns the proof, or why there is none.

    Raises:
        BuildFailedError: The artifact crashes, or its outputs do not follow FP32.
    """
    readiness = target.check_run(host)
    if not readiness.ok:
        return None, f"not proved: {readiness.reason}; `modelwright measure` proves it on the device"
    report("comparing with FP32")
    proof = run_in_child(
        "modelwright.targets.building:prove_in_child",
        {
            "target": target.record.name,
            "directory": str(directory),
            "model_file": built["model_file"],
            "recipe": built["recipe"],
            "signature": exported.signature.to_dict(),
            "evaluation": evidence.evaluation.to_dict(),
            "reference": str(evidence.reference / "evaluation"),
            "threads": threads,
        },
        purpose=f"running {target.record.name} on the evaluation samples",
        timeout_s=PROOF_TIMEOUT_S,
        progress=None,
    )
    assert isinstance(proof, dict)
    fault = explain_divergence(Fidelity.from_dict(proof["fidelity"]), min_cosine=target.record.min_cosine)
    if fault is not None:
        raise BuildFailedError(
            f"{target.record.name} was built, but its outputs do not follow FP32: {fault}",
            hint="do not ship it; the float targets of this runtime keep the accuracy",
        )
    return proof | _describe_conditions(evidence, host, threads), None


def _describe_conditions(evidence: Evidence, host: Machine, threads: int) -> dict[str, Any]:
    """Returns what a proof holds for."""
    return {
        "samples_sha256": evidence.described["evaluation"]["sha256"],
        "host": host.to_dict(),
        "threads": threads,
    }


def prove_in_child(
    target: str,
    directory: str,
    model_file: str,
    recipe: dict[str, Any],
    signature: dict[str, Any],
    evaluation: dict[str, Any],
    reference: str,
    threads: int,
) -> dict[str, Any]:
    """Child side of a proof: fidelity, and accuracy where there are labels, on consecutive evaluation samples."""
    parsed = Signature.from_dict(signature)
    samples = open_samples(SampleRef.from_dict(evaluation), parsed, checked=True)
    expected = read_reference(Path(reference))
    meter = FidelityMeter()
    correct = {"artifact": 0, "fp32": 0}
    with get_target(target).load(Path(directory), model_file, recipe, parsed, RunSettings(threads=threads)) as session:
        for index, feeds in enumerate(samples.feeds()):
            outputs = session.run(feeds)
            meter.add(expected[index], outputs)
            if samples.labels is not None:
                correct["artifact"] += count_correct(outputs, samples.labels[index])
                correct["fp32"] += count_correct(expected[index], samples.labels[index])
    labelled = samples.labels is not None
    return {
        "fidelity": meter.result().to_dict(),
        "count": samples.count,
        "correct": correct["artifact"] if labelled else None,
        "correct_fp32": correct["fp32"] if labelled else None,
    }


def _prove_again(
    artifact: Artifact,
    target: Target,
    exported: ExportedModel,
    evidence: Evidence,
    host: Machine,
    threads: int,
    report: Progress,
) -> Artifact:
    """Keeps the proof of a reused artifact where samples, machine and threads are the same; else renews it."""
    manifest = artifact.manifest
    proof = manifest.proof
    conditions = _describe_conditions(evidence, host, threads)
    if proof is not None and all(proof.get(name) == value for name, value in conditions.items()):
        return artifact
    built = {"model_file": manifest.model_file, "recipe": dict(manifest.recipe)}
    renewed, reason = _prove(target, built, artifact.directory, exported, evidence, host, threads, report)
    return write_manifest(artifact.directory, replace(manifest, proof=renewed, proof_reason=reason))


def _pack_reference(path: Path, signature: Signature, evidence: Evidence) -> None:
    """Writes a few evaluation samples with FP32's outputs next to the model: `input:NAME`, `output:NAME`."""
    samples = open_samples(evidence.evaluation, signature, checked=True)
    expected = read_reference(evidence.reference / "evaluation")
    packed: dict[str, list[Any]] = {}
    used_bytes = 0
    for index, feeds in enumerate(samples.feeds(limit=REFERENCE_SAMPLES)):
        row = {f"input:{name}": value for name, value in feeds.items()}
        row |= {f"output:{name}": np.asarray(value) for name, value in expected[index].items()}
        used_bytes += sum(value.nbytes for value in row.values())
        if index and used_bytes > REFERENCE_BYTES:
            break
        if packed and any(value.shape != packed[name][0].shape for name, value in row.items()):
            break  # outputs of varying shape cannot be stacked; the first ones are enough
        for name, value in row.items():
            packed.setdefault(name, []).append(value)
    stacked: dict[str, Any] = {name: np.stack(values) for name, values in packed.items()}
    np.savez(path, **stacked)


def explain_failure(error: ModelwrightError) -> dict[str, str | None]:
    """Returns what a comparison's row says of a target that failed."""
    return {"reason": error.message, "hint": error.hint, "detail": error.detail}


__all__ = ["MANIFEST", "build", "explain_failure"]
