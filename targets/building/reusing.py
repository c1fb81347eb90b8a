"""Uses an artifact again whose inputs have not changed, and proves it anew where what judges it has."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from modelwright.core.errors import BadInputError
from modelwright.core.path_names import drop_folders
from modelwright.core.process.child import Progress
from modelwright.core.records.artifact import (
    Artifact,
    Proof,
    SampleProvenance,
    open_artifact,
    verify_files,
    write_manifest,
)
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.machine import Machine
from modelwright.targets.building.evidence import Evidence
from modelwright.targets.building.limits import OverLimitError, is_held_alike, require_within
from modelwright.targets.building.prove import describe_conditions, prove_artifact


def find_reusable(directory: Path, key: str) -> Artifact | str:
    """Returns the artifact in a folder, or why it cannot be used again: it is built anew where the user allows it."""
    try:
        artifact = open_artifact(directory)
        if artifact.manifest.key != key:
            return "was not built from these inputs"
        verify_files(artifact)
    except BadInputError as error:
        return f"cannot be used again: {error.message}"
    return artifact


def prove_again(
    artifact: Artifact, exported: ExportedModel, evidence: Evidence, host: Machine, threads: int, report: Progress
) -> Artifact:
    """Keeps the proof of a reused artifact where samples, machine and threads are the same; else renews it."""
    manifest = artifact.manifest
    proof = manifest.proof
    conditions = describe_conditions(evidence, host, threads)
    if (
        proof is not None
        and (told := encode(proof)) == told | conditions
        and _chains_alike(proof, evidence)
        and is_held_alike(proof, evidence.limit)
    ):
        require_within(manifest.target, proof)
        described = describe_samples(evidence)
        if (manifest.samples.pictures, manifest.samples.texts) == (described.pictures, described.texts):
            return artifact
        # The same values, made otherwise.
        return write_manifest(artifact.directory, replace(manifest, samples=described))
    samples = describe_samples(evidence)
    try:
        renewed, reason = prove_artifact(artifact, exported, evidence, host, threads, report)
    except OverLimitError as error:
        write_manifest(artifact.directory, replace(manifest, samples=samples, proof=error.proof, proof_reason=None))
        raise
    verify_files(artifact)
    if renewed is None and proof is not None:
        return artifact  # it cannot run here: what was proved when it was built still says on which samples
    # The samples that judged are those of the new proof; those it was built on are in the key, and so the same.
    return write_manifest(artifact.directory, replace(manifest, samples=samples, proof=renewed, proof_reason=reason))


def _chains_alike(proof: Proof, evidence: Evidence) -> bool:
    """Whether a proof fed back the states that this evidence has."""
    proved = () if proof.chain is None else proof.chain.states
    return proved == (() if evidence.chain is None else evidence.chain.states)


def describe_samples(evidence: Evidence) -> SampleProvenance:
    """Returns the samples for the manifest, their files without folders."""
    parts = {
        part: None if facts is None else {**facts, "path": drop_folders(facts["path"])}
        for part, facts in evidence.described.items()
    }
    made_of = {"pictures": evidence.pictures, "texts": evidence.texts}
    known = {name: encode(record) for name, record in made_of.items() if record is not None}
    return decode(SampleProvenance, {**parts, **known, "random": evidence.random})
