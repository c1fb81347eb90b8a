"""Proves artifacts: runs them on the evaluation samples, one after the other, and compares with FP32.

An artifact that this host cannot run, or computes otherwise than the machine that it is for, is proved by its
emulation, an ONNX model with the same arithmetic, where its target gives one; the proof says so. The device proves the
artifact itself before its numbers count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.outputs.chain_runs import compare_chains, explain_step
from modelwright.core.outputs.chains import Chain, explain_chain_broken, join_chain
from modelwright.core.outputs.fidelity import FidelityMeter, count_correct, explain_broken
from modelwright.core.outputs.label_fit import LabelMeter
from modelwright.core.outputs.output_files import OutputsWriter, read_reference
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.outputs.target_fit import FitMeter
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.artifact import Artifact, Manifest, Proof
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature
from modelwright.core.records.texts import read_texts
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.building.evidence import CHAINS, Evidence
from modelwright.targets.building.limits import find_drop, require_known, require_within
from modelwright.targets.building.proof_files import require_unchanged
from modelwright.targets.contract import Array, Feeds, RunSettings, Target
from modelwright.targets.options import Value
from modelwright.targets.readiness import Readiness, package_versions
from modelwright.targets.table import get_target

PROOF_TIMEOUT_S = 1800.0
"""On the samples, as long as FP32 may take; chained steps have as long for each of them."""
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
    machine: Machine,
    host: Machine,
    threads: int,
    report: Progress,
    *,
    files: Mapping[str, str],
    answers: Path | None,
    options: Mapping[str, Value] | None = None,
    must_follow: bool = True,
) -> tuple[Proof | None, str | None]:
    """Compares an artifact with FP32 on the evaluation samples.

    Args:
        target: Its target.
        built: `model_file`, `recipe`, `requires` and, where there is one, `emulation` (a path).
        directory: Where its files lie.
        exported: The FP32 model.
        evidence: The samples and FP32's outputs on them.
        machine: The machine it is for.
        host: This machine.
        threads: To run it with.
        report: Takes a line about what is going on.
        files: Name -> SHA-256 of every file of the artifact: what is loaded must be this, before and afterwards.
        answers: Where to pack a few samples with FP32's answers and the artifact's; None leaves them as they are.
        options: Settings of its runtime that are not to be at their defaults.
        must_follow: Whether one whose outputs do not follow FP32 is refused; the proof says it in any case.

    Returns:
        The proof for the manifest, or None and why there is none.

    Raises:
        BuildFailedError: The artifact crashes, or its outputs do not follow FP32.
        LimitNotMetError: It loses more than the user allows, or nobody can say so.
    """
    readiness = _check_here(target, built["requires"], host)
    emulation = built.get("emulation")
    name = target.record.name
    if not readiness.ok and emulation is None:
        if answers is not None:
            pack_reference(answers, exported.signature, evidence)
        require_known(name, None, evidence.limit, readiness.reason)
        return None, f"not proved: {readiness.reason}; `modelwright measure` proves it on the device"
    kept = evidence.reference / "answers" / name
    shared = {
        "signature": encode(exported.signature),
        "evaluation": encode(evidence.evaluation),
        "reference": str(evidence.reference / "evaluation"),
        "roles": encode(evidence.roles),
        "chain": encode(evidence.chain),
        "chains": str(evidence.reference / CHAINS),
        "answers": None if answers is None else str(answers),
        "threads": threads,
        "kept": str(kept) if evidence.fp32_metric is not None else None,
    }
    arithmetic = target.compare_arithmetic(machine, host, built["recipe"])
    if readiness.ok and (arithmetic is None or arithmetic.alike or emulation is None):
        report("comparing with FP32")
        proof = run_in_child(
            "modelwright.targets.building.prove:prove_in_child",
            {
                "target": name,
                "directory": str(directory),
                "model_file": built["model_file"],
                "recipe": built["recipe"],
                "device": target.choose_device(host),
                "files": dict(files),
                "options": dict(options or {}),
                **shared,
            },
            purpose=f"running {name} on the evaluation samples",
            timeout_s=_find_timeout(evidence),
        )
    else:
        report("comparing the artifact's graph with FP32 in ONNX Runtime")
        arithmetic = None
        proof = run_in_child(
            "modelwright.targets.building.prove:prove_emulation_in_child",
            {"path": emulation, **shared},
            purpose=f"evaluating the graph of {name} in ONNX Runtime",
            timeout_s=_find_timeout(evidence),
        )
    assert isinstance(proof, dict)
    told = {"arithmetic": encode(arithmetic), **describe_conditions(evidence, host, threads)}
    proved = decode(Proof, proof | told)
    proved = find_drop(proved, evidence, kept)
    require_within(name, proved)
    if must_follow:
        _require_following(name, proved, evidence, calibrated=target.record.needs_calibration)
    require_known(name, proved, evidence.limit)
    return proved, None


def prove_artifact(
    artifact: Artifact,
    exported: ExportedModel,
    evidence: Evidence,
    host: Machine,
    threads: int,
    report: Progress,
    *,
    must_follow: bool = True,
) -> tuple[Proof | None, str | None]:
    """Compares an artifact that has a manifest with FP32; see `prove`. What is packed with it stays as it is."""
    manifest = artifact.manifest
    return prove(
        get_target(manifest.target),
        describe_built(manifest),
        artifact.directory,
        exported,
        evidence,
        manifest.machine,
        host,
        threads,
        report,
        files=manifest.files,
        answers=None,
        must_follow=must_follow,
    )


def describe_built(manifest: Manifest) -> dict[str, Any]:
    """Returns what `prove` takes of an artifact that has a manifest."""
    return {
        "model_file": manifest.model_file,
        "recipe": dict(manifest.recipe),
        "requires": encode(manifest.requires),
    }


def _find_timeout(evidence: Evidence) -> float:
    """Returns after how many seconds a proof is stopped that does not end."""
    chain, count = evidence.chain, int(evidence.described["evaluation"]["count"])
    steps = 0 if chain is None else len(chain.starts) * chain.steps
    return PROOF_TIMEOUT_S * (1.0 + steps / count)


def _require_following(name: str, proof: Proof, evidence: Evidence, *, calibrated: bool) -> None:
    """Refuses an artifact whose answers, or whose state after many steps, nobody would use."""
    fault = None if proof.chain is None else explain_chain_broken(proof.chain)
    hint = "do not ship it; the float targets of this runtime keep the accuracy"
    if fault is not None:
        hint = "do not ship it: its errors add up in its state; the float targets of this runtime keep it"
    else:
        fault = explain_broken(proof.fidelity)
    miscalibrated = _explain_states(evidence.chain) if calibrated else None
    if miscalibrated is not None:
        hint = (
            f"do not ship it: {miscalibrated}. Run the model over a stream, and give what each step begins with as "
            "samples"
        )
    if fault is not None:
        raise BuildFailedError(f"{name} was built, but its outputs do not follow FP32: {fault}", hint=hint)


def _explain_states(chain: Chain | None) -> str | None:
    """Returns why what was calibrated on the samples' states holds for no other; None where it does."""
    if chain is None or chain.reason is not None:
        return None
    still = [state.input for state in chain.states if state.input not in chain.moving]
    if still:
        return f"{', '.join(still)} is the same in all samples, so nothing else was calibrated on"
    if chain.foreign:
        return f"{'; '.join(chain.foreign.values())}, which was not calibrated on"
    return None


def _check_here(target: Target, requires: Mapping[str, Any], host: Machine) -> Readiness:
    readiness = target.check_run(host)
    return readiness if not readiness.ok else target.check_artifact(requires, host)


def describe_conditions(evidence: Evidence, host: Machine, threads: int) -> dict[str, Any]:
    """Returns what a proof holds for."""
    return {
        "samples_sha256": evidence.described["evaluation"]["sha256"],
        "host": encode(host),
        "threads": threads,
        "roles": encode(evidence.roles),
    }


def prove_in_child(
    target: str,
    directory: str,
    model_file: str,
    recipe: dict[str, Any],
    device: Any,
    files: dict[str, str],
    options: dict[str, Value],
    signature: dict[str, Any],
    evaluation: dict[str, Any],
    reference: str,
    roles: dict[str, Any],
    chain: dict[str, Any] | None,
    chains: str,
    answers: str | None,
    threads: int,
    kept: str | None,
) -> dict[str, Any]:
    """Child side of a proof: fidelity, and accuracy where there are labels, on consecutive evaluation samples."""
    parsed = decode(Signature, signature)
    settings = RunSettings(threads=threads, device=device, options=options)
    require_unchanged(target, Path(directory), files)
    with get_target(target).load(Path(directory), model_file, recipe, parsed, settings) as session:
        require_unchanged(target, Path(directory), files)
        proof = _compare(session.run, parsed, evaluation, reference, roles, chain, chains, answers, kept)
    return proof | {"emulated": None, "device": device}


def prove_emulation_in_child(
    path: str,
    signature: dict[str, Any],
    evaluation: dict[str, Any],
    reference: str,
    roles: dict[str, Any],
    chain: dict[str, Any] | None,
    chains: str,
    answers: str | None,
    threads: int,
    kept: str | None,
) -> dict[str, Any]:
    """Child side of a proof by emulation: ONNX Runtime evaluates the graph on the CPU."""
    with ReferenceModel(path, threads=threads, config=_AS_WRITTEN) as model:
        parsed = decode(Signature, signature)
        proof = _compare(model.run, parsed, evaluation, reference, roles, chain, chains, answers, kept)
    version = package_versions("onnxruntime").get("onnxruntime", "of unknown version")
    return proof | {"emulated": f"onnxruntime {version} on the CPU", "device": "cpu"}


def _compare(
    run: _Run,
    signature: Signature,
    evaluation: Mapping[str, Any],
    reference: str,
    roles: Mapping[str, Any],
    chain: Mapping[str, Any] | None,
    chains: str,
    answers: str | None,
    kept: str | None,
) -> dict[str, Any]:
    """Compares consecutive answers with FP32's, counts right ones, packs the first few, and compares chained steps.

    All answers are written to `kept`, where that is a folder.
    """
    ref = decode(SampleRef, evaluation)
    samples = open_samples(ref, signature, checked=True)
    expected = read_reference(Path(reference))
    meanings = decode(dict[str, OutputRole], roles)
    texts = read_texts(ref.path)
    meter, fits = FidelityMeter(meanings), FitMeter(samples, expected[0])
    labels = LabelMeter(samples, None if texts is None else texts.model)
    packed = _Pack()
    correct = {"artifact": 0, "fp32": 0}
    with OutputsWriter(tuple(expected[0]), Path(kept)) if kept else nullcontext() as writer:
        for index, feeds in enumerate(samples.feeds()):
            outputs = run(feeds)
            label = None if samples.labels is None else int(samples.labels[index])
            meter.add(expected[index], outputs, label)
            fits.add(index, outputs, expected[index])
            labels.add(index, outputs, expected[index])
            packed.add(feeds, expected[index], outputs)
            if writer is not None:
                writer.append({name: outputs[name] for name in expected[index] if name in outputs})
            if samples.labels is not None:
                correct["artifact"] += count_correct(outputs, samples.labels[index])
                correct["fp32"] += count_correct(expected[index], samples.labels[index])
    if answers is not None:
        packed.write(Path(answers))
    labelled = samples.labels is not None
    fidelity, chained = meter.result(), None
    # What is broken on single steps needs no chain to say so.
    if chain is not None and explain_broken(fidelity) is None:
        planned = decode(Chain, chain)
        ends = read_reference(Path(chains)) if planned.reason is None else ()
        chained = compare_chains(explain_step(run), samples, planned, meanings, ends)
        fidelity = join_chain(fidelity, chained)
    return {
        "fidelity": encode(fidelity),
        "chain": encode(chained),
        "count": samples.count,
        "correct": correct["artifact"] if labelled else None,
        "correct_fp32": correct["fp32"] if labelled else None,
        "fits": encode(fits.result()),
        "labels": encode(labels.result()),
    }


class _Pack:
    """A few samples with FP32's answers and the artifact's own, by which a device knows that it answers as it did here.

    Arrays by name: `input:NAME`, `output:NAME` (FP32's) and `proved:NAME` (the artifact's when it was proved).
    """

    def __init__(self) -> None:
        self._rows: dict[str, list[Array]] = {}
        self._bytes = 0
        self._is_full = False

    def add(self, feeds: Feeds, expected: Mapping[str, Array], found: Mapping[str, Array] | None) -> None:
        """Takes a sample, until there are enough, or too many bytes, or one has another shape."""
        if self._is_full:
            return
        parts = (("input", feeds), ("output", expected), ("proved", found or {}))
        row = {f"{kind}:{name}": np.asarray(value) for kind, values in parts for name, value in values.items()}
        self._bytes += sum(value.nbytes for value in row.values())
        fits = all(name in self._rows and value.shape == self._rows[name][0].shape for name, value in row.items())
        if self._rows and (self._bytes > REFERENCE_BYTES or not fits):
            self._is_full = True  # outputs of varying shape cannot be stacked; the first ones are enough
            return
        for name, value in row.items():
            self._rows.setdefault(name, []).append(value)
        self._is_full = len(next(iter(self._rows.values()))) >= REFERENCE_SAMPLES

    def write(self, path: Path) -> None:
        """Writes what was taken."""
        np.savez(path, **{name: np.stack(values) for name, values in self._rows.items()})  # type: ignore[arg-type]


def pack_reference(path: Path, signature: Signature, evidence: Evidence) -> None:
    """Packs samples with FP32's answers alone, for an artifact that nothing here could run."""
    samples = open_samples(evidence.evaluation, signature, checked=True)
    expected = read_reference(evidence.reference / "evaluation")
    packed = _Pack()
    for index, feeds in enumerate(samples.feeds(limit=REFERENCE_SAMPLES)):
        packed.add(feeds, expected[index], None)
    packed.write(path)
