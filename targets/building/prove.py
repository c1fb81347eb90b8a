"""Proves artifacts: runs them on the evaluation samples, one after the other, and compares with FP32.

An artifact that this host cannot run is proved by its emulation, an ONNX model with the same arithmetic, where its
target gives one; the proof says so. The device proves the artifact itself before its numbers count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.outputs.fidelity import Fidelity, FidelityMeter, count_correct, explain_divergence
from modelwright.core.outputs.reference import ReferenceModel, read_reference
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.building.evidence import Evidence
from modelwright.targets.contract import Array, Feeds, RunSettings, Target
from modelwright.targets.readiness import Readiness, package_versions
from modelwright.targets.table import get_target

PROOF_TIMEOUT_S = 1800.0
REFERENCE_SAMPLES = 16
"""Samples packed with an artifact, so that a device can prove it without the FP32 model."""
REFERENCE_BYTES = 4 * 2**20

_AS_WRITTEN = {"session.disable_quant_qdq": "1"}
"""ONNX Runtime computes quantized layers as they are written: its integer kernels may saturate on some CPUs."""

_Run = Callable[[Feeds], Mapping[str, Array]]


def prove(
    target: Target,
    built: Mapping[str, Any],
    directory: Path,
    exported: ExportedModel,
    evidence: Evidence,
    host: Machine,
    threads: int,
    report: Progress,
) -> tuple[dict[str, Any] | None, str | None]:
    """Compares an artifact with FP32 on the evaluation samples.

    Args:
        target: Its target.
        built: `model_file`, `recipe`, `requires` and, where there is one, `emulation` (a path).
        directory: Where its files lie.
        exported: The FP32 model.
        evidence: The samples and FP32's outputs on them.
        host: This machine.
        threads: To run it with.
        report: Takes a line about what is going on.

    Returns:
        The proof for the manifest, or None and why there is none.

    Raises:
        BuildFailedError: The artifact crashes, or its outputs do not follow FP32.
    """
    readiness = _check_here(target, built["requires"], host)
    emulation = built.get("emulation")
    name = target.record.name
    if not readiness.ok and emulation is None:
        return None, f"not proved: {readiness.reason}; `modelwright measure` proves it on the device"
    shared = {
        "signature": encode(exported.signature),
        "evaluation": encode(evidence.evaluation),
        "reference": str(evidence.reference / "evaluation"),
        "threads": threads,
    }
    if readiness.ok:
        report("comparing with FP32")
        proof = run_in_child(
            "modelwright.targets.building.prove:prove_in_child",
            {
                "target": name,
                "directory": str(directory),
                "model_file": built["model_file"],
                "recipe": built["recipe"],
                "device": target.choose_device(host),
                **shared,
            },
            purpose=f"running {name} on the evaluation samples",
            timeout_s=PROOF_TIMEOUT_S,
        )
    else:
        report("comparing the engine's graph with FP32 in ONNX Runtime")
        proof = run_in_child(
            "modelwright.targets.building.prove:prove_emulation_in_child",
            {"path": emulation, **shared},
            purpose=f"evaluating the graph of {name} in ONNX Runtime",
            timeout_s=PROOF_TIMEOUT_S,
        )
    assert isinstance(proof, dict)
    fault = explain_divergence(decode(Fidelity, proof["fidelity"]), min_cosine=target.record.min_cosine)
    if fault is not None:
        raise BuildFailedError(
            f"{name} was built, but its outputs do not follow FP32: {fault}",
            hint="do not ship it; the float targets of this runtime keep the accuracy",
        )
    return proof | describe_conditions(evidence, host, threads), None


def _check_here(target: Target, requires: Mapping[str, Any], host: Machine) -> Readiness:
    readiness = target.check_run(host)
    return readiness if not readiness.ok else target.check_artifact(requires, host)


def describe_conditions(evidence: Evidence, host: Machine, threads: int) -> dict[str, Any]:
    """Returns what a proof holds for."""
    return {
        "samples_sha256": evidence.described["evaluation"]["sha256"],
        "host": encode(host),
        "threads": threads,
    }


def prove_in_child(
    target: str,
    directory: str,
    model_file: str,
    recipe: dict[str, Any],
    device: Any,
    signature: dict[str, Any],
    evaluation: dict[str, Any],
    reference: str,
    threads: int,
) -> dict[str, Any]:
    """Child side of a proof: fidelity, and accuracy where there are labels, on consecutive evaluation samples."""
    parsed = decode(Signature, signature)
    settings = RunSettings(threads=threads, device=device)
    with get_target(target).load(Path(directory), model_file, recipe, parsed, settings) as session:
        proof = _compare(session.run, parsed, evaluation, reference)
    return proof | {"emulated": None, "device": device}


def prove_emulation_in_child(
    path: str, signature: dict[str, Any], evaluation: dict[str, Any], reference: str, threads: int
) -> dict[str, Any]:
    """Child side of a proof by emulation: ONNX Runtime evaluates the graph on the CPU."""
    with ReferenceModel(path, threads=threads, config=_AS_WRITTEN) as model:
        proof = _compare(model.run, decode(Signature, signature), evaluation, reference)
    version = package_versions("onnxruntime").get("onnxruntime", "of unknown version")
    return proof | {"emulated": f"onnxruntime {version} on the CPU", "device": "cpu"}


def _compare(run: _Run, signature: Signature, evaluation: Mapping[str, Any], reference: str) -> dict[str, Any]:
    samples = open_samples(decode(SampleRef, evaluation), signature, checked=True)
    expected = read_reference(Path(reference))
    meter = FidelityMeter()
    correct = {"artifact": 0, "fp32": 0}
    for index, feeds in enumerate(samples.feeds()):
        outputs = run(feeds)
        meter.add(expected[index], outputs)
        if samples.labels is not None:
            correct["artifact"] += count_correct(outputs, samples.labels[index])
            correct["fp32"] += count_correct(expected[index], samples.labels[index])
    labelled = samples.labels is not None
    return {
        "fidelity": encode(meter.result()),
        "count": samples.count,
        "correct": correct["artifact"] if labelled else None,
        "correct_fp32": correct["fp32"] if labelled else None,
    }


def pack_reference(path: Path, signature: Signature, evidence: Evidence) -> None:
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
