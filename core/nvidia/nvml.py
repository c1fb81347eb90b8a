"""NVML, the driver's own library of management: what an NVIDIA GPU is, draws and does, without any package.

Called by ctypes on `libnvidia-ml.so.1` (`nvml.dll`). Signatures, structures and constants are those of NVIDIA's
`nvml.h` (NVML 13). What the device or the driver does not tell is None, and `NvmlDevice.unavailable` says why.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_longlong, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Self

from modelwright.core.errors import MeasurementInvalidError, ToolchainMissingError

LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"

THROTTLING = ("SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
"""Reasons that take speed away: power and heat. Clocks that somebody set, sync boost and displays are settings."""

_SUCCESS, _INSUFFICIENT_SIZE, _FUNCTION_NOT_FOUND = 0, 7, 13
_FATAL = frozenset({1, 15, 16})
"""Not initialised, the GPU is lost, the GPU needs a reset: no reading can be trusted any more."""

_TEXT_BYTES = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE and NVML_DEVICE_UUID_V2_BUFFER_SIZE, the longest of all
_SM_CLOCK, _MEMORY_CLOCK = 1, 2
_GPU_SENSOR = 0
_NOT_AVAILABLE = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE, as an unsigned long long

_IDLE_BIT = 0x1
_REASON_BITS = {
    0x2: "ApplicationsClocksSetting",
    0x4: "SwPowerCap",
    0x8: "HwSlowdown",
    0x10: "SyncBoost",
    0x20: "SwThermalSlowdown",
    0x40: "HwThermalSlowdown",
    0x80: "HwPowerBrakeSlowdown",
    0x100: "DisplayClockSetting",
}
# NVML_FI_DEV_PERF_POLICY_POWER and _THERMAL, in ns. The finer counters' numbers differ between NVML 12.9 and 13.1.
_THROTTLE_FIELDS = {"SwPowerCap": 74, "SwThermalSlowdown": 75}


class _Memory(ctypes.Structure):
    """nvmlMemory_t: three counts of bytes."""

    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class _PciInfo(ctypes.Structure):
    """nvmlPciInfo_t."""

    _fields_ = (
        ("bus_id_legacy", ctypes.c_char * 16),
        ("domain", c_uint),
        ("bus", c_uint),
        ("device", c_uint),
        ("pci_device_id", c_uint),
        ("pci_subsystem_id", c_uint),
        ("bus_id", ctypes.c_char * 32),
    )


class _ProcessInfo(ctypes.Structure):
    """nvmlProcessInfo_v2_t, which versions 2 and 3 of the call fill."""

    _fields_ = (
        ("pid", c_uint),
        ("used_bytes", c_ulonglong),
        ("gpu_instance", c_uint),
        ("compute_instance", c_uint),
    )


class _FieldValue(ctypes.Structure):
    """nvmlFieldValue_t; of its union only the 64-bit integer is read."""

    _fields_ = (
        ("field", c_uint),
        ("scope", c_uint),
        ("timestamp_us", c_longlong),
        ("latency_us", c_longlong),
        ("value_type", c_int),
        ("result", c_int),
        ("value", c_ulonglong),
    )


_PROTOTYPES: Mapping[str, tuple[Any, ...]] = {
    "nvmlInit_v2": (),
    "nvmlShutdown": (),
    "nvmlSystemGetDriverVersion": (c_char_p, c_uint),
    "nvmlSystemGetCudaDriverVersion_v2": (POINTER(c_int),),
    "nvmlDeviceGetCount_v2": (POINTER(c_uint),),
    "nvmlDeviceGetHandleByIndex_v2": (c_uint, POINTER(c_void_p)),
    "nvmlDeviceGetHandleByUUID": (c_char_p, POINTER(c_void_p)),
    "nvmlDeviceIsMigDeviceHandle": (c_void_p, POINTER(c_uint)),
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": (c_void_p, POINTER(c_void_p)),
    "nvmlDeviceGetName": (c_void_p, c_char_p, c_uint),
    "nvmlDeviceGetUUID": (c_void_p, c_char_p, c_uint),
    "nvmlDeviceGetPciInfo_v3": (c_void_p, POINTER(_PciInfo)),
    "nvmlDeviceGetCudaComputeCapability": (c_void_p, POINTER(c_int), POINTER(c_int)),
    "nvmlDeviceGetMemoryInfo": (c_void_p, POINTER(_Memory)),
    "nvmlDeviceGetTotalEnergyConsumption": (c_void_p, POINTER(c_ulonglong)),
    "nvmlDeviceGetPowerUsage": (c_void_p, POINTER(c_uint)),
    "nvmlDeviceGetClockInfo": (c_void_p, c_uint, POINTER(c_uint)),
    "nvmlDeviceGetTemperature": (c_void_p, c_uint, POINTER(c_uint)),
    "nvmlDeviceGetCurrentClocksEventReasons": (c_void_p, POINTER(c_ulonglong)),
    "nvmlDeviceGetCurrentClocksThrottleReasons": (c_void_p, POINTER(c_ulonglong)),
    "nvmlDeviceGetFieldValues": (c_void_p, c_int, POINTER(_FieldValue)),
    "nvmlDeviceGetComputeRunningProcesses_v3": (c_void_p, POINTER(c_uint), POINTER(_ProcessInfo)),
    "nvmlDeviceGetComputeRunningProcesses_v2": (c_void_p, POINTER(c_uint), POINTER(_ProcessInfo)),
}


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process with a compute context on a GPU.

    Attributes:
        pid: As the driver counts: in a container with a pid namespace of its own, the host's number.
        used_bytes: GPU memory that it holds; None where the driver does not tell (Windows, some containers).
    """

    pid: int
    used_bytes: int | None


class _Library:
    """The loaded library: calls with checked signatures, results as NVML's codes."""

    def __init__(self, name: str) -> None:
        self._loaded = ctypes.CDLL(name)
        self._calls: dict[str, Any] = {}
        for function, arguments in _PROTOTYPES.items():
            # A driver may be too old for some of the calls.
            found = getattr(self._loaded, function, None)
            if found is not None:
                found.argtypes, found.restype = arguments, c_int
                self._calls[function] = found

    def call(self, function: str, *arguments: Any) -> int:
        """Calls a function and returns NVML's code; that of a missing function where the driver lacks it."""
        found = self._calls.get(function)
        return _FUNCTION_NOT_FOUND if found is None else int(found(*arguments))

    def explain(self, code: int) -> str:
        """Returns NVML's own words for a code."""
        if code == _FUNCTION_NOT_FOUND:
            return "this driver's NVML does not have the call"
        describe = getattr(self._loaded, "nvmlErrorString", None)
        if describe is None:
            return f"NVML error {code}"
        describe.argtypes, describe.restype = (c_int,), c_char_p
        text = describe(code)
        return f"NVML: {text.decode(errors='replace')}" if text else f"NVML error {code}"


class Nvml:
    """NVML between initialisation and shutdown; both are counted by the library, so several may live at once.

    Args:
        library: Name or path of the library.
    """

    def __init__(self, library: str = LIBRARY) -> None:
        self._name = library
        self._library: _Library | None = None

    def __enter__(self) -> Self:
        """Loads and initialises the library.

        Raises:
            ToolchainMissingError: There is no driver, or it cannot be used; with NVML's own words.
        """
        try:
            library = _Library(self._name)
        except OSError as error:
            raise ToolchainMissingError(
                f"no NVIDIA driver: {self._name} cannot be loaded",
                hint="install NVIDIA's driver; in a container, start it with the GPU (docker run --gpus all)",
                detail=str(error),
            ) from error
        code = library.call("nvmlInit_v2")
        if code != _SUCCESS:
            raise ToolchainMissingError(
                f"the NVIDIA driver cannot be used: {library.explain(code)}",
                hint="nvidia-smi should list the GPU; after an update of the driver, restart the machine",
            )
        self._library = library
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._library is not None:
            self._library.call("nvmlShutdown")
            self._library = None

    def driver_version(self) -> str | None:
        """Returns the driver's version, such as `580.65.06`."""
        return _read_text(self._opened, "nvmlSystemGetDriverVersion")

    def cuda_version(self) -> str | None:
        """Returns the newest CUDA version that the driver supports, such as `13.0`."""
        version = c_int()
        if self._opened.call("nvmlSystemGetCudaDriverVersion_v2", byref(version)) != _SUCCESS:
            return None
        return f"{version.value // 1000}.{version.value % 1000 // 10}"

    def devices(self) -> tuple[NvmlDevice, ...]:
        """Returns the GPUs in the order of their PCI bus, without those that the driver refuses to this process.

        CUDA's own order differs: the fastest first, unless `CUDA_DEVICE_ORDER=PCI_BUS_ID`. Match them by UUID.
        """
        count = c_uint()
        if self._opened.call("nvmlDeviceGetCount_v2", byref(count)) != _SUCCESS:
            return ()
        found = []
        for index in range(count.value):
            handle = c_void_p()
            if self._opened.call("nvmlDeviceGetHandleByIndex_v2", index, byref(handle)) == _SUCCESS:
                found.append(NvmlDevice(self._opened, handle))
        return tuple(found)

    def device_by_uuid(self, uuid: str) -> NvmlDevice:
        """Returns the GPU, or the MIG instance, with this UUID: `GPU-` or `MIG-` and five groups of hexadecimals.

        CUDA hands out the bytes only, so what follows the prefix decides.

        Raises:
            MeasurementInvalidError: The driver has none of that UUID.
        """
        code = _SUCCESS
        for name in dict.fromkeys((uuid, f"GPU-{uuid.removeprefix('GPU-')}", f"MIG-{uuid.removeprefix('GPU-')}")):
            handle = c_void_p()
            code = self._opened.call("nvmlDeviceGetHandleByUUID", name.encode(), byref(handle))
            if code == _SUCCESS:
                return NvmlDevice(self._opened, handle)
        raise MeasurementInvalidError(
            f"NVML does not find the GPU {uuid} ({self._opened.explain(code)})", hint="compare with: nvidia-smi -L"
        )

    @property
    def _opened(self) -> _Library:
        if self._library is None:
            raise MeasurementInvalidError("NVML is used before it is opened", hint="use Nvml as a context manager")
        return self._library


class NvmlDevice:
    """One GPU or MIG instance. Valid while its `Nvml` is open.

    Of a MIG instance, clocks, throttling and temperature are those of the card around it, which has one of each;
    energy and power, which the instances share, are not told.

    Attributes:
        name: As the driver says it.
        uuid: `GPU-...` or `MIG-...`.
        pci_bus_id: Such as `00000000:01:00.0`.
        compute_capability: CUDA's, such as `9.0`.
        memory_bytes: None where the driver does not tell.
        is_mig: Whether it is a part of a card.
    """

    def __init__(self, library: _Library, handle: c_void_p) -> None:
        self._library = library
        self._handle = handle
        self._card = handle
        self._unavailable: dict[str, str] = {}
        flag, card = c_uint(), c_void_p()
        self.is_mig = library.call("nvmlDeviceIsMigDeviceHandle", handle, byref(flag)) == _SUCCESS and flag.value == 1
        if self.is_mig:
            parent = library.call("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle, byref(card))
            self._card = card if parent == _SUCCESS else handle
        self.name = _read_text(library, "nvmlDeviceGetName", handle) or "NVIDIA GPU"
        self.uuid = _read_text(library, "nvmlDeviceGetUUID", handle)
        self.pci_bus_id = self._read_bus()
        self.compute_capability = self._read_capability()
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
        if self._refuse_shared("energy_j"):
            return None
        millijoules = c_ulonglong()
        code = self._library.call("nvmlDeviceGetTotalEnergyConsumption", self._handle, byref(millijoules))
        return millijoules.value / 1e3 if self._check("energy_j", code) else None

    def power_w(self) -> float | None:
        """Returns the board's power in watts: the mean of the last second from Ampere on (not GA100), else of now."""
        if self._refuse_shared("power_w"):
            return None
        milliwatts = c_uint()
        code = self._library.call("nvmlDeviceGetPowerUsage", self._handle, byref(milliwatts))
        return milliwatts.value / 1e3 if self._check("power_w", code) else None

    def clocks_mhz(self) -> Mapping[str, int | None]:
        """Returns the current clocks in MHz: `sm` and `memory`."""
        return {
            "sm": self._read_clock("clocks_mhz.sm", _SM_CLOCK),
            "memory": self._read_clock("clocks_mhz.memory", _MEMORY_CLOCK),
        }

    def throttle_reasons(self) -> tuple[str, ...] | None:
        """Returns what holds the clocks down now, in NVML's names; idleness is none. See `THROTTLING`."""
        bits = c_ulonglong()
        code = _FUNCTION_NOT_FOUND
        # The second is the name that drivers before 535 know.
        for function in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            code = self._library.call(function, self._card, byref(bits))
            if code != _FUNCTION_NOT_FOUND:
                break
        if not self._check("throttle_reasons", code):
            return None
        return name_reasons(bits.value)

    def throttled_ns(self) -> Mapping[str, int] | None:
        """Returns for how many ns the clocks were held down since the driver was loaded, by reason (power, heat).

        Counters catch what `throttle_reasons` misses between two looks. None where the device has none.
        """
        values = (_FieldValue * len(_THROTTLE_FIELDS))()
        for value, field in zip(values, _THROTTLE_FIELDS.values(), strict=True):
            value.field = field
        code = self._library.call("nvmlDeviceGetFieldValues", self._card, len(values), values)
        if not self._check("throttled_ns", code):
            return None
        read = {name: value for name, value in zip(_THROTTLE_FIELDS, values, strict=True) if value.result == _SUCCESS}
        if not read:
            self._check("throttled_ns", values[0].result)
            return None
        return {name: int(value.value) for name, value in read.items()}

    def temperature_c(self) -> int | None:
        """Returns the temperature of the GPU's die in degrees Celsius."""
        celsius = c_uint()
        code = self._library.call("nvmlDeviceGetTemperature", self._card, _GPU_SENSOR, byref(celsius))
        return celsius.value if self._check("temperature_c", code) else None

    def memory(self) -> tuple[int, int] | None:
        """Returns the used and the total memory in bytes, over all processes and the driver's own share."""
        memory = _Memory()
        code = self._library.call("nvmlDeviceGetMemoryInfo", self._handle, byref(memory))
        return (int(memory.used), int(memory.total)) if self._check("memory_bytes", code) else None

    def processes(self) -> tuple[Process, ...] | None:
        """Returns the processes with a compute context. The driver knows no pid namespaces: see `Process.pid`."""
        functions = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2")
        code, room = _FUNCTION_NOT_FOUND, 16
        for function in functions:
            code, found, room = self._list_processes(function, room)
            # Another process may have come between the two calls.
            while code == _INSUFFICIENT_SIZE and room < 2**16:
                code, found, room = self._list_processes(function, 2 * room)
            if code != _FUNCTION_NOT_FOUND:
                break
        if not self._check("processes", code):
            return None
        return tuple(
            Process(pid=item.pid, used_bytes=None if item.used_bytes == _NOT_AVAILABLE else int(item.used_bytes))
            for item in found
        )

    def _list_processes(self, function: str, room: int) -> tuple[int, Sequence[_ProcessInfo], int]:
        infos = (_ProcessInfo * room)()
        count = c_uint(room)
        code = self._library.call(function, self._handle, byref(count), infos)
        return code, infos[: min(count.value, room)], max(room, count.value)

    def _refuse_shared(self, reading: str) -> bool:
        if self.is_mig:
            self._unavailable[reading] = "a MIG instance has no meter of its own, the card's covers all instances"
        return self.is_mig

    def _read_clock(self, reading: str, kind: int) -> int | None:
        megahertz = c_uint()
        code = self._library.call("nvmlDeviceGetClockInfo", self._card, kind, byref(megahertz))
        return megahertz.value if self._check(reading, code) else None

    def _read_bus(self) -> str | None:
        pci = _PciInfo()
        code = self._library.call("nvmlDeviceGetPciInfo_v3", self._card, byref(pci))
        return pci.bus_id.decode(errors="replace") if self._check("pci_bus_id", code) else None

    def _read_capability(self) -> str | None:
        major, minor = c_int(), c_int()
        code = self._library.call("nvmlDeviceGetCudaComputeCapability", self._card, byref(major), byref(minor))
        return f"{major.value}.{minor.value}" if self._check("compute_capability", code) else None

    def _check(self, reading: str, code: int) -> bool:
        """Returns whether a call succeeded; notes the reason when not.

        Raises:
            MeasurementInvalidError: The GPU is gone.
        """
        if code in _FATAL:
            raise MeasurementInvalidError(
                f"the GPU cannot be read any more ({self._library.explain(code)})",
                hint="look at nvidia-smi and at the kernel's messages (dmesg) for Xid errors",
            )
        if code == _SUCCESS:
            self._unavailable.pop(reading, None)
        else:
            self._unavailable[reading] = self._library.explain(code)
        return code == _SUCCESS


def name_reasons(bits: int) -> tuple[str, ...]:
    """Returns NVML's names of the bits that hold clocks down, without idleness; unknown ones by their number."""
    left = bits & ~_IDLE_BIT
    names = [name for bit, name in _REASON_BITS.items() if left & bit]
    unknown = left & ~sum(_REASON_BITS)
    return (*names, f"reason {unknown:#x}") if unknown else tuple(names)


def _read_text(library: _Library, function: str, *handle: Any) -> str | None:
    buffer = ctypes.create_string_buffer(_TEXT_BYTES)
    if library.call(function, *handle, buffer, _TEXT_BYTES) != _SUCCESS:
        return None
    return buffer.value.decode(errors="replace")
