"""Accuracy and fidelity of an artifact, as its manifest proves them or as they were found while it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.core.outputs.drop import Drop, count_drop
from modelwright.core.outputs.fidelity import Fidelity
from modelwright.core.outputs.label_fit import LabelFit
from modelwright.core.outputs.target_fit import TargetFit
from modelwright.core.records.artifact import Artifact, Manifest, Proof
from modelwright.harness.results.statistics import wilson_interval
from modelwright.harness.run.measure_artifacts import Measured


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Accuracy and fidelity of an artifact, and why some of it is missing."""

    accuracy: float | None = None
    accuracy_ci95: tuple[float, float] | None = None
    accuracy_fp32: float | None = None
    evaluated: int | None = None
    correct: int | None = None
    fidelity: Fidelity | None = None
    drop: Drop | None = None
    emulated: bool = False
    fits: tuple[TargetFit, ...] = ()
    labels: LabelFit | None = None
    reasons: Mapping[str, str]


def doubt_arithmetic(manifest: Manifest) -> list[str]:
    """Returns what to know of a proof whose host multiplies otherwise than the machine that the artifact is for."""
    arithmetic = None if manifest.proof is None else manifest.proof.arithmetic
    if arithmetic is None or arithmetic.alike:
        return []
    return [f"its quality is unproved for {manifest.machine.name}: {arithmetic.why}"]


def quality_fields(quality: Quality) -> dict[str, Any]:
    """Returns what a row says of the quality."""
    fidelity = quality.fidelity
    return {
        "accuracy": quality.accuracy,
        "accuracy_ci95": quality.accuracy_ci95,
        "accuracy_fp32": quality.accuracy_fp32,
        "evaluated": quality.evaluated,
        "correct": quality.correct,
        "agreement": fidelity.agreement if fidelity else None,
        "kept": fidelity.task.kept if fidelity and fidelity.task else None,
        "cosine": fidelity.cosine if fidelity else None,
        "fidelity": fidelity,
        "drop": quality.drop,
        "emulated": quality.emulated,
        "fits": quality.fits,
        "labels": quality.labels,
    }


def describe_quality(artifact: Artifact, measured: Measured) -> Quality:
    """Returns what was found of the quality: in this run where it was asked for, else by the proof in the manifest."""
    manifest = artifact.manifest
    proof = manifest.proof
    packed = counted = None
    if measured.proof is not None:
        packed, counted = measured.proof.packed, measured.proof.counted
    if counted is not None or proof is None:
        # On samples given for this run, or on the few packed ones where nothing was proved before.
        fidelity = packed.fidelity if packed else None
        if proof is not None:
            fidelity = proof.fidelity
        if counted is not None or fidelity is not None:
            return _count_quality(
                fidelity=fidelity,
                correct=counted.correct if counted else None,
                count=counted.count if counted else packed.count if packed else 0,
                drop=_find_drop(proof),
                fits=() if proof is None else proof.fits,
                labels=None if proof is None else proof.labels,
            )
    if proof is None:
        reason = manifest.proof_reason or "the artifact was not compared with FP32"
        return Quality(reasons=dict.fromkeys(("accuracy", "agreement", "kept", "cosine"), reason))
    return describe_proof(proof)


def describe_proof(proof: Proof) -> Quality:
    """Returns what a proof says of the quality."""
    return _count_quality(
        fidelity=proof.fidelity,
        correct=proof.correct,
        count=proof.count,
        correct_fp32=proof.correct_fp32,
        emulated=bool(proof.emulated),
        drop=_find_drop(proof),
        fits=proof.fits,
        labels=proof.labels,
    )


def _find_drop(proof: Proof | None) -> Drop | None:
    """Returns what a proof says is lost; proofs that were held against no limit say it by their figures."""
    if proof is None or proof.drop is not None:
        return None if proof is None else proof.drop
    return count_drop(proof.fidelity, proof.correct, proof.correct_fp32, proof.count)


def _count_quality(
    *,
    fidelity: Fidelity | None,
    correct: int | None,
    count: int,
    correct_fp32: int | None = None,
    emulated: bool = False,
    drop: Drop | None = None,
    fits: tuple[TargetFit, ...] = (),
    labels: LabelFit | None = None,
) -> Quality:
    reasons = {}
    right = max(correct or 0, correct_fp32 or 0)
    if correct is None and labels is not None:
        reasons["accuracy"] = "a text has several answers, which `right` counts"
    elif correct is None:
        reasons["accuracy"] = "the samples have no labels"
    elif right > count or count == 0:
        reasons["accuracy"] = f"the proof counts {right} right answers of {count} samples"
        correct = None
    if fidelity is None or fidelity.agreement is None:
        reasons["agreement"] = (fidelity and fidelity.agreement_reason) or "no output reads as class scores"
    if fidelity is None or fidelity.task is None or fidelity.task.kept is None:
        reasons["kept"] = "FP32 gives no answers on these samples, or nobody said what its outputs mean"
    return Quality(
        accuracy=None if correct is None else correct / count,
        accuracy_ci95=None if correct is None else wilson_interval(correct, count),
        accuracy_fp32=None if correct is None or correct_fp32 is None else correct_fp32 / count,
        evaluated=count,
        correct=correct,
        fidelity=fidelity,
        emulated=emulated,
        drop=drop,
        fits=fits,
        labels=labels,
        reasons=reasons,
    )
