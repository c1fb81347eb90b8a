"""A copy of an artifact that is run in a way that was found: its files as they are, proved anew as it is run."""

from __future__ import annotations

import shutil
from pathlib import Path

from msgspec.structs import replace

from modelwright.core.process.child import Progress
from modelwright.core.records.artifact import Artifact, open_artifact, verify_files, write_manifest
from modelwright.core.records.artifact_files import MANIFEST, REFERENCE, measure_size
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.machine import Machine
from modelwright.core.records.tuned import Tuned
from modelwright.core.scratch import staged_directory
from modelwright.targets.building.evidence import Evidence
from modelwright.targets.building.proof_files import hash_proved
from modelwright.targets.building.prove import describe_built, prove
from modelwright.targets.building.replacing import require_own
from modelwright.targets.table import get_target


def deliver_tuned(
    artifact: Artifact,
    directory: Path,
    tuned: Tuned,
    exported: ExportedModel,
    evidence: Evidence,
    host: Machine,
    progress: Progress,
) -> Artifact:
    """Copies an artifact into a folder of its own, with the settings that it is run with in its manifest.

    The evaluation samples, on which nothing was tried before, judge it with these settings.

    Raises:
        BadInputError: The folder holds something that no build made.
        BuildFailedError: With these settings its outputs do not follow FP32.
        LimitNotMetError: They lose more than the user allows.
    """
    decode(Tuned, encode(tuned))  # what cannot be read back must not become a manifest
    manifest = artifact.manifest
    target = get_target(manifest.target)
    if directory.exists():
        require_own(directory)
    verify_files(artifact)
    with staged_directory(directory) as staging:
        shutil.copytree(artifact.directory, staging, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        packed = {name: digest for name, digest in manifest.files.items() if name != REFERENCE}
        (staging / REFERENCE).unlink(missing_ok=True)
        proof, reason = prove(
            target,
            describe_built(manifest),
            staging,
            exported,
            evidence,
            manifest.machine,
            host,
            tuned.threads,
            progress,
            files=packed,
            answers=staging / REFERENCE,
            options=tuned.options,
        )
        files = hash_proved(manifest.target, staging, packed)
        write_manifest(
            staging,
            replace(
                manifest,
                files=files,
                size_bytes=measure_size(staging),
                proof=proof,
                proof_reason=reason,
                tuned=tuned,
            ),
        )
    return open_artifact(directory)
