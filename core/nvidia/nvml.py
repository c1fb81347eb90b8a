"""NVML, the driver's own library of management: what an NVIDIA GPU is, draws and does.

Called through NVIDIA's binding (`nvidia-ml-py`), which is imported where NVML is opened and not before. What the device
or the driver does not tell is None, and `NvmlDevice.unavailable` says why; here are the reasons, the units, what of a
card a MIG instance may speak for, and the calls' older names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Self

from modelwright.core.errors import MeasurementInvalidError, ToolchainMissingError

THROTTLING = ("SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
"""Reasons that take speed away: power and heat. Clocks that somebody set, sync boost and displays are settings."""

_REASONS = ("ApplicationsClocksSetting", "SyncBoost", "DisplayClockSetting", *THROTTLING)
_LIBRARY_NOT_FOUND, _FUNCTION_NOT_FOUND = 12, 13
_FATAL = frozenset({1, 15, 16})
"""Not initialised, the GPU is lost, the GPU needs a reset: no reading can be trusted any more."""
_UNREADABLE = -1
"""Of an answer that the binding cannot take apart; NVML's own codes are positive."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process with a compute context on a GPU.

    Attributes:
        pid: As the driver counts: in a container with a pid namespace of its own, the host's number.
        used_bytes: GPU memory that it holds; None where the driver does not tell (Windows, some containers).
    """

    pid: int
    used_bytes: int | None


class _RefusedError(Exception):
    """A call that told nothing; worded for the user."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def _ask(functions: tuple[str, ...], *arguments: Any) -> Any:
    """Calls the binding's first function that this driver has.

    Args:
        functions: The newest name first.
        arguments: Of each.

    Raises:
        _RefusedError: None of them told anything.
    """
    import pynvml

    code, words = _FUNCTION_NOT_FOUND, "this driver's NVML does not have the call"
    for name in functions:
        try:
            return getattr(pynvml, name)(*arguments)
        except pynvml.NVMLError as error:
            if error.value != _FUNCTION_NOT_FOUND:
                code, words = error.value, _explain(error.value)
                break
        except (AttributeError, ValueError) as error:  # a binding older than the call; text that is none
            code, words = _UNREADABLE, f"NVML cannot be read: {error}"
    raise _RefusedError(code, words)


def _explain(code: int) -> str:
    """Returns the driver's own words for a code."""
    import pynvml

    with contextlib.suppress(pynvml.NVMLError, ValueError):
        return f"NVML: {pynvml.nvmlErrorString(code)}"
    return f"NVML error {code}"


class Nvml:
    """NVML between initialisation and shutdown; both are counted by the library, so several may live at once."""

    def __init__(self) -> None:
        self._is_open = False

    def __enter__(self) -> Self:
        """Loads and initialises the library.

        Raises:
            ToolchainMissingError: There is no driver, or it cannot be used; with NVML's own words.
        """
        try:
            _ask(("nvmlInit",))
        except ImportError as error:
            raise ToolchainMissingError(
                "NVIDIA's binding to NVML is not installed", hint="pip install nvidia-ml-py", detail=str(error)
            ) from error
        except _RefusedError as refusal:
            if refusal.code == _LIBRARY_NOT_FOUND:
                raise ToolchainMissingError(
                    "no NVIDIA driver: its library NVML cannot be loaded",
                    hint="install NVIDIA's driver; in a container, start it with the GPU (docker run --gpus all)",
                ) from refusal
            raise ToolchainMissingError(
                f"the NVIDIA driver cannot be used: {refusal}",
                hint="nvidia-smi should list the GPU; after an update of the driver, restart the machine",
            ) from refusal
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(_RefusedError):
                _ask(("nvmlShutdown",))

    def driver_version(self) -> str | None:
        """Returns the driver's version, such as `580.65.06`."""
        version = self._try("nvmlSystemGetDriverVersion")
        return None if version is None else str(version)

    def cuda_version(self) -> str | None:
        """Returns the newest CUDA version that the driver supports, such as `13.0`."""
        version = self._try("nvmlSystemGetCudaDriverVersion_v2")
        return None if version is None else format_cuda_version(version)

    def devices(self) -> tuple[NvmlDevice, ...]:
        """Returns the GPUs in the order of their PCI bus, without those that the driver refuses to this process.

        CUDA's own order differs: the fastest first, unless `CUDA_DEVICE_ORDER=PCI_BUS_ID`. Match them by UUID.
        """
        handles = [
            self._try("nvmlDeviceGetHandleByIndex", index) for index in range(self._try("nvmlDeviceGetCount") or 0)
        ]
        return tuple(NvmlDevice(handle) for handle in handles if handle is not None)

    def device_by_uuid(self, uuid: str) -> NvmlDevice:
        """Returns the GPU, or the MIG instance, with this UUID: `GPU-` or `MIG-` and five groups of hexadecimals.

        CUDA hands out the bytes only, so what follows the prefix decides.

        Raises:
            MeasurementInvalidError: The driver has none of that UUID.
        """
        self._require_open()
        reason = ""
        for name in dict.fromkeys((uuid, f"GPU-{uuid.removeprefix('GPU-')}", f"MIG-{uuid.removeprefix('GPU-')}")):
            try:
                return NvmlDevice(_ask(("nvmlDeviceGetHandleByUUID",), name))
            except _RefusedError as refusal:
                reason = str(refusal)
        raise MeasurementInvalidError(
            f"NVML does not find the GPU {uuid} ({reason})", hint="compare with: nvidia-smi -L"
        )

    def _try(self, function: str, *arguments: Any) -> Any:
        """Returns what a call tells; None where it tells nothing."""
        self._require_open()
        with contextlib.suppress(_RefusedError):
            return _ask((function,), *arguments)
        return None

    def _require_open(self) -> None:
        if not self._is_open:
            raise MeasurementInvalidError("NVML is used before it is opened", hint="use Nvml as a context manager")


class NvmlDevice:
    """One GPU or MIG instance. Valid while its `Nvml` is open.

    Of a MIG instance, clocks, throttling and temperature are those of the card around it, which has one of each;
    energy and power, which the instances share, are not told.

    Args:
        handle: The binding's.

    Attributes:
        name: As the driver says it.
        uuid: `GPU-...` or `MIG-...`.
        pci_bus_id: Such as `00000000:01:00.0`.
        compute_capability: CUDA's, such as `9.0`.
        memory_bytes: None where the driver does not tell.
        is_mig: Whether it is a part of a card.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = self._card = handle
        self._unavailable: dict[str, str] = {}
        self.is_mig = False
        with contextlib.suppress(_RefusedError):
            self.is_mig = _ask(("nvmlDeviceIsMigDeviceHandle",), handle).value == 1
            if self.is_mig:
                self._card = _ask(("nvmlDeviceGetDeviceHandleFromMigDeviceHandle",), handle)
        self.name: str = self._read("name", handle, "nvmlDeviceGetName") or "NVIDIA GPU"
        self.uuid: str | None = self._read("uuid", handle, "nvmlDeviceGetUUID")
        pci = self._read("pci_bus_id", self._card, "nvmlDeviceGetPciInfo")
        self.pci_bus_id = None if pci is None else str(pci.busId)
        capability = self._read("compute_capability", self._card, "nvmlDeviceGetCudaComputeCapability")
        self.compute_capability = None if capability is None else "{}.{}".format(*capability)
        memory = self.memory()
        self.memory_bytes = None if memory is None else memory[1]

    @property
    def unavailable(self) -> Mapping[str, str]:
        """Why readings are None: the reading's name (`energy_j`, `power_w`, ...) -> the reason."""
        return MappingProxyType(self._unavailable)

    def energy_j(self) -> float | None:
        """Returns the energy that the board has used since the driver was loaded, in joules.

        The counter moves about every 0.1 s; differences over less than 100 of its steps are rounded coarsely. Volta
        and newer.
        """
        return self._read_shared("energy_j", "nvmlDeviceGetTotalEnergyConsumption")

    def power_w(self) -> float | None:
        """Returns the board's power in watts: the mean of the last second from Ampere on (not GA100), else of now."""
        return self._read_shared("power_w", "nvmlDeviceGetPowerUsage")

    def clocks_mhz(self) -> Mapping[str, int | None]:
        """Returns the current clocks in MHz: `sm` and `memory`."""
        import pynvml

        kinds = {"sm": pynvml.NVML_CLOCK_SM, "memory": pynvml.NVML_CLOCK_MEM}
        return {
            name: self._read(f"clocks_mhz.{name}", self._card, "nvmlDeviceGetClockInfo", further=(kind,))
            for name, kind in kinds.items()
        }

    def throttle_reasons(self) -> tuple[str, ...] | None:
        """Returns what holds the clocks down now, in NVML's names; idleness is none. See `THROTTLING`."""
        # The second is the name that drivers before 535 know.
        functions = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        bits = self._read("throttle_reasons", self._card, *functions)
        return None if bits is None else name_reasons(bits)

    def throttled_ns(self) -> Mapping[str, int] | None:
        """Returns for how many ns the clocks were held down since the driver was loaded, by reason (power, heat).

        Counters catch what `throttle_reasons` misses between two looks. None where the device has none.
        """
        import pynvml

        # The finer counters' numbers differ between NVML 12.9 and 13.1.
        fields = {
            "SwPowerCap": pynvml.NVML_FI_DEV_PERF_POLICY_POWER,
            "SwThermalSlowdown": pynvml.NVML_FI_DEV_PERF_POLICY_THERMAL,
        }
        values = self._read("throttled_ns", self._card, "nvmlDeviceGetFieldValues", further=(list(fields.values()),))
        if values is None:
            return None
        read = {
            name: int(value.value.ullVal) for name, value in zip(fields, values, strict=True) if value.nvmlReturn == 0
        }
        if not read:
            self._unavailable["throttled_ns"] = _explain(values[0].nvmlReturn)
        return read or None

    def temperature_c(self) -> int | None:
        """Returns the temperature of the GPU's die in degrees Celsius."""
        import pynvml

        sensor = pynvml.NVML_TEMPERATURE_GPU
        celsius: int | None = self._read("temperature_c", self._card, "nvmlDeviceGetTemperature", further=(sensor,))
        return celsius

    def memory(self) -> tuple[int, int] | None:
        """Returns the used and the total memory in bytes, over all processes and the driver's own share."""
        memory = self._read("memory_bytes", self._handle, "nvmlDeviceGetMemoryInfo")
        return None if memory is None else (int(memory.used), int(memory.total))

    def processes(self) -> tuple[Process, ...] | None:
        """Returns the processes with a compute context. The driver knows no pid namespaces: see `Process.pid`."""
        functions = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2")
        found = self._read("processes", self._handle, *functions)
        return None if found is None else tuple(Process(pid=item.pid, used_bytes=item.usedGpuMemory) for item in found)

    def _read_shared(self, reading: str, function: str) -> float | None:
        """Reads thousandths of what all instances of a card have together."""
        if self.is_mig:
            self._unavailable[reading] = "a MIG instance has no meter of its own, the card's covers all instances"
            return None
        thousandths = self._read(reading, self._handle, function)
        return None if thousandths is None else thousandths / 1e3

    def _read(self, reading: str, handle: Any, *functions: str, further: tuple[Any, ...] = ()) -> Any:
        """Returns what a device tells; None where it tells nothing, and notes the reason.

        Raises:
            MeasurementInvalidError: The GPU is gone.
        """
        try:
            value = _ask(functions, handle, *further)
        except _RefusedError as refusal:
            if refusal.code in _FATAL:
                raise MeasurementInvalidError(
                    f"the GPU cannot be read any more ({refusal})",
                    hint="look at nvidia-smi and at the kernel's messages (dmesg) for Xid errors",
                ) from refusal
            self._unavailable[reading] = str(refusal)
            return None
        self._unavailable.pop(reading, None)
        return value


def name_reasons(bits: int) -> tuple[str, ...]:
    """Returns NVML's names of the bits that hold clocks down, without idleness; unknown ones by their number."""
    import pynvml

    known = {int(getattr(pynvml, f"nvmlClocksEventReason{name}")): name for name in _REASONS}
    left = bits & ~pynvml.nvmlClocksEventReasonGpuIdle
    names = tuple(known[bit] for bit in sorted(known) if left & bit)
    unknown = left & ~sum(known)
    return (*names, f"reason {unknown:#x}") if unknown else names


def format_cuda_version(version: int) -> str:
    """Returns the version that NVML and CUDA tell as 1000 times the major and 10 times the minor number: `13.0`."""
    return f"{version // 1000}.{version % 1000 // 10}"
