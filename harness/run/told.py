"""What an artifact's process tells of itself, typed where it enters; `worker.py` is the side that tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from modelwright.core.outputs.fidelity import Fidelity
from modelwright.core.records.codec import Count, Record, Sha256, Share, decode
from modelwright.core.records.device_memory import DeviceMemory
from modelwright.core.records.operators import OperatorProfile
from modelwright.harness.kinds import Figure

_NAMED_SHARE = 0.01
"""Of the time, from which on a precision is named."""


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
    """What ran in a while, and how long it took; see `windows.run_energy_window`."""

    inferences: Count
    elapsed_s: Figure
    transfers: bool


class Turn(Record, kw_only=True):
    """A turn's latencies; see `windows.run_window`. Null what only a computation on an accelerator has."""

    latencies_ns: tuple[Count, ...]
    inferences: Count
    elapsed_s: Figure
    compute_latencies_ns: tuple[Figure, ...] | None = None
    compute_inferences: Count | None = None
    compute_elapsed_s: Figure | None = None
    compute_enqueue_ns: Figure | None = None


class Executed(Record, kw_only=True):
    """What an artifact executed in, as its runtime tells.

    Attributes:
        precision: That took most of the time of what multiplies, where operators were profiled; else the one that the
            runtime names. Null where it names none.
        shares: Precision -> share of the operators' time, the largest first; `conversions` change types and layouts,
            `other` are indices, shapes and branches. Empty where operators were not profiled.
        source: Where that was read.
        reason: Why there is no precision.
        warning: What the runtime does other than it was asked to.
        facts: Further facts of how it ran, in the runtime's own words.
    """

    precision: str | None = None
    shares: dict[str, Share] = msgspec.field(default_factory=dict)
    source: str | None = None
    reason: str | None = None
    warning: str | None = None
    facts: dict[str, Any] = msgspec.field(default_factory=dict)

    @staticmethod
    def of(told: Mapping[str, Any]) -> Executed:
        """Returns what a session describes of itself, in its own words, as a record."""
        known = {key: told[key] for key in ("precision", "source", "reason", "warning") if key in told}
        return decode(Executed, {**known, "facts": {key: told[key] for key in told.keys() - known.keys()}})

    def profiled(self, profile: OperatorProfile | None) -> Executed:
        """Returns it with what a profile of the operators tells more closely."""
        if profile is None:
            return self
        return replace(
            self,
            precision=profile.main_precision() or self.precision,
            shares={name: min(1.0, share) for name, share in profile.shares_by_precision().items()},
            source=profile.source,
            reason=None,
        )

    def describe(self) -> str | None:
        """Returns `int8 (62 % of the time), conversions (20 %), fp32 (18 %)`, or the precision without shares."""
        shares = {name: share for name, share in self.shares.items() if share >= _NAMED_SHARE}
        if not shares:
            return self.precision
        parts = [f"{name} ({share:.0%})".replace("%", " %") for name, share in shares.items()]
        return ", ".join([parts[0].replace(" %)", " % of the time)"), *parts[1:]])


class Finished(Record, kw_only=True):
    """Memory and what really ran, after the last window."""

    peak_memory_bytes: Count | None
    steady_memory_bytes: Count | None
    precision_executed: Executed
    device_memory: DeviceMemory | None = None


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
