"""What an artifact's process tells of itself, typed where it enters; `worker.py` is the side that tells."""

from __future__ import annotations

from typing import Any

import msgspec

from modelwright.core.outputs.fidelity import Fidelity
from modelwright.core.records.codec import Count, Record, Sha256
from modelwright.harness.kinds import Figure


class RanWith(Record, kw_only=True):
    """How an artifact really ran, with a reason where that is not what was asked for.

    Attributes:
        threads: Intra-operator threads.
        batch: Samples an inference.
        inputs: Different inputs that it ran on in turns.
        device: `cpu` or `cuda`.
        cuda_graph: Whether the computation was launched as a CUDA graph; null on a CPU, as all that follows.
        cuda_graph_reason: Why it was not although it was to be.
        spin: Whether results were polled for.
        streams: Inferences in flight on the device.
        streams_reason: Why they are fewer than asked for.
        computation_reason: Why the computation was not timed alone.
        requests: Inferences in flight on the CPU, each called by a thread of its own.
        options: Settings of the runtime that were not at their defaults.
    """

    threads: Count | None = None
    batch: Count = 1
    inputs: Count | None = None
    device: str = "cpu"
    cuda_graph: bool | None = None
    cuda_graph_reason: str | None = None
    spin: bool | None = None
    streams: Count | None = None
    streams_reason: str | None = None
    computation_reason: str | None = None
    requests: Count = 1
    options: dict[str, bool | int | str] = msgspec.field(default_factory=dict)


class OpenedGpu(Record, kw_only=True):
    """The card that an artifact was loaded on; see `worker.open_in_child`."""

    uuid: str
    name: str
    compute_capability: str
    context_ms: Figure
    device_bytes_delta: int | None


class Opened(Record, kw_only=True):
    """What loading told; see `worker.open_in_child`.

    Attributes:
        seal: Of the artifact that was loaded, its files hashed before and afterwards; see `Artifact`.
    """

    seal: Sha256
    import_ms: Figure
    load_ms: Figure
    first_inference_ms: Figure
    runtime_bytes: Count | None
    settings: RanWith
    gpu: OpenedGpu | None = None


class RanAlone(Record, kw_only=True):
    """What ran in a while, and how long it took; see `worker.run_energy_window`."""

    inferences: Count
    elapsed_s: Figure


class Turn(Record, kw_only=True):
    """A turn's latencies; see `worker.run_window`. Null what only a computation on an accelerator has."""

    latencies_ns: tuple[Count, ...]
    inferences: Count
    elapsed_s: Figure
    compute_latencies_ns: tuple[Figure, ...] | None = None
    compute_inferences: Count | None = None
    compute_elapsed_s: Figure | None = None
    compute_enqueue_ns: Figure | None = None


class Finished(Record, kw_only=True):
    """Memory and what really ran, after the last window.

    Attributes:
        precision_executed: In the runtime's own words; `precision` and `source` are in all of them.
    """

    peak_memory_bytes: Count | None
    steady_memory_bytes: Count | None
    precision_executed: dict[str, Any]


class Packed(Record, kw_only=True):
    """The comparison with the answers packed with the artifact.

    Attributes:
        as_proved: Whether with its own of when it was proved; else with FP32's.
    """

    fidelity: Fidelity
    count: Count
    as_proved: bool = False


class Counted(Record, kw_only=True):
    """Right answers on labelled samples."""

    correct: Count
    count: Count


class QualityHere(Record, kw_only=True):
    """What was found of the quality on this machine, beside the manifest's proof; null what was not asked for."""

    packed: Packed | None
    counted: Counted | None
