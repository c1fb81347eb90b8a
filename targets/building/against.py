"""An artifact of one model held against the FP32 answers of another one: how variants of a model are compared."""

from __future__ import annotations

import dataclasses

from msgspec.structs import replace

from modelwright.core.process.child import Progress
from modelwright.core.records.artifact import Artifact
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.machine import Machine
from modelwright.targets.building.evidence import Evidence
from modelwright.targets.building.prove import prove_artifact


def hold_against(
    artifact: Artifact, exported: ExportedModel, evidence: Evidence, host: Machine, threads: int, report: Progress
) -> Artifact:
    """Returns an artifact whose proof, in memory alone, is one against other FP32 answers than its own model's.

    Its files and its manifest on the disk stay as they are: there it is held against the model that it was built from.
    That it answers otherwise than the other model is no fault of it: nothing but the user's limit refuses it.

    Args:
        artifact: To be compared.
        exported: The model that it was built from.
        evidence: Samples, and the other model's answers to them.
        host: This machine.
        threads: To run it with.
        report: Takes a line about what is going on.

    Raises:
        BuildFailedError: It crashes on the samples.
        LimitNotMetError: It loses more against the other model than the user allows.
    """
    proof, reason = prove_artifact(artifact, exported, evidence, host, threads, report, must_follow=False)
    return dataclasses.replace(artifact, manifest=replace(artifact.manifest, proof=proof, proof_reason=reason))
