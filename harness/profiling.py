"""Profiles the operators of one artifact, here and now: what `modelwright inspect --operators` prints."""

from __future__ import annotations

from pathlib import Path

from modelwright.core.records.artifact import open_artifact, verify_files
from modelwright.core.records.operators import OperatorProfile
from modelwright.harness.run.effort import get_effort
from modelwright.harness.run.measure_artifacts import choose_device, require_runnable
from modelwright.harness.run.profile_operators import profile_artifact
from modelwright.harness.run.runner import MeasureSettings
from modelwright.harness.run.settle import settle
from modelwright.harness.run.told import RanWith
from modelwright.profiles import detect_host


def profile_operators(directory: str | Path) -> OperatorProfile:
    """Runs a few inferences of an artifact under its runtime's own profiler, as it was tuned, else on one thread.

    Args:
        directory: The artifact's folder; it runs on the inputs packed with it.

    Raises:
        BadInputError: No artifact, or its files are not those of its manifest.
        MeasurementInvalidError: It does not run on this machine, or its runtime has no profiler.
        ToolchainMissingError: Its runtime is not installed.
    """
    artifact = open_artifact(Path(directory))
    host = detect_host()
    name = artifact.manifest.target
    require_runnable(name, artifact, host)
    verify_files(artifact)
    settings = settle(artifact, MeasureSettings(effort=get_effort("quick")))
    ran = RanWith(
        threads=settings.threads,
        device=choose_device(artifact, settings, host),
        options=dict(settings.options[name]),
    )
    return profile_artifact(name, artifact, ran, None)
