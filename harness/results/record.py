"""The one typed result: what `results.json` holds, from measuring to judging and reporting.

The fields are the keys of the file, and the docstrings what the published JSON Schema says of them. Null is what was
not measured or does not apply; a row's `unavailable` says why. What judges and reports gets all parts of a result from
here, also those that are defined where they are taken (`X as X`): it knows no meters and no runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from modelwright.core.outputs.chains import ChainProof
from modelwright.core.outputs.drop import Drop
from modelwright.core.outputs.fidelity import Fidelity
from modelwright.core.outputs.label_fit import LabelFit
from modelwright.core.outputs.target_fit import TargetFit as TargetFit
from modelwright.core.outputs.tasks.judge import TaskFidelity
from modelwright.core.records.codec import Cosine, Count, Record, Share
from modelwright.core.records.device_memory import DeviceMemory
from modelwright.core.records.operators import OperatorProfile as OperatorProfile
from modelwright.core.records.pictures import Pictures
from modelwright.core.records.texts import Texts
from modelwright.harness.formatting import clean_text
from modelwright.harness.kinds import Figure, LogRatio
from modelwright.harness.meters.energy import Carbon, Energy
from modelwright.harness.meters.gpu_watch import CardObservations as CardObservations
from modelwright.harness.meters.gpu_watch import OtherProcess as OtherProcess
from modelwright.harness.results.fleet_record import Fleet as Fleet
from modelwright.harness.results.statistics import Latency, SpeedRatio
from modelwright.harness.run.told import Executed as Executed
from modelwright.harness.run.told import RanWith as RanWith
from modelwright.profiles.schema import Accelerator as Accelerator

SCHEMA = 2

Axis = Literal["accuracy", "agreement", "kept", "cosine"]


class Source(Record, kw_only=True):
    """The FP32 model that everything was built from.

    Attributes:
        kind: How it was given: `onnx`, `pt2`, `factory` or `transformers`.
        path: Where it lay.
        sha256: Of the source.
        num_parameters: Elements of its weights.
        opset: Of the ONNX model.
        onnx_sha256: Of the ONNX model.
        onnx_size_bytes: Of the ONNX model with its external data.
        comparison: How the ONNX model follows its source, in the exporter's words; null for a source that is ONNX.
        reused: Whether the export was there from an earlier run.
        exported: When it was made, ISO 8601, UTC.
    """

    kind: str | None = None
    path: str
    sha256: str | None = None
    num_parameters: Count | None = None
    opset: Count | None = None
    onnx_sha256: str | None = None
    onnx_size_bytes: Count | None = None
    comparison: dict[str, Any] | None = None
    reused: bool = False
    exported: str | None = None


class Variant(Record, kw_only=True):
    """One of several models that are compared; a variant of the first one.

    Attributes:
        name: Of it here, from its path.
        source: What it was given as.
        macs: Multiplications of an inference of one sample, of convolutions, matrix products and recurrent layers.
    """

    name: str
    source: Source
    macs: Figure | None = None


class SamplePart(Record, kw_only=True):
    """Samples of one purpose.

    Attributes:
        path: Where they lay.
        count: How many there are.
        sha256: Of their contents.
        labels: Whether they are labelled.
        shapes: Input -> shape of the first sample.
    """

    path: str
    count: Count
    sha256: str | None = None
    labels: bool = False
    shapes: dict[str, tuple[Count, ...]] = msgspec.field(default_factory=dict)


class Samples(Record, kw_only=True):
    """The samples that calibrated and judged.

    Attributes:
        calibration: That quantized artifacts were calibrated on.
        tuning: That chose between candidates.
        evaluation: That accuracy and agreement were taken on.
        random: Whether they are random numbers.
        measured_on: Samples that `measure` was given to run on.
        pictures: How pictures became samples; null where they were none.
        texts: How texts did; null where they were none.
    """

    calibration: SamplePart | None = None
    tuning: SamplePart | None = None
    evaluation: SamplePart | None = None
    random: bool = False
    measured_on: str | None = None
    pictures: Pictures | None = None
    texts: Texts | None = None


class Environment(Record, kw_only=True):
    """The machine that was measured on, and what is installed on it.

    Attributes:
        device: The board or processor, and its cores.
        cpu_model: The processor's name.
        architecture: `x86_64` or `aarch64`.
        cores: Physical ones.
        memory_bytes: Main memory.
        instruction_sets: For arithmetic, in the spelling of `/proc/cpuinfo`.
        accelerators: The first one is used.
        virtual_machine: Null when unknown.
        meters: Of energy, that can be read.
        meters_denied: That are there but cannot be read, each with the reason.
        os: Its name and version.
        python: Its version.
        versions: Package -> version.
    """

    device: str
    cpu_model: str | None = None
    architecture: str | None = None
    cores: Count | None = None
    memory_bytes: Count | None = None
    instruction_sets: tuple[str, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    virtual_machine: bool | None = None
    meters: tuple[str, ...] = ()
    meters_denied: tuple[str, ...] = ()
    os: str | None = None
    python: str | None = None
    versions: dict[str, str] = msgspec.field(default_factory=dict)


class Settings(Record, kw_only=True):
    """How it was measured, as asked for; what each artifact really ran with stands in its row.

    Attributes:
        threads: Intra-operator threads of every runtime.
        batch: Samples an inference.
        seed: Of the order of turns.
        device: `auto`, `cpu` or `cuda`: where targets were to run that can do both.
        cuda_graph: Whether computations on the GPU were to be launched as CUDA graphs.
        spin: Whether results were to be polled for.
        streams: Inferences in flight on the GPU where the computation alone is timed.
        effort: `quick`, `standard` or `strict`.
        launches: How often every artifact was loaded.
        rounds: Turns of every artifact, over all launches.
        window_s: Seconds of a turn.
    """

    threads: Count = 1
    batch: Count = 1
    seed: Count = 0
    device: str = "auto"
    cuda_graph: bool = False
    spin: bool = False
    streams: Count = 1
    effort: str | None = None
    launches: Count = 1
    rounds: Count | None = None
    window_s: Figure | None = None


class Memory(Record, kw_only=True):
    """What only an artifact's process needs, in bytes: its anonymous memory and what it has mapped of the artifact.

    Attributes:
        runtime_bytes: With the runtime imported and nothing loaded.
        steady_bytes: After the last window.
        model_bytes: What the model added.
    """

    runtime_bytes: Count | None = None
    steady_bytes: Count | None = None
    model_bytes: Count | None = None


class Measurement(Record, kw_only=True):
    """One target of a comparison.

    Attributes:
        target: Its name, unique here: `ort-int8`, `ort-int8 #2` for a second artifact of a target, or
            `student/ort-int8` where several models are compared.
        title: For people; tells the device where a title ran on two.
        runtime: Such as `ort`.
        precision: As declared, such as `int8-dynamic`.
        is_float: Whether it computes in floating point.
        status: `skipped` when it cannot be built here, `failed` when it should have been, or loses more than the user
            allows; of these, most is null.
        reason: Why it was skipped or failed.
        hint: What to do about it.
        detail: What the vendor said.
        exit_code: That the reason stands for.
        reused: Whether the artifact was there from an earlier run.
        import_ms: Time to import the runtime, in the first launch as all that is told of loading and memory.
        latency_ms: From inputs to outputs in the host's memory.
        warm_up_inferences: That ran before the measured ones, at the start of each turn.
        effective_inferences: What the measured ones are worth, as successive latencies are correlated.
        memory: What the peak consists of.
        accuracy_ci95: Both ends of the accuracy's 95 % interval.
        accuracy_fp32: Of the FP32 source on the same samples.
        evaluated: Samples that the quality was taken on.
        correct: Right answers among them; null without labels.
        fidelity: How each output follows FP32, and how well they serve the task that FP32 serves.
        chain: How it follows FP32 when each is fed with its own state for many steps; null for a model without states.
            Its findings are among those of `fidelity`.
        drop: What it loses against FP32; of a target that failed because it loses too much, too.
        fits: How its answers come up to the samples' `target_...` arrays, of every output that there are some for.
        labels: How many tags of words, or sets of classes, are right; null where the samples say none.
        emulated: Whether the quality is that of the graph it was built from, evaluated by ONNX Runtime.
        energy: Of an inference.
        carbon: That the energy stands for.
        speedup: Over the baseline, end to end.
        device: Where it ran: `cpu` or `cuda`.
        compute_latency_ms: Of the computation alone, its inputs and outputs on the device; null on a CPU.
        num_computations: Measured ones of the computation alone.
        warm_up_computations: Those that ran before them, at the start of each turn.
        compute_enqueue_ms: What the host takes to queue a computation.
        compute_speedup: Over the baseline's computation, where the two ran alike.
        device_memory: What the runtime's allocator held on the GPU after the last turn; null on a CPU, and where a
            runtime does not tell.
        gpu: What was observed of the card meanwhile.
        round_log_ratios: Per shared round, log(baseline's median latency / this one's).
        rounds: The rounds in which it had a turn.
        launches: Of each of these rounds, which process of the artifact it was, counted from 0; empty for one only.
        window_median_ms: Median latency of each turn.
        compute_window_median_ms: Likewise, of the computation alone.
        precision_executed: What it executed in, as its runtime tells.
        operators: What each operator of an inference took; null where that was not profiled.
        settings: How it really ran.
        recipe: How it was made, in the target's own words.
        notes: What the target says of it.
        limits_missed: What it misses of the limits that the user set.
        unavailable: Key of this row -> why it is null.
        variant: Name of the model that it was built from, where several are compared.
        num_parameters: Elements of that model's weights.
        macs: Multiplications of an inference of that model.
    """

    target: str
    title: str
    runtime: str
    precision: str
    is_float: bool
    status: Literal["measured", "skipped", "failed"]
    reason: str | None = None
    hint: str | None = None
    detail: str | None = None
    exit_code: Count | None = None
    size_bytes: Count | None = None
    build_s: Figure | None = None
    reused: bool = False
    import_ms: Figure | None = None
    load_ms: Figure | None = None
    first_inference_ms: Figure | None = None
    latency_ms: Latency | None = None
    num_inferences: Count | None = None
    warm_up_inferences: Count | None = None
    effective_inferences: Figure | None = None
    throughput_per_s: Figure | None = None
    peak_memory_bytes: Count | None = None
    memory: Memory | None = None
    accuracy: Share | None = None
    accuracy_ci95: tuple[Share, Share] | None = None
    accuracy_fp32: Share | None = None
    evaluated: Count | None = None
    correct: Count | None = None
    agreement: Share | None = None
    kept: Share | None = None
    cosine: Cosine | None = None
    fidelity: Fidelity | None = None
    chain: ChainProof | None = None
    drop: Drop | None = None
    fits: tuple[TargetFit, ...] = ()
    labels: LabelFit | None = None
    emulated: bool = False
    energy: Energy | None = None
    carbon: Carbon | None = None
    speedup: SpeedRatio | None = None
    device: str = "cpu"
    compute_latency_ms: Latency | None = None
    num_computations: Count | None = None
    warm_up_computations: Count | None = None
    compute_throughput_per_s: Figure | None = None
    compute_enqueue_ms: Figure | None = None
    compute_speedup: SpeedRatio | None = None
    gpu_memory_bytes: Count | None = None
    device_memory: DeviceMemory | None = None
    gpu: CardObservations | None = None
    round_log_ratios: tuple[LogRatio, ...] = ()
    rounds: tuple[Count, ...] = ()
    launches: tuple[Count, ...] = ()
    window_median_ms: tuple[Figure, ...] = ()
    compute_window_median_ms: tuple[Figure, ...] = ()
    precision_executed: Executed = msgspec.field(default_factory=Executed)
    operators: OperatorProfile | None = None
    settings: RanWith | None = None
    recipe: dict[str, Any] = msgspec.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    limits_missed: tuple[str, ...] = ()
    unavailable: dict[str, str] = msgspec.field(default_factory=dict)
    variant: str | None = None
    num_parameters: Count | None = None
    macs: Figure | None = None

    @property
    def measured(self) -> bool:
        return self.status == "measured"

    @property
    def task(self) -> TaskFidelity | None:
        """How it serves its task; None where nobody said what the outputs mean."""
        return None if self.fidelity is None else self.fidelity.task

    @property
    def typical_ms(self) -> float | None:
        """The median latency, or the mean where too few inferences support a median."""
        return None if self.latency_ms is None else self.latency_ms.typical

    @property
    def energy_j(self) -> float | None:
        return None if self.energy is None else self.energy.per_inference_j

    @property
    def energy_scope(self) -> str:
        """What the energy covers; empty where that is not known."""
        return (self.energy.scope if self.energy else None) or ""

    @property
    def energy_estimated(self) -> bool:
        return self.energy is not None and self.energy.is_estimated

    def energy_compares_with(self, other: Measurement) -> bool:
        """Whether two energies were taken alike: an estimate less a measurement is a difference of methods."""
        if self.energy is None or other.energy is None:
            return False
        return (self.energy.source, self.energy.scope) == (other.energy.source, other.energy.scope)

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def executed(self) -> str | None:
        """The precision that took most of the time of what multiplies, such as `bf16`."""
        return self.precision_executed.precision


class Verdict(Record, kw_only=True):
    """Which target to ship, and why.

    Attributes:
        pareto: Targets on the front of latency and quality, fastest first.
        ship: The target to ship; null when nothing can be recommended.
        sentence: What to ship and why, in sentences for people.
        warnings: What to know before believing it.
        indistinguishable: Pairs of targets whose speed cannot be told apart.
        order: All targets: measured by p50, fastest first, then skipped, then failed.
        quality: The quality axis that was used; null when there was no quality figure at all.
    """

    pareto: tuple[str, ...]
    ship: str | None
    sentence: str
    warnings: tuple[str, ...]
    indistinguishable: tuple[tuple[str, str], ...] = ()
    order: tuple[str, ...] = ()
    quality: Axis | None = None


class Comparison(Record, kw_only=True):
    """Measurements of one source side by side.

    Attributes:
        schema: Version of this format.
        run_id: Of this run.
        timestamp: ISO 8601, UTC.
        source: The FP32 model; of several, the first, which all are held against.
        samples: That calibrated and judged.
        environment: The machine that was measured on.
        profile: Name of the profile that the numbers are for.
        baseline: Target that the speed-ups are over.
        effort: `quick`, `standard` or `strict`.
        settings: How it was measured.
        warnings: What was noticed on the way.
        measurements: One row a target.
        limits: Name -> what the user asked of every target.
        verdict: Which target to ship.
        variants: The models, where several are compared.
        fleet: What many devices take in a year; null where nobody asked for it.
    """

    schema: Count
    run_id: str
    timestamp: str
    source: Source
    samples: Samples
    environment: Environment
    profile: str
    baseline: str
    effort: str
    settings: Settings
    warnings: tuple[str, ...] = ()
    measurements: tuple[Measurement, ...]
    limits: dict[str, Figure] = msgspec.field(default_factory=dict)
    verdict: Verdict | None = None
    variants: tuple[Variant, ...] = ()
    fleet: Fleet | None = None

    @property
    def measured(self) -> tuple[Measurement, ...]:
        return tuple(row for row in self.measurements if row.measured)

    @property
    def on_gpu(self) -> bool:
        """Whether a row was measured on one."""
        return any(row.on_gpu for row in self.measured)

    @property
    def energy_scopes(self) -> tuple[str, ...]:
        """What the energies cover, each once; with more than one, energies are compared within a scope only."""
        return tuple(dict.fromkeys(row.energy_scope for row in self.measured if row.energy_j is not None))

    @property
    def evaluation_count(self) -> int | None:
        """Samples that the quality was taken on: what the rows say goes before the size of a set judged in part."""
        evaluated = max((row.evaluated for row in self.measurements if row.evaluated), default=None)
        return evaluated or (self.samples.evaluation.count if self.samples.evaluation else None) or None

    @property
    def labels(self) -> bool:
        return self.samples.evaluation is not None and self.samples.evaluation.labels

    @property
    def model_name(self) -> str:
        text = clean_text(self.source.path)
        return PurePath(text).name or text or "model"

    def find(self, target: str | None) -> Measurement | None:
        return next((row for row in self.measurements if row.target == target), None)


def tell_devices_apart(rows: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Adds the device to the titles of rows that would have the same one on two devices."""
    devices = Counter(title for title, _ in {(row.title, row.device) for row in rows if row.measured})
    return tuple(
        replace(row, title=f"{row.title} on {row.device.upper()}") if row.measured and devices[row.title] > 1 else row
        for row in rows
    )
