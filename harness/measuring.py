"""Measures artifacts that were built before, here: on the device they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from modelwright.core.errors import BadInputError, UsageError
from modelwright.core.records.artifact import Artifact, open_artifact
from modelwright.core.records.codec import decode, encode
from modelwright.core.samples.source import Named
from modelwright.core.scratch import scratch_directory
from modelwright.harness.formatting import count_noun, describe_turns
from modelwright.harness.given_samples import place_samples
from modelwright.harness.preconditions import require_gpu_for
from modelwright.harness.progress import Progress, Undisturbed
from modelwright.harness.results.assemble import Context, assemble_comparison, describe_environment
from modelwright.harness.results.limits import Limits
from modelwright.harness.results.other_samples import set_apart
from modelwright.harness.results.record import Comparison, Samples, Source
from modelwright.harness.run.effort import get_effort
from modelwright.harness.run.measure_artifacts import (
    Measured,
    explain_other_machine,
    explain_other_versions,
    measure_artifacts,
    rename_duplicates,
    require_threads,
)
from modelwright.harness.run.runner import MeasureSettings
from modelwright.harness.run.settle import explain_settings, read_settings
from modelwright.harness.verdict.judge import finish_comparison
from modelwright.harness.writing import UnfinishedError
from modelwright.profiles import detect_host, find_region, load_profile, require_fit
from modelwright.profiles.schema import Profile
from modelwright.targets.table import BASELINE


def measure(
    directories: Sequence[str | Path],
    *,
    samples: Named | None = None,
    baseline: str | None = None,
    effort: str = "standard",
    profile: str = "host",
    threads: int | None = None,
    batch: int = 1,
    device: str = "auto",
    cuda_graph: bool = False,
    spin: bool = False,
    streams: int = 1,
    settings: Sequence[str] = (),
    tuned: bool = True,
    meter_computation: bool = False,
    region: str | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Measures artifacts of one source side by side.

    Each is compared with the FP32 outputs packed with it before its numbers count.

    Args:
        directories: Artifact folders.
        samples: What to run on, and to count right answers on where it has labels, as `compare` takes it; None for the
            inputs packed with the artifacts.
        baseline: Target that speed-ups are over; None for `ort-fp32` if it is there, else the first artifact.
        effort: `quick`, `standard` or `strict`.
        profile: The machine the numbers are for; refused when this is another one.
        threads: Of every runtime; None for what each artifact was tuned with, else 1.
        batch: Samples an inference.
        device: `auto`, `cpu` or `cuda`: where targets run that can do both.
        cuda_graph: Launch computations on the GPU as CUDA graphs.
        spin: Wait for the GPU by polling.
        streams: Inferences in flight on the GPU where the computation alone is timed.
        settings: `NAME=VALUE` of runtimes' settings, or `TARGET:NAME=VALUE` for one target.
        tuned: Whether artifacts that were tuned run so, where neither `threads` nor `settings` say otherwise.
        meter_computation: Meter the energy on a GPU without copying inputs and outputs, where a runtime lets that be.
        region: Of the grid, for carbon; None for the profile's.
        limits: What a target must meet to be shipped.
        seed: Of the order of turns.
        progress: Told what is going on.

    Returns:
        A comparison like that of `compare`.

    Raises:
        UsageError: The baseline is not among the artifacts, or more threads than this machine has.
        BadInputError: Not artifacts, of different sources, changed since they were built, or bad samples.
        ToolchainMissingError: A GPU is asked for and there is none.
        MeasurementInvalidError: The profile is of another machine, or nothing could be measured.
        UnfinishedError: It could not be judged; has the comparison.
    """
    tell = Undisturbed(progress)
    opened = [open_artifact(Path(directory)) for directory in directories]
    asked = MeasureSettings(
        effort=get_effort(effort),
        threads=threads,
        batch=batch,
        seed=seed,
        device=device,
        cuda_graph=cuda_graph,
        spin=spin,
        streams=streams,
        options=read_settings(settings, list(dict.fromkeys(artifact.manifest.target for artifact in opened))),
        tuned=tuned,
        meter_computation=meter_computation,
    )
    _require_one_source(opened)
    source, packed_samples = _read_source(opened[0]), _read_samples(opened[0], samples)
    names = rename_duplicates([artifact.manifest.target for artifact in opened])
    chosen_baseline = _choose_baseline(names, baseline)
    artifacts = dict(zip(names, opened, strict=True))
    host = detect_host()
    chosen = host if profile == "host" else load_profile(profile)
    require_fit(chosen, host)
    require_threads(threads or 1, host)
    require_gpu_for(asked)
    grid_region = find_region(region or chosen.grid_region)
    with scratch_directory() as scratch:
        ref = None if samples is None else place_samples(samples, opened[0], Path(scratch), tell)
        tell.start("measure", describe_turns(len(artifacts)))
        measurements = measure_artifacts(
            artifacts,
            asked,
            chosen,
            host,
            samples=ref,
            prove=True,
            labelled=ref,
            profile_operators=True,
            on_round=lambda done, total: tell.advance("measure", done, total),
            on_event=lambda text: tell.say("measure", text),
        )
    failures = [result for result in measurements.by_name.values() if result.failure is not None]
    if len(failures) == len(artifacts):
        first = failures[0].failure
        assert first is not None
        raise first
    tell.finish("measure", f"{count_noun(len(artifacts) - len(failures), 'artifact')} measured")
    comparison = assemble_comparison(
        Context(
            settings=asked,
            profile=chosen,
            host=host,
            region=grid_region,
            baseline=_replace_failed(chosen_baseline, names, failures) if baseline is None else chosen_baseline,
        ),
        source=source,
        samples=packed_samples,
        artifacts=artifacts,
        reused={},
        measurements=measurements,
        absent=[],
        warnings=[
            *_warn_of_others(artifacts, host),
            *explain_settings(artifacts, asked, describe_environment(host).device),
        ],
    )
    comparison = set_apart(comparison, artifacts, counted=ref is not None)
    judged, fault = finish_comparison(comparison, limits)
    if fault is not None:
        raise UnfinishedError(judged, [fault])
    return judged


def _read_source(artifact: Artifact) -> Source:
    return decode(Source, encode(artifact.manifest.source))


def _read_samples(artifact: Artifact, measured_on: Named | None) -> Samples:
    found = decode(Samples, encode(artifact.manifest.samples))
    return replace(found, measured_on=None if measured_on is None else str(measured_on))


def _require_one_source(artifacts: Sequence[Artifact]) -> None:
    if not artifacts:
        raise BadInputError("no artifact was given", hint="modelwright measure DIR/artifacts/*")
    hashes = {artifact.manifest.source.sha256 for artifact in artifacts}
    if len(hashes) > 1:
        raise BadInputError(
            "the artifacts are of different FP32 models: a comparison of their speeds would mislead",
            hint="measure them in calls of their own",
        )


def _warn_of_others(artifacts: Mapping[str, Artifact], host: Profile) -> list[str]:
    """Returns sentences about artifacts that were built for another kind of machine, or by another runtime."""
    warnings: dict[str, list[str]] = {}
    for name, artifact in artifacts.items():
        machine, versions = explain_other_machine(artifact, host), explain_other_versions(artifact)
        if machine is not None:
            machine += ". The speeds are true for this machine and say nothing of that one"
        for reason in filter(None, (machine, versions)):
            warnings.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}." for reason, names in warnings.items()]


def _replace_failed(chosen: str, names: Sequence[str], failures: Sequence[Measured]) -> str:
    """Returns the baseline, or the first artifact that was measured where nobody asked for the one that failed."""
    failed = {failure.name for failure in failures}
    return chosen if chosen not in failed else next(name for name in names if name not in failed)


def _choose_baseline(names: Sequence[str], baseline: str | None) -> str:
    wanted = baseline or (BASELINE if BASELINE in names else names[0])
    if wanted not in names:
        raise UsageError(
            f"the baseline {wanted} is not among the artifacts ({', '.join(names)})", hint="give its folder too"
        )
    return wanted
