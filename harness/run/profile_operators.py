"""Profiles the operators of an artifact: a run of its own, after all that is timed, in a process that ends with it.

Profilers cost time and memory, so nothing that is measured shares a process with one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from modelwright.core.errors import MeasurementInvalidError
from modelwright.core.faults import as_error
from modelwright.core.process.child import Child
from modelwright.core.records.artifact import Artifact, open_artifact, verify_files
from modelwright.core.records.codec import encode
from modelwright.core.records.operators import OperatorProfile
from modelwright.core.samples.sample_set import SampleRef
from modelwright.harness.run.inputs import read_inputs
from modelwright.harness.run.runner import ENVIRONMENT, LOAD_TIMEOUT_S
from modelwright.harness.run.told import RanWith
from modelwright.targets.options import Device, RunSettings, Value
from modelwright.targets.table import get_target

NO_PROFILER = "this target's runtime has no profiler of operators that modelwright reads"


def profile_artifact(name: str, artifact: Artifact, ran: RanWith, samples: SampleRef | None) -> OperatorProfile:
    """Runs a few inferences of an artifact under its runtime's profiler, as it was measured.

    Args:
        name: For messages.
        artifact: What to profile.
        ran: How it ran when it was measured.
        samples: Inputs to run on; None for the ones packed with it.

    Raises:
        MeasurementInvalidError: Its runtime has no profiler, or it cannot be profiled.
    """
    if not get_target(artifact.manifest.target).record.has_profiler:
        raise MeasurementInvalidError(NO_PROFILER)
    with Child(
        f"profiling {name}",
        crash_error=MeasurementInvalidError,
        environment=ENVIRONMENT,
        threads=ran.threads or 1,
    ) as child:
        profile = child.call(
            "modelwright.harness.run.profile_operators:profile_in_child",
            {
                "directory": str(artifact.directory.resolve()),
                "threads": ran.threads or 1,
                "batch": ran.batch,
                "device": ran.device,
                "options": ran.options,
                "samples": encode(samples),
            },
            timeout_s=LOAD_TIMEOUT_S,
        )
    if profile is None:
        raise MeasurementInvalidError(NO_PROFILER)
    return msgspec.convert(profile, OperatorProfile)


def try_profile(
    name: str, artifact: Artifact, ran: RanWith, samples: SampleRef | None
) -> tuple[OperatorProfile | None, str | None]:
    """Returns the profile of an artifact, else why there is none: a fault of a profiler costs nothing but its figures.

    Args:
        name: As for `profile_artifact`.
        artifact: As there.
        ran: As there.
        samples: As there.
    """
    try:
        return profile_artifact(name, artifact, ran, samples), None
    except Exception as error:
        return None, as_error(error, f"profiling {name}").message


def profile_in_child(
    directory: str,
    threads: int,
    batch: int,
    device: Device,
    options: dict[str, Value],
    samples: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """Loads an artifact with its runtime's profiler on, and returns the profile.

    Raises:
        BadInputError: Its files are not those of its manifest.
        MeasurementInvalidError: It cannot run.
        ToolchainMissingError: The runtime is absent or broken.
    """
    artifact = open_artifact(Path(directory))
    verify_files(artifact)
    manifest = artifact.manifest
    feeds = read_inputs(artifact, samples, batch)[0]
    settings = RunSettings(threads=threads, device=device, options=options, profiled=True)
    with get_target(manifest.target).load(
        artifact.directory, manifest.model_file, manifest.recipe, manifest.signature, settings
    ) as session:
        profile: dict[str, Any] | None = encode(session.profile_operators(feeds))
    return profile
