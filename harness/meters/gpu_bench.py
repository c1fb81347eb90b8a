"""The card that artifacts run on: watched while they take turns, metered afterwards in windows that its meter supports.

Everything here happens in the parent, between the calls to the artifacts' processes, and costs them nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from modelwright.core.errors import ModelwrightError, ToolchainMissingError
from modelwright.core.faults import as_error
from modelwright.core.nvidia.nvml import Nvml
from modelwright.core.process.child import run_in_child
from modelwright.harness.meters.energy import Energy
from modelwright.harness.meters.gpu_energy import NvmlMeter, describe_gpu_energy, measure_idle, meter_energy
from modelwright.harness.meters.gpu_watch import (
    CardObservations,
    GpuWatch,
    Observation,
    WindowOnGpu,
    read_own_bytes,
    summarize,
)

PROBE_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class OnGpu:
    """What was seen of the card for one artifact.

    Attributes:
        energy: Metered in a window of its own.
        observed: What the card did during its windows: clocks, throttling, others.
        memory_bytes: That its process held on the card; None with `memory_reason`.
        memory_reason: Why it is not known.
    """

    energy: Energy
    observed: CardObservations
    memory_bytes: int | None
    memory_reason: str | None


class GpuBench:
    """A context manager that observes and meters one card.

    A card without NVML, such as a Jetson's, is neither observed nor metered: what is missing says why.

    Args:
        uuid: Of the card, as CUDA tells it.
        metered: Whether energy is wanted, which takes over 10 s an artifact.
    """

    def __init__(self, uuid: str, *, metered: bool = True) -> None:
        self.uuid = uuid
        self._metered = metered
        self.pids: set[int] = set()
        self._stack = contextlib.ExitStack()
        self._watch: GpuWatch | None = None
        self._meter: NvmlMeter | None = None
        self._blind = self._unmetered = ""
        self._unavailable: dict[str, str] = {}
        self._idle_w: float | None = None
        self._loaded_idle_w: float | None = None

    def __enter__(self) -> Self:
        try:
            self._watch = GpuWatch(self._stack.enter_context(Nvml()).device_by_uuid(self.uuid))
        except ModelwrightError as error:
            self._blind = error.message
        if not self._metered:
            self._unmetered = "it was not asked for"
            return self
        try:
            self._meter = self._stack.enter_context(NvmlMeter(self.uuid))
        except ModelwrightError as error:
            self._unmetered = error.message
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def meters(self) -> bool:
        """Whether the card's energy can be told."""
        return self._meter is not None

    def observe(self) -> Observation | None:
        """Takes a look; None where NVML cannot see the card, or no longer."""
        if self._watch is None:
            return None
        try:
            return self._watch.observe(self.pids)
        except Exception as error:  # whatever NVML or its binding raises: it costs what is seen of the card
            fault = as_error(error, "watching the GPU")
            self._watch, self._blind = None, fault.message
            self._unavailable["card"] = fault.message
            return None

    def measure_idle(self, *, loaded: bool) -> None:
        """Meters the card while nothing runs: before anything is loaded, or with all artifacts loaded and waiting."""
        if self._meter is None:
            return
        try:
            found = measure_idle(self._meter)
        except Exception as error:
            found = as_error(error, "metering the idle GPU").message
        if isinstance(found, str):
            self._unavailable[f"idle_power_w{' when loaded' if loaded else ''}"] = found
        elif loaded:
            self._loaded_idle_w = found
        else:
            self._idle_w = found

    def describe(self, pid: int, looks: Sequence[WindowOnGpu], run_for: Callable[[float], tuple[int, float]]) -> OnGpu:
        """Runs an artifact alone until its energy is known, and sums up what was seen of the card.

        Args:
            pid: Of the artifact's process.
            looks: Around its windows.
            run_for: Runs it for so many seconds; returns the inferences and the seconds that they took.

        Raises:
            ModelwrightError: The artifact failed meanwhile.
        """
        memory_bytes, memory_reason = read_own_bytes(looks[-1].after, pid) if looks else (None, self._blind)
        if self._meter is None:
            energy = Energy(reason=f"the card's energy was not metered: {self._unmetered}")
        else:
            try:
                metered = meter_energy(self._meter, run_for)
                energy = describe_gpu_energy(metered, self._idle_w, self._loaded_idle_w)
            except ModelwrightError:
                raise
            except Exception as error:
                energy = Energy(reason=as_error(error, "metering the GPU").message)
        observed = summarize(looks) if looks else CardObservations(unavailable={"card": self._blind})
        return OnGpu(
            energy=energy,
            observed=replace(observed, unavailable={**observed.unavailable, **self._unavailable}),
            memory_bytes=memory_bytes,
            memory_reason=memory_reason,
        )


def open_bench(*, metered: bool = True) -> GpuBench:
    """Finds the card that CUDA uses by default here and returns its bench, not yet entered.

    Args:
        metered: Whether energy is wanted.

    Raises:
        ToolchainMissingError: There is no driver or no card.
    """
    uuid = run_in_child(
        "modelwright.harness.meters.gpu_bench:find_uuid_in_child",
        {},
        purpose="asking CUDA for its first device",
        crash_error=ToolchainMissingError,
        timeout_s=PROBE_TIMEOUT_S,
    )
    return GpuBench(str(uuid), metered=metered)


def find_uuid_in_child() -> str:
    """Child side of `open_bench`."""
    from modelwright.core.nvidia.cuda import CudaDevice

    return CudaDevice(0).uuid
