"""Measures artifacts side by side: each in a child process, all alive together, taking turns; in several launches.

`measure_artifacts` is the one place where numbers are taken; `measure` and `compare` both use it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from msgspec.structs import replace

from modelwright.core.errors import (
    BadInputError,
    MeasurementInvalidError,
    ModelwrightError,
    ToolchainMissingError,
    UsageError,
)
from modelwright.core.faults import as_error
from modelwright.core.outputs.fidelity import explain_broken
from modelwright.core.records.artifact import Artifact, verify_files
from modelwright.core.records.codec import encode
from modelwright.core.records.operators import OperatorProfile
from modelwright.core.samples.sample_set import SampleRef
from modelwright.harness.meters.gpu_bench import GpuBench, OnGpu, open_bench
from modelwright.harness.meters.host_energy import Meter, find_meter, measure_idle_power_w
from modelwright.harness.run.interleave import Window, interleave
from modelwright.harness.run.profile_operators import try_profile
from modelwright.harness.run.runner import ArtifactRunner, MeasureSettings
from modelwright.harness.run.settle import settle
from modelwright.harness.run.told import Finished, Opened, QualityHere
from modelwright.profiles.fit import require_fit
from modelwright.profiles.schema import Profile
from modelwright.targets.contract import Device
from modelwright.targets.readiness import package_versions
from modelwright.targets.table import get_target, target_names


@dataclass(kw_only=True)
class Measured:
    """The raw result of one artifact: what the child told, and its windows. Statistics are derived elsewhere.

    Attributes:
        name: Unique in a measurement.
        opened: What loading told, the first time; None when it failed.
        finished: Memory and what really ran, after the first launch; None when it failed.
        windows: Round -> window, of all launches.
        proof: Fidelity and accuracy taken in this process, when asked for.
        failure: Why there are no or too few windows.
        on_gpu: What was seen of the card; None for an artifact on the CPU.
        operators: What each operator took; None where that was not asked for or is not told.
        no_operators: Why there are none although they were asked for.
    """

    name: str
    opened: Opened | None = None
    finished: Finished | None = None
    windows: dict[int, Window] = field(default_factory=dict)
    proof: QualityHere | None = None
    failure: ModelwrightError | None = None
    on_gpu: OnGpu | None = None
    operators: OperatorProfile | None = None
    no_operators: str | None = None


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """All raw results of one run, by name, and what the meter was."""

    by_name: Mapping[str, Measured]
    meter: Meter | None
    idle_power_w: float | None


def measure_artifacts(
    artifacts: Mapping[str, Artifact],
    settings: MeasureSettings,
    profile: Profile,
    host: Profile,
    *,
    samples: SampleRef | None,
    prove: bool = False,
    labelled: SampleRef | None = None,
    meter_gpu: bool = True,
    profile_operators: bool = False,
    on_round: Callable[[int, int], None] | None = None,
    on_event: Callable[[str], None] | None = None,
) -> Measurements:
    """Measures artifacts together.

    Args:
        artifacts: Name -> artifact.
        settings: How.
        profile: The machine that the numbers are for; refused when the host is another one.
        host: The detected machine.
        samples: Inputs to run on; None for the ones packed with each artifact.
        prove: Whether to compare with the packed FP32 outputs here, which `compare` has done before.
        labelled: Samples to count right answers on.
        meter_gpu: Whether to meter the energy of what runs on a GPU, over 10 s an artifact after the rounds.
        profile_operators: Whether to profile the operators of each artifact, after all that is timed.
        on_round: Called with finished rounds and all rounds.
        on_event: Takes a line about what is going on.

    Raises:
        MeasurementInvalidError: The host is not the profile's machine.
    """
    require_fit(profile, host)
    tell = on_event or (lambda _text: None)
    results = {name: Measured(name=name) for name in artifacts}
    with contextlib.ExitStack() as stack:
        devices: dict[str, Device] = {}
        for name, artifact in artifacts.items():
            with _costing_the_row(results[name]):
                devices[name] = choose_device(artifact, settings, host)
        bench = _open_bench(devices, stack, tell, metered=meter_gpu)
        meter, idle_power_w = _open_meter(stack, tell)
        runners: list[ArtifactRunner] = []
        for name, artifact in artifacts.items():
            with _costing_the_row(results[name]):
                require_runnable(name, artifact, host)
                verify_files(artifact)
                settled = settle(artifact, settings)
            if results[name].failure is not None:
                continue
            on_gpu = devices[name] == "cuda"
            runners.append(
                ArtifactRunner(
                    name,
                    artifact,
                    settled,
                    device=devices[name],
                    meter=None if on_gpu else meter,
                    bench=bench if on_gpu else None,
                )
            )
        for launch in range(settings.effort.launches):
            order = rotate([runner for runner in runners if results[runner.name].failure is None], launch)
            if not order:
                break
            with contextlib.ExitStack() as alive:
                _launch(order, launch, settings, results, samples, alive, tell=tell, on_round=on_round)
                if launch == settings.effort.launches - 1:
                    _finish(order, results, bench, tell, prove=prove, labelled=labelled)
        for measured in results.values() if profile_operators else ():
            _profile(measured, artifacts[measured.name], samples, tell)
        for name, artifact in artifacts.items():
            if results[name].failure is None:
                results[name].failure = _find_late_change(artifact)
    return Measurements(by_name=results, meter=meter, idle_power_w=idle_power_w)


@contextlib.contextmanager
def _costing_the_row(measured: Measured) -> Iterator[None]:
    """Keeps whatever is raised as the reason why there is nothing of an artifact: the others go on."""
    try:
        yield
    except Exception as error:
        measured.failure = measured.failure or as_error(error, f"measuring {measured.name}")


def _open_meter(stack: contextlib.ExitStack, tell: Callable[[str], None]) -> tuple[Meter | None, float | None]:
    """Starts the meter of the CPU or the board and meters idle power; a fault of it costs its figures."""
    try:
        meter = find_meter()
        if meter is None:
            return None, None
        stack.enter_context(meter)
        tell(f"metering idle power with {meter.name}")
        return meter, measure_idle_power_w(meter)
    except Exception as error:
        tell(f"no energy is metered: {as_error(error, 'starting the meter').message}")
        return None, None


def choose_device(artifact: Artifact, settings: MeasureSettings, host: Profile) -> Device:
    """Returns where an artifact is to run; `cpu` for one of a target that this version does not know."""
    if artifact.manifest.target not in target_names():
        return "cpu"
    wanted = cast(Device, settings.device) if settings.device != "auto" else None
    return get_target(artifact.manifest.target).choose_device(host.machine(), wanted)


def _open_bench(
    devices: Mapping[str, Device], stack: contextlib.ExitStack, tell: Callable[[str], None], *, metered: bool
) -> GpuBench | None:
    """Opens the card's bench and meters its idle power, before anything is loaded; None without artifacts for it."""
    if "cuda" not in devices.values():
        return None
    try:
        bench = stack.enter_context(open_bench(metered=metered))
    except Exception:
        return None  # each artifact that needs the card fails with this reason when it is checked
    if bench.meters:
        tell("metering the GPU's idle power")
        bench.measure_idle(loaded=False)
    return bench


def rotate(runners: Sequence[ArtifactRunner], launch: int) -> list[ArtifactRunner]:
    """Returns the order to load in: in each launch another one comes first, as what is loaded later is slower."""
    first = launch % max(1, len(runners))
    return [*runners[first:], *runners[:first]]


def _launch(
    runners: Sequence[ArtifactRunner],
    launch: int,
    settings: MeasureSettings,
    results: Mapping[str, Measured],
    samples: SampleRef | None,
    alive: contextlib.ExitStack,
    *,
    tell: Callable[[str], None],
    on_round: Callable[[int, int], None] | None,
) -> None:
    """Loads artifacts, each in a new process that lives as long as the stack, and lets them take their turns.

    What is told once is taken the first time: what loading took, memory, what really ran.
    """
    again = f", launch {launch + 1} of {settings.effort.launches}" if launch else ""
    ready = []
    for runner in runners:
        tell(f"loading {runner.name}{again}")
        measured = results[runner.name]
        with _costing_the_row(measured):
            opened = alive.enter_context(runner).open(samples)
            measured.opened = measured.opened or opened
        if measured.failure is None:
            ready.append(runner)
        else:
            runner.close()
    if ready:
        tell(f"measuring {f'{len(ready)} artifacts in turns' if len(ready) > 1 else '1 artifact'}{again}")
    for name, series in interleave(
        ready, settings.effort, seed=settings.seed, launch=launch, on_round=on_round
    ).items():
        results[name].windows |= series.windows
        results[name].failure = series.failure
    for runner in ready:
        measured = results[runner.name]
        if measured.failure is None and measured.finished is None:
            with _costing_the_row(measured):
                measured.finished = runner.finish()


def _profile(measured: Measured, artifact: Artifact, samples: SampleRef | None, tell: Callable[[str], None]) -> None:
    """Profiles the operators of an artifact that was measured."""
    if measured.failure is None and measured.opened is not None:
        tell(f"profiling the operators of {measured.name}")
        told = try_profile(measured.name, artifact, measured.opened.settings, samples)
        measured.operators, measured.no_operators = told


def _find_late_change(artifact: Artifact) -> ModelwrightError | None:
    """Returns why the numbers are not those of an artifact whose files, which may be mapped, changed meanwhile."""
    try:
        verify_files(artifact)
    except ModelwrightError as error:
        return error
    return None


def require_runnable(name: str, artifact: Artifact, host: Profile) -> str | None:
    """Checks that this machine has what an artifact needs, before anything of it is loaded.

    Returns:
        What to know about it although it runs; None if nothing.

    Raises:
        ToolchainMissingError: Its runtime is not installed.
        MeasurementInvalidError: The machine does not fit.
    """
    if artifact.manifest.target not in target_names():
        raise BadInputError(
            f"{artifact.directory} is of target {artifact.manifest.target!r}, which this version does not know",
            hint="build it again, or update modelwright",
        )
    target = get_target(artifact.manifest.target)
    readiness = target.check_run(replace(host.machine(), name="this machine"))
    if not readiness.ok:
        raise ToolchainMissingError(f"{name} cannot run here: {readiness.reason}", hint=readiness.hint)
    fit = target.check_artifact(encode(artifact.manifest.requires), host.machine())
    if not fit.ok:
        raise MeasurementInvalidError(f"{name} does not run here: {fit.reason}", hint=fit.hint)
    return fit.reason


def explain_other_versions(artifact: Artifact) -> str | None:
    """Returns what to know when an artifact was made with another version of its runtime than is here; else None."""
    made = artifact.manifest.versions
    runtime = encode(artifact.manifest.requires).get("packages", {})
    here = package_versions(*runtime)
    others = [
        f"{name} {made[name]}, and {here[name]} is here"
        for name in sorted(made.keys() & here.keys())
        if made[name] != here[name]
    ]
    if not others:
        return None
    return f"made and proved with {'; '.join(others)}"


def explain_other_machine(artifact: Artifact, host: Profile) -> str | None:
    """Returns what to know when an artifact was built for a machine of another architecture; else None."""
    machine = artifact.manifest.machine
    if machine.architecture == host.architecture:
        return None
    return (
        f"built for {machine.name} ({machine.architecture}), not for this machine ({host.architecture}), which "
        "runs the files but for which the recipe was not chosen"
    )


def require_threads(threads: int, host: Profile) -> None:
    """Refuses more threads than the machine has: they would wait for each other, and thousands hang a runtime.

    Raises:
        UsageError: Names how many there are.
    """
    available = max(host.threads or 0, host.cores)
    if threads > available:
        raise UsageError(f"--threads {threads}: this machine has {available}", hint=f"give 1 to {available}")


def _finish(
    runners: Sequence[ArtifactRunner],
    results: Mapping[str, Measured],
    bench: GpuBench | None,
    tell: Callable[[str], None],
    *,
    prove: bool,
    labelled: SampleRef | None,
) -> None:
    """Meters and proves what is still loaded after the last round."""
    loaded = [runner for runner in runners if results[runner.name].failure is None]
    if bench is not None and bench.meters and any(runner.device == "cuda" for runner in loaded):
        tell("metering the GPU with everything loaded and nothing running")
        bench.measure_idle(loaded=True)
    for runner in loaded:
        measured = results[runner.name]
        if runner.device == "cuda":
            tell(f"metering the energy of {runner.name}")
        with _costing_the_row(measured):
            measured.on_gpu = runner.describe_gpu()
            if prove or labelled is not None:
                measured.proof = runner.prove(labelled)
                _require_proved(measured.proof, runner)


def _require_proved(proof: QualityHere | None, runner: ArtifactRunner) -> None:
    """Refuses the speed of an artifact whose answers are wrong here: another CPU, another version, a damaged file.

    One that was proved keeps its proof: the packed samples are too few to prove it again, and only say whether it
    answers here as it did then.
    """
    if proof is None or proof.packed is None:
        return
    fault = explain_broken(proof.packed.fidelity)
    if fault is not None:
        raise MeasurementInvalidError(
            f"{runner.name} runs, but does not answer here as it did when it was proved: {fault}"
            if proof.packed.as_proved
            else f"{runner.name} runs, but its outputs on this machine do not follow FP32: {fault}",
            hint="do not ship it to machines like this one; compare the runtime's version with the manifest's",
        )


def rename_duplicates(names: Sequence[str]) -> list[str]:
    """Returns the names with ` #2`, ` #3` behind repeated ones, so that each is unique."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return unique
