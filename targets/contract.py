"""The contract of a target: what a backend's author writes, and what the tool hands to it.

A target is one class with few operations. `suits` says which machines it is for, `check_*` whether this machine can
build and run it, `build` turns a verified ONNX model into the runtime's files, `load` yields a session. Everything
that is the same for all targets (child processes, fidelity, manifests, atomic writing) is in `building/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy.typing as npt

from modelwright.core.errors import ModelwrightError
from modelwright.core.outputs.limit import Limit
from modelwright.core.outputs.states import State
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.records.artifact import Arithmetic
from modelwright.core.records.device_memory import DeviceMemory
from modelwright.core.records.machine import Machine
from modelwright.core.records.operators import OperatorProfile
from modelwright.core.records.plan import ExecutedPlan, PlanChoice
from modelwright.core.records.shapes import ShapeRange
from modelwright.core.records.signature import Signature
from modelwright.core.samples.sample_set import SampleSet
from modelwright.targets.options import Device as Device
from modelwright.targets.options import RunOption as RunOption
from modelwright.targets.options import RunSettings as RunSettings
from modelwright.targets.options import TargetOption as TargetOption
from modelwright.targets.readiness import Readiness, check_packages, check_versions

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
"""One call's inputs: ONNX input name -> array in the ONNX dtype and layout, batch dimension included."""

Language = Literal["python", "cpp"]

_CUDA_MEMORY_WORDS = "out of memory"


@dataclass(frozen=True, kw_only=True)
class TargetRecord:
    """The facts about a target that the rest of the tool needs; none of them is spelled out anywhere else.

    Attributes:
        name: `runtime-precision`, as typed on the command line.
        runtime: `ort`, `openvino`, `tflite`, ...: targets of one runtime are compared with each other.
        precision: Of weights and activations: `fp32`, `fp16`, `bf16`, `int8`, `int8-dynamic`.
        title: For people: `OpenVINO BF16`.
        is_float: Whether the precision is a float one.
        needs_calibration: Whether building needs real samples to calibrate on.
        uses_samples: Whether its recipe reads samples at all; then a change of samples means a new build.
        uses_speed: Whether its recipe times candidates on a host that fits the machine; then a host that does not means
            a new build.
        build_packages: Import name -> pip requirement of what building needs.
        run_packages: Import name -> pip requirement of what running needs. One of several that do the same is
            written `a|b`.
        build_extra: The extra of this project that brings the build packages.
        run_extra: The extra that brings the run packages.
        recipe_version: Raised when the recipe changes, so that cached artifacts are built again.
        build_anywhere: Whether a host of another architecture than the profile's can build it.
        devices: Where it can run, the preferred one first.
        options: What the user may choose at build time.
        settings: What the user may choose when it is run.
        uses_shapes: Whether its files depend on the ranges of the input shapes; then other ranges mean a new build.
        uses_gpu: Whether its files depend on the GPU that it is for; then another GPU means a new build.
        uses_program: Whether it is built from the source's PyTorch program, which an ONNX source does not have.
        named_only: Whether only who names it gets it: it pays for some models, which no machine tells.
        follows_plan: Whether it executes a plan of precisions (`build --plan`); float targets have nothing to plan.
        has_profiler: Whether its sessions tell what each operator took (`Session.profile_operators`).
        memory_words: How its runtime words, besides CUDA's own "out of memory", that the GPU's memory does not suffice;
            in lower case.
    """

    name: str
    runtime: str
    precision: str
    title: str
    is_float: bool
    needs_calibration: bool
    build_packages: Mapping[str, str]
    run_packages: Mapping[str, str]
    build_extra: str
    run_extra: str
    uses_samples: bool = False
    uses_speed: bool = False
    recipe_version: int = 1
    build_anywhere: bool = True
    devices: tuple[Device, ...] = ("cpu",)
    options: tuple[TargetOption, ...] = ()
    settings: tuple[RunOption, ...] = ()
    uses_shapes: bool = False
    uses_gpu: bool = False
    uses_program: bool = False
    named_only: bool = False
    follows_plan: bool = False
    has_profiler: bool = False
    memory_words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What a target's `build` gets. It runs in a child process of its own.

    Attributes:
        model_path: The verified FP32 ONNX model. Read only.
        signature: Of that model.
        directory: An empty staging folder; the runtime's files go here.
        machine: The machine the artifact is for.
        host: This machine; None where nobody said, which is as if it were the one that the artifact is for.
        fits_host: Whether this host is such a machine: only then does a time taken here decide anything.
        calibration: Samples to calibrate on; None when the target does not need them.
        tuning: Other samples, disjoint from `calibration` and from the ones that judge the artifact, on which a
            recipe may choose among its candidates. None when there were too few samples.
        reference: FP32's outputs on the tuning samples, one mapping of output name -> array a sample; None without
            tuning samples.
        scratch: A folder for intermediate files, removed afterwards.
        shared: A folder that all builds of one model see one after the other, for intermediate results that several
            targets of a runtime need; removed when the last one is built.
        progress: Takes a line about what is going on.
        options: A value for each of the record's options.
        shapes: Input name -> the shapes that it may have, for every input.
        program_path: The source as a saved `torch.export` program; None for a source that is no PyTorch module.
        roles: Output -> what it means, by which a candidate is judged.
        states: What the next step is fed with, where a candidate can be judged over many steps.
        limit: What the artifact may lose against FP32 at most; None where the user set no limit.
        plan: How many bits each layer gets, where the user says so; only for targets that follow one.
    """

    model_path: Path
    signature: Signature
    directory: Path
    machine: Machine
    calibration: SampleSet | None
    tuning: SampleSet | None
    reference: Sequence[Mapping[str, Array]] | None
    scratch: Path
    shared: Path
    progress: Callable[[str], None]
    options: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, ShapeRange] = field(default_factory=dict)
    program_path: Path | None = None
    roles: Mapping[str, OutputRole] = field(default_factory=dict)
    states: Sequence[State] = ()
    limit: Limit | None = None
    plan: PlanChoice | None = None
    host: Machine | None = None
    fits_host: bool = False


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What a build made.

    Attributes:
        model_file: The file to load, relative to the staging folder.
        recipe: What was done, in JSON values, for the manifest: methods, types, what was left in float and why.
        requires: What the machine that runs it must have: `instruction_sets` (all of them), `any_instruction_set` (one
            of them), `packages` (name -> version).
        versions: Package -> version of what made it.
        notes: Sentences for the user: what to know before shipping it.
        emulation: An ONNX model with the artifact's own arithmetic, in the scratch folder. Where the build host cannot
            run the artifact, ONNX Runtime evaluates this model in its place, and the proof says so.
        signature: Of the artifact, where dimensions that vary in the model are fixed in it; None for the model's own.
        plan: What became of the plan of precisions; None where there was none.
    """

    model_file: str
    recipe: Mapping[str, Any]
    requires: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    emulation: Path | None = None
    signature: Signature | None = None
    plan: ExecutedPlan | None = None


class Computation(ABC):
    """One inference whose inputs already lie on the accelerator, and whose outputs stay there.

    Attributes:
        stream: The handle (`CUstream`) of the stream that `enqueue` puts the work on.
        uses_graph: Whether a CUDA graph is launched.
    """

    stream: int
    uses_graph: bool = False

    @abstractmethod
    def enqueue(self) -> None:
        """Puts the work on the stream and returns before it is done."""


class Session(ABC):
    """A loaded artifact. Not thread-safe.

    Attributes:
        device: Where it runs.
    """

    device: Device = "cpu"

    @abstractmethod
    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Runs one inference.

        Args:
            feeds: Every input by its ONNX name, dtype and layout as in the signature.

        Returns:
            Every output by its ONNX name, dtype and layout; arrays that stay valid after the next run.
        """

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        """Returns the shortest call that runs one inference on these inputs: what the harness times.

        It includes handing over the inputs and making the outputs readable, nothing else.
        """
        return lambda: self.run(feeds)

    def share(self) -> Session | None:
        """Returns a session on what is loaded here, to be called by another thread at the same time.

        None where a loaded artifact serves one caller only: it is loaded again for each then.
        """
        return None

    def bind_computation(self, feeds: Feeds, stream_index: int = 0) -> Computation | None:  # noqa: ARG002
        """Copies inputs to the accelerator and returns the computation on them; None where there is none to time.

        Args:
            feeds: As for `run`.
            stream_index: Which of the session's streams (`RunSettings.streams`) it goes to.
        """
        return None

    def profile_operators(self, feeds: Feeds) -> OperatorProfile | None:  # noqa: ARG002
        """Runs a few inferences under the runtime's own profiler and tells what each operator took.

        Asked once of a session that was loaded with `RunSettings.profiled`, in a process that times nothing else. What
        a runtime's operators are, and what keeps some out of integers, is a fact of its folder; `targets/profiling.py`
        has the rest. None where the runtime has no profiler.

        Args:
            feeds: As for `run`.
        """
        return None

    def read_device_memory(self) -> DeviceMemory | None:
        """Returns what the runtime's allocator holds of the accelerator; None where it keeps none."""
        return None

    def describe_execution(self) -> dict[str, Any]:
        """Returns what really runs, read back from the runtime: precisions, operators, threads, devices.

        `{"precision": "bf16" | ..., "source": "where that was read", ...}`. Called after the first inference.
        """
        return {}


class Target(ABC):
    """One runtime at one precision. Instances hold no state."""

    record: ClassVar[TargetRecord]

    def suits(self, machine: Machine) -> bool:
        """Whether it is worth building for a machine that nobody named a target for; what is installed does not count.

        By default wherever it can run, unless it is to be named: a target for GPUs alone suits machines that have one.
        """
        can_run = "cpu" in self.record.devices or machine.gpu is not None
        return can_run and not self.record.named_only

    def check_build(self, machine: Machine) -> Readiness:
        """Says whether this host can build the target for `machine`. Cheap: loads no vendor package."""
        if not self.record.build_anywhere and not machine.is_here:
            return Readiness.no(
                f"builds only on the architecture it is for ({machine.architecture})",
                "run the same command on that machine, with --profile host",
            )
        return check_packages(self.record.build_packages, self.record.build_extra)

    def check_run(self, machine: Machine) -> Readiness:
        """Says whether this host, being `machine`, can run the target. Cheap: loads no vendor package."""
        if not machine.is_here:
            return Readiness.no(f"{machine.name} is another machine ({machine.architecture})")
        return check_packages(self.record.run_packages, self.record.run_extra)

    def compare_arithmetic(
        self,
        machine: Machine,
        host: Machine,
        recipe: Mapping[str, Any],  # noqa: ARG002 - for those that differ by it
    ) -> Arithmetic | None:
        """Says how what a host computes of an artifact stands to what the machine computes that it is for.

        Float arithmetic is alike everywhere, up to the order of sums. Of 8-bit kernels a runtime says what it knows;
        without that, those of another architecture, or of a CPU that sums otherwise, are another arithmetic.

        Args:
            machine: The machine it is for.
            host: That evaluates candidates and proves it.
            recipe: How the artifact was made.

        Returns:
            None where the two are alike for certain: the host could be that machine.
        """
        alike = machine.architecture == host.architecture and machine.sums_exactly == host.sums_exactly
        if alike or self.record.is_float or "cpu" not in self.record.devices:
            return None
        why = f"the 8-bit kernels of this {host.architecture} host are others than those on {machine.architecture}"
        return Arithmetic(alike=False, why=why)

    def choose_device(self, machine: Machine, wanted: Device | None = None) -> Device:
        """Returns where a machine is to run the target: what was asked for where it can be, else the preferred one.

        Args:
            machine: The machine that runs it.
            wanted: What the user asked for; None for the preferred one that the machine has.
        """
        devices = self.record.devices
        if wanted in devices:
            return wanted
        return next((device for device in devices if device == "cpu" or machine.gpu is not None), devices[0])

    def check_artifact(self, requires: Mapping[str, Any], machine: Machine) -> Readiness:
        """Says whether a machine has what an artifact needs, before anything of the artifact is loaded.

        Args:
            requires: The manifest's `requires`: what `build` said.
            machine: The machine that is to run it.
        """
        missing = sorted(set(requires.get("instruction_sets", ())) - machine.instruction_sets)
        alternatives = set(requires.get("any_instruction_set", ()))
        if alternatives and not alternatives & machine.instruction_sets:
            missing.append(" or ".join(sorted(alternatives)))
        if missing:
            return Readiness.no(
                f"it needs {', '.join(missing)}, which this CPU lacks",
                "build it for this machine: modelwright build ... --profile host",
            )
        return check_versions(requires.get("packages", {}))

    def key_facts(self, machine: Machine) -> Mapping[str, Any]:  # noqa: ARG002
        """Returns what decides the files besides what is the same for all targets, in JSON values, for the key.

        Such as the limits of a search, or what a toolchain of the target's own consists of. Other facts mean a new
        build. Cheap: loads no vendor package.

        Args:
            machine: The machine the artifact is for.
        """
        return {}

    def write_snippet(
        self,
        language: Language,  # noqa: ARG002
        model_file: str,  # noqa: ARG002
        recipe: Mapping[str, Any],  # noqa: ARG002
        signature: Signature,  # noqa: ARG002
        settings: RunSettings,  # noqa: ARG002
    ) -> str | None:
        """Returns a program that runs an artifact by the vendor's own API, set as `load` sets it.

        It is run in the artifact's folder and gives every input zeros. None where there is no such program.

        Raises:
            BadInputError: The settings, which may come from anywhere, are not the target's.
        """
        return None

    def explain_memory(self, error: BaseException) -> str | None:
        """Returns an error's words where it, or what caused it, says that the GPU's memory does not suffice.

        Args:
            error: Of the runtime, while an artifact is loaded or run.
        """
        cause: BaseException | None = error
        while cause is not None:
            if any(words in _quote(cause).lower() for words in (_CUDA_MEMORY_WORDS, *self.record.memory_words)):
                return _quote(error)
            cause = cause.__cause__
        return None

    @abstractmethod
    def build(self, request: BuildRequest) -> BuildResult:
        """Turns the ONNX model into the runtime's files in `request.directory`.

        Raises:
            BuildFailedError: The toolchain cannot build this model; names the node or operator and the cure.
            ToolchainMissingError: A package is absent or broken.
        """

    @abstractmethod
    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],
        signature: Signature,
        settings: RunSettings,
    ) -> AbstractContextManager[Session]:
        """Loads an artifact's files and yields a session; closes it afterwards."""


def _quote(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    detail = error.detail if isinstance(error, ModelwrightError) else None
    return text if detail is None else f"{text}\n{detail}"
