"""One artifact in child processes of its own, as the parent sees it: loaded, taking turns, proved, metered."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import msgspec
from msgspec.structs import replace

from modelwright.core.errors import BadInputError, MeasurementInvalidError
from modelwright.core.process.child import Child
from modelwright.core.records.artifact import Artifact
from modelwright.core.records.codec import encode
from modelwright.core.samples.sample_set import SampleRef
from modelwright.harness.meters.gpu_bench import GpuBench, OnGpu
from modelwright.harness.meters.gpu_watch import WindowOnGpu
from modelwright.harness.meters.host_energy import Meter, run_metered
from modelwright.harness.run.effort import Effort
from modelwright.harness.run.interleave import Window
from modelwright.harness.run.told import Finished, Opened, QualityHere, RanAlone, Turn
from modelwright.targets.options import Device, Value

LOAD_TIMEOUT_S = 600.0
HANG_FACTOR = 50.0
"""A window that takes this many times its length, plus a minute, counts as hung."""
HANG_GRACE_S = 60.0
ENVIRONMENT = {"PYTHONHASHSEED": "0"}
"""Of every child. Python draws the order of its hashes anew in each process, and with it the speed of a runtime that
the interpreter drives: two processes with the same artifact would differ for as long as they live."""


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """How to measure; recorded with every result.

    Attributes:
        effort: Launches, rounds and windows.
        threads: Intra-operator threads of every runtime; None for what each artifact was tuned with, else 1.
        batch: Samples an inference.
        seed: Of the order of turns.
        device: `auto`, `cpu` or `cuda`: where targets run that can do both.
        cuda_graph: Whether computations on the GPU are launched as CUDA graphs.
        spin: Whether to wait for the GPU by polling.
        streams: Inferences in flight on the GPU, where the computation alone is timed.
        requests: Inferences in flight on the CPU; None for what each artifact was tuned with, else 1.
        options: Target -> settings of its runtime that are not to be at their defaults.
        tuned: Whether artifacts run as they were tuned, where nothing else is said; see `settle`.
        meter_computation: Whether the energy on a GPU is that of the computation alone, where a runtime gives one: on
            inputs that are there before, not copied for each inference.
    """

    effort: Effort
    threads: int | None = None
    batch: int = 1
    seed: int = 0
    device: str = "auto"
    cuda_graph: bool = False
    spin: bool = False
    streams: int = 1
    requests: int | None = None
    options: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    tuned: bool = True
    meter_computation: bool = False


class ArtifactRunner:
    """An artifact loaded in a child process, a new one each time that it is opened; see `interleave.Runner`."""

    def __init__(
        self,
        name: str,
        artifact: Artifact,
        settings: MeasureSettings,
        *,
        device: Device = "cpu",
        meter: Meter | None = None,
        bench: GpuBench | None = None,
    ) -> None:
        self.name = name
        self.device = device
        self._looks: list[WindowOnGpu] = []
        self._bench = bench
        self._meter = meter
        self._artifact = artifact
        self._settings = settings
        self._opened: Child | None = None
        self._transfers: bool | None = None

    @property
    def _child(self) -> Child:
        assert self._opened is not None, "opened before anything is asked of it"
        return self._opened

    def open(self, samples: SampleRef | None) -> Opened:
        """Loads the artifact in a new process and runs it once; what was seen of the card before is kept.

        Raises:
            BadInputError: What was loaded there is not the artifact that was opened here.
        """
        self.close()
        self._opened = Child(
            f"measuring {self.name}",
            crash_error=MeasurementInvalidError,
            environment=ENVIRONMENT,
            threads=self._settings.threads or 1,
        )
        if self._bench is not None:
            self._bench.pids.add(self._child.pid)
        result = self._child.call(
            "modelwright.harness.run.worker:open_in_child",
            {
                "directory": str(self._artifact.directory.resolve()),
                "threads": self._settings.threads or 1,
                "batch": self._settings.batch,
                "samples": encode(samples),
                "device": self.device,
                "cuda_graph": self._settings.cuda_graph,
                "spin": self._settings.spin,
                "streams": self._settings.streams,
                "requests": self._settings.requests or 1,
                "options": dict(self._settings.options.get(self._artifact.manifest.target, {})),
            },
            timeout_s=LOAD_TIMEOUT_S,
        )
        opened = msgspec.convert(result, Opened)
        if opened.seal != self._artifact.seal:
            raise BadInputError(
                f"artifact {self._artifact.directory} was replaced by another one while it was measured",
                hint="measure it again when nothing else writes into its folder",
            )
        return opened

    def run_window(self, window_s: float) -> Window:
        """Takes a turn; the parent blocks on a pipe meanwhile."""
        before = None if self._bench is None else self._bench.observe()
        result, metered = run_metered(
            self._meter,
            lambda: self._child.call(
                "modelwright.harness.run.windows:run_window",
                {"window_s": window_s},
                timeout_s=window_s * HANG_FACTOR + HANG_GRACE_S,
            ),
        )
        after = None if self._bench is None else self._bench.observe()
        turn = msgspec.convert(result, Turn)
        if before is not None and after is not None:
            self._looks.append(WindowOnGpu(before=before, after=after))
        return Window(
            latencies_ms=[nanoseconds / 1e6 for nanoseconds in turn.latencies_ns],
            inferences=turn.inferences,
            elapsed_s=turn.elapsed_s,
            energy_j=metered.energy_j,
            power=metered.power,
            compute_latencies_ms=[nanoseconds / 1e6 for nanoseconds in turn.compute_latencies_ns or ()],
            compute_inferences=turn.compute_inferences or 0,
            compute_elapsed_s=turn.compute_elapsed_s or 0.0,
            compute_enqueue_ms=None if turn.compute_enqueue_ns is None else turn.compute_enqueue_ns / 1e6,
        )

    def run_for(self, duration_s: float) -> tuple[int, float]:
        """Runs alone for so many seconds; returns the inferences and the seconds that they took."""
        result = self._child.call(
            "modelwright.harness.run.windows:run_energy_window",
            {"duration_s": duration_s, "computation": self._settings.meter_computation},
            timeout_s=duration_s * 2 + HANG_GRACE_S,
        )
        told = msgspec.convert(result, RanAlone)
        self._transfers = told.transfers
        return told.inferences, told.elapsed_s

    def describe_gpu(self) -> OnGpu | None:
        """Meters the artifact alone and sums up what was seen of the card; None for an artifact on the CPU."""
        if self._bench is None:
            return None
        found = self._bench.describe(self._child.pid, self._looks, self.run_for)
        return dataclasses.replace(found, energy=replace(found.energy, transfers=self._transfers))

    def finish(self) -> Finished:
        """Returns memory and what really ran."""
        result = self._child.call("modelwright.harness.run.worker:finish_in_child", timeout_s=LOAD_TIMEOUT_S)
        return msgspec.convert(result, Finished)

    def prove(self, labelled: SampleRef | None) -> QualityHere | None:
        """Compares with the FP32 outputs packed with the artifact, and counts right answers on labelled samples."""
        packed = self._child.call("modelwright.harness.run.worker:prove_on_reference", timeout_s=LOAD_TIMEOUT_S)
        counted = None
        if labelled is not None:
            counted = self._child.call(
                "modelwright.harness.run.worker:count_correct_in_child",
                {"samples": encode(labelled)},
                timeout_s=LOAD_TIMEOUT_S,
            )
        if packed is None and counted is None:
            return None
        return msgspec.convert({"packed": packed, "counted": counted}, QualityHere)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.__exit__(kind, error, trace)
