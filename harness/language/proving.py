"""Holds artifacts that generate text against FP32, each in a child."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.errors import BuildFailedError
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.language_artifact import (
    LanguageArtifact,
    LanguageManifest,
    LanguageProof,
    verify_language_files,
    write_language_manifest,
)
from modelwright.harness.language.bench import TIMEOUT_S, WORKER, Bench, require_ready
from modelwright.harness.language.judging import Judgement
from modelwright.harness.language.limits import find_loss
from modelwright.targets.language.contract import LanguageTarget
from modelwright.targets.language.table import get_target


def prove(
    target: LanguageTarget, manifest: LanguageManifest, directory: Path, bench: Bench, report: Progress
) -> LanguageProof:
    """Holds an artifact's text against FP32's; the first one asked is FP32 itself and leaves what it wrote."""
    name = target.record.name
    require_ready(name, target.check_run(bench.host))
    is_reference = name == bench.reference_target
    if not is_reference and not bench.referred:
        _refer(bench, report)
    told = run_in_child(
        f"{WORKER}:judge_in_child",
        {
            "target": name,
            "directory": str(directory.absolute()),
            "files": dict(manifest.files),
            "model_file": manifest.model_file,
            "recipe": dict(manifest.recipe),
            "record": encode(manifest.model),
            "workload": str(bench.workload_path.absolute()),
            "reference": str(bench.reference.absolute()),
            "threads": bench.threads,
            "is_reference": is_reference,
        },
        purpose=f"judging {name}",
        timeout_s=TIMEOUT_S,
        progress=report,
    )
    bench.referred |= is_reference
    judgement = encode(decode(Judgement, told))
    return decode(LanguageProof, {**judgement, **_describe_conditions(bench)})


def _refer(bench: Bench, report: Progress) -> None:
    """Has FP32 write once more: its artifact was there from an earlier run, and what it wrote then is not."""
    if bench.reference_artifact is None:
        raise BuildFailedError(
            f"nothing can be held against FP32: {bench.reference_target} did not come about",
            hint=f"see why {bench.reference_target} failed",
        )
    report(f"{bench.reference_target} writes what others are held against")
    artifact = bench.reference_artifact
    prove(get_target(bench.reference_target), artifact.manifest, artifact.directory, bench, report)


def _describe_conditions(bench: Bench) -> dict[str, Any]:
    """Returns what a proof was taken under; one that was taken so before holds."""
    return {
        "max_increase": bench.limit,
        "reference": bench.reference_target,
        "evaluation_sha256": bench.workload.evaluation_sha256,
        "host": encode(replace(bench.host, name="this machine")),
        "threads": bench.threads,
    }


def prove_again(target: LanguageTarget, artifact: LanguageArtifact, bench: Bench, report: Progress) -> LanguageArtifact:
    """Keeps the proof of a reused artifact where text, machine and threads are the same; else renews it."""
    manifest = artifact.manifest
    # A proof of an earlier version, which did not look as closely at how it writes with its cache, is none.
    decoding = None if manifest.proof is None else manifest.proof.decoding
    proof = None if decoding is None or decoding.changed_alone is None else manifest.proof
    conditions = {**_describe_conditions(bench), "max_increase": None}
    if proof is not None and (told := {**encode(proof), "max_increase": None}) == {**told, **conditions}:
        renewed = replace(proof, max_increase=bench.limit)
    else:
        renewed = prove(target, manifest, artifact.directory, bench, report)
        verify_language_files(artifact)
    if renewed != proof:
        kept = replace(manifest, proof=renewed, proof_reason=None, texts=bench.workload.described)
        artifact = write_language_manifest(artifact.directory, kept)
    loss = find_loss(target.record.name, renewed, is_float=target.record.is_float)
    if loss is not None:
        raise loss
    return artifact
