"""Takes the figures of an earlier measurement for the same artifacts, with what is known of them today."""

from __future__ import annotations

from msgspec.structs import replace

from modelwright.core.records.artifact import Artifact
from modelwright.harness.meters.energy import estimate_carbon
from modelwright.harness.results.quality import describe_proof, doubt_arithmetic, quality_fields
from modelwright.harness.results.record import Measurement
from modelwright.profiles.grid import GridRegion
from modelwright.targets.table import get_target

_QUALITY = ("accuracy", "agreement", "kept")


def renew_row(row: Measurement, artifact: Artifact, region: GridRegion, *, reused: bool) -> Measurement:
    """Returns a row of an earlier measurement, with what its artifact's proof and the grid say today.

    Args:
        row: As it was measured.
        artifact: The same files, maybe judged anew since.
        region: Of the grid, for carbon.
        reused: Whether the artifact was there from an earlier run.
    """
    manifest = artifact.manifest
    row = replace(
        row,
        title=get_target(manifest.target).record.title,
        carbon=None if row.energy is None else estimate_carbon(row.energy, region),
        reused=reused,
        limits_missed=(),
    )
    if not row.measured or manifest.proof is None:
        return row
    quality = describe_proof(manifest.proof)
    others = {key: reason for key, reason in row.unavailable.items() if key not in _QUALITY}
    return replace(
        row,
        **quality_fields(quality),
        chain=manifest.proof.chain,
        recipe=dict(manifest.recipe),
        notes=(*manifest.notes, *doubt_arithmetic(manifest)),
        build_s=manifest.build_s,
        unavailable=others | dict(quality.reasons),
    )
