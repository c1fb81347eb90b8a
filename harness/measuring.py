"""Measures artifacts side by side: each in a child process, all alive together, taking turns.

`measure_artifacts` is the one place where numbers are taken; `measure` and `compare` both use it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from modelwright.core.artifact import Artifact, verify_files
from modelwright.core.child import Child
from modelwright.core.errors import (
    BadInputError,
    MeasurementInvalidError,
    ModelwrightError,
    ToolchainMissingError,
    UsageError,
)
from modelwright.core.fidelity import Fidelity, explain_divergence
from modelwright.core.samples import SampleRef
from modelwright.harness.effort import Effort
from modelwright.harness.energy import Meter, find_meter, measure_idle_power_w
from modelwright.harness.interleave import Series, Window, interleave
from modelwright.profiles.fit import require_fit
from modelwright.profiles.schema import Profile
from modelwright.targets.table import get_target, target_names

LOAD_TIMEOUT_S = 600.0
HANG_FACTOR = 50.0
"""A window that takes this many times its length, plus a minute, counts as hung."""
HANG_GRACE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """How to measure; recorded with every result.

    Attributes:
        effort: Rounds and windows.
        threads: Intra-operator threads of every runtime.
        batch: Samples an inference.
        seed: Of the order of turns.
        device: `auto`, `cpu` or `cuda`: where targets run that can do both.
        cuda_graph: Whether computations on the GPU are launched as CUDA graphs.
        spin: Whether to wait for the GPU by polling.
        streams: Inferences in flight on the GPU, where the computation alone is timed.
    """

    effort: Effort
    threads: int = 1
    batch: int = 1
    seed: int = 0
    device: str = "auto"
    cuda_graph: bool = False
    spin: bool = False
    streams: int = 1

    def to_dict(self) -> dict[str, Any]:
        return {
            "threads": self.threads,
            "batch": self.batch,
            "seed": self.seed,
            "device": self.device,
            "cuda_graph": self.cuda_graph,
            "spin": self.spin,
            "streams": self.streams,
            "effort": self.effort.name,
            "rounds": self.effort.rounds,
            "window_s": self.effort.window_s,
        }


@dataclass(kw_only=True)
class Measured:
    """The raw result of one artifact: what the child told, and its windows. Statistics are derived elsewhere.

    Attributes:
        name: Unique in a measurement.
        opened: What loading told; None when it failed.
        finished: Memory and what really ran; None when it failed.
        windows: Round -> window.
        proof: Fidelity and accuracy taken in this process, when asked for.
        failure: Why there are no or too few windows.
        energy: Energy of an artifact on a GPU, metered in a window of its own; None for one on the CPU.
        gpu: What was observed of the card during its windows; None for one on the CPU.
        gpu_memory_bytes: That its process held on the card; None with `gpu_memory_reason`.
    """

    name: str
    opened: Mapping[str, Any] | None = None
    finished: Mapping[str, Any] | None = None
    windows: Mapping[int, Window] = field(default_factory=dict)
    proof: Mapping[str, Any] | None = None
    failure: ModelwrightError | None = None
    energy: Mapping[str, Any] | None = None
    gpu: Mapping[str, Any] | None = None
    gpu_memory_bytes: int | None = None
    gpu_memory_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """All raw results of one run, by name, and what the meter was."""

    by_name: Mapping[str, Measured]
    meter: Meter | None
    idle_power_w: float | None


class ArtifactRunner:
    """An artifact loaded in a child process; see `interleave.Runner`."""

    def __init__(self, name: str, artifact: Artifact, settings: MeasureSettings, meter: Meter | None) -> None:
        self.name = name
        self._meter = meter
        self._artifact = artifact
        self._settings = settings
        self._child = Child(f"measuring {name}", crash_error=MeasurementInvalidError, threads=settings.threads)

    @property
    def min_cosine(self) -> float:
        """Under which the artifact is not following FP32."""
        return get_target(self._artifact.manifest.target).record.min_cosine

    def open(self, samples: SampleRef | None) -> dict[str, Any]:
        """Loads the artifact and runs it once; returns what `worker.open_in_child` returns."""
        result = self._child.call(
            "modelwright.harness.worker:open_in_child",
            {
                "directory": str(self._artifact.directory.resolve()),
                "threads": self._settings.threads,
                "batch": self._settings.batch,
                "samples": None if samples is None else samples.to_dict(),
            },
            timeout_s=LOAD_TIMEOUT_S,
        )
        assert isinstance(result, dict)
        return result

    def run_window(self, window_s: float) -> Window:
        """Takes a turn; the parent blocks on a pipe meanwhile."""
        before_j = None if self._meter is None else self._meter.read_j()
        result = self._child.call(
            "modelwright.harness.worker:run_window",
            {"window_s": window_s},
            timeout_s=window_s * HANG_FACTOR + HANG_GRACE_S,
        )
        energy_j = None if self._meter is None or before_j is None else self._meter.read_j() - before_j
        return Window(
            latencies_ms=[nanoseconds / 1e6 for nanoseconds in result["latencies_ns"]],
            inferences=result["inferences"],
            elapsed_s=result["elapsed_s"],
            energy_j=energy_j,
        )

    def finish(self) -> dict[str, Any]:
        """Returns memory and what really ran."""
        result = self._child.call("modelwright.harness.worker:finish_in_child", timeout_s=LOAD_TIMEOUT_S)
        assert isinstance(result, dict)
        return result

    def prove(self, labelled: SampleRef | None) -> dict[str, Any] | None:
        """Compares with the FP32 outputs packed with the artifact, and counts right answers on labelled samples."""
        packed = self._child.call("modelwright.harness.worker:prove_on_reference", timeout_s=LOAD_TIMEOUT_S)
        counted = None
        if labelled is not None:
            counted = self._child.call(
                "modelwright.harness.worker:count_correct_in_child",
                {"samples": labelled.to_dict()},
                timeout_s=LOAD_TIMEOUT_S,
            )
        if packed is None and counted is None:
            return None
        return {"packed": packed, "counted": counted}

    def close(self) -> None:
        self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.__exit__(kind, error, trace)


def measure_artifacts(
    artifacts: Mapping[str, Artifact],
    settings: MeasureSettings,
    profile: Profile,
    host: Profile,
    *,
    samples: SampleRef | None,
    prove: bool = False,
    labelled: SampleRef | None = None,
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
        on_round: Called with finished rounds and all rounds.
        on_event: Takes a line about what is going on.

    Raises:
        MeasurementInvalidError: The host is not the profile's machine.
    """
    require_fit(profile, host)
    tell = on_event or (lambda _text: None)
    results = {name: Measured(name=name) for name in artifacts}
    with contextlib.ExitStack() as stack:
        meter = find_meter()
        idle_power_w = None
        if meter is not None:
            stack.enter_context(meter)
            tell(f"metering idle power with {meter.name}")
            idle_power_w = measure_idle_power_w(meter)
        runners: list[ArtifactRunner] = []
        for name, artifact in artifacts.items():
            tell(f"loading {name}")
            try:
                results[name].opened, runner = _open_runner(name, artifact, settings, host, meter, samples, stack)
                runners.append(runner)
            except ModelwrightError as error:
                results[name].failure = error
        tell(f"measuring {len(runners)} artifacts in turns")
        series = interleave(runners, settings.effort, seed=settings.seed, on_round=on_round)
        for runner in runners:
            _finish(runner, series[runner.name], results[runner.name], prove=prove, labelled=labelled)
    return Measurements(by_name=results, meter=meter, idle_power_w=idle_power_w)


def _open_runner(
    name: str,
    artifact: Artifact,
    settings: MeasureSettings,
    host: Profile,
    meter: Meter | None,
    samples: SampleRef | None,
    stack: contextlib.ExitStack,
) -> tuple[dict[str, Any], ArtifactRunner]:
    """Checks an artifact against the machine and its manifest, then loads it in a child."""
    require_runnable(name, artifact, host)
    verify_files(artifact)
    runner = ArtifactRunner(name, artifact, settings, meter)
    with contextlib.ExitStack() as unless_open:
        unless_open.enter_context(runner)
        opened = runner.open(samples)
        stack.push(unless_open.pop_all())
    return opened, runner


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
    fit = target.check_artifact(artifact.manifest.requires, host.machine())
    if not fit.ok:
        raise MeasurementInvalidError(f"{name} does not run here: {fit.reason}", hint=fit.hint)
    return fit.reason


def explain_other_machine(artifact: Artifact, host: Profile) -> str | None:
    """Returns what to know when an artifact was built for a machine of another architecture; else None."""
    machine = artifact.manifest.machine
    if machine["architecture"] == host.architecture:
        return None
    return (
        f"built for {machine['name']} ({machine['architecture']}), not for this machine ({host.architecture}), which "
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
    runner: ArtifactRunner, series: Series, measured: Measured, *, prove: bool, labelled: SampleRef | None
) -> None:
    measured.windows = series.windows
    measured.failure = series.failure
    if series.failure is not None:
        return
    try:
        measured.finished = runner.finish()
        if prove or labelled is not None:
            measured.proof = runner.prove(labelled)
            _require_proved(measured.proof, runner)
    except ModelwrightError as error:
        measured.failure = error


def _require_proved(proof: Mapping[str, Any] | None, runner: ArtifactRunner) -> None:
    """Refuses the speed of an artifact whose numbers are wrong here: another CPU, another version, a damaged file."""
    packed = None if proof is None else proof["packed"]
    if packed is None:
        return
    fault = explain_divergence(Fidelity.from_dict(packed["fidelity"]), min_cosine=runner.min_cosine)
    if fault is not None:
        raise MeasurementInvalidError(
            f"{runner.name} runs, but its outputs on this machine do not follow FP32: {fault}",
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
